# SPDX-License-Identifier: Apache-2.0
"""An nftables ruleset as data: what the compilers make, what `nfnetlink` encodes, and what a person reads as nft text."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

Side = Literal["saddr", "daddr"]


@dataclass(frozen=True, slots=True)
class Iif:
    """Match the interface that a packet came in by."""

    name: str


@dataclass(frozen=True, slots=True)
class Oif:
    """Match the interface that a packet leaves by."""

    name: str


@dataclass(frozen=True, slots=True)
class Proto:
    """Match the transport protocol."""

    name: Literal["tcp", "udp", "sctp"]


@dataclass(frozen=True, slots=True)
class Net:
    """Match a packet's address against a network; also checks that the packet is of the network's family."""

    side: Side
    network: IPv4Network | IPv6Network
    negate: bool = False


@dataclass(frozen=True, slots=True)
class InSet:
    """Match a packet's address against a named address set; also checks that the packet is of the set's family."""

    side: Side
    name: str
    family: Literal[4, 6]


@dataclass(frozen=True, slots=True)
class Dport:
    """Match a range of destination ports, both ends included; stands behind a Proto."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Established:
    """Match packets of known flows (conntrack established or related)."""


@dataclass(frozen=True, slots=True)
class NotOpening:
    """Match TCP packets other than a bare SYN; stands behind a Proto("tcp")."""


@dataclass(frozen=True, slots=True)
class Random:
    """Match one packet in `modulus`, at random (numgen random mod N == 0)."""

    modulus: int


@dataclass(frozen=True, slots=True)
class Marked:
    """Match packets whose socket has this SO_MARK; a mark does not leave its network namespace."""

    value: int


@dataclass(frozen=True, slots=True)
class Untranslated:
    """Match packets of flows whose destination is the one that was dialled (no DNAT or redirect), and untracked packets."""


Match = Iif | Oif | Proto | Net | InSet | Dport | Established | NotOpening | Random | Marked | Untranslated


@dataclass(frozen=True, slots=True)
class Count:
    """Count packets and bytes."""


@dataclass(frozen=True, slots=True)
class Log:
    """Send the packet's head to an NFLOG group under a prefix of at most 127 bytes."""

    group: int
    prefix: str


@dataclass(frozen=True, slots=True)
class Go:
    """End the rule: accept, drop, return, or jump to a chain."""

    verdict: Literal["accept", "drop", "return", "jump"]
    chain: str = ""


@dataclass(frozen=True, slots=True)
class Dnat:
    """Send the flow to another address and port; only in a nat chain."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Replace the source by the address of the outgoing interface; only in a nat postrouting chain."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send the flow to a port of this network namespace; only in a nat chain of prerouting or output, behind a Proto."""

    port: int


@dataclass(frozen=True, slots=True)
class Notrack:
    """Keep the packet from connection tracking; only in a filter chain that stands before it (priority -300)."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Refuse a TCP packet with a reset, and end the rule; stands behind a Proto("tcp")."""


Statement = Count | Log | Go | Dnat | Masquerade | Redirect | Notrack | Reset


@dataclass(frozen=True, slots=True)
class Rule:
    """Apply statements, in order, to packets that meet every match."""

    matches: tuple[Match, ...]
    statements: tuple[Statement, ...]
    comment: str = ""  # at most 250 bytes; `nft list ruleset` shows it


@dataclass(frozen=True, slots=True)
class Hook:
    """Say where in the packet's way a base chain stands; its policy is accept."""

    type: Literal["filter", "nat"]
    hook: Literal["prerouting", "input", "forward", "output", "postrouting"]
    priority: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Hold rules; a base chain has a hook."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class AddressSet:
    """Name a set of addresses of one family."""

    name: str
    family: Literal[4, 6]
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Hold sets and chains of the `inet` family; loading one replaces the table of that name in one transaction."""

    name: str
    sets: tuple[AddressSet, ...]
    chains: tuple[Chain, ...]
