# SPDX-License-Identifier: Apache-2.0
"""How servers listen: TCP connections and UDP datagrams on many addresses, handed to sessions as bytes.

What the bytes mean is for the sessions: `httpserver`, `server`, `nameserver`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Protocol

from .poller import READABLE, WRITABLE, Poller
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .wire import OpenSocket

ANY = ("0.0.0.0", "::")

_BACKLOG = 4096
_BATCH = 64  # connections or datagrams taken before others have their turn
_RECEIVE = 65536
_OUT_OF_FILES_PAUSE = 0.1  # seconds without accepting; the listener would be ready for ever and the loop spin
_KEEPALIVE = 30  # seconds; ends connections whose client vanished behind a new policy
_UDP_BUFFER = 1 << 22  # asked for; the kernel cuts it to rmem_max. 212,992 bytes hold 277 small datagrams
_IP_PKTINFO = 8  # linux/in.h; not in Python's socket module
_IN_PKTINFO = struct.Struct("=I4s4s")  # interface, local address, destination in the header
_IN6_PKTINFO = struct.Struct("=16sI")  # destination, interface


class Session(Protocol):
    """Answer one connection."""

    closing: bool

    def feed(self, data: bytes) -> bytes:
        """Take bytes that came in and return those to send; `closing` says whether the connection ends behind them."""


class Listeners:
    """Hold the sockets of one server and their connections, in the running loop."""

    def __init__(self, open_socket: OpenSocket, addresses: Sequence[str]) -> None:
        self._open_socket = open_socket
        self._addresses = tuple(addresses)
        self._loop = asyncio.get_running_loop()
        self._poller = Poller(self._loop)
        self._sockets: list[socket.socket] = []
        self._connections: set[_Connection] = set()

    def listen(self, port: int, new_session: Callable[[str], Session]) -> None:
        """Accept TCP connections; `new_session` gets the peer as "address port". Raises AgentError."""
        for sock in self._bind(socket.SOCK_STREAM, port):
            for level, option, value in (
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE),
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            ):
                sock.setsockopt(level, option, value)  # inherited by each accepted socket
            try:
                sock.listen(_BACKLOG)
            except OSError as error:
                raise _cannot_bind("TCP", sock.getsockname()[0], port, error) from error
            self._poller.add(sock.fileno(), READABLE, self._acceptor(sock, new_session))

    def receive(self, port: int, answer: Callable[[bytes, str], bytes]) -> None:
        """Answer UDP datagrams, b"" leaving one unanswered. Raises AgentError."""
        for sock in self._bind(socket.SOCK_DGRAM, port):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER)
            # A wildcard socket would answer from whatever address routing prefers, and the client drop the answer.
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            self._poller.add(sock.fileno(), READABLE, _receiver(sock, answer))

    def close(self) -> None:
        """Close every socket and connection."""
        for connection in tuple(self._connections):
            connection.close()
        for sock in self._sockets:
            self._poller.forget(sock.fileno())
            sock.close()
        self._sockets.clear()
        self._poller.close()

    def _bind(self, kind: int, port: int) -> list[socket.socket]:
        bound = []
        for address in self._addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            try:
                sock = self._open_socket(family, kind | socket.SOCK_NONBLOCK, 0)
            except OSError as error:
                if address == "::" and error.errno == errno.EAFNOSUPPORT:
                    continue  # a kernel without IPv6: no client can reach us by it either
                raise _cannot_bind(_transport(kind), address, port, error) from error
            self._sockets.append(sock)
            try:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if kind == socket.SOCK_STREAM:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, port))
            except OSError as error:
                raise _cannot_bind(_transport(kind), address, port, error) from error
            bound.append(sock)
        return bound

    def _acceptor(self, listener: socket.socket, new_session: Callable[[str], Session]) -> Callable[[int], None]:
        def accept(_events: int) -> None:
            for _ in range(_BATCH):
                try:
                    sock, peer = listener.accept()
                except BlockingIOError:
                    return
                except OSError as error:
                    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        self._pause(listener)
                        return
                    continue  # the client was gone before we came to it
                connection = _Connection(self._poller, self._connections, sock, new_session(f"{peer[0]} {peer[1]}"))
                # The request is usually there already: reading at once saves an epoll registration and a wake-up.
                connection.ready(READABLE)

        return accept

    def _pause(self, listener: socket.socket) -> None:
        descriptor = listener.fileno()
        self._poller.change(descriptor, 0)

        def resume() -> None:
            if listener.fileno() == descriptor:  # not closed meanwhile
                self._poller.change(descriptor, READABLE)

        self._loop.call_later(_OUT_OF_FILES_PAUSE, resume)


class _Connection:
    __slots__ = ("_all", "_out", "_poller", "_session", "_socket", "_waiting")

    def __init__(self, poller: Poller, connections: set[_Connection], sock: socket.socket, session: Session) -> None:
        self._poller = poller
        self._all = connections
        self._socket = sock
        self._session = session
        self._out = b""
        self._waiting = 0  # the events that the poller waits for
        connections.add(self)

    def ready(self, _events: int) -> None:
        # MSG_DONTWAIT in place of setblocking(False): a system call less for each connection.
        try:
            if not self._out:
                data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
                if not data:
                    self.close()
                    return
                self._out = self._session.feed(data)
            if self._out:
                self._out = self._out[self._socket.send(self._out, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._session.closing and not self._out:
            self.close()
        else:
            # While an answer is stuck nothing more is read: a client that only sends cannot fill our memory.
            self._wait(WRITABLE if self._out else READABLE)

    def close(self) -> None:
        self._all.discard(self)
        self._poller.forget(self._socket.fileno())
        self._socket.close()

    def _wait(self, events: int) -> None:
        if self._waiting == events:
            return
        if self._waiting:
            self._poller.change(self._socket.fileno(), events)
        else:
            self._poller.add(self._socket.fileno(), events, self.ready)
        self._waiting = events


def _receiver(sock: socket.socket, answer: Callable[[bytes, str], bytes]) -> Callable[[int], None]:
    def receive(_events: int) -> None:
        for _ in range(_BATCH):
            try:
                data, control, _, peer = sock.recvmsg(_RECEIVE, 128)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier answer
            reply = answer(data, f"{peer[0]} {peer[1]}")
            if not reply:
                continue
            try:
                sock.sendmsg([reply], [_source(*item) for item in control], 0, peer)
            except OSError:
                continue  # the client sees silence, which is what happened

    return receive


def _source(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """Turn the destination of a datagram into the source of its answer."""
    if level == socket.IPPROTO_IP:
        _, _, destination = _IN_PKTINFO.unpack(data)
        return level, kind, _IN_PKTINFO.pack(0, destination, b"\0\0\0\0")
    destination, _ = _IN6_PKTINFO.unpack(data)
    return level, kind, _IN6_PKTINFO.pack(destination, 0)


def _transport(kind: int) -> str:
    return "TCP" if kind == socket.SOCK_STREAM else "UDP"


def _cannot_bind(transport: str, address: str, port: int, error: OSError) -> AgentError:
    where = f"{transport} port {port} at {address}"
    number: Any = error.errno
    if number == errno.EADDRINUSE:
        return AgentError(f"{where} is in use: another process or workload listens there")
    if number in (errno.EACCES, errno.EPERM):
        return AgentError(f"{where} needs a privilege: ports below net.ipv4.ip_unprivileged_port_start do")
    return AgentError(f"{where} cannot be served: {os.strerror(number)}")
