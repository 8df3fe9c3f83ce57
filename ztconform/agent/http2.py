# SPDX-License-Identifier: Apache-2.0
"""How an HTTP/2 connection goes, on either side: bytes in, events out, and the bytes to send beside them; no sockets.

Requests are for `http2client`, answers for `http2server`. Whatever the bytes are, they end in events or in a GOAWAY, never in an
exception. Priorities are read over, and nothing is pushed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import frames, hpack
from .frames import Frame, FrameBuffer, Http2Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Union

    from .hpack import Field

    Event = Union["Head", "Content", "Reset", "Goaway"]

MAX_BLOCK = 65536  # bytes of a header block in pieces
MAX_STREAMS = 4096  # requests that are not yet answered
_DEFAULT_WINDOW = 65535


class Head(NamedTuple):
    """Tell of a header block: a request's or answer's head, or its trailers."""

    stream: int
    fields: list[Field]
    end: bool


class Content(NamedTuple):
    """Tell of a piece of content."""

    stream: int
    data: bytes
    end: bool


class Reset(NamedTuple):
    """Tell that the peer ended a stream by an error."""

    stream: int
    error: str


class Goaway(NamedTuple):
    """Tell that the peer takes no stream above `last`."""

    last: int
    error: str


class _Waiting(NamedTuple):
    """Hold what the peer's windows do not yet let through."""

    data: bytes
    trailers: Sequence[Field] | None


