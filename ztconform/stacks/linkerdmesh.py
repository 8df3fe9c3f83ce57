# SPDX-License-Identifier: Apache-2.0
"""How Linkerd's proxies are spoken with: what injects them, how their log is kept, and what they can prove.

Annotations are those of edge-26.8.3 (pkg/k8s/labels.go); whether Linkerd runs, and how it is installed, is left to its component.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ztconform.errors import UsageError
from ztconform.mesh import linkerdlog
from ztconform.stacks.istiomesh import NOT_DRIVEN

if TYPE_CHECKING:
    from ztconform.kube.profile import Mesh

PROXY, PROXY_UID = "linkerd-proxy", 2102
_H2C = "kubernetes.io/h2c"
CLOSED = frozenset({"deny"})  # inbound defaults under which nobody comes in
NOT_SHOWN = "Linkerd's proxy keeps its SVID in its own memory: no probe can show it"

_ANNOTATIONS: Mapping[str, str] = {
    "linkerd.io/inject": "enabled",
    **linkerdlog.ANNOTATIONS,
    "config.linkerd.io/proxy-cpu-request": "10m",
    "config.linkerd.io/proxy-memory-request": "32Mi",
    # A pod that ends does not drain.
    "config.linkerd.io/shutdown-grace-period": "1s",
}
_IDENTITY = re.compile(r"(?P<account>.+)\.(?P<namespace>[^.]+)\.serviceaccount\.identity\.(?P<control>[^.]+)\.(?P<domain>.+)")


def mesh(config: Mapping[str, Any]) -> "Mesh":
    """Return the mesh of a Linkerd that was installed with these values."""
    from ztconform.kube.linkerdcauses import Witness, word  # noqa: PLC0415 - the extra may be missing
    from ztconform.kube.profile import Mesh  # noqa: PLC0415 - likewise
    from ztconform.kube.proxylog import ProxyLogs, beside  # noqa: PLC0415 - likewise

    default = inbound(config)
    return Mesh(
        name="Linkerd",
        trust_domain=domain(config),
        root_namespace="",
        namespace_labels={},
        meshed_labels={},
        bare_labels={},
        annotations=_ANNOTATIONS,
        svid_annotations=_not_shown,
        proxy=PROXY,
        proxy_uid=PROXY_UID,
        # linkerd-init wants NET_ADMIN and NET_RAW, which no level but this admits.
        pod_security="restricted" if config.get("cniEnabled") is True else "privileged",
        objects=lambda area: (),
        witness=lambda resources, policies, _: Witness(
            ProxyLogs(resources, beside(PROXY), linkerdlog.read, word), policies, default
        ),
        # policy-controller/core/src/outbound.rs: any other is opaque.
        app_protocols={"http": "http", "http2": _H2C, "grpc": _H2C, "tcp": "linkerd.io/opaque"},
        identity_header="l5d-client-id",
        spiffe=spiffe,
        closed=default in CLOSED,
        request_id=True,
    )


def features() -> Mapping[str, str]:
    """Return what a mesh of Linkerd's adds to what a stack can prove, each with "" or the reason why not."""
    return {
        "mtls": "",
        "l7-authz": "",
        "identity": "",
        "client-tls": NOT_SHOWN,
        # controller/identity/validator.go: "Not a label".
        "dotted-accounts": "Linkerd gives an account no identity whose name is no DNS label, and so its pods never become ready",
        "identity-pinning": "to Linkerd a server is who its pod is, whichever Service leads there: nobody can pin another",
        "plaintext-by-address": "Linkerd's proxy speaks mutual TLS also to a pod that is called by its address",
        "svid-rotation": NOT_DRIVEN,
        "authorization-audit": "",
        "authorization-dry-run": "Linkerd has no dry runs; it has audit policies",
        "egress-gateway": "Linkerd has no egress gateway",
        "federation": "no second trust domain is set up",
        "hbone": "Linkerd speaks no HBONE",
        "waypoint": "Linkerd has no waypoints",
    }


def notes(mesh: "Mesh") -> tuple[str, ...]:
    """Return what a reader must know of how our namespaces are made in this mesh."""
    if mesh.pod_security == "restricted":
        return ()
    return (
        f"namespaces with meshed pods admit {mesh.pod_security} ones, for linkerd-init wants NET_ADMIN: Linkerd's CNI plugin "
        "(cniEnabled) lifts that; our own containers stay restricted",
    )


def inbound(config: Mapping[str, Any]) -> str:
    """Return the access policy of a port that no Server selects, "unknown" where it was not said."""
    return str((config.get("proxy") or {}).get("defaultInboundPolicy") or "unknown")


def domain(config: Mapping[str, Any]) -> str:
    """Return the trust domain."""
    return str(config.get("identityTrustDomain") or config.get("clusterDomain") or "cluster.local")


def spiffe(identity: str) -> str:
    """Return an identity of Linkerd's, which reads as a DNS name, as the SPIFFE ID that says the same."""
    found = _IDENTITY.fullmatch(identity)
    return f"spiffe://{found['domain']}/ns/{found['namespace']}/sa/{found['account']}" if found else identity


def _not_shown(seconds: int) -> Mapping[str, str]:
    raise UsageError(f"a row shows a pod's own certificate: {NOT_SHOWN}")
