# SPDX-License-Identifier: Apache-2.0
"""What a workload's pod serves: HTTP, gRPC, TCP and UDP on its ports, and its health on a port that no policy names.

What reached it is kept by the witness, and whom a proxy named as its sender is for `xfcc`; how bytes arrive is for `listeners`,
DNS for `nameserver`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import websocket, xfcc
from .http2server import Http2Reply, Http2Session, call, plain
from .httpserver import HttpSession, Reply, Request
from .listeners import ANY, Listeners
from .wire import (
    HEALTH_PORT,
    MARK_HEADER,
    MAX_LINE,
    NONCE_HEADER,
    AgentError,
    answer_line,
    read_nonce,
    read_request_line,
)
from .witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .wire import Mark, OpenSocket

_STATUS = re.compile(r"/status/([2-5][0-9][0-9])(?:[?].*)?")
_SPOKEN = (("TCP", "http"), ("TCP", "http2"), ("TCP", "grpc"), ("TCP", "tcp"), ("UDP", "udp"))


class Server:
    """Serve one pod's ports, answering with marks and remembering nonces."""

    def __init__(
        self,
        pod: str,
        open_socket: OpenSocket,
        ports: Sequence[Mapping[str, Any]],
        addresses: Sequence[str] = ANY,
        health: int = HEALTH_PORT,
        identity: str = "",
    ) -> None:
        """Take ports as {"number", "protocol", "app"}; `addresses` parts outsiders that share a network namespace.

        A `health` port of 0 is none: on a node's own network nothing of ours listens. `identity` is the header that names the
        caller as it is, where a proxy has one of its own.
        """
        self._open_socket = open_socket
        self._ports = tuple(ports)
        self._addresses = tuple(addresses)
        self._health = health
        self._identity = identity
        self._listeners: Listeners | None = None
        self.witness = Witness(pod)

    @property
    def boot(self) -> str:
        """Return the ID under which this server remembers."""
        return self.witness.boot

    def start(self) -> None:
        """Listen, in the running loop; raises AgentError, and then listens nowhere."""
        if self._listeners is not None:
            raise AgentError(f"{self.witness.pod} serves already")
        self._listeners = listeners = Listeners(self._open_socket, self._addresses)
        try:
            if self._health:
                listeners.listen(self._health, _new_health_session)
            for port in self._ports:
                self._serve(listeners, port)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close every socket; what was seen stays known."""
        if self._listeners is not None:
            self._listeners.close()
            self._listeners = None

    def sightings(self, since: int = 0) -> list[list[Any]]:
        """Return [nonce, boot, sequence, identity] for every sequence above `since`."""
        return self.witness.sightings(since)

    def _serve(self, listeners: Listeners, port: Mapping[str, Any]) -> None:
        unknown = sorted(port.keys() - {"number", "protocol", "app"})
        number, protocol, app = port.get("number"), port.get("protocol"), port.get("app")
        if unknown or not isinstance(number, int) or (protocol, app) not in _SPOKEN:
            spoken = ", ".join(f"{a} over {p}" for p, a in _SPOKEN)
            raise AgentError(f"port {dict(port)} of {self.witness.pod} is not one that the agent serves: {spoken}")
        if app == "http":
            listeners.listen(number, self._new_http_session)
        elif app == "http2":
            listeners.listen(number, self._new_http2_session)
        elif app == "grpc":
            listeners.listen(number, self._new_grpc_session)
        elif app == "tcp":
            listeners.listen(number, self._new_line_session)
        else:
            listeners.receive(number, self._answer_datagram)

    def _new_http_session(self, peer: str) -> HttpSession:
        return HttpSession(lambda request: self._answer_request(request, peer))

    def _new_http2_session(self, peer: str) -> Http2Session:
        def respond(request: Request) -> Callable[[bytes], Http2Reply]:
            reply = plain(self._answer(request, self._record(request, peer)), request.method)
            return lambda _body: reply

        return Http2Session(respond)

    def _new_grpc_session(self, peer: str) -> Http2Session:
        def respond(request: Request) -> Callable[[bytes], Http2Reply]:
            mark = self._record(request, peer) if read_nonce(request.headers.get(NONCE_HEADER, "")) else None
            return call(lambda message: answer_line(mark or self._record(request, peer, read_request_line(message))))

        return Http2Session(respond)

    def _new_line_session(self, peer: str) -> _LineSession:
        return _LineSession(self.witness, peer)

    def _answer_request(self, request: Request, peer: str) -> Reply:
        mark = self._record(request, peer)
        reply = self._answer(request, mark)
        if "upgrade" not in request.headers or reply.status != 200 or not websocket.wished(request.headers):
            return reply
        key = websocket.offered_key(request.headers)
        if not key:
            return Reply(400, b"", "text/plain")

        def record(nonce: str) -> Mark:
            # A probe's message has the nonce of its handshake, and both are one sighting.
            return mark if nonce and nonce == mark.nonce else self._record(request, peer, nonce)

        headers = (("Upgrade", "websocket"), ("Sec-WebSocket-Accept", websocket.accept_key(key)))
        return Reply(101, b"", headers=headers, session=websocket.WebSocketSession(record))

    def _answer(self, request: Request, mark: Mark) -> Reply:
        status = _STATUS.fullmatch(request.path)
        return Reply(int(status.group(1)) if status else 200, mark.encode(), body_header=MARK_HEADER)

    def _record(self, request: Request, peer: str, nonce: str | None = None) -> Mark:
        headers = request.headers
        nonce = read_nonce(headers.get(NONCE_HEADER, "")) if nonce is None else nonce
        if self._identity:
            identity = headers.get(self._identity)
        else:
            identity = xfcc.identity(headers[xfcc.HEADER]) if xfcc.HEADER in headers else None
        return self.witness.record(nonce, request.method, request.path, peer, identity)

    def _answer_datagram(self, data: bytes, peer: str) -> bytes:
        nonce = read_request_line(data)
        mark = self.witness.record(nonce, "UDP", "", peer)
        return answer_line(mark) if nonce else b""


class _LineSession:
    """Answer each line of a TCP connection with a mark; anything but our lines closes it."""

    __slots__ = ("_buffer", "_peer", "_witness", "closing")

    def __init__(self, witness: Witness, peer: str) -> None:
        self._witness = witness
        self._peer = peer
        self._buffer = b""
        self.closing = False

    def feed(self, data: bytes) -> bytes:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        out = []
        for line in lines:
            nonce = read_request_line(line)
            mark = self._witness.record(nonce, "TCP", "", self._peer)
            if not nonce:
                self.closing = True
                break
            out.append(answer_line(mark))
        self.closing = self.closing or len(self._buffer) > MAX_LINE
        return b"".join(out)


def _new_health_session(_peer: str) -> HttpSession:
    return HttpSession(lambda _request: Reply(200, b"200 ok\n", "text/plain"))
