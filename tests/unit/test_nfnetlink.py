# SPDX-License-Identifier: Apache-2.0
"""A table is one transaction of well-formed messages in the order that the kernel needs; what none could take is refused here.

That the kernel does with them what they say is tested with packets, in tests/lab/test_kernel_rules.py.
"""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.errors import InternalError
from ztconform.lab import netlink, nfnetlink
from ztconform.lab.ruleset import AddressSet, Chain, Dport, Go, Hook, Iif, Log, Proto, Rule, Table

FORWARD = Hook("filter", "forward", 0)
NAMES = {
    nfnetlink.NFNL_MSG_BATCH_BEGIN: "begin",
    nfnetlink.NFNL_MSG_BATCH_END: "end",
    nfnetlink.NFT_MSG_NEWTABLE: "table",
    nfnetlink.NFT_MSG_DELTABLE: "no table",
    nfnetlink.NFT_MSG_NEWSET: "set",
    nfnetlink.NFT_MSG_NEWSETELEM: "elements",
    nfnetlink.NFT_MSG_NEWCHAIN: "chain",
    nfnetlink.NFT_MSG_NEWRULE: "rule",
}


def of(batch: bytes) -> list[str]:
    """Return the messages of a batch by name."""
    return [NAMES[kind & 0xFF if kind >> 8 == nfnetlink.NFNL_SUBSYS_NFTABLES else kind] for kind, *_ in netlink.frames(batch)]


def addresses(count: int) -> frozenset[str]:
    """Return so many IPv6 addresses."""
    return frozenset(str(ipaddress.IPv6Address((0xFD00 << 112) + number)) for number in range(count))


def test_a_table_replaces_its_namesake_and_every_chain_is_there_before_a_rule_jumps() -> None:
    jump = Rule((), (Go("jump", "in"),))
    chains = (Chain("forward", (jump, jump), FORWARD), Chain("in", (Rule((), (Go("drop"),)),)))
    table = Table("policy", (AddressSet("one", 4, frozenset({"10.0.0.1"})), AddressSet("none", 4, frozenset())), chains)
    around = ["begin", "table", "no table", "table"]
    assert [*around, "set", "elements", "set", "chain", "chain", "rule", "rule", "rule", "end"] == of(nfnetlink.encode(table))
    assert ["begin", "table", "no table", "end"] == of(nfnetlink.delete("policy"))


def test_consent_is_asked_for_once_by_the_last_message_before_the_end() -> None:
    batch = nfnetlink.encode(Table("policy", (), (Chain("forward", (), FORWARD),)))
    asking = [bool(flags & netlink.NLM_F_ACK) for _, flags, *_ in netlink.frames(batch)]
    assert [False, False, False, False, True, False] == asking


@given(st.integers(0, 4500))
def test_no_attribute_outgrows_64_kib_and_no_element_is_missing(count: int) -> None:
    batch = nfnetlink.encode(Table("policy", (AddressSet("many", 6, addresses(count)),), ()))
    found = set()
    for kind, _, _, start, end in netlink.frames(batch):
        if kind & 0xFF == nfnetlink.NFT_MSG_NEWSETELEM and kind >> 8:
            elements = dict(netlink.attributes(batch, start + 4, end))[nfnetlink.NFTA_SET_ELEM_LIST_ELEMENTS]
            assert len(elements) + 4 <= 0xFFFF
            found |= {raw[-16:] for _, raw in netlink.attributes(elements, 0, len(elements))}
    assert {ipaddress.IPv6Address(address).packed for address in addresses(count)} == found


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=40), max_size=20))
def test_messages_follow_each_other_without_a_gap_whatever_the_comments_are(comments: list[str]) -> None:
    rules = tuple(Rule((Proto("tcp"),), (Go("accept"),), comment) for comment in comments)
    batch = nfnetlink.encode(Table("policy", (), (Chain("forward", rules, FORWARD),)))
    ends = [(end + 3) & ~3 for *_, end in netlink.frames(batch)]
    starts = [start - netlink.HEADER_LENGTH for *_, start, _ in netlink.frames(batch)]
    assert [*starts[1:], len(batch)] == ends
    assert list(range(len(comments) + 6)) == [sequence for _, _, sequence, *_ in netlink.frames(batch)]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule((), (), "x" * 251), "comment .* 250 bytes"),
        (Rule((), (), "é" * 126), "comment .* 250 bytes"),
        (Rule((), (Log(7, "x" * 128),)), "log prefix .* 127 bytes"),
        (Rule((Iif("a-name-of-16-let"),), ()), "no interface can be named 'a-name-of-16-let'"),
        (Rule((Iif(""),), ()), "no interface can be named ''"),
        (Rule((Proto("tcp"), Dport(90, 80)), ()), "no ports 90 to 80"),
        (Rule((Proto("tcp"), Dport(1, 65536)), ()), "no ports 1 to 65536"),
    ],
)
def test_what_no_kernel_could_take_is_an_internal_error(rule: Rule, said: str) -> None:
    with pytest.raises(InternalError, match=re.compile(said)):
        nfnetlink.encode(Table("policy", (), (Chain("forward", (rule,), FORWARD),)))


def test_the_longest_comment_and_prefix_that_the_kernel_takes_are_encoded() -> None:
    rule = Rule((), (Log(7, "p" * 127),), "c" * 250)
    batch = nfnetlink.encode(Table("policy", (), (Chain("forward", (rule,), FORWARD),)))
    assert b"p" * 127 + b"\0" in batch
    assert bytes([0, 251]) + b"c" * 250 + b"\0" in batch
