# SPDX-License-Identifier: Apache-2.0
"""What an HTTP/2 header block says, and how ours are written (HPACK, RFC 7541).

Which blocks there are is for `http2`. Ours index nothing and are not Huffman-coded, so that no decoder can lose its way in them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from . import huffman

if TYPE_CHECKING:
    from collections.abc import Iterable

    Field = tuple[str, str]  # latin-1

MAX_TABLE = 4096  # bytes; the default, which our SETTINGS leave as it is
MAX_LIST = 1 << 18  # bytes; one byte of a block can stand for 4,096 of a field
_OVERHEAD = 32  # bytes that a field counts beside its own (RFC 7541 4.1)
_MAX_SHIFT = 28

# RFC 7541, appendix A: in their order, from index 1 on.
_NAMES = """\
:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|:status 206|\
:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|accept-language|accept-ranges|\
accept|access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|content-encoding|content-language|\
content-length|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|\
if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|\
referer|refresh|retry-after|server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"""
_STATIC: tuple[Field, ...] = tuple((name, value) for name, _, value in (entry.partition(" ") for entry in _NAMES.split("|")))


class HpackError(ValueError):
    """Say why a header block cannot be read; the connection's later ones cannot either."""


class Decoder:
    """Read the header blocks of one direction of a connection, in their order."""

    def __init__(self) -> None:
        self._table: deque[Field] = deque()  # the newest first
        self._size = 0
        self._limit = MAX_TABLE

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields of a block; raises HpackError."""
        try:
            return self._decode(block)
        except IndexError:
            raise HpackError("a header block ends within a field") from None
        except huffman.HuffmanError as error:
            raise HpackError(str(error)) from None

    def _decode(self, block: bytes) -> list[Field]:
        fields: list[Field] = []
        at = size = 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _read_integer(block, at, 7)
                field = self._entry(index)
            elif first & 0xE0 == 0x20:
                if fields:
                    raise HpackError("a table's size is changed within a header block")
                limit, at = _read_integer(block, at, 5)
                self._resize(limit)
                continue
            else:
                kept = first & 0x40  # else without indexing, or never indexed
                index, at = _read_integer(block, at, 6 if kept else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = _read_string(block, at)
                value, at = _read_string(block, at)
                field = (name, value)
                if kept:
                    self._add(field)
            fields.append(field)
            size += _size(field)
            if size > MAX_LIST:
                raise HpackError(f"fields of more than {MAX_LIST} bytes")
        return fields

    def _entry(self, index: int) -> Field:
        if 0 < index <= len(_STATIC):
            return _STATIC[index - 1]
        if not len(_STATIC) < index <= len(_STATIC) + len(self._table):
            raise HpackError(f"no field has the index {index}")
        return self._table[index - len(_STATIC) - 1]

    def _add(self, field: Field) -> None:
        self._table.appendleft(field)
        self._size += _size(field)
        self._evict()

    def _resize(self, limit: int) -> None:
        if limit > MAX_TABLE:
            raise HpackError(f"a table of {limit} bytes, which is more than was allowed")
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        while self._size > self._limit:  # a field larger than the table empties it, itself included
            self._size -= _size(self._table.pop())


def encode(fields: Iterable[Field]) -> bytes:
    """Return a header block of literal fields."""
    out = bytearray()
    for name, value in fields:
        out.append(0)  # literal without indexing, new name
        for text in (name, value):
            _write_integer(out, len(text), 7)
            out += text.encode("latin-1")
    return bytes(out)


def _size(field: Field) -> int:
    return len(field[0]) + len(field[1]) + _OVERHEAD


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    mask = (1 << bits) - 1
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, _MAX_SHIFT, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HpackError("a number is too large")


def _write_integer(out: bytearray, value: int, bits: int) -> None:
    mask = (1 << bits) - 1
    if value < mask:
        out.append(value)
        return
    out.append(mask)
    value -= mask
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _read_string(block: bytes, at: int) -> tuple[str, int]:
    coded = block[at] & 0x80
    length, at = _read_integer(block, at, 7)
    data = block[at : at + length]
    if len(data) < length:
        raise HpackError("a header block ends within a field")
    return (huffman.decode(data) if coded else data).decode("latin-1"), at + length
