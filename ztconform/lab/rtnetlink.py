# SPDX-License-Identifier: Apache-2.0
"""How interfaces, addresses, routes and neighbours are asked for: a `netlink.Message` each.

Which ones are made is left to `wiring`, and sending them to `netlink`.
"""

import ipaddress
import socket
import struct
from typing import NamedTuple

from ztconform.lab.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Netlink,
    attribute,
    attributes,
    name,
    nest,
    u32,
)

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
IFLA_VXLAN_ID = 1
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


def link(device: str, kind: str) -> Message:
    """Create a link of a type, down, with what the type cannot do without."""
    data = nest(IFLA_INFO_DATA, attribute(IFLA_VXLAN_ID, u32(1))) if kind == "vxlan" else b""
    info = nest(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode()), data)
    body = _interface() + attribute(IFLA_IFNAME, name(device)) + info
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"link of the type {kind}")


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


def deaf(link: Netlink) -> set[int]:
    """Return the indices of interfaces that were set up but drop what they send, for the kernel is yet to notice their link.

    A kernel thread activates the end of a veth that was set up first, some time after the other one was. Without waiting,
    the first packet to one pod in three was lost (150 pods); IFLA_QDISC does not show it, IFLA_OPERSTATE does.
    """
    found: set[int] = set()
    for body in link.dump(Message(RTM_GETLINK, 0, _interface(), "a list of interfaces")):
        index, flags = struct.unpack_from("=iI", body, 4)
        state = dict(attributes(body, 16, len(body))).get(IFLA_OPERSTATE)
        if flags & IFF_UP and not flags & IFF_LOOPBACK and state != bytes([IF_OPER_UP]):
            found.add(index)
    return found


def _family(
    subject: ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> int:
    return socket.AF_INET if subject.version == 4 else socket.AF_INET6
