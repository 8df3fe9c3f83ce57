# SPDX-License-Identifier: Apache-2.0
"""What NetworkPolicies do to the packets that one node forwards, as an nftables table.

What a manifest says is read by `networkpolicy`, which addresses a peer has by `peers`; `nfnetlink` loads the table.

Two hooks judge a connection between nodes: the sender's node its egress, the receiver's node its ingress. A pod is told by
its host-side interface, which it cannot forge. Everything is in the family `inet`, so that a default deny covers IPv6 too;
neighbour discovery is link-local, is never forwarded, and so never comes here. ICMP that no connection is related to is
dropped with the rest, since no rule of a NetworkPolicy can name it, except by a rule without ports.
"""

from collections.abc import Iterator, Sequence

from ztconform.lab.inventory import Inventory, LabPod
from ztconform.lab.networkpolicy import Direction, NetworkPolicy, Peer, PolicyPort
from ztconform.lab.peers import Matches, Peers
from ztconform.lab.ruleset import (
    Chain,
    Count,
    Dport,
    Established,
    Go,
    Hook,
    Iif,
    Log,
    Match,
    NotOpening,
    Oif,
    Proto,
    Rule,
    Statement,
    Table,
)
from ztconform.model import Port, Ref, Transport

TABLE = "ztc_policy"
NFLOG_GROUP = 7

_PROTO: dict[Transport, Proto] = {"TCP": Proto("tcp"), "UDP": Proto("udp"), "SCTP": Proto("sctp")}
_DIRECTIONS: dict[str, Direction] = {"eg": "egress", "in": "ingress"}
_PREFIX_MAX = 120  # bytes; the kernel takes 127
_COMMENT_MAX = 250  # bytes

# Egress comes first and returns what it admits, so that the receiver's ingress chain still judges it.
_ADMIT: dict[Direction, tuple[Statement, ...]] = {"egress": (Count(), Go("return")), "ingress": (Count(), Go("accept"))}

# A bare SYN is judged even where conntrack knows the flow: a client that takes a source port again while the old entry
# lives would otherwise go through under a policy that came after it.
_KNOWN_FLOWS = Chain(
    "known-flows",
    (
        Rule((Proto("tcp"), NotOpening()), (Go("accept"),)),
        Rule((Proto("tcp"),), (Go("return"),)),
        Rule((), (Go("accept"),), "UDP, SCTP, and ICMP errors of a flow"),
    ),
)


def log_prefix(direction: Direction, pod: Ref) -> str:
    """Return the NFLOG prefix of packets dropped at a pod, such as "in shop/payment-0"; cut to 120 bytes."""
    return _cut(f"{direction[:2]} {pod}", _PREFIX_MAX)


def parse_prefix(prefix: str) -> tuple[Direction, Ref] | None:
    """Return direction and pod of a prefix, or None if it is none of ours.

    A name that was cut comes back cut: compare by `log_prefix` where names of more than 110 bytes can occur.
    """
    word, _, name = prefix.partition(" ")
    namespace, slash, pod = name.partition("/")
    if word not in _DIRECTIONS or not slash:
        return None
    return _DIRECTIONS[word], Ref(namespace, pod)


def selecting(inventory: Inventory, policies: Sequence[NetworkPolicy], pod: Ref, direction: Direction) -> tuple[str, ...]:
    """Return the policies, as "namespace/name", that isolate a pod in a direction; none for a pod that is not there."""
    found = next((each for each in inventory.pods if each.ref == pod), None)
    return () if found is None else tuple(str(policy.ref) for policy in _isolating(policies, found, direction))


