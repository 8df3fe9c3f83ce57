# SPDX-License-Identifier: Apache-2.0
"""How Istio's sidecars are spoken with: what injects them, how their denials look, and what they can prove.

Their log is read by `istiolog`; whether Istio runs in a cluster, and how it is installed, is left to its component.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ztconform.errors import ClusterError
from ztconform.evidence import Signature
from ztconform.mesh import sidecar
from ztconform.model import Manifest, Stage
from ztconform.stacks import istiolog

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.profile import Area, Mesh

PROXY, PROXY_UID = "istio-proxy", 1337
CONNECT_TIMEOUT = 1.0  # seconds until a sidecar answers for a server that it cannot reach
NOT_DRIVEN = "the renewal of identities is not driven on real clusters yet"

_SECONDS = f"{CONNECT_TIMEOUT:.0f}s"

# Of the chart istiod: every proxy logs in our format, nothing is tried again, and a connection that fails is given up at once.
MESH_CONFIG: Mapping[str, Any] = {
    "accessLogFile": "/dev/stdout",
    "accessLogEncoding": "JSON",
    "accessLogFormat": json.dumps(istiolog.FORMAT),
    "connectTimeout": _SECONDS,
    "defaultHttpRetryPolicy": {"attempts": 0},
}

# RFC 8446 6.2, of a certificate that is absent, expired or foreign; TLS 1.2 says an absent one by handshake_failure.
_UNTRUSTED = "((bad|unsupported)_)?certificate(_.*)?|unknown_ca|handshake_failure"

SIGNATURES = (
    *sidecar.SIGNATURES,
    # On a busy node a client's own proxy answers for a server that it cannot reach too late for its client.
    Signature(name="DROP", layer="l34", kinds=sidecar.TCP, signal="timeout", stages=frozenset[Stage]({"request"}), caused=True),
    # Not logged, but nobody else can send it: our servers speak no TLS, so that it is their proxy's own.
    Signature(name="TLS", layer="mtls", kinds=sidecar.TCP, signal="tls-alert", stages=sidecar.TALKING, detail=_UNTRUSTED),
)

NAMESPACE = "istio-system"
_CNI = "istio-cni-node"


def config(connection: "Connection", namespace: str = NAMESPACE, revision: str = "") -> Mapping[str, Any]:
    """Return the MeshConfig of the control plane in a namespace; `revision` is "" for the default one.

    Raises ClusterError where it cannot be asked for, or not be read.
    """
    import yaml  # noqa: PLC0415 - the extra may be missing

    from ztconform.kube import inventory  # noqa: PLC0415 - likewise

    name = config_map(revision)
    stored = inventory.config_map(connection, namespace, name) or {}
    try:
        found = yaml.safe_load(stored.get("mesh") or "") or {}
    except yaml.YAMLError as error:
        where = f"the MeshConfig in the ConfigMap {namespace}/{name} is no YAML"
        raise ClusterError(f"{where} ({' '.join(str(error).split())}): what Istio's proxies log cannot be known") from None
    if not isinstance(found, dict):
        raise ClusterError(f"the MeshConfig in the ConfigMap {namespace}/{name} is no mapping: what Istio does cannot be known")
    return found


def config_map(revision: str) -> str:
    """Return the name of the mesh's ConfigMap, which bears the revision as its control plane does."""
    return f"istio-{revision}" if revision else "istio"


def redirects(connection: "Connection") -> bool:
    """Return whether Istio's CNI plugin captures pods, and no init container does."""
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    return any(daemon_set.name == _CNI for daemon_set in inventory.daemon_sets(connection))


def mesh(config: Mapping[str, Any], *, namespace: str = NAMESPACE, revision: str = "", cni: bool = False) -> "Mesh":
    """Return the mesh of a MeshConfig; `cni` is what `redirects` says."""
    from ztconform.kube.meshcauses import Witness  # noqa: PLC0415 - the extra may be missing
    from ztconform.kube.profile import Mesh  # noqa: PLC0415 - likewise
    from ztconform.kube.proxylog import ProxyLogs, beside, word  # noqa: PLC0415 - likewise

    root = str(config.get("rootNamespace") or namespace)
    return Mesh(
        name="Istio",
        trust_domain=str(config.get("trustDomain") or "cluster.local"),
        root_namespace=root,
        namespace_labels={"istio.io/rev": revision} if revision else {"istio-injection": "enabled"},
        meshed_labels={"sidecar.istio.io/inject": "true"},
        bare_labels={"sidecar.istio.io/inject": "false"},
        annotations=_annotations(),
        svid_annotations=svid_annotations,
        proxy=PROXY,
        proxy_uid=PROXY_UID,
        # istio-init wants NET_ADMIN and NET_RAW, which no level but this admits.
        pod_security="restricted" if cni else "privileged",
        objects=objects if config.get("accessLogFile") else with_log,
        witness=lambda resources, policies, _: Witness(ProxyLogs(resources, beside(PROXY), istiolog.read, word), policies, root),
        request_id=not istiolog.is_ours(config),
        unlogged=istiolog.unlogged(config),
    )


