# SPDX-License-Identifier: Apache-2.0
"""How a ruleset reads to a person: the words of the `nft` tool, which takes them back with `nft -f`.

It is for reports and for understanding alone; the kernel gets its rules from `nfnetlink`.
"""

import ipaddress
from collections.abc import Sequence
from typing import assert_never

from ztconform.lab.ruleset import (
    AddressSet,
    Chain,
    Count,
    Dnat,
    Dport,
    Established,
    Go,
    Iif,
    InSet,
    Log,
    Marked,
    Masquerade,
    Match,
    Net,
    NotOpening,
    Notrack,
    Oif,
    Proto,
    Random,
    Redirect,
    Reset,
    Rule,
    Side,
    Statement,
    Table,
    Untranslated,
)


def text(table: Table) -> str:
    """Return a table in nft syntax."""
    lines = [f"table inet {table.name} {{"]
    for addresses in table.sets:
        lines += _set(addresses)
    for chain in table.chains:
        lines += _chain(chain)
    return "\n".join([*lines, "}"]) + "\n"


def rule(rule: Rule) -> str:
    """Return a rule in nft syntax."""
    words = [*_matches(rule.matches), *map(_statement, rule.statements)]
    if rule.comment:
        words.append(f"comment {_quoted(rule.comment)}")
    return " ".join(words)


def _set(addresses: AddressSet) -> list[str]:
    kind = "ipv4_addr" if addresses.family == 4 else "ipv6_addr"
    lines = [f"\tset {addresses.name} {{", f"\t\ttype {kind}"]
    if addresses.addresses:
        ordered = sorted(map(ipaddress.ip_address, addresses.addresses), key=int)
        lines.append(f"\t\telements = {{ {', '.join(map(str, ordered))} }}")
    return [*lines, "\t}"]


def _chain(chain: Chain) -> list[str]:
    lines = [f"\tchain {chain.name} {{"]
    if chain.hook is not None:
        hook = chain.hook
        lines.append(f"\t\ttype {hook.type} hook {hook.hook} priority {hook.priority}; policy accept;")
    return [*lines, *(f"\t\t{rule(each)}" for each in chain.rules), "\t}"]


def _matches(matches: Sequence[Match]) -> list[str]:
    """Return matches in words; a protocol is said by the port or flags behind it, as `nft` says it."""
    words = []
    protocol = ""
    for place, match in enumerate(matches):
        if isinstance(match, Proto):
            protocol = match.name
            following = matches[place + 1 :]
            if not any(isinstance(later, Dport | NotOpening) for later in following):
                words.append(f"meta l4proto {match.name}")
        else:
            words.append(_match(match, protocol))
    return words


def _match(match: Match, protocol: str) -> str:
    match match:
        case Iif(name):
            return f"iifname {_quoted(name)}"
        case Oif(name):
            return f"oifname {_quoted(name)}"
        case Proto(name):
            return f"meta l4proto {name}"
        case Net(side, network, negate):
            return _network(side, network, negate)
        case InSet(side, name, family):
            return f"{'ip' if family == 4 else 'ip6'} {side} @{name}"
        case Dport(first, last):
            return f"{protocol or 'th'} dport {first}" + (f"-{last}" if last != first else "")
        case Established():
            return "ct state established,related"
        case NotOpening():
            return "tcp flags & (syn | ack) != syn"
        case Random(modulus):
            return f"numgen random mod {modulus} 0"
        case Marked(value):
            return f"meta mark 0x{value:08x}"
        case Untranslated():
            return "ct status & dnat == 0"
        case _:
            assert_never(match)


def _network(side: Side, network: ipaddress.IPv4Network | ipaddress.IPv6Network, negate: bool) -> str:
    single = network.prefixlen == network.max_prefixlen
    where = str(network.network_address) if single else str(network)
    return f"{'ip' if network.version == 4 else 'ip6'} {side} {'!= ' if negate else ''}{where}"


def _statement(statement: Statement) -> str:
    match statement:
        case Count():
            return "counter"
        case Log(group, prefix):
            return f"log prefix {_quoted(prefix)} group {group}"
        case Go(verdict, chain):
            return f"{verdict} {chain}" if verdict == "jump" else verdict
        case Dnat(address, port):
            return f"dnat ip to {address}:{port}" if ":" not in address else f"dnat ip6 to [{address}]:{port}"
        case Masquerade():
            return "masquerade"
        case Redirect(port):
            return f"redirect to :{port}"
        case Notrack():
            return "notrack"
        case Reset():
            return "reject with tcp reset"
        case _:
            assert_never(statement)


def _quoted(words: str) -> str:
    # nft has no way to write a quotation mark within a string, and no name in Kubernetes contains one.
    return '"' + words.replace('"', "'") + '"'
