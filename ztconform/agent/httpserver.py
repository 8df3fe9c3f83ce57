# SPDX-License-Identifier: Apache-2.0
"""How an HTTP/1.1 connection is read and answered on the server's side: bytes in, bytes out, no sockets.

What a request is answered with is for `server`. Whatever the bytes are, they end in a status or a close, never in an exception.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from .wire import SERVER_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from .listeners import Session

MAX_HEAD = 65536

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(r"[0-9]{1,15}")  # longer than that is an attack on int()
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
BODILESS = (204, 304)


class Request(NamedTuple):
    """Hold a request's head."""

    method: str
    path: str  # raw, latin-1
    headers: dict[str, str]  # names in lower case; repeated ones joined by ", "
    minor: int  # HTTP/1.minor


class Reply(NamedTuple):
    """Say what to answer."""

    status: int
    body: bytes
    content_type: str = "application/json"
    body_header: str = ""  # the header that takes the body where the answer may have none
    headers: tuple[tuple[str, str], ...] = ()
    session: Session | None = None  # what takes over the connection behind a 101


class Malformed(ValueError):
    """Carry the status that refuses a request which could not be read."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class HttpSession:
    """Answer the requests of one connection, in order, one or many at a time."""

    __slots__ = ("_answer", "_buffer", "_last", "_next", "_respond", "_session", "_unread", "closing")

    def __init__(self, respond: Callable[[Request], Reply]) -> None:
        self._respond = respond
        self._buffer = bytearray()
        self._unread = 0  # bytes of a request's body that are still to come
        self._answer = b""  # for when they have come
        self._last = False  # whether the connection ends behind it
        self._next: Session | None = None  # what takes over the connection behind it
        self._session: Session | None = None  # what has taken it over
        self.closing = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes that came in and return those to send; `closing` says whether the connection ends behind them."""
        if self._session is not None:
            return self._hand_on(self._session, data)
        self._buffer += data
        out = []
        try:
            while self._advance():
                out.append(self._answer)
                self.closing = self._last
                if self.closing:
                    break
                self._session = self._next
                if self._session is not None:
                    out.append(self._hand_on(self._session, bytes(self._buffer)))
                    break
        except Malformed as error:
            self.closing = True
            out.append(_encode(Reply(error.status, b"", "text/plain"), "close"))
        return b"".join(out)

    def _hand_on(self, session: Session, data: bytes) -> bytes:
        out = session.feed(data)
        self.closing = session.closing
        return out

    def _advance(self) -> bool:
        if not self._unread:
            end = self._buffer.find(b"\r\n\r\n")
            if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
                raise Malformed(431)
            if end < 0:
                return False
            head = self._buffer[:end].decode("latin-1")
            del self._buffer[: end + 4]
            self._begin(read_head(head))
        taken = min(self._unread, len(self._buffer))
        if taken:
            del self._buffer[:taken]
            self._unread -= taken
        return not self._unread

    def _begin(self, request: Request) -> None:
        self._unread = body_length(request)
        wishes = request.headers.get("connection", "").lower()
        # The request counts as seen with its head: a body held back on the way must not hide that the head came through.
        reply = self._respond(request)
        self._last = "close" in wishes if request.minor else "keep-alive" not in wishes
        self._next = reply.session
        if reply.session is not None:
            self._last = False
            self._answer = _encode(reply, "Upgrade", bodiless=True)
            return
        connection = "close" if self._last else "keep-alive"
        self._answer = _encode(reply, connection, bodiless=request.method == "HEAD" or reply.status in BODILESS)


def read_head(head: str) -> Request:
    """Return a request's head; raises Malformed."""
    lines = head.lstrip("\r\n").split("\r\n")  # RFC 9112 2.2: empty lines before a request are to be borne
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise Malformed(400)
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or _NAME.fullmatch(name) is None or _CONTROL.search(value) is not None:
            raise Malformed(400)
        name = name.lower()
        value = value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Request(match.group(1), match.group(2), headers, int(match.group(3)))


def body_length(request: Request) -> int:
    """Return how many bytes follow the head; raises Malformed where that is ambiguous."""
    if "transfer-encoding" in request.headers:
        raise Malformed(501)
    length = request.headers.get("content-length")
    if length is None:
        return 0
    if _LENGTH.fullmatch(length) is None:
        raise Malformed(400)
    return int(length)


def _encode(reply: Reply, connection: str, bodiless: bool = False) -> bytes:
    phrase = _PHRASES.get(reply.status, "")
    head = f"HTTP/1.1 {reply.status} {phrase}\r\nServer: {SERVER_NAME}\r\nConnection: {connection}\r\n"
    for name, value in reply.headers:
        head += f"{name}: {value}\r\n"
    if bodiless:
        if reply.body_header:
            head += f"{reply.body_header}: {reply.body.decode('latin-1')}\r\n"
        return head.encode("latin-1") + b"\r\n"
    head += f"Content-Type: {reply.content_type}\r\nContent-Length: {len(reply.body)}\r\n\r\n"
    return head.encode("latin-1") + reply.body
