# SPDX-License-Identifier: Apache-2.0
"""How interfaces, addresses, routes and neighbours are made: batches of rtnetlink messages, one system call each.

Which ones are made is left to `wiring`. Attribute and message framing are shared with `nfnetlink` and `nflog`.
"""

import ipaddress
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
# linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR = 20
RTM_NEWROUTE = 24
RTM_NEWNEIGH = 28
IFLA_ADDRESS, IFLA_IFNAME, IFLA_OPERSTATE = 1, 3, 16
IFLA_LINKINFO, IFLA_GROUP, IFLA_NET_NS_FD = 18, 27, 28
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFF_UP, IFF_LOOPBACK = 0x1, 0x8
IF_OPER_UP = 6
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTPROT_STATIC = 4
RTN_UNICAST, RTN_UNREACHABLE = 1, 7
RTNH_F_ONLINK = 4
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT = 0x80

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

    def deaf(self) -> set[int]:
        """Return the indices of interfaces that were set up but drop what they send, for the kernel is yet to notice their link.

        A kernel thread activates the end of a veth that was set up first, some time after the other one was. Without waiting,
        the first packet to one pod in three was lost (150 pods); IFLA_QDISC does not show it, IFLA_OPERSTATE does.
        """
        self._sequence += 1
        request = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        self.socket.send(frame(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, request))
        found: set[int] = set()
        while True:
            data = self.socket.recv(_RECEIVE)
            for kind, _, sequence, start, end in frames(data):
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    raise ClusterError(f"the kernel refused a list of interfaces: {os.strerror(-_error(data, start))}")
                index, flags = struct.unpack_from("=iI", data, start + 4)
                state = dict(attributes(data, start + 16, end)).get(IFLA_OPERSTATE)
                if flags & IFF_UP and not flags & IFF_LOOPBACK and state != bytes([IF_OPER_UP]):
                    found.add(index)


def _error(data: bytes, start: int) -> int:
    return int(struct.unpack_from("=i", data, start)[0])


def _interface(index: int = 0, up: bool = False) -> bytes:
    flag = IFF_UP if up else 0
    return struct.pack("=BxHiII", 0, 0, index, flag, flag)


def _end(device: str, index: int, mac: bytes, fd: int) -> bytes:
    # One queue: the default is one for each processor, which makes a veth on a large machine slow to create.
    queues = attribute(IFLA_NUM_TX_QUEUES, u32(1)) + attribute(IFLA_NUM_RX_QUEUES, u32(1))
    place = attribute(IFLA_NET_NS_FD, u32(fd)) + attribute(IFLA_IFNAME, name(device)) + attribute(IFLA_ADDRESS, mac)
    return _interface(index) + place + queues


class End(NamedTuple):
    """Describe one end of a veth; the ifindex of the ends must differ, else the kernel may see their link a second late."""

    fd: int
    device: str
    number: int
    mac: bytes


def veth(near: End, far: End) -> Message:
    """Create a veth straight into two network namespaces, both ends down."""
    peer = nest(IFLA_INFO_DATA, nest(VETH_INFO_PEER, _end(far.device, far.number, far.mac, far.fd)))
    body = _end(near.device, near.number, near.mac, near.fd)
    body += nest(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"veth"), peer)
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"veth {near.device} to {far.device}")


def up(index: int, device: str) -> Message:
    """Set an interface up."""
    return Message(RTM_NEWLINK, 0, _interface(index, up=True), f"link {device} up")


def into_group(index: int, group: int) -> Message:
    """Put an interface into a group."""
    return Message(RTM_NEWLINK, 0, _interface(index) + attribute(IFLA_GROUP, u32(group)), f"group of link {index}")


def delete_group(group: int) -> Message:
    """Delete all interfaces of a group at once, which costs no more than deleting one."""
    return Message(RTM_DELLINK, 0, _interface() + attribute(IFLA_GROUP, u32(group)), f"deletion of link group {group}")


def address(index: int, text: str) -> Message:
    """Add an address of full length, in force at once (no duplicate address detection)."""
    ip = ipaddress.ip_address(text)
    # The flag byte of the header and IFA_FLAGS must agree.
    header = struct.pack("=BBBBI", _family(ip), ip.max_prefixlen, IFA_F_NODAD, RT_SCOPE_UNIVERSE, index)
    body = header + attribute(IFA_LOCAL, ip.packed) + attribute(IFA_ADDRESS, ip.packed) + attribute(IFA_FLAGS, u32(IFA_F_NODAD))
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"address {text}")


def route(destination: str, index: int, via: str | None = None) -> Message:
    """Add a route to a network, to neighbours on an interface or by a gateway there, or replace the one that is there."""
    network = ipaddress.ip_network(destination)
    v4 = network.version == 4
    scope = RT_SCOPE_LINK if v4 and via is None else RT_SCOPE_UNIVERSE
    header = _route(network, scope, RTN_UNICAST, RTNH_F_ONLINK if via else 0)
    gateway = attribute(RTA_GATEWAY, ipaddress.ip_address(via).packed) if via else b""
    body = header + gateway + attribute(RTA_OIF, u32(index))
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"route {destination}" + (f" via {via}" if via else ""))


def unreachable(destination: str) -> Message:
    """Have packets to a network answered with ICMP "unreachable", which is never taken for a policy's silence."""
    network = ipaddress.ip_network(destination)
    body = _route(network, RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, 0)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"route unreachable {destination}")


def _route(network: ipaddress.IPv4Network | ipaddress.IPv6Network, scope: int, kind: int, flags: int) -> bytes:
    family = _family(network)
    header = struct.pack("=BBBBBBBBI", family, network.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, kind, flags)
    return header + (attribute(RTA_DST, network.network_address.packed) if network.prefixlen else b"")


def neighbour(index: int, text: str, mac: bytes) -> Message:
    """Add a permanent neighbour, so that no packet ever waits for ARP or neighbour discovery."""
    ip = ipaddress.ip_address(text)
    header = struct.pack("=BxHiHBB", _family(ip), 0, index, NUD_PERMANENT, 0, 0)
    body = header + attribute(NDA_DST, ip.packed) + attribute(NDA_LLADDR, mac)
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, f"neighbour {text}")


def _family(
    subject: ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> int:
    return socket.AF_INET if subject.version == 4 else socket.AF_INET6
