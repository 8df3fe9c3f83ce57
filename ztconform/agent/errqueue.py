# SPDX-License-Identifier: Apache-2.0
"""Whether an ICMP error reached a socket, and which: IP_RECVERR and the error queue.

An errno alone cannot say it: EHOSTUNREACH also comes from this host's own routes. What an ICMP error proves is for the judge.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

# linux/in.h, linux/in6.h, linux/errqueue.h; Python's socket module lacks most of them.
IP_RECVERR = 11
IPV6_RECVERR = 25
MSG_ERRQUEUE = 0x2000
SO_EE_ORIGIN_ICMP = 2
SO_EE_ORIGIN_ICMP6 = 3
_EXTENDED_ERROR = struct.Struct("=IBBBxII")  # errno, origin, type, code, info, data

_PORT_UNREACHABLE = ((4, 3, 3), (6, 1, 4))
_PACKET_TOO_BIG = ((4, 3, 4), (6, 2, 0))  # path MTU discovery; the kernel sends again


class Icmp(NamedTuple):
    """Name an ICMP error."""

    version: int  # 4 or 6
    type: int
    code: int

    def __str__(self) -> str:
        return f"{self.type}/{self.code}"

    @property
    def port_unreachable(self) -> bool:
        """Return whether it says that nobody listens."""
        return self in _PORT_UNREACHABLE


def enable(sock: socket.socket) -> None:
    """Have ICMP errors queued on a socket, and for UDP reported at all."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def read(sock: socket.socket) -> Icmp | None:
    """Return the first ICMP error in the queue that ends an exchange, or None."""
    while True:
        try:
            _, control, _, _ = sock.recvmsg(0, 512, MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            return None
        for level, kind, data in control:
            error = parse(level, kind, data)
            if error is not None and error not in _PACKET_TOO_BIG:
                return error


def parse(level: int, kind: int, data: bytes) -> Icmp | None:
    """Return the ICMP error in one control message; None for any other and for errors made on this host."""
    if (level, kind) not in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
        return None
    if len(data) < _EXTENDED_ERROR.size:
        return None
    _, origin, icmp_type, code, _, _ = _EXTENDED_ERROR.unpack_from(data)
    if origin == SO_EE_ORIGIN_ICMP:
        return Icmp(4, icmp_type, code)
    if origin == SO_EE_ORIGIN_ICMP6:
        return Icmp(6, icmp_type, code)
    return None