def notes(mesh: "Mesh") -> tuple[str, ...]:
    """Return what a reader must know of how our namespaces are made in this mesh."""
    found = []
    if mesh.pod_security != "restricted":
        found.append(
            f"namespaces with meshed pods admit {mesh.pod_security} ones, for istio-init wants NET_ADMIN: Istio's CNI plugin "
            "(chart cni, and pilot.cni.enabled) lifts that; our own containers stay restricted"
        )
    if mesh.unlogged:
        found.append(mesh.unlogged)
    return tuple(found)


def svid_annotations(seconds: int) -> Mapping[str, str]:
    """Return the annotations of a pod whose proxy is to keep its SVID in files; 0 leaves it the mesh's own lifetime."""
    from ztconform.kube.profile import SVID_FOLDER, SVID_VOLUME  # noqa: PLC0415 - the extra may be missing

    metadata = {"OUTPUT_CERTS": SVID_FOLDER} | ({"SECRET_TTL": f"{seconds}s"} if seconds else {})
    mounts = {SVID_VOLUME: {"mountPath": SVID_FOLDER}}
    return {**_annotations(metadata), "sidecar.istio.io/userVolumeMount": json.dumps(mounts)}


def _annotations(metadata: Mapping[str, str] | None = None) -> Mapping[str, str]:
    # JSON is YAML. The application waits for its proxy where that is no init container, and a pod that ends does not drain.
    config: dict[str, Any] = {"holdApplicationUntilProxyStarts": True, "terminationDrainDuration": "1s", "concurrency": 1}
    if metadata:
        config["proxyMetadata"] = dict(metadata)
    return {
        "proxy.istio.io/config": json.dumps(config),
        "sidecar.istio.io/proxyCPU": "10m",
        "sidecar.istio.io/proxyMemory": "64Mi",
    }


def objects(area: "Area") -> tuple[Manifest, ...]:
    """Return how clients are to connect into a namespace: at once or not at all, each request on a connection of its own.

    A pooled connection would carry requests past a policy that its server has heard of since. Where a Service is pinned, its
    clients demand that account of whoever answers.
    """
    pool = {"tcp": {"connectTimeout": _SECONDS}, "http": {"maxRequestsPerConnection": 1}}
    own = [_rule("ztconform", f"*.{area.namespace}.svc.{area.domain}", area, {"connectionPool": pool})]
    for service, identity in area.pinned.items():
        tls = {"mode": "ISTIO_MUTUAL", "subjectAltNames": [identity]}
        host = f"{service}.{area.namespace}.svc.{area.domain}"
        own.append(_rule(f"ztconform-{service}", host, area, {"connectionPool": pool, "tls": tls}))
    return tuple(own)


def with_log(area: "Area") -> tuple[Manifest, ...]:
    """Return these objects, and what has the sidecars of a namespace write an access log."""
    return (*objects(area), logging(area.namespace))


def logging(namespace: str) -> Manifest:
    """Return what has the proxies of a namespace write an access log where their mesh has none."""
    return {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "ztconform", "namespace": namespace},
        # The provider of this name is built in (pkg/config/mesh, DefaultMeshConfig).
        "spec": {"accessLogging": [{"providers": [{"name": "envoy"}]}]},
    }


def _rule(name: str, host: str, area: "Area", policy: Mapping[str, Any]) -> Manifest:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": name, "namespace": area.namespace},
        "spec": {"host": host, "trafficPolicy": dict(policy)},
    }


def features(mesh: "Mesh") -> Mapping[str, str]:
    """Return what a ready mesh of sidecars adds to what a stack can prove, each with "" or the reason why not."""
    return {
        **dict.fromkeys(sidecar.FEATURES, mesh.unlogged),
        "authorization-dry-run": mesh.unlogged or (istiolog.NO_DRY_RUNS if mesh.request_id else ""),
        "svid-rotation": NOT_DRIVEN,
    }
