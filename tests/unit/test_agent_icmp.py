# SPDX-License-Identifier: Apache-2.0
"""Which ICMP errors a probe reports: recorded bytes, and live ones from a router in network namespaces of their own."""

import asyncio
import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.agent import errqueue
from ztconform.agent.prober import Prober

ROOT = Path(__file__).resolve().parents[2]
CLONE_NEWNET = 0x40000000  # linux/sched.h

# A client and a router joined by a cable; the router prohibits, does not reach, or swallows what is behind it.
ROUTED = """
set -e
router() { nsenter --target $ROUTER --net "$@"; }
ip link set lo up
ip link add near type veth peer name far netns $ROUTER
ip address add 10.7.0.1/24 dev near
ip -6 address add fd07::1/64 dev near nodad
ip link set near up
router ip address add 10.7.0.2/24 dev far
router ip -6 address add fd07::2/64 dev far nodad
router ip link set far up
router sh -c 'cd /proc/sys/net; echo 1 > ipv4/ip_forward; echo 1 > ipv6/conf/all/forwarding'
router sh -c 'cd /proc/sys/net; echo 0 > ipv4/icmp_ratelimit; echo 0 > ipv6/icmp/ratelimit'  # else two errors, then silence
ip route add 10.8.0.0/16 via 10.7.0.2
ip -6 route add fd08::/16 via fd07::2
router ip route add prohibit 10.8.1.0/24
router ip route add unreachable 10.8.2.0/24
router ip route add blackhole 10.8.3.0/24
router ip -6 route add prohibit fd08:1::/32
router ip -6 route add unreachable fd08:2::/32
router ip -6 route add blackhole fd08:3::/32
ip route add unreachable 10.8.4.0/24
"""

# target -> what a TCP and what a UDP probe tell
TOLD = {
    "10.8.1.1": (("icmp", "connect", "3/13"), ("icmp", "request", "3/13")),
    "10.8.2.1": (("icmp", "connect", "3/1"), ("icmp", "request", "3/1")),
    "10.8.3.1": (("timeout", "connect", ""), ("silence", "request", "")),
    "10.7.0.2": (("refused", "connect", "ECONNREFUSED"), ("refused", "request", "3/3")),
    "10.8.4.1": (("not-run", "connect", "EHOSTUNREACH"), ("not-run", "request", "EHOSTUNREACH")),
    "10.9.0.1": (("not-run", "connect", "ENETUNREACH"), ("not-run", "request", "ENETUNREACH")),
    "fd08:1::1": (("icmp", "connect", "1/1"), ("icmp", "request", "1/1")),
    "fd08:2::1": (("icmp", "connect", "1/0"), ("icmp", "request", "1/0")),
    "fd08:3::1": (("timeout", "connect", ""), ("silence", "request", "")),
    "fd07::2": (("refused", "connect", "ECONNREFUSED"), ("refused", "request", "1/4")),
    "fd09::1": (("not-run", "connect", "ENETUNREACH"), ("not-run", "request", "ENETUNREACH")),
}


def control(origin: int, icmp_type: int, code: int, number: int = 113) -> bytes:
    return number.to_bytes(4, sys.byteorder) + bytes([origin, icmp_type, code, 0]) + bytes(8) + bytes(16)


@pytest.mark.parametrize(
    ("level", "kind", "data", "expected"),
    [
        (0, 11, control(2, 3, 13), "3/13"),
        (0, 11, control(2, 3, 9), "3/9"),
        (41, 25, control(3, 1, 1), "1/1"),
        (0, 11, control(1, 0, 0), None),  # SO_EE_ORIGIN_LOCAL: this host's own error
        (0, 8, control(2, 3, 13), None),
        (41, 11, control(2, 3, 13), None),
        (0, 11, control(2, 3, 13)[:15], None),
        # Recorded on Linux 6.18 from the router below: EHOSTUNREACH (113) and EACCES (13), sent by 10.7.0.2 and fd07::2.
        (0, 11, bytes.fromhex("7100000002030d000000000000000000020000000a0700020000000000000000"), "3/13"),
        (41, 25, bytes.fromhex("0d00000003010100" + "00" * 8 + "0a00000000000000fd07" + "00" * 13 + "0200000000"), "1/1"),
    ],
)
def test_an_extended_error_is_an_icmp_error_only_by_its_origin(level: int, kind: int, data: bytes, expected: str | None) -> None:
    error = errqueue.parse(level, kind, data)
    assert expected == (None if error is None else str(error))


def test_only_port_unreachable_says_that_nobody_listens() -> None:
    codes = [(version, kind, code) for version in (4, 6) for kind in range(20) for code in range(20)]
    assert [(4, 3, 3), (6, 1, 4)] == [code for code in codes if errqueue.Icmp(*code).port_unreachable]


@given(st.integers(0, 60), st.integers(0, 60), st.binary(max_size=60))
def test_no_control_message_breaks_the_parser(level: int, kind: int, data: bytes) -> None:
    errqueue.parse(level, kind, data)


def _join_cable() -> None:
    """Become a client with a router behind it, in network namespaces that end with this process."""
    router = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    own = os.stat("/proc/self/ns/net").st_ino
    while router.poll() is None and os.stat(f"/proc/{router.pid}/ns/net").st_ino == own:
        os.sched_yield()
    environment = {**os.environ, "ROUTER": str(router.pid)}
    subprocess.run(["sh", "-c", ROUTED], check=True, env=environment, timeout=20)


async def _probe_all() -> list[list[str]]:
    prober = Prober(socket.socket)
    # The router is there by IPv6 when it refuses: neighbour discovery begins up to a second after the link is up.
    router = {"kind": "udp", "address": "fd07::2", "port": 9, "timeout": 0.1}
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (await prober.probe(router))["signal"] != "refused":
        pass
    specs = [{"kind": kind, "address": target, "port": 9, "timeout": 0.5} for target in TOLD for kind in ("tcp", "udp")]
    seen = await prober.probe_all(specs)
    prober.close()
    return [[each["signal"], each["stage"], each["detail"]] for each in seen]


def _can_wire() -> bool:
    line = ["unshare", "--user", "--map-root-user", "--net", "ip", "link", "add", "near", "type", "veth"]
    try:
        return subprocess.run(line, capture_output=True, timeout=20, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_live_icmp_errors_are_told_apart_from_silence_refusals_and_this_hosts_own_routes() -> None:
    if not _can_wire():
        pytest.skip("no user namespace, or no iproute2: no ICMP error was met live")
    line = ["unshare", "--user", "--map-root-user", "--net", sys.executable, __file__]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (0, "") == (done.returncode, done.stderr)
    told = [tuple(each) for each in json.loads(done.stdout)]
    assert [each for pair in TOLD.values() for each in pair] == told


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: a killed test run leaves nothing
    _join_cable()
    print(json.dumps(asyncio.run(_probe_all())))
