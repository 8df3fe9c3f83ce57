# SPDX-License-Identifier: Apache-2.0
"""How pods, nodes and the outside are connected: routed veths between network namespaces, no bridge.

Addresses are given by the caller, and which packet may pass is left to the rulesets that are loaded into the nodes.

    pod eth0 --- DEVICE node 0 eth0 --- node0 +------+
    pod eth0 --- DEVICE                       | wire | outside --- eth0 outside host
    pod eth0 --- DEVICE node 1 eth0 --- node1 +------+

The wire is the network namespace in which `Wiring` was made, a router and nothing else. A bridge would need br_netfilter
before a rule of the inet family sees anything, and without it silently enforces nothing. Every neighbour is permanent, so
that no packet waits for ARP. It has no way out: what is in none of these networks is answered with ICMP "unreachable".
"""

import contextlib
import ipaddress
import itertools
import os
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ztconform.errors import ClusterError
from ztconform.lab import netlink, netns, nfnetlink, rtnetlink
from ztconform.lab.netlink import Message, Netlink
from ztconform.lab.rtnetlink import End
from ztconform.lab.ruleset import Chain, Established, Hook, Rule, Table

OUTSIDE_V4 = "192.0.2.0/24"  # RFC 5737
OUTSIDE_V6 = "2001:db8::/64"  # RFC 3849
SERVICES_V4 = "10.96.0.0/16"
SERVICES_V6 = "fd00:10:96::/112"

_LO = 1
_ETH0 = 2
_FIRST_INDEX = 100  # of the interfaces to pods; unlike _ETH0 always, see rtnetlink.End
_GATEWAY_MAC = bytes.fromhex("eeeeeeeeeeee")
_GATEWAY_V4 = "169.254.1.1"
_GATEWAY_V6 = "fe80::1"
_OUTSIDE_HOST = 254  # host part of the outside host's own address beside the nodes'
_DOOMED = 0x7A7463  # the group of interfaces that are about to be deleted
_UP_WITHIN = 5.0  # seconds; a kernel thread needs far less than one millisecond

