# SPDX-License-Identifier: Apache-2.0
"""The component `istio`: Istio with sidecars, or with ztunnel and waypoints (`:ambient`); how it is installed, known and set.

Values are checked against the charts and sources of 1.30.3. With sidecars it needs the images pilot and proxyv2 alone: pods are
captured by an init container, and istio-cni is left out. How sidecars are spoken with is in `istiomesh`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztconform.mesh import sidecar
from ztconform.settings import Settings
from ztconform.stacks import ambientmesh, charts, gatewayapi, istiomesh, meshsignatures, waypoint
from ztconform.stacks.component import Composition, Findings, Found, Overlay, Role, Site, Step

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.inventory import Rollout
    from ztconform.kube.ready import Goal

NAMESPACE = "istio-system"
ISTIOD, CNI_NODE = "app=istiod", "k8s-app=istio-cni-node"  # labels, of whatever revision and version
CRDS = (
    "authorizationpolicies.security.istio.io",
    "peerauthentications.security.istio.io",
    "requestauthentications.security.istio.io",
)
HUB = "docker.io/istio"
TTL = 600.0  # seconds that an SVID of our own stacks lives unless the user says otherwise: rotation is seen within a run
_WAYPOINTS = f"/apis/gateway.networking.k8s.io/v1/gatewayclasses/{waypoint.CLASS}"
_DEFINED = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{gatewayapi.CLASSES}"
_ZTUNNEL = 11.0  # until ztunnel closes such a connection (ztunnel#1229: about 10 s)


class Istio(Overlay):
    """Answer for Istio."""

    name = "istio"
    role: Role = "mesh"
    summary = "Istio: mutual TLS and authorization"
    memory = 1000

    def steps(self, stack: Composition, settings: Settings, site: Site) -> Sequence[Step]:
        """Return the charts in Istio's own order; waypoints need Gateway API's definitions, sidecars do without."""
        ambient = "ambient" in stack.options
        found = [*gatewayapi.steps(settings, needed=ambient), charts.chart("istio-base", settings)]
        found.append(charts.chart("istiod", settings, istiod_values(stack, settings), _profile(stack)))
        if ambient:
            found.append(charts.chart("istio-cni", settings, _global(settings), _profile(stack)))
            found.append(charts.chart("ztunnel", settings, ztunnel_values(settings), _profile(stack)))
            found.append(_classes())
        return tuple(found)

    def promises(self, stack: Composition) -> Mapping[str, str]:
        """Return what Istio adds."""
        return features(ambient="ambient" in stack.options)

    def goal(self, stack: Composition) -> "Goal":
        """Return the control plane, whose webhook must be trusted, and under ambient what stands on each node."""
        from ztconform.kube.ready import Goal, Want  # noqa: PLC0415 - the extra may be missing

        wants = [Want(kind="deployment", namespace="", name="istiod", selector=ISTIOD)]
        if "ambient" in stack.options:
            wants.append(Want(kind="daemonset", namespace="", name="istio-cni-node", selector=CNI_NODE))
            wants.append(Want(kind="daemonset", namespace="", name="ztunnel", selector=ambientmesh.SELECTOR))
        return Goal(what="Istio", wants=tuple(wants), crds=CRDS, webhooks=("istio-sidecar-injector",))

    def found(self, connection: "Connection") -> Found | None:
        """Return by what Istio is known: by its control plane, of whatever revision and in whatever namespace."""
        istiod = _istiod(connection)
        if istiod is None:
            return None
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        options = frozenset({"ambient"}) if inventory.daemon_sets(connection, ambientmesh.SELECTOR) else frozenset[str]()
        return Found(evidence=f"deployment {istiod.namespace}/{istiod.name} ({istiod.images[0]})", options=options)

    def findings(self, connection: "Connection", settings: Settings, stack: Composition, kind: str) -> Findings:
        """Return what Istio's own settings say that it does."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        istiod = _istiod(connection)
        namespace = istiod.namespace if istiod else NAMESPACE
        revision = _revision(istiod)
        config = istiomesh.config(connection, namespace, revision)
        ambient = "ambient" in stack.options
        if ambient:
            mesh = ambientmesh.mesh(config, namespace=namespace, revision=revision)
        else:
            cni = istiomesh.redirects(connection)
            mesh = istiomesh.mesh(config, namespace=namespace, revision=revision, cni=cni)
        policies = inventory.found(connection, f"/apis/security.istio.io/v1/namespaces/{mesh.root_namespace}/peerauthentications")
        mode = default_mode(policies)
        image = istiod.images[0] if istiod else ""
        version = inventory.tag(image)
        more = waypoint.features(config, version, lacking=_no_waypoint(connection)) if ambient else istiomesh.features(mesh)
        return Findings(
            dialects=("istio-waypoint", "istio") if ambient else ("istio",),
            features={**features(ambient=ambient), **more},
            versions={
                "istio": version or image or "unknown",
                "istio data plane": "ambient" if ambient else "sidecar",
                "istio trust domain": mesh.trust_domain,
                "istio mtls default": mode,
            },
            signatures=meshsignatures.AMBIENT if ambient else istiomesh.SIGNATURES,
            patience=_ZTUNNEL if ambient else istiomesh.CONNECT_TIMEOUT,
            notes=(*(notes(mode, config, ambient=ambient) if not kind else ()), *(() if ambient else istiomesh.notes(mesh))),
            mesh=mesh,
        )

    def status(self, connection: "Connection") -> str:
        """Return what keeps Istio's pods from running, and its settings."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        istiod = _istiod(connection)
        namespace = istiod.namespace if istiod else NAMESPACE
        lines = [
            str(trouble) for trouble in inventory.troubles(connection, namespace, "app in (istiod, ztunnel, istio-cni-node)")
        ]
        config = inventory.config_map(connection, namespace, istiomesh.config_map(_revision(istiod))) or {}
        return "".join(f"{line}\n" for line in [*lines, *config.get("mesh", "").splitlines()])


def features(*, ambient: bool) -> Mapping[str, str]:
    """Return what Istio adds, or why not, as far as that can be said before it runs."""
    return {
        **dict.fromkeys(sidecar.FEATURES, ""),
        "svid-rotation": istiomesh.NOT_DRIVEN,
        "authorization-audit": "Istio has no audit policies; it has dry runs",
        "egress-gateway": "the stack has no egress gateway: name one with +gateway",
        "federation": "no second trust domain is set up",
        "hbone": "sidecars speak no HBONE",
        "waypoint": "sidecars judge L7 themselves; waypoints are of the ambient mode",
        **({**ambientmesh.features(), **waypoint.features(istiomesh.MESH_CONFIG, "")} if ambient else {}),
    }


def istiod_values(stack: Composition, settings: Settings) -> Mapping[str, Any]:
    """Return the control plane's values: small, its log of requests as JSON, and SVIDs that live for minutes."""
    lives = f"{settings.svid_ttl or TTL:.0f}s"
    return {
        **_global(settings),
        "autoscaleEnabled": False,
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
        "meshConfig": {**istiomesh.MESH_CONFIG, "defaultConfig": {"proxyMetadata": {"SECRET_TTL": lives}}},
    }


