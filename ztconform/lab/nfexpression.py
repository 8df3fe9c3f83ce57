# SPDX-License-Identifier: Apache-2.0
"""How a `ruleset.Rule` becomes nf_tables expressions, laid out as the `nft` tool lays them out.

So `nft list ruleset` shows them in its own words. The messages around them are left to `nfnetlink`, and how a rule reads to
a person to `ruletext`.
"""

import ipaddress
import struct
from functools import lru_cache
from typing import assert_never

from ztconform.errors import InternalError
from ztconform.lab import netlink
from ztconform.lab.netlink import attribute, nest
from ztconform.lab.ruleset import (
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
    Untranslated,
)

# linux/netfilter.h, linux/in.h, linux/if.h
NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10
NF_DROP, NF_ACCEPT = 0, 1
IPPROTO = {"tcp": 6, "udp": 17, "sctp": 132}
IFNAMSIZ = 16
# linux/netfilter/nf_tables.h
NFTA_LIST_ELEM = 1
NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA = 4, 7
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_META_DREG, NFTA_META_KEY = 1, 2
NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA = 1, 2, 3
NFTA_BITWISE_SREG, NFTA_BITWISE_DREG, NFTA_BITWISE_LEN, NFTA_BITWISE_MASK, NFTA_BITWISE_XOR = 1, 2, 3, 4, 5
NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN = 1, 2, 3, 4
NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG = 1, 2
NFTA_CT_DREG, NFTA_CT_KEY = 1, 2
NFTA_NG_DREG, NFTA_NG_MODULUS, NFTA_NG_TYPE, NFTA_NG_OFFSET = 1, 2, 3, 4
NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS = 1, 2
NFTA_LOG_GROUP, NFTA_LOG_PREFIX = 1, 2
NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA = 1, 2
NFTA_REDIR_REG_PROTO_MIN = 1
NFTA_REJECT_TYPE, NFTA_REJECT_ICMP_CODE = 1, 2
NFTA_NAT_TYPE, NFTA_NAT_FAMILY, NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MIN = 1, 2, 3, 5
NFT_REG_VERDICT, NFT_REG_1, NFT_REG_2 = 0, 1, 2
NFT_RETURN, NFT_JUMP = -5, -3
NFT_META_MARK, NFT_META_IIFNAME, NFT_META_OIFNAME, NFT_META_NFPROTO, NFT_META_L4PROTO = 3, 6, 7, 15, 16
NFT_CMP_EQ, NFT_CMP_NEQ, NFT_CMP_LTE, NFT_CMP_GTE = 0, 1, 3, 5
NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER = 1, 2
NFT_CT_STATE, NFT_CT_STATUS = 0, 2
NFT_REJECT_TCP_RST = 1
NFT_NG_RANDOM = 1
NFT_NAT_DNAT = 1
CT_STATE_ESTABLISHED_RELATED = 2 | 4  # NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED
IPS_DST_NAT = 1 << 5  # linux/netfilter/nf_conntrack_common.h
# libnftnl/udata.h, which only `nft list` reads
NFTNL_UDATA_RULE_COMMENT = 0

COMMENT_LENGTH = 250  # bytes
PREFIX_LENGTH = 127  # bytes
ADDRESS_LENGTH = {4: 4, 6: 16}  # bytes, by family
_ADDRESS_OFFSET: dict[tuple[Side, int], int] = {("saddr", 4): 12, ("daddr", 4): 16, ("saddr", 6): 8, ("daddr", 6): 24}
_NFPROTO = {4: NFPROTO_IPV4, 6: NFPROTO_IPV6}
_SYN_ACK, _SYN = b"\x12", b"\x02"


def _be32(value: int) -> bytes:
    return struct.pack("!i" if value < 0 else "!I", value)


def _be16(value: int) -> bytes:
    return struct.pack("!H", value)


def number(kind: int, value: int) -> bytes:
    """Return an attribute of 32 bits in network byte order, as nf_tables wants them."""
    return attribute(kind, _be32(value))


def string(kind: int, text: str) -> bytes:
    """Return an attribute that holds a string."""
    return attribute(kind, netlink.name(text))


