# SPDX-License-Identifier: Apache-2.0
"""What a networking.k8s.io/v1 NetworkPolicy says, defaulted and validated as the API server does it.

What it does to packets is left to `isolation`. The rules are those of pkg/apis/networking (v1/defaults.go and
validation/validation.go) in Kubernetes 1.34, read as if the gate StrictIPCIDRValidation were on.
"""

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, cast

from ztconform.lab.fields import Field, root, shown
from ztconform.lab.labels import dns_subdomain, port_number, port_reference
from ztconform.lab.objectmeta import check_type, read_metadata
from ztconform.lab.selectors import EVERYTHING, LabelSelector, read_selector
from ztconform.model import Ref, Transport

Direction = Literal["ingress", "egress"]

_CIDR = re.compile(r"[0-9A-Fa-f:.]+/(0|[1-9][0-9]{0,2})")  # leaves out what ipaddress takes beside: a netmask, a zone, no length


@dataclass(frozen=True, slots=True)
class PodPeer:
    """Select pods by their labels, their namespace's labels, or both at once."""

    namespaces: LabelSelector | None  # None: the policy's own namespace
    pods: LabelSelector


@dataclass(frozen=True, slots=True)
class IPBlock:
    """Select addresses of one family, whoever has them."""

    network: IPv4Network | IPv6Network
    excluded: tuple[IPv4Network | IPv6Network, ...] = ()


Peer = PodPeer | IPBlock


@dataclass(frozen=True, slots=True)
class PolicyPort:
    """Select destination ports of one protocol."""

    protocol: Transport
    port: int | str | None = None  # a name is looked up in the destination pod; None: every port
    end: int | None = None  # last port of a range


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """Admit what comes from (or goes to) one of the peers by one of the ports."""

    peers: tuple[Peer, ...] = ()  # none: everybody
    ports: tuple[PolicyPort, ...] = ()  # none: every port of every protocol, SCTP and others among them


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """Isolate the selected pods of one namespace, apart from what the rules admit."""

    ref: Ref
    selector: LabelSelector
    ingress: tuple[PolicyRule, ...] | None  # None: the policy does not isolate in this direction
    egress: tuple[PolicyRule, ...] | None

    def rules(self, direction: Direction) -> tuple[PolicyRule, ...] | None:
        """Return the rules of a direction, or None where the policy does not isolate in it."""
        return self.ingress if direction == "ingress" else self.egress


def parse_policy(manifest: object) -> NetworkPolicy:
    """Return the policy that a manifest describes; raises Rejected for whatever the API server would refuse or drop."""
    whole = root(manifest)
    check_type(whole, "networking.k8s.io/v1", "NetworkPolicy")
    fields = whole.object(("apiVersion", "kind", "metadata", "spec"))
    ref = read_metadata(fields.get("metadata", whole.child("metadata", {})), dns_subdomain)
    spec = fields.get("spec", whole.child("spec", {})).object(("podSelector", "policyTypes", "ingress", "egress"))
    ingress = tuple(_read_rule(rule, "from") for rule in spec["ingress"].items()) if "ingress" in spec else ()
    egress = tuple(_read_rule(rule, "to") for rule in spec["egress"].items()) if "egress" in spec else ()
    types = _read_types(spec.get("policyTypes"), bool(egress))
    return NetworkPolicy(
        ref=ref,
        selector=read_selector(spec["podSelector"]) if "podSelector" in spec else EVERYTHING,
        ingress=ingress if "Ingress" in types else None,  # rules of a direction that is not in policyTypes have no effect
        egress=egress if "Egress" in types else None,
    )


def _read_types(field: Field | None, has_egress_rules: bool) -> frozenset[str]:
    types = field.items() if field else []
    if field and len(types) > 2:
        field.refuse("must not hold more than two entries")
    if not types:  # `egress: []` alone does not isolate for egress: the default looks for a rule
        return frozenset(("Ingress", "Egress") if has_egress_rules else ("Ingress",))
    return frozenset(entry.one_of("Ingress", "Egress") for entry in types)


def _read_rule(field: Field, peers_name: Literal["from", "to"]) -> PolicyRule:
    fields = field.object((peers_name, "ports"))
    return PolicyRule(
        peers=tuple(_read_peer(peer) for peer in fields[peers_name].items()) if peers_name in fields else (),
        ports=tuple(_read_port(port) for port in fields["ports"].items()) if "ports" in fields else (),
    )


def _read_port(field: Field) -> PolicyPort:
    fields = field.object(("protocol", "port", "endPort"))
    protocol = cast(Transport, fields["protocol"].one_of("TCP", "UDP", "SCTP")) if "protocol" in fields else "TCP"
    port = port_reference(fields["port"]) if "port" in fields else None
    if "endPort" not in fields:
        return PolicyPort(protocol, port)
    if not isinstance(port, int):
        fields["endPort"].refuse("needs a numeric port beside it")
    end = port_number(fields["endPort"])
    if end < port:
        fields["endPort"].refuse(f"must not be less than port {port}, but is {end}")
    return PolicyPort(protocol, port, end)


def _read_peer(field: Field) -> Peer:
    fields = field.object(("podSelector", "namespaceSelector", "ipBlock"))
    if not fields:
        field.refuse("must have a podSelector, a namespaceSelector or an ipBlock; for everybody leave out the list")
    if "ipBlock" in fields:
        if len(fields) > 1:
            field.refuse("must not have an ipBlock and a selector at once: make two peers of it")
        return _read_block(fields["ipBlock"])
    return PodPeer(
        namespaces=read_selector(fields["namespaceSelector"]) if "namespaceSelector" in fields else None,
        pods=read_selector(fields["podSelector"]) if "podSelector" in fields else EVERYTHING,
    )


def _read_block(field: Field) -> IPBlock:
    fields = field.object(("cidr", "except"))
    if "cidr" not in fields or fields["cidr"].value == "":
        field.child("cidr").refuse("is required")
    network = _read_network(fields["cidr"])
    excluded = []
    for entry in fields["except"].items() if "except" in fields else []:
        part = _read_network(entry)
        if part.version != network.version or part.prefixlen <= network.prefixlen or part.network_address not in network:
            entry.refuse(f"{part} must lie within cidr {network} and be smaller")
        excluded.append(part)
    return IPBlock(network, tuple(excluded))


def _read_network(field: Field) -> IPv4Network | IPv6Network:
    text = field.string()
    try:
        if not _CIDR.fullmatch(text):
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        field.refuse(f"{shown(text)} is no CIDR such as 10.9.8.0/24 or 2001:db8::/64, without leading zeros")
    address = ipaddress.ip_address(text.partition("/")[0])
    if address.version == 6 and address.ipv4_mapped:
        field.refuse(f"{shown(text)} must not be an IPv4-mapped IPv6 address: write it as IPv4")
    return network  # 10.0.0.5/24 is 10.0.0.0/24, as it is to an API server without the gate StrictIPCIDRValidation
