# SPDX-License-Identifier: Apache-2.0
"""How an HTTP/2 connection is answered on the server's side, plainly or as gRPC: bytes in, bytes out, no sockets.

How a connection goes is for `http2`; what a request is answered with is for `server`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .http2 import Connection, Content, Head, Reset
from .httpserver import BODILESS, Reply, Request
from .wire import GRPC_TYPE, MAX_LINE, SERVER_NAME, grpc_message, read_grpc_message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .hpack import Field

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PATH = re.compile(r"[^\x00-\x20\x7f]+")


class Http2Reply(NamedTuple):
    """Hold an answer as HTTP/2 sends it."""

    fields: Sequence[Field]
    body: bytes = b""
    trailers: Sequence[Field] | None = None


class Http2Session:
    """Answer the requests of one connection, each when it is complete."""

    __slots__ = ("_connection", "_finish", "_respond", "closing")

    def __init__(self, respond: Callable[[Request], Callable[[bytes], Http2Reply]]) -> None:
        """Call `respond` with each request's head, and what it returns with its content (at most 64 KiB of it)."""
        self._respond = respond
        self._connection = Connection(client=False)
        self._finish: dict[int, tuple[Callable[[bytes], Http2Reply], bytearray]] = {}
        self.closing = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes that came in and return those to send; `closing` says whether the connection ends behind them."""
        connection = self._connection
        for event in connection.feed(data):
            if isinstance(event, Head) and event.stream not in self._finish:
                self._begin(event)
            elif isinstance(event, Content) and event.stream in self._finish:
                content = self._finish[event.stream][1]
                content += event.data[: MAX_LINE - len(content)]
            elif isinstance(event, Reset):
                self._finish.pop(event.stream, None)
            if isinstance(event, (Head, Content)) and event.end and event.stream in self._finish:
                finish, body = self._finish.pop(event.stream)
                connection.send(event.stream, *finish(bytes(body)))
        self.closing = bool(connection.failure)
        return connection.take()

    def _begin(self, head: Head) -> None:
        request = read_request(head.fields)
        if request is None:
            self._connection.reset(head.stream, "PROTOCOL_ERROR")
        else:
            # The request counts as seen with its head: content held back on the way must not hide that the head came through.
            self._finish[head.stream] = (self._respond(request), bytearray())


def read_request(fields: Sequence[Field]) -> Request | None:
    """Return the request that a head is; None for what HTTP/2 calls malformed."""
    pseudo: dict[str, str] = {}
    headers: dict[str, str] = {}
    for name, value in fields:
        if name.startswith(":"):
            if headers or name in pseudo:
                return None
            pseudo[name] = value
        elif _NAME.fullmatch(name) is None or _CONTROL.search(value) is not None:
            return None
        else:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    method, path = pseudo.get(":method", ""), pseudo.get(":path", "")
    if not method or ":scheme" not in pseudo or _PATH.fullmatch(path) is None or "connection" in headers:
        return None
    return Request(method, path, headers, 1)


def plain(reply: Reply, method: str) -> Http2Reply:
    """Return an answer of HTTP/1.1 in the form of HTTP/2."""
    fields = [(":status", str(reply.status)), ("server", SERVER_NAME)]
    if method == "HEAD" or reply.status in BODILESS:
        if reply.body_header:
            fields.append((reply.body_header, reply.body.decode("latin-1")))
        return Http2Reply(fields)
    fields += [("content-type", reply.content_type), ("content-length", str(len(reply.body)))]
    return Http2Reply(fields, reply.body)


def call(answer: Callable[[bytes], bytes]) -> Callable[[bytes], Http2Reply]:
    """Return what answers a unary gRPC call with one message."""

    def finish(body: bytes) -> Http2Reply:
        message = read_grpc_message(body)
        fields = [(":status", "200"), ("server", SERVER_NAME), ("content-type", GRPC_TYPE)]
        if message is None:
            return Http2Reply([*fields, ("grpc-status", "13"), ("grpc-message", "request is not one message")])
        return Http2Reply(fields, grpc_message(answer(message)), [("grpc-status", "0")])

    return finish
