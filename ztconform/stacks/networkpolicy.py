# SPDX-License-Identifier: Apache-2.0
"""What a Kubernetes cluster with a CNI and nothing else can prove, why not the rest, and how a CNI's denials look.

What one CNI adds or takes away is left to its stack; whether it enforces anything at all, to the canary.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ztconform.evidence import Signature
from ztconform.mesh.sidecar import TCP
from ztconform.model import Kind, Stage
from ztconform.settings import Settings

_UDP: frozenset[Kind] = frozenset({"udp", "dns"})
_CONNECT: frozenset[Stage] = frozenset({"connect"})
_ASKING: frozenset[Stage] = frozenset({"connect", "request"})

SIGNATURES = (
    Signature(name="DROP", layer="l34", kinds=TCP, signal="timeout", stages=_CONNECT),
    Signature(name="DROP", layer="l34", kinds=_UDP, signal="silence", stages=_ASKING),
    # Administratively prohibited, and nothing else: a dead address is answered with other codes, a closed port by a reset.
    Signature(name="ICMP", layer="l34", kinds=TCP | _UDP, signal="icmp", stages=_ASKING, detail=r"3/(9|10|13)|1/1"),
)

_MESH = "this stack has no service mesh"
_POLICY = "NetworkPolicy, all that this stack speaks, has no such rule"
_HOST = "it needs pods on their node's own network, which --ztc-privileged permits"
_BY_HELPERS = ("host-network", "packet-capture")

_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "audit-mode": "NetworkPolicy knows no audit mode; Cilium has one of its own",
        "authorization-audit": _MESH,
        "authorization-dry-run": _MESH,
        "client-tls": _MESH,
        "deny-priority": _POLICY,
        "direct-calls": "",
        "disruption": "parts of a real cluster are not restarted yet",
        "dns-policy": _POLICY,
        "dotted-accounts": _MESH,
        "dual-stack": "the cluster's pods have IPv4 addresses alone",
        "egress-gateway": _MESH,
        "encryption": "the CNI does not encrypt what goes between nodes",
        "federation": _MESH,
        "flow-log": "no log of this CNI's dropped packets is known",
        "hbone": _MESH,
        "host-network": _HOST,
        "identity": _MESH,
        "identity-pinning": _MESH,
        "init-containers": "pods of real clusters get no init container yet",
        "kubernetes-api": "the API server's own rules are not probed on real clusters yet",
        "l34": "",
        "l7-authz": _MESH,
        "mtls": _MESH,
        "node-ipblock": "whether this CNI matches its nodes by their addresses is not known",
        "node-port": "",
        "outsider": "",
        "packet-capture": _HOST,
        "plaintext-by-address": _MESH,
        "pod-ipblock": "",
        "spire": "this stack has no SPIRE",
        "staged-policy": _POLICY,
        "strict-encryption": "the CNI does not encrypt what goes between nodes",
        "svid-rotation": _MESH,
        "waypoint": _MESH,
    }
)


def features(settings: Settings, kind: str) -> Mapping[str, str]:
    """Return "" for every feature that is there and the reason for every other."""
    outsider = _outsider(settings, kind)
    # Only from outside is a node port a way in.
    helped = dict.fromkeys(_BY_HELPERS, "") if settings.privileged else {}
    return {**_REASONS, "outsider": outsider, "node-port": outsider, **helped}


def _outsider(settings: Settings, kind: str) -> str:
    if kind or settings.outsider:
        return ""
    return "no host outside this cluster is known: name one by --ztc-outsider"