def _expression(name: str, *data: bytes) -> bytes:
    return nest(NFTA_LIST_ELEM, string(NFTA_EXPR_NAME, name), nest(NFTA_EXPR_DATA, *data))


def _meta(key: int) -> bytes:
    return _expression("meta", number(NFTA_META_KEY, key), number(NFTA_META_DREG, NFT_REG_1))


def _conntrack(key: int) -> bytes:
    return _expression("ct", number(NFTA_CT_KEY, key), number(NFTA_CT_DREG, NFT_REG_1))


def _cmp(op: int, value: bytes) -> bytes:
    data = nest(NFTA_CMP_DATA, attribute(NFTA_DATA_VALUE, value))
    return _expression("cmp", number(NFTA_CMP_SREG, NFT_REG_1), number(NFTA_CMP_OP, op), data)


def _masked(mask: bytes) -> bytes:
    return _expression(
        "bitwise",
        number(NFTA_BITWISE_SREG, NFT_REG_1),
        number(NFTA_BITWISE_DREG, NFT_REG_1),
        number(NFTA_BITWISE_LEN, len(mask)),
        nest(NFTA_BITWISE_MASK, attribute(NFTA_DATA_VALUE, mask)),
        nest(NFTA_BITWISE_XOR, attribute(NFTA_DATA_VALUE, bytes(len(mask)))),
    )


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression(
        "payload",
        number(NFTA_PAYLOAD_DREG, NFT_REG_1),
        number(NFTA_PAYLOAD_BASE, base),
        number(NFTA_PAYLOAD_OFFSET, offset),
        number(NFTA_PAYLOAD_LEN, length),
    )


def _address(side: Side, family: int) -> bytes:
    """Load an address of the packet, and end the rule where the packet is of the other family."""
    only = _meta(NFT_META_NFPROTO) + _cmp(NFT_CMP_EQ, bytes([_NFPROTO[family]]))
    return only + _payload(NFT_PAYLOAD_NETWORK_HEADER, _ADDRESS_OFFSET[side, family], ADDRESS_LENGTH[family])


def _interface(key: int, device: str) -> bytes:
    raw = device.encode()
    if not 0 < len(raw) < IFNAMSIZ:
        raise InternalError(f"no interface can be named {device!r}")
    return _meta(key) + _cmp(NFT_CMP_EQ, raw.ljust(IFNAMSIZ, b"\0"))


def _network(match: Net) -> bytes:
    network = match.network
    op = NFT_CMP_NEQ if match.negate else NFT_CMP_EQ
    mask = b"" if network.prefixlen == network.max_prefixlen else _masked(network.netmask.packed)
    return _address(match.side, network.version) + mask + _cmp(op, network.network_address.packed)


def _ports(match: Dport) -> bytes:
    if not 0 <= match.first <= match.last <= 0xFFFF:
        raise InternalError(f"no ports {match.first} to {match.last}")
    load = _payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)
    if match.first == match.last:
        return load + _cmp(NFT_CMP_EQ, _be16(match.first))
    return load + _cmp(NFT_CMP_GTE, _be16(match.first)) + _cmp(NFT_CMP_LTE, _be16(match.last))


@lru_cache(maxsize=8192)
def _match(match: Match) -> bytes:
    match match:
        case Iif(name):
            return _interface(NFT_META_IIFNAME, name)
        case Oif(name):
            return _interface(NFT_META_OIFNAME, name)
        case Proto(name):
            return _meta(NFT_META_L4PROTO) + _cmp(NFT_CMP_EQ, bytes([IPPROTO[name]]))
        case Net():
            return _network(match)
        case InSet(side, name, family):
            lookup = _expression("lookup", string(NFTA_LOOKUP_SET, name), number(NFTA_LOOKUP_SREG, NFT_REG_1))
            return _address(side, family) + lookup
        case Dport():
            return _ports(match)
        case Established():
            mask = _masked(netlink.u32(CT_STATE_ESTABLISHED_RELATED))
            return _conntrack(NFT_CT_STATE) + mask + _cmp(NFT_CMP_NEQ, bytes(4))
        case NotOpening():
            return _payload(NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1) + _masked(_SYN_ACK) + _cmp(NFT_CMP_NEQ, _SYN)
        case Random(modulus):
            kind = number(NFTA_NG_TYPE, NFT_NG_RANDOM) + number(NFTA_NG_OFFSET, 0)
            draw = _expression("numgen", number(NFTA_NG_DREG, NFT_REG_1), number(NFTA_NG_MODULUS, modulus), kind)
            return draw + _cmp(NFT_CMP_EQ, bytes(4))
        case Marked(value):
            return _meta(NFT_META_MARK) + _cmp(NFT_CMP_EQ, netlink.u32(value))
        case Untranslated():
            return _conntrack(NFT_CT_STATUS) + _masked(netlink.u32(IPS_DST_NAT)) + _cmp(NFT_CMP_EQ, bytes(4))
        case _:
            assert_never(match)


