# SPDX-License-Identifier: Apache-2.0
"""How we speak netlink: messages and attributes as bytes, sockets in a network namespace, and what the kernel answers.

What is asked for is left to `rtnetlink`, `nfnetlink` and `nflog`.
"""

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ztconform.errors import ClusterError
from ztconform.lab import netns

# linux/netlink.h
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
HEADER_LENGTH = _HEADER.size
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE = 1 << 17


class Message(NamedTuple):
    """Ask the kernel for one thing; `what` names it where the kernel refuses."""

    type: int
    flags: int
    body: bytes
    what: str


class Refusal(NamedTuple):
    """Tell which message of a batch the kernel refused, by its sequence number, and why."""

    sequence: int
    error: int
    text: str

    @property
    def why(self) -> str:
        """Return the kernel's reason as a clause."""
        return os.strerror(self.error) + (f" ({self.text})" if self.text else "")


def attribute(kind: int, data: bytes) -> bytes:
    """Return a netlink attribute, padded."""
    length = 4 + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(-length % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def u32(value: int) -> bytes:
    """Return 32 bits in the byte order of this machine, as rtnetlink wants them."""
    return struct.pack("=I", value)


def name(text: str) -> bytes:
    """Return a string as the kernel wants it."""
    return text.encode() + b"\0"


def frame(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """Return a netlink message, padded."""
    length = HEADER_LENGTH + len(body)
    return _HEADER.pack(length, kind, flags, sequence, 0) + body + bytes(-length % 4)


def frames(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield type, flags, sequence, and where the body begins and ends, of each netlink message."""
    at = 0
    while at + HEADER_LENGTH <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < HEADER_LENGTH:
            return
        yield kind, flags, sequence, at + HEADER_LENGTH, at + length
        at += (length + 3) & ~3


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each attribute between two offsets."""
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            return
        yield kind & 0x3FFF, data[start + 4 : start + length]
        start += (length + 3) & ~3


def acknowledgement(data: bytes, flags: int, sequence: int, start: int, end: int) -> Refusal:
    """Return what a message of type NLMSG_ERROR says; error 0 is consent."""
    error, length = struct.unpack_from("=iI", data, start)
    text = ""
    if error and flags & NLM_F_ACK_TLVS:
        echoed = HEADER_LENGTH if flags & NLM_F_CAPPED else (length + 3) & ~3
        found = dict(attributes(data, start + 4 + echoed, end))
        text = found.get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    return Refusal(sequence, -error, text)


def open_in(fd: int, protocol: int) -> socket.socket:
    """Return a netlink socket in a network namespace, on which the kernel adds its own words to a refusal."""
    try:
        sock = netns.open_socket(fd, socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    except OSError as error:
        raise ClusterError(f"this kernel does not speak netlink protocol {protocol}: {error.strerror}") from error
    sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)  # without an echo of the message that it refuses
    return sock


def enlarge(sock: socket.socket, buffer: Literal["SNDBUF", "RCVBUF"], size: int) -> None:
    """Make a socket's buffer hold a size, or as much as the machine's limit allows where we may not exceed it."""
    forced = {"SNDBUF": SO_SNDBUFFORCE, "RCVBUF": SO_RCVBUFFORCE}[buffer]
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, size)
    except PermissionError:  # only the host's own root may
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF if buffer == "SNDBUF" else socket.SO_RCVBUF, size)


class Netlink:
    """Speak to the kernel in one network namespace; rtnetlink, unless another protocol is named."""

    def __init__(self, fd: int, protocol: int = NETLINK_ROUTE) -> None:
        self.socket = open_in(fd, protocol)
        self._sequence = 0

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def batch(self, messages: Sequence[Message]) -> None:
        """Have the kernel do all of it, in order, in one system call for every 256 messages.

        Raises ClusterError naming the first message that was refused; those after it were tried all the same.
        """
        for start in range(0, len(messages), 256):  # 256 messages stay far below the smallest send buffer in use (208 KiB)
            self._send(messages[start : start + 256])

    def _send(self, messages: Sequence[Message]) -> None:
        first, last = self._sequence + 1, self._sequence + len(messages)
        self._sequence = last
        # Refusals are answered unasked; consent is asked for once, of the last message, when the kernel has done them all.
        self.socket.send(
            b"".join(
                frame(message.type, NLM_F_REQUEST | message.flags | (NLM_F_ACK if number == last else 0), number, message.body)
                for number, message in enumerate(messages, first)
            )
        )
        refused: list[Refusal] = []
        answered = False
        while not answered:
            data = self.socket.recv(_RECEIVE)
            for kind, flags, sequence, start, end in frames(data):
                if kind == NLMSG_ERROR and sequence >= first:
                    answer = acknowledgement(data, flags, sequence, start, end)
                    refused += [answer] if answer.error else []
                    answered = answered or sequence == last
        if refused:
            raise ClusterError(f"the kernel refused {messages[refused[0].sequence - first].what}: {refused[0].why}")

    def dump(self, message: Message) -> list[bytes]:
        """Return the body of every message with which the kernel answers a request for a list."""
        self._sequence += 1
        self.socket.send(frame(message.type, NLM_F_REQUEST | NLM_F_DUMP | message.flags, self._sequence, message.body))
        found: list[bytes] = []
        while True:
            data = self.socket.recv(_RECEIVE)
            for kind, _, sequence, start, end in frames(data):
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    raise ClusterError(f"the kernel refused {message.what}: {os.strerror(-_error(data, start))}")
                found.append(data[start:end])


def _error(data: bytes, start: int) -> int:
    return int(struct.unpack_from("=i", data, start)[0])
