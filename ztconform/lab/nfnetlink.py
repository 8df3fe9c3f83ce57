# SPDX-License-Identifier: Apache-2.0
"""How a `ruleset.Table` becomes nf_tables messages, and how the kernel takes them: all or nothing, in one transaction.

What the rules are is left to the compilers, and how one is encoded to `nfexpression`.
"""

import errno
import socket
import struct
from collections.abc import Iterator

from ztconform.errors import ClusterError
from ztconform.lab import netlink, nfexpression
from ztconform.lab.netlink import attribute, nest
from ztconform.lab.nfexpression import (
    ADDRESS_LENGTH,
    NF_ACCEPT,
    NFTA_DATA_VALUE,
    NFTA_LIST_ELEM,
    NFTA_RULE_USERDATA,
    number,
    string,
)
from ztconform.lab.ruleset import AddressSet, Chain, Hook, Table

# linux/netfilter/nfnetlink.h
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
NFNL_SUBSYS_NFTABLES = 10
# linux/netfilter.h
NFPROTO_INET = 1
HOOKNUM = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
# linux/netfilter/nf_tables.h
NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM = 0, 2, 3, 6, 9, 12
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = 1, 3, 4, 5, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN = 1, 2
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN, NFTA_SET_ID = 1, 2, 4, 5, 10
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY = 1
# nft's own data types, which only `nft list` reads
TYPE_IPADDR, TYPE_IP6ADDR = 7, 8

_ELEMENTS = 1000  # of a set in one message: an attribute holds at most 64 KiB


def _message(kind: int, flags: int, *attributes: bytes) -> tuple[int, int, bytes]:
    return NFNL_SUBSYS_NFTABLES << 8 | kind, flags, struct.pack("!BBH", NFPROTO_INET, 0, 0) + b"".join(attributes)


def _set_messages(table: bytes, set_id: int, addresses: AddressSet) -> Iterator[tuple[int, int, bytes]]:
    key = TYPE_IPADDR if addresses.family == 4 else TYPE_IP6ADDR
    yield _message(
        NFT_MSG_NEWSET,
        netlink.NLM_F_CREATE,
        attribute(NFTA_SET_TABLE, table),
        string(NFTA_SET_NAME, addresses.name),
        number(NFTA_SET_KEY_TYPE, key),
        number(NFTA_SET_KEY_LEN, ADDRESS_LENGTH[addresses.family]),
        number(NFTA_SET_ID, set_id),
    )
    family = socket.AF_INET if addresses.family == 4 else socket.AF_INET6
    packed = sorted(socket.inet_pton(family, address) for address in addresses.addresses)
    for start in range(0, len(packed), _ELEMENTS):
        chunk = packed[start : start + _ELEMENTS]
        elements = (nest(NFTA_LIST_ELEM, nest(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, value))) for value in chunk)
        yield _message(
            NFT_MSG_NEWSETELEM,
            netlink.NLM_F_CREATE,
            attribute(NFTA_SET_ELEM_LIST_TABLE, table),
            string(NFTA_SET_ELEM_LIST_SET, addresses.name),
            nest(NFTA_SET_ELEM_LIST_ELEMENTS, *elements),
        )


def _chain_message(table: bytes, chain: Chain) -> tuple[int, int, bytes]:
    base = b"" if chain.hook is None else _base(chain.hook)
    names = attribute(NFTA_CHAIN_TABLE, table) + string(NFTA_CHAIN_NAME, chain.name)
    return _message(NFT_MSG_NEWCHAIN, netlink.NLM_F_CREATE, names, base)


def _base(hook: Hook) -> bytes:
    place = nest(NFTA_CHAIN_HOOK, number(NFTA_HOOK_HOOKNUM, HOOKNUM[hook.hook]), number(NFTA_HOOK_PRIORITY, hook.priority))
    return place + string(NFTA_CHAIN_TYPE, hook.type) + number(NFTA_CHAIN_POLICY, NF_ACCEPT)


def _batch(messages: list[tuple[int, int, bytes]]) -> bytes:
    """Frame messages as one transaction; the kernel is asked for a word of consent by the last of them."""
    around = struct.pack("!BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
    request = netlink.NLM_F_REQUEST
    framed = [netlink.frame(NFNL_MSG_BATCH_BEGIN, request, 0, around)]
    for sequence, (kind, flags, body) in enumerate(messages, 1):
        consent = netlink.NLM_F_ACK if sequence == len(messages) else 0
        framed.append(netlink.frame(kind, request | flags | consent, sequence, body))
    framed.append(netlink.frame(NFNL_MSG_BATCH_END, request, len(messages) + 1, around))
    return b"".join(framed)


def encode(table: Table) -> bytes:
    """Return the transaction that puts a table into force, in the place of one of the same name if there is one.

    Raises InternalError for what no kernel could take: a name, prefix or comment that is too long, an impossible port.
    """
    name = netlink.name(table.name)
    messages = _removal(name)
    messages.append(_message(NFT_MSG_NEWTABLE, netlink.NLM_F_CREATE, attribute(NFTA_TABLE_NAME, name)))
    for set_id, addresses in enumerate(table.sets, 1):
        messages += _set_messages(name, set_id, addresses)
    messages += [_chain_message(name, chain) for chain in table.chains]  # all of them first: rules jump to any
    append = netlink.NLM_F_CREATE | netlink.NLM_F_APPEND
    for chain in table.chains:
        place = attribute(NFTA_RULE_TABLE, name) + string(NFTA_RULE_CHAIN, chain.name)
        messages += [_message(NFT_MSG_NEWRULE, append, place, nfexpression.encode(rule)) for rule in chain.rules]
    return _batch(messages)


def delete(name: str) -> bytes:
    """Return the transaction that removes a table, whether or not there is one."""
    return _batch(_removal(netlink.name(name)))


def _removal(name: bytes) -> list[tuple[int, int, bytes]]:
    table = attribute(NFTA_TABLE_NAME, name)
    # Created first, because deleting what is not there is an error, and which kernels ignore that differs.
    return [_message(NFT_MSG_NEWTABLE, netlink.NLM_F_CREATE, table), _message(NFT_MSG_DELTABLE, 0, table)]


def load(sock: socket.socket, batch: bytes) -> None:
    """Have the kernel take a transaction; when this returns it is in force.

    Raises ClusterError naming the object that the kernel refused, and then nothing at all has changed.
    """
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < len(batch) + 64:  # a transaction must fit as one
        netlink.enlarge(sock, "SNDBUF", len(batch) + 64)
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


def _answers(sock: socket.socket) -> tuple[list[netlink.Refusal], bool]:
    """Return refusals and whether there was consent; all answers are queued before `send` returns."""
    refused: list[netlink.Refusal] = []
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
        for kind, flags, sequence, start, end in netlink.frames(data):
            if kind == netlink.NLMSG_ERROR:
                answer = netlink.acknowledgement(data, flags, sequence, start, end)
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
    for kind, _, sequence, start, end in netlink.frames(batch):
        if sequence != wanted or kind >> 8 != NFNL_SUBSYS_NFTABLES:
            continue
        found = dict(netlink.attributes(batch, start + 4, end))
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