class Connection:
    """Hold one side of a connection."""

    __slots__ = (
        "_block",
        "_client",
        "_decoder",
        "_end",
        "_frames",
        "_highest",
        "_initial",
        "_left",
        "_owing",
        "_preface",
        "_receiving",
        "_waiting",
        "_window",
        "_windows",
        "failure",
        "out",
        "settled",
    )

    def __init__(self, client: bool) -> None:
        self._client = client
        self._frames = FrameBuffer()
        self._decoder = hpack.Decoder()
        self._preface = b"" if client else frames.PREFACE  # what of it is still to come
        self._highest = 0  # of the streams that the client opened
        self._receiving: set[int] = set()  # streams whose other end is not yet done
        self._block: bytearray | None = None  # a header block whose end has not come
        self._left = 0  # the stream that it belongs to
        self._end = False  # whether that ends with it
        self._window = _DEFAULT_WINDOW
        self._initial = _DEFAULT_WINDOW
        self._windows: dict[int, int] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._owing = 0  # bytes received that the connection's window has to be given back
        self.settled = False  # whether the peer has sent its SETTINGS, and so speaks HTTP/2
        self.failure = ""  # why the peer's bytes are no HTTP/2
        self.out = bytearray(frames.PREFACE + frames.settings((frames.ENABLE_PUSH, 0)) if client else frames.settings())

    def take(self) -> bytes:
        """Return what is to be sent, once."""
        out = bytes(self.out)
        self.out.clear()
        return out

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes and return what they tell; after a failure nothing is taken any more."""
        events: list[Event] = []
        if self.failure:
            return events
        try:
            if self._preface:
                data = self._past_preface(data)
            for frame in self._frames.feed(data):
                self._take(frame, events)
        except (Http2Error, hpack.HpackError) as error:
            self._fail(error)
        if self._owing:
            self.out += frames.frame(frames.WINDOW_UPDATE, 0, 0, self._owing.to_bytes(4, "big"))
            self._owing = 0
        return events

    def request(self, fields: Sequence[Field], data: bytes = b"") -> int:
        """Open a stream as a client, send a whole request on it, and return the stream."""
        self._highest = stream = self._highest + 2 if self._highest else 1
        self._receiving.add(stream)
        self._windows[stream] = self._initial
        self.send(stream, fields, data)
        return stream

    def send(self, stream: int, fields: Sequence[Field], data: bytes = b"", trailers: Sequence[Field] | None = None) -> None:
        """Send a whole request or answer."""
        self.out += frames.headers(stream, hpack.encode(fields), not data and trailers is None)
        if data or trailers is not None:
            self._waiting[stream] = _Waiting(data, trailers)
            self._flush(stream)
        else:
            self._windows.pop(stream, None)

    def reset(self, stream: int, code: str) -> None:
        """End a stream by an error, both ways."""
        self._forget(stream)
        self.out += frames.frame(frames.RST_STREAM, 0, stream, frames.ERRORS.index(code).to_bytes(4, "big"))

    def _past_preface(self, data: bytes) -> bytes:
        expected = self._preface[: len(data)]
        if not data.startswith(expected):
            raise Http2Error("PROTOCOL_ERROR", "no preface")
        self._preface = self._preface[len(expected) :]
        return data[len(expected) :]

    def _take(self, frame: Frame, events: list[Event]) -> None:
        if not self.settled and (frame.type != frames.SETTINGS or frame.flags & frames.ACK):
            raise Http2Error("PROTOCOL_ERROR", "SETTINGS do not come first")
        if self._block is not None:
            self._continue(frame, events)
            return
        handler = _HANDLERS.get(frame.type)  # PRIORITY and unknown types have none
        if handler is not None:
            handler(self, frame, events)

    def _take_headers(self, frame: Frame, events: list[Event]) -> None:
        if not self._client and frame.stream > self._highest:
            if not frame.stream % 2:
                raise Http2Error("PROTOCOL_ERROR", f"a client opens stream {frame.stream}")
            if len(self._windows) >= MAX_STREAMS:
                raise Http2Error("ENHANCE_YOUR_CALM", f"more than {MAX_STREAMS} requests at once")
            self._highest = frame.stream
            self._receiving.add(frame.stream)
            self._windows[frame.stream] = self._initial
        self._known(frame.stream)
        self._block = bytearray(frames.unpadded(frame))
        self._left = frame.stream
        self._end = bool(frame.flags & frames.END_STREAM)
        if frame.flags & frames.END_HEADERS:
            self._end_block(events)

    def _continue(self, frame: Frame, events: list[Event]) -> None:
        if self._block is None or frame.type != frames.CONTINUATION or frame.stream != self._left:
            raise Http2Error("PROTOCOL_ERROR", "a header block is interrupted")
        self._block += frame.payload
        if len(self._block) > MAX_BLOCK:
            raise Http2Error("ENHANCE_YOUR_CALM", f"a header block of more than {MAX_BLOCK} bytes")
        if frame.flags & frames.END_HEADERS:
            self._end_block(events)

    def _end_block(self, events: list[Event]) -> None:
        block, self._block = self._block, None
        # Also where the stream was reset: the tables of both sides must not drift apart.
        fields = self._decoder.decode(bytes(block or b""))
        if self._left in self._receiving:
            if self._end:
                self._receiving.discard(self._left)
            events.append(Head(self._left, fields, self._end))

    def _take_data(self, frame: Frame, events: list[Event]) -> None:
        self._known(frame.stream)
        self._owing += len(frame.payload)
        data = frames.unpadded(frame)
        end = bool(frame.flags & frames.END_STREAM)
        if frame.stream not in self._receiving:
            return
        if end:
            self._receiving.discard(frame.stream)
        elif frame.payload:
            self.out += frames.frame(frames.WINDOW_UPDATE, 0, frame.stream, len(frame.payload).to_bytes(4, "big"))
        events.append(Content(frame.stream, data, end))

    def _take_reset(self, frame: Frame, events: list[Event]) -> None:
        self._known(frame.stream)
        self._forget(frame.stream)
        events.append(Reset(frame.stream, frames.error_name(int.from_bytes(frame.payload, "big"))))

    def _take_settings(self, frame: Frame, _events: list[Event]) -> None:
        if frame.flags & frames.ACK:
            return
        for identifier, value in frames.read_settings(frame.payload):
            if identifier == frames.INITIAL_WINDOW_SIZE:
                change, self._initial = value - self._initial, value
                for stream in self._windows:
                    self._widen(stream, change)
        self.settled = True
        self.out += frames.frame(frames.SETTINGS, frames.ACK, 0)
        self._flush_all()

    def _take_ping(self, frame: Frame, _events: list[Event]) -> None:
        if not frame.flags & frames.ACK:
            self.out += frames.frame(frames.PING, frames.ACK, 0, frame.payload)

    def _take_window(self, frame: Frame, _events: list[Event]) -> None:
        self._known(frame.stream)
        increment = frames.number(frame.payload)
        if not increment:
            raise Http2Error("PROTOCOL_ERROR", "a window grows by nothing")
        if frame.stream:
            if frame.stream in self._windows:
                self._widen(frame.stream, increment)
                self._flush(frame.stream)
            return
        self._window += increment
        if self._window > frames.MAX_WINDOW:
            raise Http2Error("FLOW_CONTROL_ERROR", "a window grows too large")
        self._flush_all()

    def _widen(self, stream: int, increment: int) -> None:
        self._windows[stream] += increment
        if self._windows[stream] > frames.MAX_WINDOW:
            raise Http2Error("FLOW_CONTROL_ERROR", "a window grows too large")

    def _known(self, stream: int) -> None:
        if stream and (stream > self._highest or not stream % 2):
            raise Http2Error("PROTOCOL_ERROR", f"stream {stream} was never opened")

    def _flush_all(self) -> None:
        for stream in tuple(self._waiting):
            self._flush(stream)

    def _flush(self, stream: int) -> None:
        if stream not in self._waiting:
            return
        data, trailers = self._waiting[stream]
        while data:
            size = min(len(data), self._window, self._windows.get(stream, 0), frames.MAX_FRAME)
            if size <= 0:
                self._waiting[stream] = _Waiting(data, trailers)
                return
            self._window -= size
            self._windows[stream] -= size
            last = size == len(data) and trailers is None
            self.out += frames.frame(frames.DATA, frames.END_STREAM if last else 0, stream, data[:size])
            data = data[size:]
        if trailers is not None:
            self.out += frames.headers(stream, hpack.encode(trailers), True)
        del self._waiting[stream]
        self._windows.pop(stream, None)

    def _forget(self, stream: int) -> None:
        self._receiving.discard(stream)
        self._waiting.pop(stream, None)
        self._windows.pop(stream, None)

    def _fail(self, error: Http2Error | hpack.HpackError) -> None:
        if isinstance(error, hpack.HpackError):
            error = Http2Error("COMPRESSION_ERROR", str(error))
        self.failure = str(error)
        last = 0 if self._client else self._highest
        self.out += frames.frame(frames.GOAWAY, 0, 0, last.to_bytes(4, "big") + error.code.to_bytes(4, "big"))


def _take_goaway(_connection: Connection, frame: Frame, events: list[Event]) -> None:
    error = frames.error_name(int.from_bytes(frame.payload[4:8], "big"))
    events.append(Goaway(frames.number(frame.payload), error))


def _refuse(_connection: Connection, frame: Frame, _events: list[Event]) -> None:
    what = "a push" if frame.type == frames.PUSH_PROMISE else "the continuation of a header block that has ended"
    raise Http2Error("PROTOCOL_ERROR", what)


# Here and not in each connection: bound methods in a dict of its own would make every connection a cycle.
_HANDLERS: dict[int, Callable[[Connection, Frame, list[Event]], None]] = {
    frames.DATA: Connection._take_data,
    frames.HEADERS: Connection._take_headers,
    frames.RST_STREAM: Connection._take_reset,
    frames.SETTINGS: Connection._take_settings,
    frames.PUSH_PROMISE: _refuse,
    frames.PING: Connection._take_ping,
    frames.GOAWAY: _take_goaway,
    frames.WINDOW_UPDATE: Connection._take_window,
    frames.CONTINUATION: _refuse,
}
