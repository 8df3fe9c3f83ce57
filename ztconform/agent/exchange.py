# SPDX-License-Identifier: Apache-2.0
"""What one TCP connection meets on the wire: a state machine per socket, driven by the poller.

What is sent, and what the answer is worth, is for `attempt` and `lookup`; so is the time limit. TLS is put around it by
`tlsexchange`; datagrams are for `udpexchange`.

Why TCP probes end in a reset (SO_LINGER 0). The side that closes first keeps the connection in TIME_WAIT for 60 s: at the
server that is 300,000 entries at 5,000 probes/s, and at the client it holds one of 28,232 source ports, gone after 6 s. Nothing
can be lost: a connection is closed only when its answer is complete or no longer wanted. A reset also ends the conntrack entry,
and the next SYN from that port replaces it (nf_conntrack reopens a flow that its opener reset), so that it is judged afresh.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from . import errqueue
from .poller import FAILED, READABLE, WRITABLE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .poller import Poller
    from .readers import Reader
    from .sourceports import SourcePorts
    from .wire import OnSent, OpenSocket

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; not in Python's socket module
_SO_MARK = 36  # asm-generic/socket.h; in Python's socket module where it was built with it
_RECEIVE = 65536
_CLOSED = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)


class Outcome(NamedTuple):
    """Say how an exchange ended, in the words of an observation."""

    signal: str
    stage: str
    detail: str = ""


class Network(NamedTuple):
    """Hold what exchanges share: the loop, and the way to this pod's sockets."""

    loop: asyncio.AbstractEventLoop
    poller: Poller
    open_socket: OpenSocket
    on_sent: OnSent | None
    source_ports: SourcePorts


ANSWERED = Outcome("answered", "done")


class TcpExchange:
    """Connect, send a request and read its answer, sending what the reader replies on the way."""

    _next_stage = "request"  # behind "connect"

    __slots__ = ("_broken", "_done", "_moved", "_network", "_reader", "_request", "_socket", "_stage", "source")

    def __init__(self, network: Network, request: bytes, reader: Reader, done: Callable[[Outcome], None]) -> None:
        self._network = network
        self._request = request
        self._reader = reader
        self._done: Callable[[Outcome], None] | None = done
        self._socket: socket.socket | None = None
        self._stage = "connect"
        self._broken = False  # nothing more can be sent
        self._moved = network.loop.time()  # when it began, and then when it sent
        self.source = ""

    def start(self, nonce: str, target: tuple[str, int], bind: str | None, mark: int | None = None) -> None:
        """Connect; the exchange may end before this returns."""
        network = self._network
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        try:
            sock = network.open_socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0)
            self._socket = sock
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            errqueue.enable(sock)
            if mark is not None:
                sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
            if bind is not None:
                # The port is chosen at connect, where one that is busy towards another target will do.
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((bind, 0))
            error = sock.connect_ex(target)
            if error not in (0, errno.EINPROGRESS):
                self._fail(error)
                return
            address = sock.getsockname()
        except OSError as error:
            self._fail(error.errno or 0)
            return
        self.source = f"{address[0]} {address[1]}"
        if network.on_sent is not None:
            network.on_sent(nonce, "TCP", address[0], address[1], target[0], target[1])
        # Within one machine the handshake is over when connect() returns, and this already sends.
        self._send()
        if self._done is not None:
            network.poller.add(sock.fileno(), self._wanted(), self._ready)

    def look(self, deadline: float) -> bool:
        """Look once more at the socket, and return whether the exchange ended so or moved on only after the deadline."""
        self._ready(FAILED)
        return self._done is None or self._moved >= deadline

    def expire(self) -> None:
        """End because time is up."""
        self.end(Outcome("timeout", self._stage))

    def end(self, outcome: Outcome) -> None:
        """Close the socket and report, once."""
        done, self._done = self._done, None
        if self._socket is not None:
            self._network.poller.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if done is not None:
            done(outcome)

    def _ready(self, events: int) -> None:
        if self._socket is None:
            return
        if events & FAILED:
            # Before any send: an ICMP error that comes while connect() holds the socket is only queued, and then
            # the kernel itself would go on for a second, until the next SYN.
            error = errqueue.read(self._socket)
            if error is not None:
                self.end(icmp(error, self._stage))
                return
        if self._request:
            self._send()
            if self._done is not None:
                self._network.poller.change(self._socket.fileno(), self._wanted())
        if self._stage != "connect":
            self._receive()

    def _wanted(self) -> int:
        if not self._request:
            return READABLE
        return WRITABLE if self._stage == "connect" else READABLE | WRITABLE  # a refusal may come before all is sent

    def _send(self) -> None:
        if self._socket is None:
            return
        try:
            count = self._socket.send(self._request, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError as error:
            self._refused(error.errno or 0)
            return
        if self._stage == "connect":
            self._stage = self._next_stage
        self._moved = self._network.loop.time()
        self._request = self._request[count:]

    def _refused(self, number: int) -> None:
        # Who answers before all has come, and closes, resets the connection behind the answer: that lies here all the same.
        self._broken = True
        while self._socket is not None and self._stage != "connect":
            try:
                data = self._socket.recv(_RECEIVE)
            except OSError:
                break
            if not data:
                break
            self._received(data)
        self._fail(number)

    def _receive(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error.errno or 0)
            return
        self._received(data)

    def _received(self, data: bytes) -> None:
        reader = self._reader
        if reader.feed(data) if data else reader.end():
            self.end(ANSWERED)
        elif not data:
            self.end(Outcome("closed", self._stage, "EOF"))
        elif reader.reply:
            self._push(reader.reply)

    def _push(self, data: bytes) -> None:
        """Send more, on a connection that was open when last something was sent."""
        if self._broken:
            return
        self._request += data
        self._send()
        if self._request and self._socket is not None:
            self._network.poller.change(self._socket.fileno(), self._wanted())

    def _fail(self, number: int) -> None:
        error = None if self._socket is None else errqueue.read(self._socket)
        self.end(failure(number, self._stage) if error is None else icmp(error, self._stage))


def icmp(error: errqueue.Icmp, stage: str) -> Outcome:
    """Return the outcome that an ICMP error is."""
    # An ICMP port unreachable is how a host without a listener (and kube-proxy without an endpoint) refuses.
    return Outcome("refused" if error.port_unreachable else "icmp", stage, str(error))


def failure(number: int, stage: str) -> Outcome:
    """Return the outcome that an errno is, of a TCP socket that no ICMP error came for."""
    if number == errno.ETIMEDOUT:
        return Outcome("timeout", stage)
    if number in _CLOSED or stage != "connect":
        return Outcome("closed", stage, _name(number))
    return refusal(number, stage)


def refusal(number: int, stage: str) -> Outcome:
    """Return the outcome that an errno is, of a socket without a connection."""
    return Outcome("refused" if number == errno.ECONNREFUSED else "not-run", stage, _name(number))


def _name(number: int) -> str:
    return errno.errorcode.get(number, f"errno {number}")
