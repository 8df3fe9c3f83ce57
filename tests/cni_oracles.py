# SPDX-License-Identifier: Apache-2.0
"""What the references of Cilium, Calico and ClusterNetworkPolicy say of one connection, read off manifests naively.

Each stops at every form that our manifests do not use. Sources: docs.cilium.io/en/v1.19/security/policy (and, for an empty rule
and an empty list, what Cilium's own policy engine answers), docs.tigera.io/calico/latest/reference/resources/networkpolicy and
network-policy/policy-tiers/tiered-policy, network-policy-api.sigs.k8s.io/reference/spec.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from policy_oracle import Connection, allowed, selector_matches

from ztconform.lab.inventory import Inventory, LabPod

Manifest = Mapping[str, Any]
Verdict = Literal["allowed", "l34", "l7"]
Labels = Mapping[str, str]

NAMESPACE = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
# Orders and what becomes of what no policy of a tier decides; a name that is not here is no tier.
TIERS = (("kube-admin", "Pass"), ("default", "Deny"), ("kube-baseline", "Pass"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """Hold what a proxy sees of a request."""

    method: str = "GET"
    path: str = "/"


def verdict(
    dialect: str, world: Inventory, manifests: Sequence[Manifest], connection: Connection, http: Http | None = None
) -> Verdict:
    """Return what becomes of a connection, or of a request on it, under manifests of one dialect; a pod reaches itself always."""
    if connection.source.ref == connection.target.ref:
        return "allowed"
    if dialect == "kubernetes":
        return "allowed" if allowed(world, manifests, connection) else "l34"
    side = {"cilium": _cilium, "calico": _calico, "cluster-network-policy": _cluster}[dialect]
    ends = [side(world, manifests, direction, connection, http) for direction in ("egress", "ingress")]
    return next((each for each in ends if each != "allowed"), "allowed")


def _ends(direction: str, connection: Connection) -> tuple[LabPod, LabPod]:
    """Return whose policies are asked, and who is at the other end."""
    if direction == "egress":
        return connection.source, connection.target
    return connection.target, connection.source


def _only(rule: Manifest, *fields: str) -> None:
    if unknown := set(rule) - set(fields):
        raise AssertionError(f"a form that is not known here: {sorted(unknown)}")


# Cilium


def _cilium(
    world: Inventory, manifests: Sequence[Manifest], direction: str, connection: Connection, http: Http | None
) -> Verdict:
    pod, other = _ends(direction, connection)
    if pod.node is None:
        return "allowed"
    mine = [
        (each["spec"], each["metadata"]["namespace"])
        for each in manifests
        if each["metadata"]["namespace"] == pod.ref.namespace
        and _endpoint(world, each["spec"]["endpointSelector"], pod, each["metadata"]["namespace"])
    ]
    denying = [(rule, own) for spec, own in mine for rule in spec.get(f"{direction}Deny") or []]
    admitting = [(rule, own) for spec, own in mine for rule in spec.get(direction) or []]
    if any(_rule(world, rule, own, direction, other, connection) for rule, own in denying):
        return "l34"
    if not denying and not admitting:  # without a rule of this direction, an empty list of them included, it is open
        return "allowed"
    matching = [rules for rule, own in admitting for rules in _rule(world, rule, own, direction, other, connection)]
    if not matching:
        return "l34"
    asked = [rules for rules in matching if "http" in rules]
    if len(asked) < len(matching) or http is None:
        return "allowed"
    return "allowed" if any(_http(each, http) for rules in asked for each in rules["http"]) else "l7"


def _rule(world: Inventory, rule: Manifest, own: str, direction: str, other: LabPod, connection: Connection) -> list[Manifest]:
    """Return the L7 rules, empty ones too, of all parts of a rule that match at L3 and L4."""
    word = "from" if direction == "ingress" else "to"
    peers = [f"{word}Endpoints", f"{word}CIDR", f"{word}CIDRSet", "toFQDNs"]
    _only(rule, *peers, "toPorts")
    if not rule:
        return []  # it is there to close the direction
    named = [name for name in peers if name in rule]
    if named and not any(_peer(world, name, peer, own, other, connection) for name in named for peer in rule[name]):
        return []
    ports = rule.get("toPorts")
    if ports is None:
        return [{}]
    return [part.get("rules", {}) for part in ports if any(_cilium_port(port, connection) for port in part["ports"])]


def _peer(world: Inventory, name: str, peer: Any, own: str, other: LabPod, connection: Connection) -> bool:
    if name.endswith("Endpoints"):
        return other.node is not None and _endpoint(world, peer, other, own)
    if name == "toFQDNs":  # what a name resolved to is for the DNS proxy to know: here, that it is outside
        return other.node is None
    block = {"cidr": peer} if isinstance(peer, str) else peer
    return other.node is None and _in(block["cidr"], block.get("except", ()), other, connection.family)


def _endpoint(world: Inventory, selector: Manifest, pod: LabPod, own: str) -> bool:
    _only(selector, "matchLabels")
    wanted = {re.sub(r"^(k8s|any):", "", key): value for key, value in (selector.get("matchLabels") or {}).items()}
    if not any(key == NAMESPACE or key.startswith(NAMESPACE_LABELS) for key in wanted):
        wanted = {**wanted, NAMESPACE: own}
    namespace = world.namespaces[pod.ref.namespace]
    has = {**pod.labels, NAMESPACE: pod.ref.namespace, **{NAMESPACE_LABELS + key: value for key, value in namespace.items()}}
    return all(has.get(key) == value for key, value in wanted.items())


def _cilium_port(port: Manifest, connection: Connection) -> bool:
    _only(port, "port", "endPort", "protocol")
    if port["protocol"] != connection.protocol:
        return False
    if not port["port"].isdigit():
        return connection.port in _named(connection.target, port["port"], connection.protocol)
    first = int(port["port"])
    return first <= connection.port <= port.get("endPort", first)


def _http(rule: Manifest, http: Http) -> bool:
    _only(rule, "method", "path")
    return bool(re.fullmatch(rule["method"], http.method) and re.fullmatch(rule["path"], http.path))


# Calico


def _calico(world: Inventory, manifests: Sequence[Manifest], direction: str, connection: Connection, _: Http | None) -> Verdict:
    pod, other = _ends(direction, connection)
    if pod.node is None:
        return "allowed"
    for tier, otherwise in TIERS:
        # Those that are staged only tell what they would do.
        enforced = [
            each for each in manifests if not each["kind"].startswith("Staged")
        ]  # the others only tell what they would do
        mine = [each for each in enforced if _selects(each, pod, direction) and each["spec"]["tier"] == tier]
        mine.sort(key=lambda each: (each["spec"].get("order", float("inf")), each["metadata"]["name"]))
        match next(_actions(world, mine, direction, other, connection), otherwise if mine else "Pass"):
            case "Allow":
                return "allowed"
            case "Deny":
                return "l34"
    return "allowed"


def _actions(
    world: Inventory, policies: Sequence[Manifest], direction: str, other: LabPod, connection: Connection
) -> Iterator[str]:
    for policy in policies:
        for rule in policy["spec"].get(direction) or []:
            _only(rule, "action", "protocol", "source", "destination")
            peer = rule.get("source" if direction == "ingress" else "destination", {})
            ports = rule.get("destination", {}).get("ports")
            if rule.get("protocol", connection.protocol) != connection.protocol:
                continue
            if _entity(world, peer, policy["metadata"]["namespace"], other, connection) and _calico_ports(ports, connection):
                yield rule["action"]


def _selects(policy: Manifest, pod: LabPod, direction: str) -> bool:
    if policy["kind"] != "NetworkPolicy":
        raise AssertionError(policy["kind"])
    if policy["spec"]["tier"] not in dict(TIERS):
        raise AssertionError(policy["spec"]["tier"])
    own = policy["metadata"]["namespace"] == pod.ref.namespace
    return own and direction.title() in policy["spec"]["types"] and expression(policy["spec"]["selector"], pod.labels)


def _entity(world: Inventory, entity: Manifest, own: str, other: LabPod, connection: Connection) -> bool:
    _only(entity, "selector", "namespaceSelector", "nets", "notNets", "ports")
    if "selector" in entity or "namespaceSelector" in entity:
        if other.node is None:
            return False
        labels = world.namespaces[other.ref.namespace]
        namespaces = entity.get("namespaceSelector", f"projectcalico.org/name == '{own}'")
        if not expression(namespaces, {**labels, "projectcalico.org/name": other.ref.namespace}):
            return False
        if not expression(entity.get("selector", "all()"), other.labels):
            return False
    nets, not_nets = entity.get("nets"), entity.get("notNets", ())
    if nets is not None and not any(_in(net, (), other, connection.family) for net in nets):
        return False
    return not any(_in(net, (), other, connection.family) for net in not_nets)


def _calico_ports(ports: Sequence[int | str] | None, connection: Connection) -> bool:
    def is_in(port: int | str) -> bool:
        if isinstance(port, int):
            return port == connection.port
        if found := re.fullmatch(r"(\d+):(\d+)", port):
            return int(found[1]) <= connection.port <= int(found[2])
        return connection.port in _named(connection.target, port, connection.protocol)

    return ports is None or any(map(is_in, ports))


def expression(text: str, labels: Labels) -> bool:
    """Return whether labels match a selector expression: comparisons joined by &&, or all()."""
    return all(_comparison(part.strip(), labels) for part in text.split("&&"))


def _comparison(text: str, labels: Labels) -> bool:
    if text == "all()":
        return True
    found = re.fullmatch(r"([\w./-]+)\s*(==|!=)\s*'([^']*)'", text)
    if found is None:
        raise AssertionError(text)
    return (labels.get(found[1]) == found[3]) is (found[2] == "==")


# ClusterNetworkPolicy


def _cluster(world: Inventory, manifests: Sequence[Manifest], direction: str, connection: Connection, _: Http | None) -> Verdict:
    pod, other = _ends(direction, connection)
    if pod.node is None:
        return "allowed"
    for tier in ("Admin", "Baseline"):
        mine = [each["spec"] for each in manifests if each["spec"]["tier"] == tier]
        for spec in sorted((s for s in mine if _namespaced(world, s["subject"], pod)), key=lambda s: s["priority"]):
            for rule in spec.get(direction) or []:
                _only(rule, "name", "action", "from", "to", "protocols")
                peers = rule["from" if direction == "ingress" else "to"]
                if any(_cluster_peer(world, peer, other, connection) for peer in peers) and _protocols(rule, connection):
                    if rule["action"] not in ("Accept", "Deny"):
                        raise AssertionError(rule["action"])
                    return "allowed" if rule["action"] == "Accept" else "l34"
    return "allowed"


def _cluster_peer(world: Inventory, peer: Manifest, other: LabPod, connection: Connection) -> bool:
    if "networks" in peer:
        _only(peer, "networks")
        return any(_in(net, (), other, connection.family) for net in peer["networks"])
    return other.node is not None and _namespaced(world, peer, other)


def _namespaced(world: Inventory, peer: Manifest, pod: LabPod) -> bool:
    if len(peer) != 1:
        raise AssertionError(f"exactly one of its fields must be set: {sorted(peer)}")
    namespace = world.namespaces[pod.ref.namespace]
    if "namespaces" in peer:
        return selector_matches(peer["namespaces"], namespace)
    return selector_matches(peer["pods"]["namespaceSelector"], namespace) and selector_matches(
        peer["pods"]["podSelector"], pod.labels
    )


def _protocols(rule: Manifest, connection: Connection) -> bool:
    def is_one(protocol: Manifest) -> bool:
        ((name, match),) = protocol.items()
        _only(match["destinationPort"], "number")
        return name.upper() == connection.protocol and connection.port == match["destinationPort"]["number"]

    return "protocols" not in rule or any(map(is_one, rule["protocols"]))


def _named(pod: LabPod, name: str, protocol: str) -> list[int]:
    return [port.number for port in pod.ports if port.name == name and port.protocol == protocol]


def _in(cidr: str, excepted: Sequence[str], pod: LabPod, family: int) -> bool:
    address = ipaddress.ip_address(pod.v4 if family == 4 else pod.v6)
    return address in ipaddress.ip_network(cidr) and not any(address in ipaddress.ip_network(each) for each in excepted)
