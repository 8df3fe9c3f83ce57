# SPDX-License-Identifier: Apache-2.0
"""What a Huffman-coded string of HPACK says (RFC 7541, appendix B).

Nothing is encoded here: HPACK lets every string go as it is. Where strings stand in a header block is for `hpack`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Union

    Node = list[Union["Node", int, None]]  # what a 0 and what a 1 leads to

# Bits of each byte's code. The lengths say all: codes of equal length are consecutive, in the order of the bytes.
LENGTHS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
)  # fmt: skip


class HuffmanError(ValueError):
    """Say that bits are no code, or are padded otherwise than with ones."""


def codes() -> list[tuple[int, int]]:
    """Return each byte's code and its length in bits."""
    found = [(0, 0)] * len(LENGTHS)
    code = length = 0
    for byte in sorted(range(len(LENGTHS)), key=lambda byte: (LENGTHS[byte], byte)):
        code <<= LENGTHS[byte] - length
        length = LENGTHS[byte]
        found[byte] = (code, length)
        code += 1
    return found


@lru_cache(maxsize=1024)  # a connection's strings are few, and decoding one costs a microsecond a byte
def decode(data: bytes) -> bytes:
    """Return the bytes that a coded string stands for; raises HuffmanError."""
    out = bytearray()
    node = _root()
    depth = 0  # bits since the last byte
    ones = True  # whether all of them are 1
    for byte in data:
        for shift in (7, 6, 5, 4, 3, 2, 1, 0):
            bit = byte >> shift & 1
            following = node[bit]
            if isinstance(following, list):
                node = following
                depth += 1
                ones = ones and bit == 1
            elif following is None:
                raise HuffmanError("the code of the end stands in a string")
            else:
                out.append(following)
                node = _root()
                depth = 0
                ones = True
    if depth > 7 or not ones:
        raise HuffmanError("a string is not padded with ones")
    return bytes(out)


@lru_cache(maxsize=1)
def _root() -> Node:
    root: Node = [None, None]  # the one place left empty is the code of the end: thirty ones
    for byte, (code, length) in enumerate(codes()):
        node = root
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            following = node[bit]
            if not isinstance(following, list):
                following = node[bit] = [None, None]
            node = following
        node[code & 1] = byte
    return root