def compile_node(node: int, inventory: Inventory, policies: Sequence[NetworkPolicy]) -> Table:
    """Return the table that enforces the policies on the pods of one node."""
    peers = Peers(inventory)
    compiled: dict[tuple[int, Direction, tuple[Port, ...]], tuple[Rule, ...]] = {}  # pods under one policy share its rules
    chains: list[Chain] = []
    to_self: list[Rule] = []
    dispatch: dict[Direction, list[Rule]] = {"egress": [], "ingress": []}
    for pod in inventory.pods:
        if pod.node != node:
            continue
        isolated = False
        ends: tuple[tuple[Direction, Match], ...] = (("egress", Iif(pod.device)), ("ingress", Oif(pod.device)))
        for direction, end in ends:
            selected_by = _isolating(policies, pod, direction)
            if not selected_by:
                continue
            isolated = True
            rules: list[Rule] = []
            for policy in selected_by:
                key = (id(policy), direction, pod.ports if direction == "ingress" and _names_ports(policy) else ())
                if key not in compiled:
                    compiled[key] = tuple(_admissions(policy, direction, pod, peers))
                rules += compiled[key]
            name = f"{direction}-{pod.device}"
            chains.append(Chain(name, (*rules, _deny(direction, pod.ref))))
            dispatch[direction].append(Rule((end,), (Go("jump", name),)))
        if isolated:
            to_self.append(Rule((Iif(pod.device), Oif(pod.device)), (Go("accept"),), "a pod cannot be kept from itself"))
    base = Chain(
        "forward",
        (Rule((Established(),), (Go("jump", _KNOWN_FLOWS.name),)), *to_self, *dispatch["egress"], *dispatch["ingress"]),
        Hook("filter", "forward", 0),
    )
    return Table(TABLE, peers.sets(), (_KNOWN_FLOWS, *chains, base))


def _isolating(policies: Sequence[NetworkPolicy], pod: LabPod, direction: Direction) -> list[NetworkPolicy]:
    return [
        policy
        for policy in policies
        if policy.ref.namespace == pod.ref.namespace  # an outsider has none, a policy always has one
        and policy.rules(direction) is not None
        and policy.selector.matches(pod.labels)
    ]


def _names_ports(policy: NetworkPolicy) -> bool:
    return any(isinstance(port.port, str) for rule in policy.ingress or () for port in rule.ports)


def _deny(direction: Direction, pod: Ref) -> Rule:
    prefix = log_prefix(direction, pod)
    return Rule((), (Count(), Log(NFLOG_GROUP, prefix), Go("drop")), f"default deny {prefix}")


def _admissions(policy: NetworkPolicy, direction: Direction, pod: LabPod, peers: Peers) -> Iterator[Rule]:
    matches_of = _ingress_matches if direction == "ingress" else _egress_matches
    for index, rule in enumerate(policy.rules(direction) or ()):
        comment = _cut(f"{direction}[{index}] of {policy.ref}", _COMMENT_MAX)
        for peer in rule.peers or (None,):
            for port in rule.ports or (None,):
                for matches in matches_of(policy.ref.namespace, peer, port, pod, peers):
                    yield Rule(matches, _ADMIT[direction], comment)


def _ingress_matches(namespace: str, peer: Peer | None, port: PolicyPort | None, pod: LabPod, peers: Peers) -> Iterator[Matches]:
    if port is not None and isinstance(port.port, str):
        numbers = [each.number for each in pod.ports if (each.name, each.protocol) == (port.port, port.protocol)]
        transports = [_transport(port.protocol, number, number) for number in numbers]
    else:
        transports = [_numeric(port)]
    for addresses in peers.matches("saddr", namespace, peer):
        for transport in transports:
            yield addresses + transport


def _egress_matches(namespace: str, peer: Peer | None, port: PolicyPort | None, _: LabPod, peers: Peers) -> Iterator[Matches]:
    if port is None or not isinstance(port.port, str):
        for addresses in peers.matches("daddr", namespace, peer):
            yield addresses + _numeric(port)
        return
    # The name may be another number in each destination, and nothing but a pod has named ports.
    owners: dict[int, list[LabPod]] = {}
    for owner in peers.pods(namespace, peer):
        for each in owner.ports:
            if (each.name, each.protocol) == (port.port, port.protocol):
                owners.setdefault(each.number, []).append(owner)
    for number, pods in sorted(owners.items()):
        for addresses in peers.among("daddr", peer, pods):
            yield addresses + _transport(port.protocol, number, number)


def _numeric(port: PolicyPort | None) -> Matches:
    if port is None:
        return ()
    if not isinstance(port.port, int):
        return (_PROTO[port.protocol],)
    return _transport(port.protocol, port.port, port.end or port.port)


def _transport(protocol: Transport, first: int, last: int) -> Matches:
    return (_PROTO[protocol], Dport(first, last))


def _cut(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore")
