# SPDX-License-Identifier: Apache-2.0
"""A ruleset reads as `nft` would list it; that `nft` agrees is checked in tests/lab/test_kernel_rules.py, where it is."""

from ipaddress import ip_network

import pytest

from ztconform.lab import ruletext
from ztconform.lab.ruleset import (
    AddressSet,
    Chain,
    Count,
    Dnat,
    Dport,
    Established,
    Go,
    Hook,
    Iif,
    InSet,
    Log,
    Masquerade,
    Net,
    NotOpening,
    Oif,
    Proto,
    Random,
    Rule,
    Table,
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('iifname "cali0" oifname "eth0" jump in', Rule((Iif("cali0"), Oif("eth0")), (Go("jump", "in"),))),
        ("meta l4proto sctp return", Rule((Proto("sctp"),), (Go("return"),))),
        ("udp dport 53 accept", Rule((Proto("udp"), Dport(53, 53)), (Go("accept"),))),
        ("ip saddr @peers tcp dport 80-90", Rule((Proto("tcp"), InSet("saddr", "peers", 4), Dport(80, 90)), ())),
        ("ip6 daddr @peers", Rule((InSet("daddr", "peers", 6),), ())),
        ("ip saddr 10.0.0.0/8", Rule((Net("saddr", ip_network("10.0.0.0/8")),), ())),
        ("ip daddr != 10.0.0.1", Rule((Net("daddr", ip_network("10.0.0.1/32"), negate=True),), ())),
        ("ip6 daddr != fd00::/64", Rule((Net("daddr", ip_network("fd00::/64"), negate=True),), ())),
        (
            "ct state established,related tcp flags & (syn | ack) != syn accept",
            Rule((Established(), Proto("tcp"), NotOpening()), (Go("accept"),)),
        ),
        ("numgen random mod 3 0 dnat ip to 10.0.0.1:8080", Rule((Random(3),), (Dnat("10.0.0.1", 8080),))),
        ("dnat ip6 to [fd00::1]:8080", Rule((), (Dnat("fd00::1", 8080),))),
        ('oifname "eth0" masquerade', Rule((Oif("eth0"),), (Masquerade(),))),
        (
            'counter log prefix "in shop/payment" group 7 drop comment "default deny"',
            Rule((), (Count(), Log(7, "in shop/payment"), Go("drop")), "default deny"),
        ),
        ("comment \"a 'name'\"", Rule((), (), 'a "name"')),
    ],
)
def test_a_rule_reads_as_nft_lists_it(text: str, rule: Rule) -> None:
    assert text == ruletext.rule(rule)


def test_a_table_names_its_sets_in_numerical_order_and_its_hooks() -> None:
    peers = AddressSet("peers", 4, frozenset({"10.0.0.10", "10.0.0.9"}))
    none = AddressSet("none", 6, frozenset())
    forward = Chain("forward", (Rule((), (Go("drop"),)),), Hook("filter", "forward", -5))
    assert (
        "table inet policy {\n"
        "\tset peers {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.9, 10.0.0.10 }\n\t}\n"
        "\tset none {\n\t\ttype ipv6_addr\n\t}\n"
        "\tchain forward {\n\t\ttype filter hook forward priority -5; policy accept;\n\t\tdrop\n\t}\n"
        "\tchain in {\n\t}\n"
        "}\n"
    ) == ruletext.text(Table("policy", (peers, none), (forward, Chain("in", ()))))
