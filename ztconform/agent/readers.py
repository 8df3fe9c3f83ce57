# SPDX-License-Identifier: Apache-2.0
"""When an answer on a TCP connection is complete, and what it says: HTTP/1, a line, a DNS message.

Bytes come from `exchange`; whose answer it is, `attempt` finds out by the mark. HTTP/2 is read in `http2client`, WebSocket in
`websocket`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .wire import MARK_HEADER, read_answer_line, read_mark

if TYPE_CHECKING:
    from .wire import Mark

SWITCHING = 101  # the last answer in HTTP/1 on its connection
MAX_ANSWER = 1 << 20  # bytes; who answers more has answered

_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-9][0-9][0-9])(?: .*)?")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_LENGTH = re.compile(r"[0-9]{1,15}")


class Answer(NamedTuple):
    """Say what an answer was worth."""

    detail: str = ""
    mark: Mark | None = None
    body: str = ""
    status: int | None = None
    server: str = ""
    closed: bool = False  # it was no answer: the server gave up the request, as the detail says


class Reader(Protocol):
    """Collect an answer."""

    @property
    def reply(self) -> bytes:
        """Return what the last `feed` leaves to be sent at once."""

    def feed(self, data: bytes) -> bool:
        """Take bytes and return whether the answer is complete."""

    def end(self) -> bool:
        """Take the end of the connection and return whether the answer is complete with it."""


class AnswerReader(Reader, Protocol):
    """Collect an answer to a probe."""

    @property
    def reusable(self) -> bool:
        """Return whether another request may follow on the connection."""

    def answer(self) -> Answer:
        """Return what the answer, once complete, was worth."""


class NoReader:
    """Expect nothing."""

    reply = b""
    reusable = False

    def feed(self, data: bytes) -> bool:
        return False

    def end(self) -> bool:
        return False

    def answer(self) -> Answer:
        return Answer()


class LineReader:
    """Collect one line."""

    reply = b""
    reusable = False

    def __init__(self) -> None:
        self.line = b""

    def answer(self) -> Answer:
        return Answer(mark=read_answer_line(self.line), body=self.line.decode("latin-1"))

    def feed(self, data: bytes) -> bool:
        self.line += data
        return b"\n" in data or len(self.line) > MAX_ANSWER

    def end(self) -> bool:
        return False


class FrameReader:
    """Collect one length-prefixed DNS message."""

    reply = b""

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def message(self) -> bytes:
        return self._buffer[2:]

    def feed(self, data: bytes) -> bool:
        self._buffer += data
        return len(self._buffer) >= 2 + int.from_bytes(self._buffer[:2], "big") > 2

    def end(self) -> bool:
        return False


class HttpReader:
    """Collect one HTTP/1.1 answer, passing over interim ones."""

    __slots__ = (
        "_body_at",
        "_buffer",
        "_chunked",
        "_head",
        "_headless",
        "_length",
        "body",
        "mark",
        "problem",
        "server",
        "status",
    )

    reply = b""

    def __init__(self, method: str) -> None:
        self._buffer = b""
        self._headless = method == "HEAD"  # such an answer has no body, whatever its head says
        self._body_at = -1  # -1: the head is not complete
        self._length: int | None = None  # None: the body ends with the connection, or with its last chunk
        self._chunked = False
        self._head = ""  # of the answer that is not an interim one
        self.status: int | None = None
        self.server = ""
        self.mark = ""  # from the header
        self.body = b""
        self.problem = ""  # why the answer is no HTTP answer

    @property
    def reusable(self) -> bool:
        framed = self._chunked or self._length is not None
        persists = self._head.startswith("HTTP/1.1") and self.header("connection").lower() != "close"
        return framed and persists and not self.problem

    @property
    def rest(self) -> bytes:
        """Return what came behind a head without a body."""
        return self._buffer[self._body_at :]

    def header(self, wanted: str) -> str:
        """Return the last value of a header by its name in lower case, "" if there is none."""
        found = ""
        for line in self._head.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            if name.lower() == wanted:
                found = value.strip()
        return found

    def answer(self) -> Answer:
        text = self.body.decode("latin-1")
        return Answer(self.problem, read_mark(self.mark or text), text, self.status, self.server)

    def feed(self, data: bytes) -> bool:
        self._buffer = self._buffer + data if self._buffer else data
        while self._body_at < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return self._unlike_http() or self._too_long()
            if not self._read_head(self._buffer[:end].decode("latin-1")):
                return self._refuse("answer is not HTTP")
            if self.status is not None and self.status < 200 and self.status != SWITCHING:
                self._buffer = self._buffer[end + 4 :]
            else:
                self._body_at = end + 4
        return self._read_body() or self._too_long()

    def end(self) -> bool:
        if self._body_at < 0 or self._chunked or self._length is not None:
            return False
        self.body = self._buffer[self._body_at :]
        return True

    def _read_head(self, head: str) -> bool:
        lines = head.split("\r\n")
        match = _STATUS_LINE.fullmatch(lines[0])
        if match is None:
            return False
        self.status = int(match.group(1))
        self._head = head
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name = name.lower()
            if name == "content-length":
                if _LENGTH.fullmatch(value.strip()) is None:
                    return False
                self._length = int(value)
            elif name == "transfer-encoding":
                self._chunked = value.strip().lower() == "chunked"
            elif name == "server":
                self.server = value.strip()
            elif name == MARK_HEADER:
                self.mark = value.strip()
        if self._headless or self.status in (SWITCHING, 204, 304):
            self._length, self._chunked = 0, False
        return True

    def _read_body(self) -> bool:
        if self._chunked:
            return self._read_chunks()
        if self._length is None or len(self._buffer) < self._body_at + self._length:
            return False
        self.body = self._buffer[self._body_at : self._body_at + self._length]
        return True

    def _read_chunks(self) -> bool:
        at = self._body_at
        chunks = []
        while True:
            end = self._buffer.find(b"\r\n", at)
            if end < 0:
                return False
            match = _SIZE.fullmatch(self._buffer[at:end])
            if match is None:
                return self._refuse("answer's chunks are malformed")
            size = int(match.group(1), 16)
            if not size:
                break
            at = end + 2 + size + 2
            if len(self._buffer) < at:
                return False
            chunks.append(self._buffer[end + 2 : at - 2])
        # Trailers, if any, end with an empty line, which stands at once where there are none.
        if self._buffer.find(b"\r\n\r\n", end) < 0:
            return False
        self.body = b"".join(chunks)
        return True

    def _unlike_http(self) -> bool:
        if b"HTTP/1."[: len(self._buffer)] == self._buffer[:7]:
            return False
        return self._refuse("answer is not HTTP")

    def _too_long(self) -> bool:
        if len(self._buffer) <= MAX_ANSWER:
            return False
        return self._refuse(f"answer is longer than {MAX_ANSWER} bytes")

    def _refuse(self, problem: str) -> bool:
        self.problem = problem
        self.body = self._buffer[max(self._body_at, 0) :]
        return True
