# SPDX-License-Identifier: Apache-2.0
"""What a compiled table does to one packet, by walking its chains the way the kernel does.

It is the tests' reading of `ztconform.lab.ruleset`, written apart from what loads a table, and it knows no policy.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ztconform.lab import ruleset
from ztconform.lab.inventory import LabPod
from ztconform.lab.ruleset import Chain, Rule, Table

UPLINK = "uplink"  # any interface of a node that leads to no pod of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """Hold what a table can match of a packet."""

    source: str
    target: str
    protocol: str = "tcp"  # or udp, sctp, icmp
    port: int = 0
    iif: str = UPLINK
    oif: str = UPLINK
    known: bool = False  # of a flow in conntrack's state established or related
    opening: bool = True  # a bare SYN, where the protocol is TCP

    @property
    def family(self) -> int:
        return ipaddress.ip_address(self.source).version


@dataclass(frozen=True, slots=True)
class Ending:
    """Say how the walk of a chain ended, and the log prefix of a drop or the destination of a dnat."""

    verdict: Literal["through", "return", "accept", "drop", "dnat", "masquerade"]
    detail: str = ""


THROUGH = Ending("through")


def endings(table: Table, hook: str, packet: Packet) -> dict[Ending, Fraction]:
    """Return how the packet leaves the hook's base chain, and how likely each ending is."""
    (base,) = [chain for chain in table.chains if chain.hook and chain.hook.hook == hook]
    found = _walk(table, base, packet)
    assert sum(found.values()) == 1
    return found


def ending(table: Table, hook: str, packet: Packet) -> Ending:
    """Return the one ending that is possible."""
    (found,) = endings(table, hook, packet)
    return found


def check_well_formed(table: Table) -> None:
    """Assert what the kernel would refuse, or `ruleset` forbids."""
    chains = [chain.name for chain in table.chains]
    sets = {each.name: each for each in table.sets}
    assert len(chains) == len(set(chains))
    assert len(sets) == len(table.sets)
    for each in table.sets:
        assert all(ipaddress.ip_address(address).version == each.family for address in each.addresses)
    for chain in table.chains:
        for rule in chain.rules:
            assert len(rule.comment.encode()) <= 250
            for match in rule.matches:
                if isinstance(match, ruleset.InSet):
                    assert sets[match.name].family == match.family
            for statement in rule.statements:
                if isinstance(statement, ruleset.Go):
                    assert (statement.verdict == "jump") == (statement.chain in chains)
                if isinstance(statement, ruleset.Log):
                    assert len(statement.prefix.encode()) <= 127


def connect(
    tables: Mapping[int, Table], source: LabPod, target: LabPod, *, protocol: str, port: int, family: int
) -> tuple[bool, tuple[str, ...]]:
    """Return whether a new flow gets from one pod to another, and the log prefixes of those who dropped it (at most one)."""
    for node in dict.fromkeys(each for each in (source.node, target.node) if each is not None):
        packet = Packet(
            source=source.v4 if family == 4 else source.v6,
            target=target.v4 if family == 4 else target.v6,
            protocol=protocol.lower(),
            port=port,
            iif=source.device if source.node == node else UPLINK,
            oif=target.device if target.node == node else UPLINK,
        )
        end = ending(tables[node], "forward", packet)
        if end.verdict == "drop":
            return False, (end.detail,)
    return True, ()


def _walk(table: Table, chain: Chain, packet: Packet) -> dict[Ending, Fraction]:
    found: dict[Ending, Fraction] = {}
    left = Fraction(1)
    for rule in chain.rules:
        chance = left * _chance(table, rule, packet)
        if not chance:
            continue
        for end, share in _apply(table, rule, packet).items():
            if end == THROUGH:
                continue  # the next rule's turn
            result = THROUGH if end.verdict == "return" else end
            found[result] = found.get(result, Fraction(0)) + chance * share
            left -= chance * share
    if left:
        found[THROUGH] = found.get(THROUGH, Fraction(0)) + left
    return found


def _apply(table: Table, rule: Rule, packet: Packet) -> dict[Ending, Fraction]:
    prefix = ""
    for statement in rule.statements:
        match statement:
            case ruleset.Count():
                pass
            case ruleset.Log():
                prefix = statement.prefix
            case ruleset.Go(verdict="accept"):
                return {Ending("accept"): Fraction(1)}
            case ruleset.Go(verdict="drop"):
                return {Ending("drop", prefix): Fraction(1)}
            case ruleset.Go(verdict="return"):
                return {Ending("return"): Fraction(1)}
            case ruleset.Go():
                (target,) = [each for each in table.chains if each.name == statement.chain]
                return _walk(table, target, packet)
            case ruleset.Dnat():
                assert ipaddress.ip_address(statement.address).version == packet.family
                return {Ending("dnat", f"{statement.address} {statement.port}"): Fraction(1)}
            case ruleset.Masquerade():
                return {Ending("masquerade"): Fraction(1)}
    return {THROUGH: Fraction(1)}


def _chance(table: Table, rule: Rule, packet: Packet) -> Fraction:
    chance = Fraction(1)
    protocols: list[str] = []
    for match in rule.matches:
        if isinstance(match, ruleset.Proto):
            protocols.append(match.name)
        if isinstance(match, ruleset.Dport):
            assert protocols, "a Dport stands behind a Proto"
        if isinstance(match, ruleset.NotOpening):
            assert protocols == ["tcp"], "a NotOpening stands behind a Proto of TCP"
        if isinstance(match, ruleset.Random):
            chance /= match.modulus
        elif not _holds(table, match, packet):
            return Fraction(0)
    return chance


def _holds(table: Table, match: ruleset.Match, packet: Packet) -> bool:
    match match:
        case ruleset.Iif():
            return packet.iif == match.name
        case ruleset.Oif():
            return packet.oif == match.name
        case ruleset.Proto():
            return packet.protocol == match.name
        case ruleset.Net():
            address = ipaddress.ip_address(packet.source if match.side == "saddr" else packet.target)
            return address.version == match.network.version and (address in match.network) != match.negate
        case ruleset.InSet():
            (members,) = [each.addresses for each in table.sets if each.name == match.name]
            return packet.family == match.family and (packet.source if match.side == "saddr" else packet.target) in members
        case ruleset.Dport():
            return match.first <= packet.port <= match.last
        case ruleset.Established():
            return packet.known
        case ruleset.NotOpening():
            return not packet.opening
    raise AssertionError(f"the walk does not know {match}")
