# SPDX-License-Identifier: Apache-2.0
"""The smallest policies that open namespaces which deny by themselves, in each dialect that can say so (control `opened`)."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ztconform.model import Manifest, Topology

_NAME = "ztconform-opened"


def opened(dialects: Collection[str], namespaces: Iterable[str], topology: Topology) -> tuple[Manifest, ...]:
    """Return what opens these namespaces of a topology to everybody, for a CNI and for a mesh that the cluster speaks with."""
    names = sorted(set(namespaces))
    manifests = [_network(name) for name in names]
    if "istio" in dialects:
        manifests += [_istio(name, kind, spec) for name in names for kind, spec in _OF_ISTIO]
    if "linkerd" in dialects:
        manifests += [_linkerd(name, port) for name in names for port in _meshed_ports(name, topology)]
    return tuple(manifests)


def _network(namespace: str) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": _NAME, "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]},
    }


# Against a STRICT of the whole mesh, and a policy that allows nothing.
_OF_ISTIO: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("PeerAuthentication", {"mtls": {"mode": "PERMISSIVE"}}),
    ("AuthorizationPolicy", {"action": "ALLOW", "rules": [{}]}),
)


def _istio(namespace: str, kind: str, spec: Mapping[str, Any]) -> Manifest:
    metadata = {"name": _NAME, "namespace": namespace}
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _meshed_ports(namespace: str, topology: Topology) -> list[int]:
    meshed = (w for w in topology.workloads if w.meshed and w.ref.namespace == namespace)
    return sorted({port.number for workload in meshed for port in workload.ports if port.protocol == "TCP"})


def _linkerd(namespace: str, port: int) -> Manifest:
    """Return a Server, which is of one port: for one that no Server selects the proxy has a default of its own."""
    return {
        "apiVersion": "policy.linkerd.io/v1beta3",
        "kind": "Server",
        "metadata": {"name": f"{_NAME}-{port}", "namespace": namespace},
        "spec": {"podSelector": {}, "port": port, "accessPolicy": "all-unauthenticated"},
    }
