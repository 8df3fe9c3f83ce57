# SPDX-License-Identifier: Apache-2.0
"""What one datagram meets on the wire, sent once or again until it is answered.

What is sent, and what the answer is worth, is for `attempt` and `lookup`; so is the time limit.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from . import errqueue
from .exchange import ANSWERED, Network, Outcome, icmp, refusal
from .poller import FAILED, READABLE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_RECEIVE = 65536
_RESEND_AFTER = (0.2, 0.4, 0.8)  # seconds between datagrams: 0.2, 0.6 and 1.4 after the first
_PORT_TRIES = 16


class UdpExchange:
    """Send one datagram, again where that is wished, and take the first one that is an answer."""

    __slots__ = ("_accept", "_done", "_moved", "_network", "_request", "_resend", "_socket", "source")

    def __init__(
        self, network: Network, request: bytes, accept: Callable[[bytes], bool], done: Callable[[Outcome], None]
    ) -> None:
        self._network = network
        self._request = request
        self._accept = accept
        self._done: Callable[[Outcome], None] | None = done
        self._socket: socket.socket | None = None
        self._resend: asyncio.TimerHandle | None = None
        self._moved = network.loop.time()
        self.source = ""

    def start(self, nonce: str, target: tuple[str, int], bind: str | None, until: float, retry: bool) -> None:
        """Send from a fresh port, used `until` then at most; the exchange may end before this returns."""
        network = self._network
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        try:
            sock = network.open_socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
            self._socket = sock
            errqueue.enable(sock)
            if not self._bind(sock, target, bind, until):
                self.end(Outcome("not-run", "request", "no fresh UDP source port"))
                return
            sock.connect(target)
            address = sock.getsockname()
            self.source = f"{address[0]} {address[1]}"
            if network.on_sent is not None:
                network.on_sent(nonce, "UDP", address[0], address[1], target[0], target[1])
            sock.send(self._request)
        except OSError as error:
            self._fail(error.errno or 0)
            return
        network.poller.add(sock.fileno(), READABLE, self._ready)
        if retry:
            self._resend = network.loop.call_later(_RESEND_AFTER[0], self._send_again, 1)

    def look(self, deadline: float) -> bool:
        """Look once more at the socket, and return whether the exchange ended so or began only after the deadline."""
        self._ready(FAILED)
        return self._done is None or self._moved >= deadline

    def expire(self) -> None:
        """End because time is up."""
        self.end(Outcome("silence", "request"))

    def end(self, outcome: Outcome) -> None:
        """Close the socket and report, once."""
        done, self._done = self._done, None
        if self._resend is not None:
            self._resend.cancel()
            self._resend = None
        if self._socket is not None:
            self._network.poller.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if done is not None:
            done(outcome)

    def _bind(self, sock: socket.socket, target: tuple[str, int], bind: str | None, until: float) -> bool:
        address = bind or ("::" if ":" in target[0] else "0.0.0.0")
        for _ in range(_PORT_TRIES):
            port = self._network.source_ports.take(target, self._network.loop.time(), until)
            if port is None:
                return False
            try:
                sock.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue  # another exchange, towards another target, has it
                raise
            return True
        return False

    def _ready(self, events: int) -> None:
        if self._socket is None:
            return
        if events & FAILED:
            error = errqueue.read(self._socket)
            if error is not None:
                self.end(icmp(error, "request"))
                return
        accepted = False
        while not accepted:
            try:
                accepted = self._accept(self._socket.recv(_RECEIVE))
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(error.errno or 0)
                return
        self.end(ANSWERED)

    def _send_again(self, count: int) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(self._request)
        except OSError as error:
            self._fail(error.errno or 0)
            return
        if count < len(_RESEND_AFTER):
            self._resend = self._network.loop.call_later(_RESEND_AFTER[count], self._send_again, count + 1)
        else:
            self._resend = None

    def _fail(self, number: int) -> None:
        error = None if self._socket is None else errqueue.read(self._socket)
        self.end(icmp(error, "request") if error is not None else refusal(number, "request"))