def ztunnel_values(settings: Settings) -> Mapping[str, Any]:
    """Return ztunnel's values; its hub stands at the top."""
    return {
        "hub": _hub(settings),
        "imagePullPolicy": "IfNotPresent",
        "variant": "",
        "env": {"SECRET_TTL": f"{settings.svid_ttl or TTL:.0f}s"},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
    }


def default_mode(policies: Mapping[str, Any] | None) -> str:
    """Return the mutual TLS mode of the whole mesh, by the PeerAuthentications of its root namespace."""
    if policies is None:
        return "unknown (PeerAuthentications may not be read)"
    whole = [item for item in policies.get("items") or [] if not (item.get("spec") or {}).get("selector")]
    if not whole:
        return "PERMISSIVE"
    oldest = min(whole, key=lambda item: str(item["metadata"].get("creationTimestamp") or ""))
    mode = str(((oldest.get("spec") or {}).get("mtls") or {}).get("mode") or "UNSET")
    return "PERMISSIVE" if mode == "UNSET" else mode


def notes(mode: str, config: Mapping[str, Any], *, ambient: bool = False) -> tuple[str, ...]:
    """Return what a reader must know of a mesh whose default lets plaintext in, or whose sidecars log nothing."""
    found = []
    if mode in ("PERMISSIVE", "DISABLE"):
        found.append(
            f"Istio's mutual TLS is {mode} by default: a namespace without a PeerAuthentication of its own takes plaintext"
        )
    if not (ambient or config.get("accessLogFile")):
        found.append(
            "Istio's proxies log no requests by default (meshConfig.accessLogFile), and denials have no witness; in our own "
            "namespaces a Telemetry has them log"
        )
    return tuple(found)


def _global(settings: Settings) -> dict[str, Any]:
    # The ambient profile takes images without a shell; with the same ones for all modes an air gap needs one list.
    return {"global": {"hub": _hub(settings), "imagePullPolicy": "IfNotPresent", "variant": ""}}


def _hub(settings: Settings) -> str:
    registry = settings.pods.image_registry
    return f"{registry}/{HUB.partition('/')[2]}" if registry else HUB


def _profile(stack: Composition) -> Mapping[str, Any]:
    return {"profile": "ambient"} if "ambient" in stack.options else {}


def _classes() -> "Goal":
    """Return the class of waypoints, which a new control plane makes once it leads: what is looked at before has none."""
    from ztconform.kube.ready import Condition, Goal  # noqa: PLC0415 - the extra may be missing

    accepted = Condition(path=_WAYPOINTS, type="Accepted", given=_DEFINED)
    return Goal(what=f"Istio's GatewayClass {waypoint.CLASS}", conditions=(accepted,), cluster=False)


def _no_waypoint(connection: "Connection") -> str:
    """Return why no waypoint can be made in this cluster, "" where it can."""
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    there = inventory.found(connection, _WAYPOINTS)
    needed = f"ztunnel knows connections and no requests, and there is no GatewayClass {waypoint.CLASS} for waypoints"
    return "" if there is not None else f"{needed}: Istio makes it once the definitions of Gateway API are installed"


def _istiod(connection: "Connection") -> "Rollout | None":
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    return next(iter(sorted(inventory.deployments(connection, "", ISTIOD), key=lambda one: one.name)), None)


def _revision(istiod: "Rollout | None") -> str:
    """Return the control plane's revision, which its name bears ("istiod-canary"); "" for the default one."""
    return istiod.name.removeprefix("istiod").removeprefix("-") if istiod else ""


COMPONENT = Istio()
