# SPDX-License-Identifier: Apache-2.0
"""How the DNS messages look that agents send and answer (RFC 1035, EDNS0 of RFC 6891): codec only.

Asking is in `lookup`, answering in `nameserver`. Only A and AAAA records are read; a CNAME before them is skipped.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING, NamedTuple

from .wire import read_nonce

if TYPE_CHECKING:
    from collections.abc import Sequence

A = 1
AAAA = 28
OPT = 41
CLASS_IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")

OPTION_NONCE = 65001  # the range that RFC 6891 leaves to local use
OPTION_MARK = 65002
UDP_SIZE = 1232  # what we take and give by UDP: fits IPv6's least MTU
PLAIN_UDP_SIZE = 512  # for who asks without EDNS0
TCP_SIZE = 65535
TTL = 5  # seconds; nothing of ours caches

_HEADER = struct.Struct("!6H")
_QUESTION_TAIL = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_OPTION = struct.Struct("!HH")
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_POINTER = 0xC0
_MAX_NAME = 254  # of text, with the final dot: 255 bytes on the wire


class DnsError(ValueError):
    """Say what is wrong with a DNS message or name."""


class Query(NamedTuple):
    """Hold a question as a server reads it."""

    id: int
    name: str  # as asked, case and all, without the final dot
    type: int
    dns_class: int
    opcode: int
    flags: int
    nonce: str
    size: int | None  # what the asker takes by UDP; None: no EDNS0


class Answer(NamedTuple):
    """Hold an answer as a client reads it."""

    id: int
    name: str
    type: int
    rcode: str
    truncated: bool
    addresses: tuple[str, ...]
    mark: bytes  # of our option; b"" from a server that is no agent


def encode_name(name: str) -> bytes:
    """Return a name's wire form; raises DnsError for one that has none."""
    text = name[:-1] if name.endswith(".") else name
    if not text:
        return b"\0"
    if len(text) >= _MAX_NAME:
        raise DnsError("name is longer than 253 characters")
    out = bytearray()
    for label in text.split("."):
        try:
            raw = label.encode("latin-1")
        except UnicodeEncodeError:
            raise DnsError("name is not latin-1") from None
        if not 0 < len(raw) < 64:
            raise DnsError("a label is empty or longer than 63 bytes")
        out.append(len(raw))
        out += raw
    return bytes(out) + b"\0"


def read_name(message: bytes, offset: int) -> tuple[str, int]:
    """Return a name and the offset behind it; pointers may only lead backwards, so that reading ends."""
    labels: list[str] = []
    end = -1
    length = 0
    while True:
        count = _byte(message, offset)
        if count & _POINTER == _POINTER:
            target = (count & ~_POINTER) << 8 | _byte(message, offset + 1)
            if end < 0:
                end = offset + 2
            if target >= offset:
                raise DnsError("a compression pointer leads forward")
            offset = target
            continue
        if count & _POINTER:
            raise DnsError("unknown label type")
        offset += 1
        if not count:
            return ".".join(labels), offset if end < 0 else end
        label = message[offset : offset + count]
        length += count + 1
        if len(label) < count or length > _MAX_NAME or b"." in label:
            raise DnsError("a label is cut off, too long or holds a dot")
        labels.append(label.decode("latin-1"))
        offset += count


def build_query(query_id: int, name: str, query_type: int, nonce: str = "") -> bytes:
    """Return a recursive question with EDNS0, and with our nonce where there is one."""
    option = _OPTION.pack(OPTION_NONCE, len(nonce)) + nonce.encode("ascii") if nonce else b""
    return _HEADER.pack(query_id, _RD, 1, 0, 0, 1) + encode_name(name) + _QUESTION_TAIL.pack(query_type, CLASS_IN) + _opt(option)


def read_query(message: bytes) -> Query:
    """Return the question of a message; raises DnsError for what is none."""
    if len(message) < _HEADER.size:
        raise DnsError("shorter than a header")
    query_id, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(message)
    if flags & _QR:
        raise DnsError("an answer, not a question")
    if questions != 1:
        raise DnsError("not exactly one question")
    name, offset = read_name(message, _HEADER.size)
    query_type, dns_class, offset = _question_tail(message, offset)
    nonce = ""
    size = None
    for _ in range(answers + authorities + additionals):
        record_type, record_class, data, offset = _record(message, offset)
        if record_type == OPT:
            size = max(record_class, PLAIN_UDP_SIZE)
            nonce = read_nonce(_option(data, OPTION_NONCE).decode("latin-1"))
    return Query(query_id, name, query_type, dns_class, flags >> 11 & 15, flags, nonce, size)


