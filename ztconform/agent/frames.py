# SPDX-License-Identifier: Apache-2.0
"""How HTTP/2 frames lie in a stream of bytes, and what of a frame's own form is right (RFC 9113, sections 4 and 6).

What a frame means for its connection is for `http2`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16384  # bytes of a payload; the default, which our SETTINGS leave as it is

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

ERRORS = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
INITIAL_WINDOW_SIZE = 4  # a setting; of the others those that we send or check
ENABLE_PUSH = 2
MAX_FRAME_SIZE = 5
MAX_WINDOW = (1 << 31) - 1

_HEAD = struct.Struct(">BHBBI")  # length in 8 and 16 bits, type, flags, stream
_SETTING = struct.Struct(">HI")
_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}  # bytes, never more nor less
_ON_A_STREAM = (DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION)
_ON_NONE = (SETTINGS, PING, GOAWAY)


class Http2Error(Exception):
    """Say by which of `ERRORS` a connection ends, and why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = ERRORS.index(code)


class Frame(NamedTuple):
    """Hold a frame whose size and stream fit its type."""

    type: int
    flags: int
    stream: int
    payload: bytes


class FrameBuffer:
    """Cut bytes into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Give out each frame that is complete; raises Http2Error at the first that is none."""
        self._buffer = self._buffer + data if self._buffer else data
        buffer = self._buffer
        at = 0
        try:
            while len(buffer) - at >= _HEAD.size:
                high, low, kind, flags, stream = _HEAD.unpack_from(buffer, at)
                length = high << 16 | low
                if length > MAX_FRAME:
                    raise Http2Error("FRAME_SIZE_ERROR", f"a frame of {length} bytes")
                end = at + _HEAD.size + length
                if len(buffer) < end:
                    break
                frame = Frame(kind, flags, stream & MAX_WINDOW, buffer[at + _HEAD.size : end])
                at = end
                _check(frame)
                yield frame
        finally:
            self._buffer = buffer[at:]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame's bytes."""
    return _HEAD.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in pairs))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Give out identifiers and values; raises Http2Error."""
    for identifier, value in _SETTING.iter_unpack(payload):
        if identifier == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise Http2Error("FLOW_CONTROL_ERROR", f"an initial window of {value} bytes")
        if (identifier == ENABLE_PUSH and value > 1) or (identifier == MAX_FRAME_SIZE and not MAX_FRAME <= value < 1 << 24):
            raise Http2Error("PROTOCOL_ERROR", f"setting {identifier} is {value}")
        yield identifier, value


def headers(stream: int, block: bytes, end: bool) -> bytes:
    """Return a HEADERS frame, and CONTINUATION frames where one does not hold the block."""
    pieces = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)] or [b""]
    out = []
    for at, piece in enumerate(pieces):
        flags = (END_HEADERS if at == len(pieces) - 1 else 0) | (END_STREAM if end and not at else 0)
        out.append(frame(CONTINUATION if at else HEADERS, flags, stream, piece))
    return b"".join(out)


def unpadded(received: Frame) -> bytes:
    """Return a DATA or HEADERS frame's payload without padding and priority; raises Http2Error."""
    payload = received.payload
    padding = at = 0
    if received.flags & PADDED:
        if not payload:
            raise Http2Error("FRAME_SIZE_ERROR", "a padded frame is empty")
        padding, at = payload[0], 1
    if received.type == HEADERS and received.flags & HAS_PRIORITY:
        at += 5
    if at + padding > len(payload):
        raise Http2Error("PROTOCOL_ERROR", "a frame is all padding and more")
    return payload[at : len(payload) - padding]


def number(payload: bytes, at: int = 0) -> int:
    """Return 31 bits of a payload."""
    return int.from_bytes(payload[at : at + 4], "big") & MAX_WINDOW


def error_name(code: int) -> str:
    """Return what an error code is called."""
    return ERRORS[code] if code < len(ERRORS) else f"error {code}"


def _check(received: Frame) -> None:
    kind, flags, stream, payload = received
    size = len(payload)
    wrong = size != _SIZES.get(kind, size) or (kind == GOAWAY and size < 8)
    if wrong or (kind == SETTINGS and (size % _SETTING.size or (flags & ACK and size))):
        raise Http2Error("FRAME_SIZE_ERROR", f"a frame of type {kind} with {size} bytes")
    if (kind in _ON_A_STREAM and not stream) or (kind in _ON_NONE and stream):
        raise Http2Error("PROTOCOL_ERROR", f"a frame of type {kind} on stream {stream}")
