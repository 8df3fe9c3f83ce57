# SPDX-License-Identifier: Apache-2.0
"""The component `linkerd`: Linkerd with a trust anchor of its own, or as it is found; how it is installed, known and set.

Values are checked against the charts and sources of edge-26.8.3, whose policy controller skips kinds of Gateway API that are not
served. What a denial looks like is in `meshsignatures`, the keys in `linkerdkeys`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from ztconform.settings import Settings
from ztconform.stacks import charts, gatewayapi, linkerdkeys, linkerdmesh, meshsignatures
from ztconform.stacks.component import Composition, Findings, Found, Objects, Overlay, Role, Site, Step
from ztconform.stacks.istio import TTL
from ztconform.stacks.pins import mirrored

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.inventory import Rollout
    from ztconform.kube.ready import Goal

NAMESPACE, VIZ = "linkerd", "linkerd-viz"
CRD_CHART, CHART, VIZ_CHART = "linkerd-crds", "linkerd-control-plane", "linkerd-viz"
CONTROL_PLANE = ("linkerd-identity", "linkerd-destination", "linkerd-proxy-injector")
_DESTINATION = "linkerd.io/control-plane-component=destination"
CRDS = ("servers.policy.linkerd.io", "authorizationpolicies.policy.linkerd.io", "meshtlsauthentications.policy.linkerd.io")
WEBHOOK = "linkerd-proxy-injector-webhook-config"
OPEN = "all-unauthenticated"  # the chart's own default
_FAIL_FAST = 3.5  # seconds; a client's proxy gives up after 3
_IMAGES = {
    ("controllerImage",): "cr.l5d.io/linkerd/controller",
    ("proxy", "image", "name"): "cr.l5d.io/linkerd/proxy",
    ("debugContainer", "image", "name"): "cr.l5d.io/linkerd/debug",
}

VALUES: Mapping[str, Any] = {
    "disableHeartBeat": True,  # which would tell a public server that we are here
    "imagePullPolicy": "IfNotPresent",
    "proxyInit": {"iptablesMode": "nft"},
    # Transparent: a proxy connects to the port that its pod asked for. Otherwise all goes to the proxies' own port, which a
    # NetworkPolicy that admits a port does not admit (seen: R05).
    "proxy": {"nativeSidecar": True, "defaultInboundPolicy": "deny", "outboundTransportMode": "transparent"},
    # The keys are ours, and made once: in a Secret and a ConfigMap that the chart then does not make.
    "identity": {"externalCA": True, "issuer": {"scheme": "kubernetes.io/tls"}},
}
VIZ_VALUES: Mapping[str, Any] = {
    # Its hook would label the namespace for a command line that we do not use, and needs an image of its own.
    "createNamespaceMetadataJob": False,
    "defaultImagePullPolicy": "IfNotPresent",
}


class Linkerd(Overlay):
    """Answer for Linkerd."""

    name = "linkerd"
    role: Role = "mesh"
    summary = "Linkerd: mutual TLS and authorization, deny by default"
    memory = 1000

    def steps(self, stack: Composition, settings: Settings, site: Site) -> Sequence[Step]:
        """Return its keys, with the namespace that is to have its labels, its definitions, its control plane, its metrics."""
        return (
            *gatewayapi.steps(settings, needed=False),
            Objects(component="linkerd", what="a trust anchor and an issuer of our own", make=linkerdkeys.make, once=True),
            charts.chart(CRD_CHART, settings, {"installGatewayAPI": False}),
            charts.chart(CHART, settings, VALUES, values(settings)),
            self.goal(stack),
            charts.chart(VIZ_CHART, settings, VIZ_VALUES, viz_values(settings)),
        )

    def promises(self, stack: Composition) -> Mapping[str, str]:
        """Return what Linkerd adds."""
        return linkerdmesh.features()

    def goal(self, stack: Composition) -> "Goal":
        """Return the control plane, whose webhook must be trusted; what shows metrics is wanted where it is there."""
        from ztconform.kube.ready import Goal, Want  # noqa: PLC0415 - the extra may be missing

        viz = ("metrics-api", "tap", "prometheus")
        return Goal(
            what="Linkerd",
            wants=(
                *(Want(kind="deployment", namespace=NAMESPACE, name=name) for name in CONTROL_PLANE),
                *(Want(kind="deployment", namespace=VIZ, name=name, optional=True) for name in viz),
            ),
            crds=CRDS,
            webhooks=(WEBHOOK,),
        )

    def found(self, connection: "Connection") -> Found | None:
        """Return by what Linkerd is known: by its policy controller, in whatever namespace."""
        one = _destination(connection)
        return Found(evidence=f"deployment {one.namespace}/{one.name} ({one.images[0]})") if one else None

    def findings(self, connection: "Connection", settings: Settings, stack: Composition, kind: str) -> Findings:
        """Return what Linkerd's own settings say that it does."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        one = _destination(connection)
        namespace = one.namespace if one else NAMESPACE
        config = installed(inventory.config_map(connection, namespace, "linkerd-config") or {})
        mesh = linkerdmesh.mesh(config)
        return Findings(
            dialects=("linkerd",),
            features=linkerdmesh.features(),
            versions=versions(config),
            signatures=meshsignatures.LINKERD,
            patience=_FAIL_FAST,
            notes=(*notes(config), *linkerdmesh.notes(mesh)),
            mesh=mesh,
        )

    def status(self, connection: "Connection") -> str:
        """Return what keeps Linkerd's pods from running."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        one = _destination(connection)
        troubles = [
            *inventory.troubles(connection, one.namespace if one else NAMESPACE, "linkerd.io/control-plane-component"),
            *inventory.troubles(connection, VIZ, "linkerd.io/extension=viz"),
        ]
        return "".join(f"{trouble}\n" for trouble in troubles)


def values(settings: Settings) -> Mapping[str, Any]:
    """Return the control plane's values that depend on the user: how long an SVID lives, and a mirror."""
    found: dict[str, Any] = {"identity": {"issuer": {"issuanceLifetime": f"{settings.svid_ttl or TTL:.0f}s"}}}
    for path, image in _IMAGES.items() if settings.pods.image_registry else ():
        place = found
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = mirrored(image, settings.pods.image_registry)
    return found