# Unlimited: an ICMP error that a rate limit swallows turns a refusal into the silence of a drop.
_COMMON = {
    "net.ipv4.icmp_ratemask": 0,
    "net.ipv6.icmp.ratelimit": 0,
    "net.ipv6.conf.default.addr_gen_mode": 1,  # no link-local addresses, hence no duplicate address detection
}
_ROUTER = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.default.send_redirects": 0,
}
_NODE = {"net.ipv4.conf.all.rp_filter": 1, "net.ipv4.conf.default.rp_filter": 1}
_HOST = {"net.ipv4.ip_unprivileged_port_start": 0, "net.core.somaxconn": 4096}
# A flow stays known for 120 s after its end: at 5,000 connections a second the table would be full after a minute.
_CONNTRACK = {
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait": 1,
    "net.netfilter.nf_conntrack_tcp_timeout_close": 1,
    "net.netfilter.nf_conntrack_max": 1 << 20,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLink:
    """Describe how a pod hangs on its node."""

    key: str
    node: int
    device: str  # name of the interface on the node, at most 15 bytes
    v4: str
    v6: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Connected:
    link: PodLink
    fd: int
    index: int


class Wiring:
    """Build nodes, a wire and an outside host in the network namespace of the caller, and pods on demand.

    Every method raises ClusterError where the kernel refuses.
    """

    def __init__(self, nodes: int = 2) -> None:
        self.nodes: list[int] = [netns.create() for _ in range(nodes)]
        self.outside = netns.create()
        self._wire = netns.own()
        self._pods: dict[str, _Connected] = {}
        self._indices = [itertools.count(_FIRST_INDEX) for _ in range(nodes)]
        self._routers = [Netlink(fd) for fd in self.nodes]
        self._wire_link = Netlink(self._wire)
        for fd, keys in ((self._wire, _COMMON | _ROUTER), (self.outside, _COMMON | _HOST)):
            _set(fd, keys)
        for fd in self.nodes:
            _set(fd, _COMMON | _ROUTER | _NODE)
            _shorten_conntrack(fd)
        self._connect_nodes()
        self._connect_outside()
        _await_links([self._wire_link])

    def _connect_nodes(self) -> None:
        """Give each node its own address and pod networks, and the wire the routes to them."""
        on_wire = [rtnetlink.up(_LO, "lo"), rtnetlink.address(_LO, node_v4(-1)), rtnetlink.address(_LO, node_v6(-1))]
        for number, fd in enumerate(self.nodes):
            device, index, mac = f"node{number}", _FIRST_INDEX + number, _mac(node_v4(number))
            on_wire += [
                rtnetlink.veth(End(self._wire, device, index, _GATEWAY_MAC), End(fd, "eth0", _ETH0, mac)),
                *_peer(index, device, mac, (node_v4(number), node_v6(number))),
                rtnetlink.route(pods_v4(number), index, via=node_v4(number)),
                rtnetlink.route(pods_v6(number), index, via=node_v6(number)),
            ]
        self._wire_link.batch(on_wire)
        for number, router in enumerate(self._routers):
            # A packet to a Service that nobody has turned into a pod's address must not travel to the wire and back.
            own = [rtnetlink.unreachable(network) for network in (SERVICES_V4, SERVICES_V6, pods_v4(number), pods_v6(number))]
            router.batch([*_host(node_v4(number), node_v6(number)), *own])

    def _connect_outside(self) -> None:
        index, mac = _FIRST_INDEX + len(self.nodes), _mac(node_v4(_OUTSIDE_HOST - 2))
        v4, v6 = node_v4(_OUTSIDE_HOST - 2), node_v6(_OUTSIDE_HOST - 2)
        self._outside_index, self._outside_via = index, {4: v4, 6: v6}
        self._wire_link.batch(
            [
                rtnetlink.veth(End(self._wire, "outside", index, _GATEWAY_MAC), End(self.outside, "eth0", _ETH0, mac)),
                *_peer(index, "outside", mac, (v4, v6)),
                rtnetlink.route(OUTSIDE_V4, index, via=v4),
                rtnetlink.route(OUTSIDE_V6, index, via=v6),
            ]
        )
        with Netlink(self.outside) as host:
            host.batch(_host(v4, v6))

    def add(self, pods: Sequence[PodLink]) -> None:
        """Connect pods, each in a network namespace of its own; both directions work when it returns."""
        self._check(pods)
        fresh = [_Connected(link=pod, fd=netns.create(), index=next(self._indices[pod.node])) for pod in pods]
        try:
            self._connect(fresh)
        except ClusterError:
            for pod in fresh:
                os.close(pod.fd)  # what was connected goes with its namespace
            raise
        self._pods |= {pod.link.key: pod for pod in fresh}

    def _connect(self, pods: Sequence[_Connected]) -> None:
        by_node: dict[int, list[Message]] = {}
        for pod in pods:
            _set(pod.fd, _COMMON | _HOST)
            by_node.setdefault(pod.link.node, []).extend(self._on_node(pod))
        for node, messages in by_node.items():
            self._routers[node].batch(messages)
        for pod in pods:
            with Netlink(pod.fd) as host:
                host.batch(_host(pod.link.v4, pod.link.v6))
        _await_links([self._routers[node] for node in by_node])

    def _check(self, pods: Sequence[PodLink]) -> None:
        """Refuse what would leave half of the pods connected."""
        keys = [pod.key for pod in pods]
        twice = {key for key in keys if key in self._pods or keys.count(key) > 1}
        if twice:
            raise ClusterError(f"the lab already has a pod {', '.join(sorted(twice))}")
        for pod in pods:
            if not 0 <= pod.node < len(self.nodes):
                raise ClusterError(f"pod {pod.key} is on node {pod.node}; the lab has nodes 0 to {len(self.nodes) - 1}")

    def _on_node(self, pod: _Connected) -> list[Message]:
        link, mac = pod.link, _mac(pod.link.v4)
        near, far = End(self.nodes[link.node], link.device, pod.index, _GATEWAY_MAC), End(pod.fd, "eth0", _ETH0, mac)
        return [rtnetlink.veth(near, far), *_peer(pod.index, link.device, mac, (link.v4, link.v6))]

    def remove(self, keys: Collection[str]) -> None:
        """Disconnect pods: their interfaces and routes are gone when it returns, and their addresses free.

        A socket that is still open in such a pod keeps its namespace alive, but nothing reaches it any more.
        """
        gone = [self._pods.pop(key) for key in keys]
        by_node: dict[int, list[Message]] = {}
        for pod in gone:
            by_node.setdefault(pod.link.node, []).append(rtnetlink.into_group(pod.index, _DOOMED))
        for node, messages in by_node.items():
            self._routers[node].batch([*messages, rtnetlink.delete_group(_DOOMED)])
        for pod in gone:
            os.close(pod.fd)

    def netns(self, key: str) -> int:
        """Return the namespace of a pod; the descriptor stays ours and is closed by `remove`."""
        return self._pods[key].fd

    def add_outside(self, v4: str, v6: str | None = None) -> None:
        """Give the outside host one more address of either family, of its documentation ranges or any other.

        The stand-in for the cloud metadata service, 169.254.169.254, is such another: pods reach it by a route of its own.
        """
        addresses = [v4] if v6 is None else [v4, v6]
        elsewhere = [address for address in addresses if not _documented(address)]
        self._wire_link.batch(
            [
                rtnetlink.route(address, self._outside_index, via=self._outside_via[ipaddress.ip_address(address).version])
                for address in elsewhere
            ]
        )
        with Netlink(self.outside) as host:
            host.batch([rtnetlink.address(_ETH0, address) for address in addresses])


def node_v4(node: int) -> str:
    """Return a node's own IPv4 address."""
    return f"172.18.0.{node + 2}"


def node_v6(node: int) -> str:
    """Return a node's own IPv6 address."""
    return f"fd00:172:18::{node + 2:x}"


def pods_v4(node: int) -> str:
    """Return the network from which a node's pods have their IPv4 addresses."""
    return f"10.244.{node}.0/24"


def pods_v6(node: int) -> str:
    """Return the network from which a node's pods have their IPv6 addresses."""
    return f"fd00:10:244:{node}::/64"


def _documented(address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(OUTSIDE_V4 if ":" not in address else OUTSIDE_V6)


def _mac(v4: str) -> bytes:
    return b"\x02\x00" + ipaddress.IPv4Address(v4).packed


def _peer(index: int, device: str, mac: bytes, addresses: Iterable[str]) -> list[Message]:
    """Set a router's interface up and tell it which addresses are at the other end."""
    messages = [rtnetlink.up(index, device)]
    for address in addresses:
        messages += [rtnetlink.neighbour(index, address, mac), rtnetlink.route(address, index)]
    return messages


def _host(v4: str, v6: str) -> list[Message]:
    """Set up a namespace with one interface, whose router answers to any address with one MAC."""
    return [
        rtnetlink.up(_LO, "lo"),
        rtnetlink.up(_ETH0, "eth0"),
        rtnetlink.address(_ETH0, v4),
        rtnetlink.address(_ETH0, v6),
        rtnetlink.neighbour(_ETH0, _GATEWAY_V4, _GATEWAY_MAC),
        rtnetlink.neighbour(_ETH0, _GATEWAY_V6, _GATEWAY_MAC),
        rtnetlink.route("0.0.0.0/0", _ETH0, via=_GATEWAY_V4),
        rtnetlink.route("::/0", _ETH0, via=_GATEWAY_V6),
    ]


def _set(fd: int, keys: dict[str, int]) -> None:
    for key, value in keys.items():
        netns.sysctl(fd, key, value)


def _shorten_conntrack(fd: int) -> None:
    """Let a node's connection tracking forget ended flows soon, and hold many."""
    tracking = Rule((Established(),), ())
    table = Table("warm-up", (), (Chain("forward", (tracking,), Hook("filter", "forward", 0)),))
    # Its sysctls exist only from the first use of connection tracking in the machine's life: this may be that.
    with netlink.open_in(fd, netlink.NETLINK_NETFILTER) as sock:
        nfnetlink.load(sock, nfnetlink.encode(table))
        nfnetlink.load(sock, nfnetlink.delete(table.name))
    for key, value in _CONNTRACK.items():
        with contextlib.suppress(ClusterError):  # some kernels let only the host set the size, and have a large one
            netns.sysctl(fd, key, value)


def _await_links(routers: Sequence[Netlink]) -> None:
    deadline = time.monotonic() + _UP_WITHIN
    waiting = list(routers)
    while waiting := [router for router in waiting if rtnetlink.deaf(router)]:
        if time.monotonic() > deadline:
            raise ClusterError(f"{len(waiting)} of the lab's routers have interfaces that do not come up within {_UP_WITHIN} s")
        time.sleep(0.0005)  # the state is asked again
