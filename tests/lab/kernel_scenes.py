# SPDX-License-Identifier: Apache-2.0
"""What the test_kernel_* tests let happen inside a sandbox: each scene is a function, run in a process of its own.

Nothing is judged here: a scene returns what it saw as JSON, and the test that called `run` says what it should have been.
"""

import base64
import contextlib
import errno
import ipaddress
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ztconform.agent import capture
from ztconform.errors import ClusterError
from ztconform.lab import netlink, netns, nfexpression, nflog, nfnetlink, preflight, rtnetlink, ruletext, sandbox
from ztconform.lab.ruleset import (
    AddressSet,
    Chain,
    Count,
    Dnat,
    Dport,
    Established,
    Go,
    Hook,
    Iif,
    InSet,
    Log,
    Masquerade,
    Net,
    NotOpening,
    Oif,
    Proto,
    Random,
    Rule,
    Statement,
    Table,
)
from ztconform.lab.wiring import PodLink, Wiring

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
# Seconds of silence. An answer inside the sandbox takes less than one millisecond, but a machine that unpacks images beside the
# tests was seen to stand still for longer than 0.3 s. Less than 1 s, when a SYN is sent again: a lost first packet stays visible.
PATIENCE = 0.9
IPV6_RECVERR = 25
GROUP = 7

FORWARD = Hook("filter", "forward", 0)


def interpreter_of(who: str) -> list[str]:
    """Return a command that starts Python as ourselves or as a user without any capability; skip where there is none."""
    import pytest

    if who == "self":
        return [sys.executable]
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("becoming another user needs root and setpriv")
    become = [setpriv, "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--inh-caps=-all"]
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        # By a shell, because setpriv itself still has root's power over files when it starts a program.
        readable = f'exec "$0" -c "import sys; sys.path.insert(0, sys.argv[1]); import ztconform.errors" {ROOT}'
        if (
            python
            and subprocess.run([*become, "/bin/sh", "-c", readable, python], capture_output=True, check=False).returncode == 0
        ):
            return [*become, python]
    pytest.skip("no interpreter and checkout that another user can read")


