# SPDX-License-Identifier: Apache-2.0
"""How a meshed pod's TCP gets into its proxy, both ways, and nothing gets past it: one nftables table for every such pod.

What the proxy does with it is for `inbound` and `outbound`; a packet on its way between pods is judged by `isolation`.

The proxy's own connections carry a mark, and are neither redirected nor tracked. Were they tracked, then an application's
connection that happens to reuse the source port of an earlier one of the proxy's to the same target would find its conntrack
entry, take over its (empty) translation, and leave the pod in plaintext: seen 112 times in 40,000 connections, and never
without tracking.
"""

from ztconform.agent.wire import HEALTH_PORT
from ztconform.lab import netlink, netns, nfnetlink
from ztconform.lab.ruleset import (
    Chain,
    Dport,
    Go,
    Hook,
    Iif,
    Marked,
    Notrack,
    Oif,
    Proto,
    Redirect,
    Reset,
    Rule,
    Table,
    Untranslated,
)

TABLE = "ztc_mesh"
MARK = 1337  # SO_MARK of the proxy's own sockets; whoever may set it in a pod (CAP_NET_ADMIN) is past the proxy
INBOUND_PORT, OUTBOUND_PORT = 15006, 15001  # as Istio's

SYSCTLS = {
    # An answer to an untracked packet must not begin a flow.
    "net.netfilter.nf_conntrack_tcp_loose": 0,
    # One connection of the proxy for each request of the application: without it a client has no source port left towards a
    # server after 28,000 requests in a minute.
    "net.ipv4.tcp_tw_reuse": 1,
    # An ended flow is otherwise known for 120 s, and its source port with it.
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait": 1,
    "net.netfilter.nf_conntrack_tcp_timeout_close": 1,
}

_TCP = Proto("tcp")
_FROM_OUTSIDE = Iif("eth0")


def table() -> Table:
    """Return the rules of a meshed pod; they are the same in every one."""
    proxy = (INBOUND_PORT, OUTBOUND_PORT)
    inbound = (
        *(Rule((_FROM_OUTSIDE, _TCP, Dport(port, port)), (Go("return"),)) for port in (HEALTH_PORT, *proxy)),
        Rule((_FROM_OUTSIDE, _TCP), (Redirect(INBOUND_PORT),), "to the proxy"),
    )
    outbound = (
        Rule((Oif("lo"),), (Go("return"),), "to itself"),
        Rule((_TCP, Dport(HEALTH_PORT, HEALTH_PORT)), (Go("return"),)),
        Rule((_TCP,), (Redirect(OUTBOUND_PORT),), "to the proxy"),
    )
    # Whoever dials the proxy itself would make it dial itself without end.
    guard = tuple(Rule((_TCP, Dport(port, port), Untranslated()), (Reset(),), "not captured") for port in proxy)
    return Table(
        TABLE,
        (),
        (
            Chain("untracked", (Rule((Marked(MARK),), (Notrack(),), "of the proxy"),), Hook("filter", "output", -300)),
            Chain("inbound", inbound, Hook("nat", "prerouting", -100)),
            Chain("outbound", outbound, Hook("nat", "output", -100)),
            Chain("guard", guard, Hook("filter", "input", 0)),
        ),
    )


def install(fd: int) -> None:
    """Capture the pod whose network namespace this is, from now on; raises ClusterError where the kernel refuses."""
    with netlink.open_in(fd, netlink.NETLINK_NETFILTER) as sock:
        nfnetlink.load(sock, nfnetlink.encode(table()))
    for key, value in SYSCTLS.items():
        netns.sysctl(fd, key, value)
