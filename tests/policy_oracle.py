# SPDX-License-Identifier: Apache-2.0
"""What the API reference of networking.k8s.io/v1 says of one connection, read off the manifests as naively as possible.

It shares nothing with `ztconform.lab` but the inventory, and takes only manifests that the API server would take.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ztconform.lab.inventory import Inventory, LabPod

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Hold who connects to whom, and how."""

    source: LabPod
    target: LabPod
    protocol: str
    port: int
    family: int


def allowed(inventory: Inventory, manifests: Sequence[Manifest], connection: Connection) -> bool:
    """Return whether both ends allow a connection; a pod reaches itself always."""
    if connection.source.ref == connection.target.ref:
        return True
    return all(_end_allows(inventory, manifests, kind, connection) for kind in ("Egress", "Ingress"))


def _end_allows(inventory: Inventory, manifests: Sequence[Manifest], kind: str, connection: Connection) -> bool:
    source, target = connection.source, connection.target
    pod, other, peers = (source, target, "to") if kind == "Egress" else (target, source, "from")
    mine = isolating(manifests, kind, pod)
    if not mine:
        return True
    return any(
        _peer_matches(inventory, manifest, rule.get(peers), other, connection.family)
        and _port_matches(rule.get("ports"), connection)
        for manifest in mine
        for rule in manifest["spec"].get(kind.lower()) or []
    )


def isolating(manifests: Sequence[Manifest], kind: str, pod: LabPod) -> list[Manifest]:
    """Return the policies that select a pod for a direction; an outsider is no pod."""
    return [
        manifest
        for manifest in manifests
        if pod.node is not None
        and (manifest["metadata"].get("namespace") or "default") == pod.ref.namespace
        and kind in policy_types(manifest["spec"])
        and selector_matches(manifest["spec"].get("podSelector"), pod.labels)
    ]


def policy_types(spec: Manifest) -> list[str]:
    """Return policyTypes, with the API server's default."""
    if spec.get("policyTypes"):
        return list(spec["policyTypes"])
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def selector_matches(selector: Manifest | None, labels: Mapping[str, str]) -> bool:
    """Return whether labels match; an empty selector matches everything."""
    selector = selector or {}
    for key, value in (selector.get("matchLabels") or {}).items():
        if key not in labels or labels[key] != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
        present = key in labels
        if operator == "In" and not (present and labels[key] in values):
            return False
        if operator == "NotIn" and present and labels[key] in values:
            return False
        if operator == "Exists" and not present:
            return False
        if operator == "DoesNotExist" and present:
            return False
    return True


def _peer_matches(inventory: Inventory, manifest: Manifest, peers: Any, other: LabPod, family: int) -> bool:
    if not peers:
        return True
    for peer in peers:
        block = peer.get("ipBlock")
        if block is not None:
            address = ipaddress.ip_address(other.v4 if family == 4 else other.v6)
            if address in ipaddress.ip_network(block["cidr"]) and not any(
                address in ipaddress.ip_network(part) for part in block.get("except") or []
            ):
                return True
        elif other.node is not None:
            own = (manifest["metadata"].get("namespace") or "default") == other.ref.namespace
            namespaces = peer.get("namespaceSelector")
            there = own if namespaces is None else selector_matches(namespaces, inventory.namespaces[other.ref.namespace])
            if there and selector_matches(peer.get("podSelector"), other.labels):
                return True
    return False


def _port_matches(ports: Any, connection: Connection) -> bool:
    if not ports:
        return True
    server, number = connection.target, connection.port
    for port in ports:
        if (port.get("protocol") or "TCP") != connection.protocol:
            continue
        wanted = port.get("port")
        if wanted is None:
            return True
        if isinstance(wanted, str):
            named = [each.number for each in server.ports if each.name == wanted and each.protocol == connection.protocol]
            if server.node is not None and number in named:
                return True
        elif wanted <= number <= (port.get("endPort") or wanted):
            return True
    return False