def start(who: str, scene: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a scene as "self" or "nobody"."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*interpreter_of(who), __file__, scene, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(who: str, scene: str, *arguments: str) -> Any:
    """Run a scene to its end and return what it saw."""
    with start(who, scene, *arguments) as process:
        out, err = process.communicate(timeout=60)
    assert (0, "") == (process.returncode, err), f"{scene}: {err or out}"
    return json.loads(out)


def pod(name: str, node: int, host: int) -> PodLink:
    """Describe a pod by its node and the last number of its addresses."""
    return PodLink(key=name, node=node, device=f"cali-{name}", v4=f"10.244.{node}.{host}", v6=f"fd00:10:244:{node}::{host:x}")


CLIENT, NEIGHBOUR, REMOTE, TWIN = pod("client", 0, 2), pod("neighbour", 0, 3), pod("remote", 1, 2), pod("twin", 1, 3)
PODS = (CLIENT, NEIGHBOUR, REMOTE, TWIN)


def built() -> Wiring:
    """Return two nodes with two pods each."""
    wiring = Wiring()
    wiring.add(PODS)
    return wiring


def family(address: str) -> int:
    """Return the socket family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listener(fd: int, address: str, port: int) -> socket.socket:
    """Return a TCP listener in a namespace."""
    server = netns.open_socket(fd, family(address), socket.SOCK_STREAM)
    server.bind((address, port))
    server.listen(64)
    server.settimeout(PATIENCE)
    return server


def connect(fd: int, address: str, port: int) -> str:
    """Return "open", "silence" or the name of an errno."""
    with netns.open_socket(fd, family(address), socket.SOCK_STREAM) as client:
        client.setblocking(False)
        # Without it an ICMPv6 error that comes while the socket is still connecting shows only at the next SYN, 1 s later.
        option = (socket.IPPROTO_IPV6, IPV6_RECVERR) if ":" in address else (socket.IPPROTO_IP, 11)
        client.setsockopt(*option, 1)
        client.connect_ex((address, port))
        poll = select.poll()
        poll.register(client, select.POLLOUT)
        if not poll.poll(PATIENCE * 1000):
            return "silence"
        number = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.errorcode[number] if number else "open"


def reach(source: int, target: int, address: str, port: int = 80) -> str:
    """Return who the server saw when a connection came through, else what the client met."""
    with listener(target, address, port) as server:
        met = connect(source, address, port)
        return str(server.accept()[1][0]) if met == "open" else met


def connectivity() -> Any:
    """Connect pods, nodes and the outside host with one another in both families."""
    wiring = built()
    wiring.add_outside("192.0.2.10", "2001:db8::10")
    wiring.add_outside("169.254.169.254")
    client, found = wiring.netns("client"), {}
    for other in (NEIGHBOUR, REMOTE):
        for address in (other.v4, other.v6):
            found[f"client to {other.key} {address}"] = reach(client, wiring.netns(other.key), address)
    for address in ("192.0.2.10", "2001:db8::10", "169.254.169.254"):
        found[f"client to outside {address}"] = reach(client, wiring.outside, address)
    for address in (CLIENT.v4, CLIENT.v6):
        found[f"outside to client {address}"] = reach(wiring.outside, client, address)
    for address in ("172.18.0.2", "172.18.0.3"):
        found[f"client to node {address}"] = connect(client, address, 80)
    for address in ("10.96.0.1", "fd00:10:96::1", "10.244.0.99", "fd00:10:244::99", "198.51.100.1", "2001:db8:1::1"):
        found[f"client to nobody {address}"] = connect(client, address, 80)
    return found


def forgery() -> Any:
    """Send UDP with another pod's source address."""
    wiring = built()
    forger = netns.open_socket(wiring.netns("neighbour"), socket.AF_INET, socket.SOCK_DGRAM)
    forger.setsockopt(socket.IPPROTO_IP, 19, 1)  # IP_TRANSPARENT
    forger.bind((CLIENT.v4, 5000))
    honest = netns.open_socket(wiring.netns("neighbour"), socket.AF_INET, socket.SOCK_DGRAM)
    honest.bind((NEIGHBOUR.v4, 5000))
    server = netns.open_socket(wiring.netns("remote"), socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((REMOTE.v4, 53))
    server.settimeout(PATIENCE)
    for sender in (forger, honest):
        sender.sendto(b"?", (REMOTE.v4, 53))
    return server.recvfrom(1)[1][0]


def wrapped(payload: bytes, target: str) -> bytes:
    """Return what a VXLAN datagram holds: its own header, then Ethernet, IPv4 and UDP towards a target."""
    udp = struct.pack("!HHHH", 5000, 53, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes([203, 0, 113, 9]), socket.inet_aton(target))
    return struct.pack("!II", 0x08000000, 0) + bytes(12) + b"\x08\x00" + ip + udp


def captured() -> Any:
    """Look at a node's wire for one pod's packets, while it and another one get some, plain and in a tunnel."""
    wiring = built()
    fd, name = wiring.nodes[REMOTE.node], "172.18.0.3"
    found: list[dict[str, Any]] = []

    def look() -> None:
        with netns.inside(fd):
            found.append(capture.capture(name, [REMOTE.v4], 1.0))

    looking = threading.Thread(target=look)
    looking.start()
    sender = netns.open_socket(wiring.netns("client"), socket.AF_INET, socket.SOCK_DGRAM)
    tunnel = netns.open_socket(wiring.nodes[CLIENT.node], socket.AF_INET, socket.SOCK_DGRAM)
    sent = 0
    while looking.is_alive():
        sent += 1
        for to in (REMOTE, TWIN):
            sender.sendto(b"plain to " + to.key.encode(), (to.v4, 53))
            tunnel.sendto(wrapped(b"wrapped to " + to.key.encode(), to.v4), (name, 8472))
            tunnel.sendto(wrapped(b"elsewhere to " + to.key.encode(), to.v4), (name, 8473))
        looking.join(0.02)
    packets = base64.b64decode(found[0]["pcap"])
    seen = [f"{way} to {to.key}" for way in ("plain", "wrapped", "elsewhere") for to in (REMOTE, TWIN)]
    return {"seen": [text for text in seen if text.encode() in packets], "lost": found[0]["lost"], "full": found[0]["full"]}


def interfaces(fd: int) -> list[str]:
    """Return the names of the interfaces of a namespace."""
    with netns.inside(fd):
        return sorted(name for _, name in socket.if_nameindex())


def replacement() -> Any:
    """Remove pods, and give an address to another pod at once."""
    wiring = built()
    wiring.remove(["remote", "twin", "neighbour"])
    left = [interfaces(fd) for fd in wiring.nodes]
    wiring.add([PodLink(key="heir", node=0, device="cali-heir", v4=NEIGHBOUR.v4, v6=NEIGHBOUR.v6)])
    met = [reach(wiring.netns("client"), wiring.netns("heir"), address) for address in (NEIGHBOUR.v4, NEIGHBOUR.v6)]
    first = set()
    for number in range(60):  # whose link the kernel notices late loses the first packet, about one pod in three
        wiring.remove(["heir"])
        wiring.add([PodLink(key="heir", node=0, device="cali-heir", v4=NEIGHBOUR.v4, v6=NEIGHBOUR.v6)])
        path = (wiring.netns("client"), wiring.netns("heir"))
        first.add(reach(*(path if number % 2 else path[::-1]), NEIGHBOUR.v4 if number % 2 else CLIENT.v4))
    refused = []
    for wrong in (CLIENT, pod("x", 7, 9), pod("a-name-of-20-letters", 0, 9)):
        try:
            wiring.add([wrong])
        except ClusterError as error:
            refused.append(str(error))
    return {"left": left, "heir": met, "first": sorted(first), "refused": refused, "still": interfaces(wiring.nodes[0])}


def loaded(node: int, *tables: Table) -> None:
    """Load tables into a node."""
    with netns.open_socket(node, socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_NETFILTER) as sock:
        for table in tables:
            nfnetlink.load(sock, nfnetlink.encode(table))


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return a network."""
    return ipaddress.ip_network(text)


def logged(name: str) -> tuple[Statement, ...]:
    """Count, log and drop."""
    return Count(), Log(GROUP, name), Go("drop")


def judged() -> Table:
    """Admit to pods of node 1: port 80 and 8000-8010 from a set, 9000 from a block with a hole; log and drop the rest."""
    tcp, to = Proto("tcp"), Oif("cali-remote")
    hole = Net("saddr", network("10.244.0.0/31"), negate=True), Net("saddr", network("10.244.0.3/32"), negate=True)
    block = (Net("saddr", network("10.244.0.0/16")), *hole)
    rules = [Rule((Established(), tcp, NotOpening()), (Go("accept"),), "known flows"), Rule((to,), (Go("jump", "in"),))]
    inner = [
        Rule((InSet("saddr", "peers-4", 4), tcp, Dport(80, 80)), (Count(), Go("accept")), "set"),
        Rule((InSet("saddr", "peers-6", 6), tcp, Dport(8000, 8010)), (Count(), Go("accept")), "set, range"),
        Rule((*block, tcp, Dport(9000, 9000)), (Count(), Go("accept")), "block with a hole"),
        Rule((), logged("in shop/remote"), "default deny"),
    ]
    sets = AddressSet("peers-4", 4, frozenset({CLIENT.v4})), AddressSet("peers-6", 6, frozenset({CLIENT.v6}))
    return Table("policy", sets, (Chain("forward", tuple(rules), FORWARD), Chain("in", tuple(inner))))


def denial() -> Any:
    """Connect under `judged`, and tell what each attempt met and what was logged."""
    wiring = built()
    log = nflog.NfLog(wiring.nodes[1], GROUP)
    loaded(wiring.nodes[1], judged())
    met = {}
    for source in ("client", "neighbour"):
        for address, port in (
            (REMOTE.v4, 80),
            (REMOTE.v4, 9000),
            (REMOTE.v4, 81),
            (REMOTE.v6, 8010),
            (REMOTE.v6, 8011),
            (TWIN.v4, 80),
        ):
            target = "twin" if address == TWIN.v4 else "remote"
            met[f"{source} to {address} {port}"] = reach(wiring.netns(source), wiring.netns(target), address, port)
    drops = [[d.prefix, d.proto, d.src, d.dst, d.dport, d.family, d.sport > 0] for d in log.drain()]
    return {"met": met, "drops": drops, "lost": log.lost}


def balanced() -> Any:
    """Connect 40 times to a Service with two endpoints, in each family, through DNAT in the client's node."""
    wiring = built()
    rules = []
    for vip, first, second in (("10.96.0.10", NEIGHBOUR.v4, REMOTE.v4), ("fd00:10:96::10", NEIGHBOUR.v6, REMOTE.v6)):
        match = Net("daddr", network(vip)), Proto("tcp"), Dport(80, 80)
        rules += [Rule((*match, Random(2)), (Dnat(first, 8080),)), Rule(match, (Dnat(second, 8081),))]
    loaded(wiring.nodes[0], Table("services", (), (Chain("prerouting", tuple(rules), Hook("nat", "prerouting", -100)),)))
    found = {}
    for vip, first, second in (("10.96.0.10", NEIGHBOUR.v4, REMOTE.v4), ("fd00:10:96::10", NEIGHBOUR.v6, REMOTE.v6)):
        with (
            listener(wiring.netns("neighbour"), first, 8080) as one,
            listener(wiring.netns("remote"), second, 8081) as other,
        ):
            met = {connect(wiring.netns("client"), vip, 80) for _ in range(40)}
            found[vip] = {"met": sorted(met), "served": [accepted(one), accepted(other)]}
    return found


def accepted(server: socket.socket) -> int:
    """Return how many connections wait at a listener."""
    server.setblocking(False)
    count = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def masqueraded() -> Any:
    """Return whom the outside host sees, without and with masquerading in the client's node."""
    wiring = built()
    wiring.add_outside("192.0.2.10")
    seen = [reach(wiring.netns("client"), wiring.outside, "192.0.2.10")]
    post = Chain("post", (Rule((Oif("eth0"),), (Masquerade(),)),), Hook("nat", "postrouting", 100))
    loaded(wiring.nodes[0], Table("out", (), (post,)))
    return [*seen, reach(wiring.netns("client"), wiring.outside, "192.0.2.10", 81)]


def atomic() -> Any:
    """Send UDP without a pause while tables that differ in every rule, but not in effect, replace each other."""
    wiring = built()
    port = Proto("udp"), Dport(53, 53)
    drop = Rule((Iif("eth0"),), (Go("drop"),))
    by_set = Rule((InSet("saddr", "peers", 4), *port), (Go("accept"),))
    peers = AddressSet("peers", 4, frozenset({CLIENT.v4}))
    by_block = Rule((Net("saddr", network(f"{CLIENT.v4}/32")), *port), (Go("accept"),))
    tables = (
        Table("policy", (peers,), (Chain("forward", (by_set, drop), FORWARD),)),
        Table("policy", (), (Chain("forward", (Rule((), (Go("jump", "in"),)),), FORWARD), Chain("in", (by_block, drop)))),
    )
    loaded(wiring.nodes[1], tables[0])
    server = netns.open_socket(wiring.netns("remote"), socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((REMOTE.v4, 53))
    server.setblocking(False)
    senders = {}
    for name in ("client", "neighbour"):
        senders[name] = netns.open_socket(wiring.netns(name), socket.AF_INET, socket.SOCK_DGRAM)
        senders[name].connect((REMOTE.v4, 53))
    swaps, stop, failed = [0], threading.Event(), []

    def swap() -> None:
        try:
            while not stop.is_set():
                loaded(wiring.nodes[1], *tables)
                swaps[0] += 2
        except ClusterError as error:
            failed.append(str(error))

    swapper = threading.Thread(target=swap)
    swapper.start()
    sent, got = 0, {CLIENT.v4: 0, NEIGHBOUR.v4: 0}
    end = time.monotonic() + 2
    while time.monotonic() < end:
        for _ in range(50):
            senders["client"].send(b"?")
            senders["neighbour"].send(b"?")
            sent += 1
        while True:
            try:
                got[server.recvfrom(1)[1][0]] += 1
            except BlockingIOError:
                break
    stop.set()
    swapper.join()
    return {"swaps": swaps[0], "sent": sent, "allowed": got[CLIENT.v4], "denied": got[NEIGHBOUR.v4], "failed": failed}


def refusal() -> Any:
    """Load what the kernel cannot take, and tell how it says so and what stays in force."""
    wiring = built()
    node, client, remote = wiring.nodes[1], wiring.netns("client"), wiring.netns("remote")
    loaded(node, Table("policy", (), (Chain("forward", (Rule((Oif("cali-remote"),), (Go("drop"),)),), FORWARD),)))
    before = reach(client, remote, REMOTE.v4)
    wrong = Rule((), (Go("jump", "nowhere"),), "shop/open")
    late = Chain("late", (), Hook("nat", "forward", 0))
    said = []
    for chains in ((Chain("forward", (Rule((), (Go("accept"),)), wrong), FORWARD),), (late,)):
        try:
            loaded(node, Table("policy", (), chains))
        except ClusterError as error:
            said.append(str(error))
    after = reach(client, remote, REMOTE.v4)
    with netns.open_socket(node, socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_NETFILTER) as sock:
        limit = int(Path("/proc/sys/net/core/wmem_max").read_text())
        try:
            nfnetlink.load(sock, bytes(2 * limit + 4096))
        except ClusterError as error:
            said.append(str(error))
        for _ in range(2):
            nfnetlink.load(sock, nfnetlink.delete("policy"))
    return {"said": said, "met": [before, after, reach(client, remote, REMOTE.v4)]}


def large() -> Any:
    """Load a set of many messages and many rules, and time 200 rules."""
    wiring = built()
    many = frozenset(str(ipaddress.IPv4Address(0x0B000000 + number)) for number in range(5000)) | {CLIENT.v4}
    allow = Rule((InSet("saddr", "many", 4),), (Go("accept"),), "set of 5001")
    longest = Rule((), (Log(GROUP, "p" * nfexpression.PREFIX_LENGTH),), "c" * nfexpression.COMMENT_LENGTH)
    filler = [
        longest,
        *(Rule((Net("saddr", network(f"11.0.{number}.0/24")),), (Go("drop"),), f"rule {number}") for number in range(250)),
    ]
    rules = (*filler, allow, Rule((Oif("cali-remote"),), (Go("drop"),)))
    loaded(wiring.nodes[1], Table("policy", (AddressSet("many", 4, many),), (Chain("forward", rules, FORWARD),)))
    met = [reach(wiring.netns(name), wiring.netns("remote"), REMOTE.v4) for name in ("client", "neighbour")]
    took = []
    for turn in range(5):
        fresh = tuple(
            Rule(
                (InSet("saddr", "one", 4), Proto("tcp"), Dport(turn * 1000 + number, 65535)),
                logged(f"rule {number}"),
                f"{number}",
            )
            for number in range(200)
        )
        table = Table("timed", (AddressSet("one", 4, frozenset({"192.0.2.1"})),), (Chain("forward", fresh, FORWARD),))
        begin = time.perf_counter()
        batch = nfnetlink.encode(table)
        middle = time.perf_counter()
        with netlink.open_in(wiring.nodes[1], netlink.NETLINK_NETFILTER) as sock:
            nfnetlink.load(sock, batch)
        took.append([middle - begin, time.perf_counter() - middle])
    return {"met": met, "encode": min(t[0] for t in took), "load": min(t[1] for t in took)}


def flooded(count: str) -> Any:
    """Drop many packets before the log is read."""
    wiring = built()
    log = nflog.NfLog(wiring.nodes[1], GROUP)
    loaded(wiring.nodes[1], Table("policy", (), (Chain("forward", (Rule((Proto("udp"),), logged("flood")),), FORWARD),)))
    with netns.open_socket(wiring.netns("client"), socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(int(count)):
            sender.sendto(b"?", (REMOTE.v4, 53))
    drops = len(log.drain())
    lost = log.lost
    with netns.open_socket(wiring.netns("client"), socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"?", (REMOTE.v6, 53))
    last = log.drain()[-1]
    return {"drops": drops, "lost": lost, "lost later": log.lost, "last": [last.proto, last.src, last.dport, last.family]}


def listed() -> Any:
    """Return a table of every kind of rule as `nft` lists it when we loaded it, and when `nft` did from our text."""
    nft = shutil.which("nft") or "nft"
    with netlink.open_in(netns.own(), netlink.NETLINK_NETFILTER) as sock:
        nfnetlink.load(sock, nfnetlink.encode(every_kind()))
    found = []
    for script in ("", "delete table inet every\n" + ruletext.text(every_kind())):
        subprocess.run([nft, "-f", "-"], input=script, text=True, check=True)
        listing = subprocess.run([nft, "-y", "list", "ruleset"], capture_output=True, text=True, check=True)
        found.append(listing.stdout)
    return found


def every_kind() -> Table:
    """Return a table with every match and statement."""
    tcp, udp = Proto("tcp"), Proto("udp")
    accept = (Go("accept"),)
    blocks = [
        Net("saddr", network(text)) for text in ("10.0.0.0/9", "0.0.0.0/0", "::/0", "fd00::/63", "10.1.2.3/32", "fd00::1/128")
    ]
    holes = [Net("daddr", network(text), negate=True) for text in ("10.0.0.0/12", "0.0.0.0/0", "fd00::/64", "::1/128")]
    rules = (
        Rule((Iif("eth0"), Oif("cali-client")), (Count(), Go("jump", "in")), "dispatch"),
        Rule((Established(), tcp, NotOpening()), accept, "known flows"),
        Rule((Established(), udp), accept),
        *(Rule((block, Proto("sctp")), accept) for block in blocks),
        *(Rule((hole, udp, Dport(53, 53)), accept) for hole in holes),
        Rule((InSet("saddr", "four", 4), tcp, Dport(1, 65535)), (Count(), Log(7, "a log/prefix"), Go("drop")), "x" * 127),
        Rule((tcp, InSet("daddr", "six", 6), Dport(80, 80)), (Go("return"),)),
        Rule((Random(3), tcp), (Go("drop"),)),
    )
    services = (
        Rule((Net("daddr", network("10.96.0.1/32")), tcp, Dport(80, 80), Random(2)), (Count(), Dnat("10.0.0.1", 8080)), "a/b"),
        Rule((Net("daddr", network("fd00:10:96::1/128")), udp, Dport(53, 53)), (Dnat("fd00::1", 53),)),
    )
    return Table(
        "every",
        (
            AddressSet("four", 4, frozenset({"10.0.0.1", "9.0.0.2"})),
            AddressSet("six", 6, frozenset({"fd00::1"})),
            AddressSet("none", 4, frozenset()),
        ),
        (
            Chain("forward", rules, Hook("filter", "forward", -5)),
            Chain("in", ()),
            Chain("prerouting", services, Hook("nat", "prerouting", -100)),
            Chain("postrouting", (Rule((Oif("eth0"),), (Masquerade(),)),), Hook("nat", "postrouting", 100)),
        ),
    )


def waits() -> Any:
    """Build a lab, say that it stands, and stay until killed or until standard input ends."""
    built()
    print("standing", flush=True)
    sys.stdin.read()
    return None


def killed(how: str) -> Any:
    """Kill a lab within this one, to whose wire a veth of ours leads, and tell what is left when its namespaces are gone."""
    lab = subprocess.Popen([sys.executable, __file__, "waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert lab.stdout is not None
    assert lab.stdin is not None
    assert lab.stdout.readline() == "standing\n"
    pids = others()
    here, there = netns.own(), os.open(f"/proc/{max(pids)}/ns/net", os.O_RDONLY)
    with netlink.Netlink(here) as link:
        link.batch(
            [
                rtnetlink.veth(
                    rtnetlink.End(here, "leash", 50, bytes(5) + b"\2"), rtnetlink.End(there, "dog", 51, bytes(5) + b"\4")
                )
            ]
        )
    os.close(there)
    before = interfaces(here)
    if how == "end of file":
        lab.stdin.close()
    else:
        lab.send_signal(int(how))
    begin = time.monotonic()
    while (others() or "leash" in interfaces(here)) and time.monotonic() < begin + 3:
        time.sleep(0.005)  # the state is asked again
    left = len(others())
    return {"pids": len(pids), "before": before, "left": left, "after": interfaces(here), "code": lab.wait(timeout=3)}


def others() -> list[int]:
    """Return the PIDs of this sandbox but our own, and without the dead whom nobody has reaped."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
                found += [int(name)] if state != "Z" else []
    return found


def exits(code: str) -> Any:
    """End with a code."""
    sys.exit(int(code))


def identity() -> Any:
    """Return who and where we are inside."""
    status = Path("/proc/self/status").read_text().splitlines()
    capability = next(line.split()[1] for line in status if line.startswith("CapEff"))
    return {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "uid_map": Path("/proc/self/uid_map").read_text().split(),
        "setgroups": Path("/proc/self/setgroups").read_text().strip(),
        "all capabilities": capability.endswith("ffffff"),
        "interfaces": interfaces(netns.own()),
        "others": others(),
    }


def without_user_namespaces() -> Any:
    """Try to enter a sandbox where user.max_user_namespaces is 0, as root and without a capability."""
    netns.sysctl(netns.own(), "user.max_user_namespaces", 0)
    command = [sys.executable, __file__, "identity"]
    root = subprocess.run(command, capture_output=True, text=True, check=False)
    setpriv = shutil.which("setpriv") or "setpriv"
    plain = subprocess.run([setpriv, "--bounding-set=-all", *command], capture_output=True, text=True, check=False)
    return {"root": json.loads(root.stdout), "plain": plain.stderr.strip().splitlines()[-1]}


def tried() -> Any:
    """Run the preflight in here, and tell what it left."""
    begin = time.perf_counter()
    preflight.check()
    return {"seconds": time.perf_counter() - begin, "others": others(), "interfaces": interfaces(netns.own())}


def refused_trial() -> Any:
    """Run the preflight where user.max_user_namespaces is 0 and no capability is left."""
    netns.sysctl(netns.own(), "user.max_user_namespaces", 0)
    program = "from ztconform.lab import preflight; preflight.check()"
    setpriv = shutil.which("setpriv") or "setpriv"
    plain = subprocess.run(
        [setpriv, "--bounding-set=-all", sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    return plain.stderr.strip().splitlines()[-1].removeprefix("ztconform.errors.ClusterError: ")


def main() -> None:
    """Enter a sandbox, run the scene that is named, and print what it returns."""
    scene: Callable[..., Any] = globals()[sys.argv[1]]
    sandbox.enter()
    json.dump(scene(*sys.argv[2:]), sys.stdout)


if __name__ == "__main__":
    main()