def _immediate(register: int, data: bytes) -> bytes:
    return _expression("immediate", number(NFTA_IMMEDIATE_DREG, register), nest(NFTA_IMMEDIATE_DATA, data))


def _verdict(go: Go) -> bytes:
    code = {"accept": NF_ACCEPT, "drop": NF_DROP, "return": NFT_RETURN, "jump": NFT_JUMP}[go.verdict]
    chain = string(NFTA_VERDICT_CHAIN, go.chain) if go.verdict == "jump" else b""
    return _immediate(NFT_REG_VERDICT, nest(NFTA_DATA_VERDICT, number(NFTA_VERDICT_CODE, code), chain))


def _dnat(dnat: Dnat) -> bytes:
    address = ipaddress.ip_address(dnat.address)
    nat = _expression(
        "nat",
        number(NFTA_NAT_TYPE, NFT_NAT_DNAT),
        number(NFTA_NAT_FAMILY, _NFPROTO[address.version]),
        number(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1),
        number(NFTA_NAT_REG_PROTO_MIN, NFT_REG_2),
    )
    port = attribute(NFTA_DATA_VALUE, _be16(dnat.port))
    return _immediate(NFT_REG_1, attribute(NFTA_DATA_VALUE, address.packed)) + _immediate(NFT_REG_2, port) + nat


@lru_cache(maxsize=8192)
def _statement(statement: Statement) -> bytes:
    match statement:
        case Count():
            zero = struct.pack("!Q", 0)
            return _expression("counter", attribute(NFTA_COUNTER_BYTES, zero), attribute(NFTA_COUNTER_PACKETS, zero))
        case Log(group, prefix):
            _fits("log prefix", prefix, PREFIX_LENGTH)
            return _expression("log", attribute(NFTA_LOG_GROUP, _be16(group)), string(NFTA_LOG_PREFIX, prefix))
        case Go():
            return _verdict(statement)
        case Dnat():
            return _dnat(statement)
        case Masquerade():
            return _expression("masq")
        case Redirect(port):
            target = _immediate(NFT_REG_1, attribute(NFTA_DATA_VALUE, _be16(port)))
            return target + _expression("redir", number(NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1))
        case Notrack():
            return _expression("notrack")
        case Reset():
            code = attribute(NFTA_REJECT_ICMP_CODE, b"\0")  # the kernel reads it for ICMP alone; nft sends it all the same
            return _expression("reject", number(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST), code)
        case _:
            assert_never(statement)


def _fits(what: str, text: str, length: int) -> None:
    if len(text.encode()) > length or "\0" in text:
        raise InternalError(f"the {what} {text!r} is longer than {length} bytes")


@lru_cache(maxsize=8192)
def encode(rule: Rule) -> bytes:
    """Encode all of a rule but the names of its table and chain.

    Raises InternalError for what no kernel could take: a name, prefix or comment that is too long, an impossible port.
    """
    body = nest(NFTA_RULE_EXPRESSIONS, *map(_match, rule.matches), *map(_statement, rule.statements))
    if rule.comment:
        _fits("comment", rule.comment, COMMENT_LENGTH)
        text = netlink.name(rule.comment)
        body += attribute(NFTA_RULE_USERDATA, bytes([NFTNL_UDATA_RULE_COMMENT, len(text)]) + text)
    return body