def build_answer(query: Query, rcode: int, addresses: Sequence[str], mark: bytes, limit: int) -> bytes:
    """Return the answer to a question; one that does not fit the limit comes back empty with TC set."""
    flags = _QR | _AA | _RA | query.flags & (_RD | 0x7800) | rcode
    question = encode_name(query.name) + _QUESTION_TAIL.pack(query.type, query.dns_class)
    # 0xC00C points to the question's name, which always stands right behind the header.
    records = b"".join(_address_record(address) for address in addresses)
    opt = b"" if query.size is None else _opt(_OPTION.pack(OPTION_MARK, len(mark)) + mark)
    additionals = 0 if query.size is None else 1
    message = _HEADER.pack(query.id, flags, 1, len(addresses), 0, additionals) + question + records + opt
    if len(message) <= limit:
        return message
    return _HEADER.pack(query.id, flags | _TC, 1, 0, 0, additionals) + question + opt


def build_failure(message: bytes, rcode: int) -> bytes:
    """Return a bare header that refuses a message which could not be read; b"" where even that is impossible."""
    if len(message) < _HEADER.size:
        return b""
    query_id, flags = struct.unpack_from("!HH", message)
    if flags & _QR:
        return b""  # answering an answer would make two servers talk for ever
    return _HEADER.pack(query_id, _QR | flags & (_RD | 0x7800) | rcode, 0, 0, 0, 0)


def read_answer(message: bytes) -> Answer:
    """Return the answer in a message; raises DnsError for what is none."""
    if len(message) < _HEADER.size:
        raise DnsError("shorter than a header")
    query_id, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(message)
    if not flags & _QR:
        raise DnsError("a question, not an answer")
    offset = _HEADER.size
    name, query_type = "", 0
    for _ in range(questions):
        name, offset = read_name(message, offset)
        query_type, _, offset = _question_tail(message, offset)
    addresses = []
    mark = b""
    for at in range(answers + authorities + additionals):
        record_type, _, data, offset = _record(message, offset)
        if record_type == OPT:
            mark = _option(data, OPTION_MARK)
        elif at < answers and record_type == query_type and record_type in (A, AAAA):
            if len(data) != (4 if record_type == A else 16):
                raise DnsError("an address of the wrong length")
            addresses.append(str(ipaddress.ip_address(data)))
    code = flags & 15
    rcode = RCODES[code] if code < len(RCODES) else f"RCODE{code}"
    return Answer(query_id, name, query_type, rcode, bool(flags & _TC), tuple(addresses), mark)


def _byte(message: bytes, offset: int) -> int:
    if offset >= len(message):
        raise DnsError("a name is cut off")
    return message[offset]


def _question_tail(message: bytes, offset: int) -> tuple[int, int, int]:
    if offset + _QUESTION_TAIL.size > len(message):
        raise DnsError("the question is cut off")
    query_type, dns_class = _QUESTION_TAIL.unpack_from(message, offset)
    return query_type, dns_class, offset + _QUESTION_TAIL.size


def _record(message: bytes, offset: int) -> tuple[int, int, bytes, int]:
    _, offset = read_name(message, offset)
    if offset + _RECORD.size > len(message):
        raise DnsError("a record is cut off")
    record_type, record_class, _, length = _RECORD.unpack_from(message, offset)
    offset += _RECORD.size
    if offset + length > len(message):
        raise DnsError("a record's data is cut off")
    return record_type, record_class, message[offset : offset + length], offset + length


def _option(data: bytes, wanted: int) -> bytes:
    offset = 0
    while offset + _OPTION.size <= len(data):
        code, length = _OPTION.unpack_from(data, offset)
        offset += _OPTION.size
        if code == wanted:
            return data[offset : offset + length]
        offset += length
    return b""


def _opt(options: bytes) -> bytes:
    return b"\0" + _RECORD.pack(OPT, UDP_SIZE, 0, len(options)) + options


def _address_record(address: str) -> bytes:
    packed = ipaddress.ip_address(address).packed
    record_type = A if len(packed) == 4 else AAAA
    return b"\xc0\x0c" + _RECORD.pack(record_type, CLASS_IN, TTL, len(packed)) + packed
