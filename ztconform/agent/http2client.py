# SPDX-License-Identifier: Apache-2.0
"""What HTTP/2 and gRPC probes send, and when and with what they are answered.

How a connection goes is for `http2`. Requests of one connection follow one another, each on a stream of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from .http2 import Connection, Content, Goaway, Head, Reset
from .readers import MAX_ANSWER, Answer
from .wire import (
    FOREIGN_NONCE,
    GRPC_TYPE,
    MARK_HEADER,
    NONCE_HEADER,
    SERVER_NAME,
    UNMARKED,
    authority,
    grpc_message,
    read_answer_line,
    read_grpc_message,
    read_mark,
    request_line,
)

if TYPE_CHECKING:
    from typing import Any

    from .hpack import Field
    from .spec import Spec
    from .wire import Mark

_MAX_REASON = 256  # characters of a grpc-message


class Http2Reader:
    """Send one request and collect its answer."""

    __slots__ = (
        "_connection",
        "_ended",
        "_error",
        "_nonce",
        "_problem",
        "_raw",
        "_stream",
        "body",
        "fields",
        "reply",
        "server",
        "status",
        "trailers",
    )

    def __init__(self, spec: Spec, nonce: str, before: Any = None) -> None:
        """Go on with the connection of the reader `before`, if there is one."""
        self._connection: Connection = before._connection if isinstance(before, Http2Reader) else Connection(client=True)
        self._stream = self._connection.request(self._fields(spec, nonce), self._content(nonce))
        self._nonce = nonce
        self._ended = False
        self._error = ""  # the word with which the server gave up the request
        self._problem = ""  # why the answer is none
        self._raw = b""  # what came before the server spoke HTTP/2
        self.reply = b""
        self.status: int | None = None
        self.server = ""
        self.fields: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.body = b""

    @property
    def reusable(self) -> bool:
        """Return whether another request may follow on the connection."""
        return self._ended and not self._error and not self._problem

    def first(self) -> bytes:
        """Return what is to be sent before anything comes."""
        return self._connection.take()

    def feed(self, data: bytes) -> bool:
        connection = self._connection
        if not connection.settled and len(self._raw) < MAX_ANSWER:
            self._raw += data
        for event in connection.feed(data):
            if isinstance(event, Goaway):
                if event.last < self._stream:
                    self._error = f"GOAWAY {event.error}"
            elif event.stream == self._stream:
                self._take(event)
        if connection.settled:
            self._raw = b""
        self.reply = connection.take()
        self._problem = self._problem or connection.failure
        if len(self.body) > MAX_ANSWER:
            self._problem = f"longer than {MAX_ANSWER} bytes"
        return self._ended or bool(self._error) or bool(self._problem)

    def end(self) -> bool:
        return False

    def answer(self) -> Answer:
        """Return what the answer was worth."""
        if self._raw:
            return Answer("answer is not HTTP/2", body=self._raw.decode("latin-1"))
        if self._problem:
            detail = f"answer is not HTTP/2: {self._problem}"
            return Answer(detail, body=self.body.decode("latin-1"), status=self.status, server=self.server)
        if self._error:
            return Answer(self._error, server=self.server, closed=True)
        return self._read()

    def _read(self) -> Answer:
        text = self.body.decode("latin-1")
        return Answer(mark=read_mark(self.fields.get(MARK_HEADER) or text), body=text, status=self.status, server=self.server)

    def _take(self, event: Head | Content | Reset) -> None:
        if self._ended:
            return
        if isinstance(event, Reset):
            self._error = f"RST_STREAM {event.error}"
        elif isinstance(event, Content):
            self.body += event.data
            self._ended = event.end
        elif self.status is not None:
            self.trailers.update(event.fields)
            self._ended = event.end
        else:
            self._take_head(dict(event.fields))
            self._ended = event.end

    def _take_head(self, fields: dict[str, str]) -> None:
        status = fields.get(":status", "")
        if len(status) != 3 or not status.isdigit() or not status.isascii():
            self._problem = "no status"
        elif status[0] != "1":
            self.status = int(status)
            self.fields = fields
            self.server = fields.get("server", "")

    def _fields(self, spec: Spec, nonce: str) -> list[Field]:
        given = [(name.lower(), value) for name, value in spec.headers]  # HTTP/2 has no other names
        names = {name for name, _ in given}
        fields = [(":method", self._method(spec)), (":scheme", "http" if spec.tls is None else "https"), (":path", spec.path)]
        if "host" not in names:
            fields.append((":authority", spec.host if spec.host is not None else authority(spec.name or spec.address, spec.port)))
        ours = [*self._own(), (NONCE_HEADER, nonce), ("user-agent", SERVER_NAME)]
        return [*fields, *given, *(field for field in ours if field[0] not in names or field[0] == NONCE_HEADER)]

    def _method(self, spec: Spec) -> str:
        return spec.method

    def _own(self) -> list[Field]:
        return []

    def _content(self, _nonce: str) -> bytes:
        return b""


class GrpcReader(Http2Reader):
    """Send one unary call and collect its one message and its status."""

    __slots__ = ()

    def _method(self, spec: Spec) -> str:
        return "POST"

    def _own(self) -> list[Field]:
        return [("content-type", GRPC_TYPE), ("te", "trailers")]

    def _content(self, nonce: str) -> bytes:
        return grpc_message(request_line(nonce))

    def _read(self) -> Answer:
        message = read_grpc_message(self.body)
        body = self.body if message is None else message
        mark: Mark | None = None
        code = self.trailers.get("grpc-status", self.fields.get("grpc-status"))  # in the head where there is nothing else
        if code is None:
            detail = "answer has no grpc-status"
        elif code == "0":
            mark = None if message is None else read_answer_line(message)
            detail = "grpc-status 0"
            if mark is None or mark.nonce != self._nonce:
                detail += f", {UNMARKED if mark is None else FOREIGN_NONCE}"
        else:
            reason = self.trailers.get("grpc-message", self.fields.get("grpc-message", ""))
            detail = f"grpc-status {code[:16]} {unquote(reason)[:_MAX_REASON]}".rstrip()
        return Answer(detail, mark, body.decode("latin-1"), self.status, self.server)