def viz_values(settings: Settings) -> Mapping[str, Any]:
    """Return the values of what shows metrics, with a mirror where there is one."""
    registry = settings.pods.image_registry
    if not registry:
        return {}
    return {"defaultRegistry": f"{registry}/linkerd", "prometheus": {"image": {"registry": f"{registry}/prom"}}}


def installed(data: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the values that a Linkerd was installed with, as its ConfigMap has them; empty where they cannot be read."""
    try:
        found = yaml.safe_load(data.get("values", ""))
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def versions(config: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the facts of a Linkerd that a report states, by the values that it was installed with."""
    identity = config.get("identity") or {}
    return {
        "linkerd": str(config.get("linkerdVersion") or "unknown"),
        "linkerd trust domain": linkerdmesh.domain(config),
        "linkerd inbound default": linkerdmesh.inbound(config),
        "linkerd identity lifetime": str((identity.get("issuer") or {}).get("issuanceLifetime") or "unknown"),
    }


def notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a reader must know of a Linkerd that lets in whoever comes, or whose webhook may be passed by."""
    found = []
    if linkerdmesh.inbound(config) == OPEN:
        found.append(f"Linkerd's inbound default is {OPEN}: a meshed pod that no Server selects takes plaintext of anybody")
    if linkerdmesh.inbound(config) == "audit":
        found.append("Linkerd's inbound default is audit: it logs what no policy allows, and denies nothing")
    if (config.get("proxy") or {}).get("outboundTransportMode") == "transport-header":
        found.append(
            "Linkerd's proxies carry what is meshed to their own port 4143 (proxy.outboundTransportMode: transport-header), "
            "which a NetworkPolicy of ports has to admit: R05 and R06 admit the application's alone"
        )
    return tuple(found)


def _destination(connection: "Connection") -> "Rollout | None":
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    return next(iter(inventory.deployments(connection, "", _DESTINATION)), None)


COMPONENT = Linkerd()
