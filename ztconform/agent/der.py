# SPDX-License-Identifier: Apache-2.0
"""What elements a certificate's bytes are made of (X.690, DER); what they mean is left to the callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def inside(der: bytes, *tags: int) -> bytes:
    """Return what is in the first element of each tag, one inside the other; nothing where there is none."""
    for wanted in tags:
        der = next((value for tag, value in elements(der) if tag == wanted), b"")
    return der


def elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the value of each element, as far as they are whole."""
    at = 0
    while at + 2 <= len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        if at + length > len(der):
            return
        yield tag, der[at : at + length]
        at += length
