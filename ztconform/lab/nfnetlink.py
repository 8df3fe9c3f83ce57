# SPDX-License-Identifier: Apache-2.0
"""How a `ruleset.Table` becomes nf_tables messages, and how the kernel takes them: all or nothing, in one transaction.

What the rules are is left to the compilers, and how they read to a person to `ruletext`. Expressions are laid out as the
`nft` tool lays them out, so that `nft list ruleset` shows them in its own words.
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import assert_never

from ztconform.errors import ClusterError, InternalError
from ztconform.lab import rtnetlink
from ztconform.lab.rtnetlink import attribute, nest
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
    Match,
    Net,
    NotOpening,
    Oif,
    Proto,
    Random,
    Rule,
    Side,
    Statement,
    Table,
)

# linux/netfilter/nfnetlink.h
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
NFNL_SUBSYS_NFTABLES = 10
# linux/netfilter.h, linux/in.h, linux/if.h
NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 = 1, 2, 10
NF_DROP, NF_ACCEPT = 0, 1
IPPROTO = {"tcp": 6, "udp": 17, "sctp": 132}
HOOKNUM = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
IFNAMSIZ = 16
# linux/netfilter/nf_tables.h
NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM = 0, 2, 3, 6, 9, 12
NFTA_LIST_ELEM = 1
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = 1, 3, 4, 5, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA = 1, 2, 4, 7
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN, NFTA_SET_ID = 1, 2, 4, 5, 10
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY = 1
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
NFTA_NAT_TYPE, NFTA_NAT_FAMILY, NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MIN = 1, 2, 3, 5
NFT_REG_VERDICT, NFT_REG_1, NFT_REG_2 = 0, 1, 2
NFT_RETURN, NFT_JUMP = -5, -3
NFT_META_IIFNAME, NFT_META_OIFNAME, NFT_META_NFPROTO, NFT_META_L4PROTO = 6, 7, 15, 16
NFT_CMP_EQ, NFT_CMP_NEQ, NFT_CMP_LTE, NFT_CMP_GTE = 0, 1, 3, 5
NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER = 1, 2
NFT_CT_STATE = 0
NFT_NG_RANDOM = 1
NFT_NAT_DNAT = 1
CT_STATE_ESTABLISHED_RELATED = 2 | 4  # NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED
# libnftnl/udata.h and nft's own data types, which only `nft list` reads
NFTNL_UDATA_RULE_COMMENT = 0
TYPE_IPADDR, TYPE_IP6ADDR = 7, 8

COMMENT_LENGTH = 250  # bytes
PREFIX_LENGTH = 127  # bytes
_ELEMENTS = 1000  # of a set in one message: an attribute holds at most 64 KiB
_ADDRESS_OFFSET: dict[tuple[Side, int], int] = {("saddr", 4): 12, ("daddr", 4): 16, ("saddr", 6): 8, ("daddr", 6): 24}
_ADDRESS_LENGTH = {4: 4, 6: 16}
_NFPROTO = {4: NFPROTO_IPV4, 6: NFPROTO_IPV6}
_SYN_ACK, _SYN = b"\x12", b"\x02"


def _be32(value: int) -> bytes:
    return struct.pack("!i" if value < 0 else "!I", value)


def _be16(value: int) -> bytes:
    return struct.pack("!H", value)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, _be32(value))


def _name(kind: int, text: str) -> bytes:
    return attribute(kind, rtnetlink.name(text))


def _expression(name: str, *data: bytes) -> bytes:
    return nest(NFTA_LIST_ELEM, _name(NFTA_EXPR_NAME, name), nest(NFTA_EXPR_DATA, *data))


def _meta(key: int) -> bytes:
    return _expression("meta", _number(NFTA_META_KEY, key), _number(NFTA_META_DREG, NFT_REG_1))


def _cmp(op: int, value: bytes) -> bytes:
    data = nest(NFTA_CMP_DATA, attribute(NFTA_DATA_VALUE, value))
    return _expression("cmp", _number(NFTA_CMP_SREG, NFT_REG_1), _number(NFTA_CMP_OP, op), data)


def _masked(mask: bytes) -> bytes:
    return _expression(
        "bitwise",
        _number(NFTA_BITWISE_SREG, NFT_REG_1),
        _number(NFTA_BITWISE_DREG, NFT_REG_1),
        _number(NFTA_BITWISE_LEN, len(mask)),
        nest(NFTA_BITWISE_MASK, attribute(NFTA_DATA_VALUE, mask)),
        nest(NFTA_BITWISE_XOR, attribute(NFTA_DATA_VALUE, bytes(len(mask)))),
    )


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression(
        "payload",
        _number(NFTA_PAYLOAD_DREG, NFT_REG_1),
        _number(NFTA_PAYLOAD_BASE, base),
        _number(NFTA_PAYLOAD_OFFSET, offset),
        _number(NFTA_PAYLOAD_LEN, length),
    )


def _address(side: Side, family: int) -> bytes:
    """Load an address of the packet, and end the rule where the packet is of the other family."""
    only = _meta(NFT_META_NFPROTO) + _cmp(NFT_CMP_EQ, bytes([_NFPROTO[family]]))
    return only + _payload(NFT_PAYLOAD_NETWORK_HEADER, _ADDRESS_OFFSET[side, family], _ADDRESS_LENGTH[family])


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
            lookup = _expression("lookup", _name(NFTA_LOOKUP_SET, name), _number(NFTA_LOOKUP_SREG, NFT_REG_1))
            return _address(side, family) + lookup
        case Dport():
            return _ports(match)
        case Established():
            state = _expression("ct", _number(NFTA_CT_KEY, NFT_CT_STATE), _number(NFTA_CT_DREG, NFT_REG_1))
            return state + _masked(rtnetlink.u32(CT_STATE_ESTABLISHED_RELATED)) + _cmp(NFT_CMP_NEQ, bytes(4))
        case NotOpening():
            return _payload(NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1) + _masked(_SYN_ACK) + _cmp(NFT_CMP_NEQ, _SYN)
        case Random(modulus):
            kind = _number(NFTA_NG_TYPE, NFT_NG_RANDOM) + _number(NFTA_NG_OFFSET, 0)
            draw = _expression("numgen", _number(NFTA_NG_DREG, NFT_REG_1), _number(NFTA_NG_MODULUS, modulus), kind)
            return draw + _cmp(NFT_CMP_EQ, bytes(4))
        case _:
            assert_never(match)


def _immediate(register: int, data: bytes) -> bytes:
    return _expression("immediate", _number(NFTA_IMMEDIATE_DREG, register), nest(NFTA_IMMEDIATE_DATA, data))


def _verdict(go: Go) -> bytes:
    code = {"accept": NF_ACCEPT, "drop": NF_DROP, "return": NFT_RETURN, "jump": NFT_JUMP}[go.verdict]
    chain = _name(NFTA_VERDICT_CHAIN, go.chain) if go.verdict == "jump" else b""
    return _immediate(NFT_REG_VERDICT, nest(NFTA_DATA_VERDICT, _number(NFTA_VERDICT_CODE, code), chain))


def _dnat(dnat: Dnat) -> bytes:
    address = ipaddress.ip_address(dnat.address)
    nat = _expression(
        "nat",
        _number(NFTA_NAT_TYPE, NFT_NAT_DNAT),
        _number(NFTA_NAT_FAMILY, _NFPROTO[address.version]),
        _number(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1),
        _number(NFTA_NAT_REG_PROTO_MIN, NFT_REG_2),
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
            return _expression("log", attribute(NFTA_LOG_GROUP, _be16(group)), _name(NFTA_LOG_PREFIX, prefix))
        case Go():
            return _verdict(statement)
        case Dnat():
            return _dnat(statement)
        case Masquerade():
            return _expression("masq")
        case _:
            assert_never(statement)


def _fits(what: str, text: str, length: int) -> None:
    if len(text.encode()) > length or "\0" in text:
        raise InternalError(f"the {what} {text!r} is longer than {length} bytes")


@lru_cache(maxsize=8192)
def _rule(rule: Rule) -> bytes:
    """Encode all of a rule but the names of its table and chain."""
    body = nest(NFTA_RULE_EXPRESSIONS, *map(_match, rule.matches), *map(_statement, rule.statements))
    if rule.comment:
        _fits("comment", rule.comment, COMMENT_LENGTH)
        text = rtnetlink.name(rule.comment)
        body += attribute(NFTA_RULE_USERDATA, bytes([NFTNL_UDATA_RULE_COMMENT, len(text)]) + text)
    return body


def _message(kind: int, flags: int, *attributes: bytes) -> tuple[int, int, bytes]:
    return NFNL_SUBSYS_NFTABLES << 8 | kind, flags, struct.pack("!BBH", NFPROTO_INET, 0, 0) + b"".join(attributes)


def _set_messages(table: bytes, number: int, addresses: AddressSet) -> Iterator[tuple[int, int, bytes]]:
    key = TYPE_IPADDR if addresses.family == 4 else TYPE_IP6ADDR
    yield _message(
        NFT_MSG_NEWSET,
        rtnetlink.NLM_F_CREATE,
        attribute(NFTA_SET_TABLE, table),
        _name(NFTA_SET_NAME, addresses.name),
        _number(NFTA_SET_KEY_TYPE, key),
        _number(NFTA_SET_KEY_LEN, _ADDRESS_LENGTH[addresses.family]),
        _number(NFTA_SET_ID, number),
    )
    family = socket.AF_INET if addresses.family == 4 else socket.AF_INET6
    packed = sorted(socket.inet_pton(family, address) for address in addresses.addresses)
    for start in range(0, len(packed), _ELEMENTS):
        chunk = packed[start : start + _ELEMENTS]
        elements = (nest(NFTA_LIST_ELEM, nest(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, value))) for value in chunk)
        yield _message(
            NFT_MSG_NEWSETELEM,
            rtnetlink.NLM_F_CREATE,
            attribute(NFTA_SET_ELEM_LIST_TABLE, table),
            _name(NFTA_SET_ELEM_LIST_SET, addresses.name),
            nest(NFTA_SET_ELEM_LIST_ELEMENTS, *elements),
        )


def _chain_message(table: bytes, chain: Chain) -> tuple[int, int, bytes]:
    base = b"" if chain.hook is None else _base(chain.hook)
    names = attribute(NFTA_CHAIN_TABLE, table) + _name(NFTA_CHAIN_NAME, chain.name)
    return _message(NFT_MSG_NEWCHAIN, rtnetlink.NLM_F_CREATE, names, base)


def _base(hook: Hook) -> bytes:
    place = nest(NFTA_CHAIN_HOOK, _number(NFTA_HOOK_HOOKNUM, HOOKNUM[hook.hook]), _number(NFTA_HOOK_PRIORITY, hook.priority))
    return place + _name(NFTA_CHAIN_TYPE, hook.type) + _number(NFTA_CHAIN_POLICY, NF_ACCEPT)


def _batch(messages: list[tuple[int, int, bytes]]) -> bytes:
    """Frame messages as one transaction; the kernel is asked for a word of consent by the last of them."""
    around = struct.pack("!BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
    request = rtnetlink.NLM_F_REQUEST
    framed = [rtnetlink.frame(NFNL_MSG_BATCH_BEGIN, request, 0, around)]
    for sequence, (kind, flags, body) in enumerate(messages, 1):
        consent = rtnetlink.NLM_F_ACK if sequence == len(messages) else 0
        framed.append(rtnetlink.frame(kind, request | flags | consent, sequence, body))
    framed.append(rtnetlink.frame(NFNL_MSG_BATCH_END, request, len(messages) + 1, around))
    return b"".join(framed)


def encode(table: Table) -> bytes:
    """Return the transaction that puts a table into force, in the place of one of the same name if there is one.

    Raises InternalError for what no kernel could take: a name, prefix or comment that is too long, an impossible port.
    """
    name = rtnetlink.name(table.name)
    messages = _removal(name)
    messages.append(_message(NFT_MSG_NEWTABLE, rtnetlink.NLM_F_CREATE, attribute(NFTA_TABLE_NAME, name)))
    for number, addresses in enumerate(table.sets, 1):
        messages += _set_messages(name, number, addresses)
    messages += [_chain_message(name, chain) for chain in table.chains]  # all of them first: rules jump to any
    append = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_APPEND
    for chain in table.chains:
        place = attribute(NFTA_RULE_TABLE, name) + _name(NFTA_RULE_CHAIN, chain.name)
        messages += [_message(NFT_MSG_NEWRULE, append, place, _rule(rule)) for rule in chain.rules]
    return _batch(messages)


def delete(name: str) -> bytes:
    """Return the transaction that removes a table, whether or not there is one."""
    return _batch(_removal(rtnetlink.name(name)))


def _removal(name: bytes) -> list[tuple[int, int, bytes]]:
    table = attribute(NFTA_TABLE_NAME, name)
    # Created first, because deleting what is not there is an error, and which kernels ignore that differs.
    return [_message(NFT_MSG_NEWTABLE, rtnetlink.NLM_F_CREATE, table), _message(NFT_MSG_DELTABLE, 0, table)]


def load(sock: socket.socket, batch: bytes) -> None:
    """Have the kernel take a transaction; when this returns it is in force.

    Raises ClusterError naming the object that the kernel refused, and then nothing at all has changed.
    """
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < len(batch) + 64:  # a transaction must fit as one
        rtnetlink.enlarge(sock, "SNDBUF", len(batch) + 64)
    try:
        sock.send(batch)
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise ClusterError(f"the kernel did not take a ruleset of {len(batch)} bytes: {error.strerror}") from error
        raise ClusterError(
            f"a ruleset of {len(batch)} bytes is more than this machine takes at once: "
            f"as root run `sysctl -w net.core.wmem_max={len(batch)}`, or test with fewer pods and policies"
        ) from error
    refused, consented = _answers(sock)
    if refused:
        what, first = _object(batch, refused[0].sequence), refused[0]
        # ENOENT is also the answer to an expression or chain type whose module there is not.
        lacking = first.error in (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT) and not first.text
        cure = "; it may lack a part of nf_tables: use a kernel with CONFIG_NF_TABLES_INET and all of NFT_*" if lacking else ""
        raise ClusterError(f"the kernel refused {what}: {first.why}{cure}")
    if not consented:
        raise ClusterError("the kernel did not say whether it took a ruleset")


def _answers(sock: socket.socket) -> tuple[list[rtnetlink.Refusal], bool]:
    """Return refusals and whether there was consent; all answers are queued before `send` returns."""
    refused: list[rtnetlink.Refusal] = []
    consented = False
    while True:
        try:
            data = sock.recv(1 << 17, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return refused, consented
        except OSError as error:  # ENOBUFS: more refusals than the socket holds; those before it are read already
            if error.errno != errno.ENOBUFS:
                raise ClusterError(f"the kernel's answer to a ruleset cannot be read: {error.strerror}") from error
            continue
        for kind, flags, sequence, start, end in rtnetlink.frames(data):
            if kind == rtnetlink.NLMSG_ERROR:
                answer = rtnetlink.acknowledgement(data, flags, sequence, start, end)
                refused += [answer] if answer.error else []
                consented = consented or not answer.error


_NAMED = {
    NFT_MSG_NEWTABLE: "table",
    NFT_MSG_DELTABLE: "deletion of table",
    NFT_MSG_NEWSET: "set",
    NFT_MSG_NEWSETELEM: "elements of set",
    NFT_MSG_NEWCHAIN: "chain",
    NFT_MSG_NEWRULE: "rule of chain",
}


def _object(batch: bytes, wanted: int) -> str:
    """Name what a message of a batch is about, for the one that was refused."""
    for kind, _, sequence, start, end in rtnetlink.frames(batch):
        if sequence != wanted or kind >> 8 != NFNL_SUBSYS_NFTABLES:
            continue
        found = dict(rtnetlink.attributes(batch, start + 4, end))
        what = kind & 0xFF
        table = _text(found.get(1, b""))  # the table's name is attribute 1 of every message
        if what in (NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE):
            return f"{_NAMED[what]} {table}"
        own = found.get(NFTA_CHAIN_NAME if what == NFT_MSG_NEWCHAIN else 2, b"")
        comment = found.get(NFTA_RULE_USERDATA, b"") if what == NFT_MSG_NEWRULE else b""
        return f"{_NAMED[what]} {table} {_text(own)}" + (f' "{_text(comment[2:])}"' if comment else "")
    return "a ruleset"


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
