# SPDX-License-Identifier: Apache-2.0
"""What a pod's server answers, refuses and remembers; live on loopback."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from agent_servers import serving
from hypothesis import given, settings
from hypothesis import strategies as st

from ztconform.agent.httpserver import HttpSession, Malformed, Reply, body_length, read_head
from ztconform.agent.prober import Prober
from ztconform.agent.server import Server
from ztconform.agent.wire import HEALTH_PORT, AgentError, Mark, read_answer_line, read_mark, read_request_line

HTTP, TCP, UDP = 18080, 18081, 18082
PORTS = (
    {"number": HTTP, "protocol": "TCP", "app": "http"},
    {"number": TCP, "protocol": "TCP", "app": "tcp"},
    {"number": UDP, "protocol": "UDP", "app": "udp"},
)
ROOT = Path(__file__).resolve().parents[2]


async def talk(address: str, port: int, data: bytes) -> bytes:
    """Send bytes on a connection of their own, end it, and return all that comes."""
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(data)
    with contextlib.suppress(OSError):
        writer.write_eof()
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *headers, "", "")).encode("latin-1")


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def test_an_http_answer_carries_the_mark_and_the_agents_name(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            answer = await talk(address, HTTP, get("/x?y=1", "X-ZTC-Nonce: abc", "Connection: close", method="BREW"))
            assert answer.startswith(b"HTTP/1.1 200 OK\r\nServer: ztc-agent\r\n")
            mark = json.loads(body_of(answer))
            assert mark.pop("peer").startswith("127.0.0.1 ")
            expected = {"ztc": 1, "pod": "shop/payment", "boot": server.boot, "sequence": 1, "nonce": "abc", "path": "/x?y=1"}
            assert {**expected, "method": "BREW"} == mark
            assert [["abc", server.boot, 1, None]] == server.sightings(0)
            assert [] == server.sightings(1)

    asyncio.run(scenario())


def test_an_agent_without_ports_and_without_health_opens_no_socket(address: str) -> None:
    opened: list[int] = []

    def open_socket(family: int, kind: int, protocol: int) -> socket.socket:
        opened.append(kind)
        return socket.socket(family, kind, protocol)

    async def started(health: int) -> None:
        server = Server("shop/payment", open_socket, (), [address], health)
        server.start()
        server.stop()

    asyncio.run(started(0))
    assert [] == opened
    asyncio.run(started(HEALTH_PORT))
    assert 1 == len(opened)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/status/403", "403 Forbidden"),
        ("/status/503?x", "503 Service Unavailable"),
        ("/status/100", "200 OK"),
        ("/status/4030", "200 OK"),
    ],
)
def test_a_status_path_is_answered_with_that_status_and_the_mark(address: str, path: str, status: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS):
            answer = await talk(address, HTTP, get(path, "x-ztc-nonce: abc", "Connection: close"))
            assert answer.startswith(f"HTTP/1.1 {status}\r\n".encode())
            mark = read_mark(body_of(answer).decode())
            assert mark is not None
            assert "abc" == mark.nonce

    asyncio.run(scenario())


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/"), ("GET", "/status/204"), ("GET", "/status/304")])
def test_an_answer_without_body_carries_the_mark_in_a_header(address: str, method: str, path: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            answer = await talk(address, HTTP, get(path, "x-ztc-nonce: abc", "Connection: close", method=method))
            assert b"" == body_of(answer)
            assert f'x-ztc-mark: {{"ztc":1,"pod":"shop/payment","boot":"{server.boot}"'.encode() in answer

    asyncio.run(scenario())


def test_requests_of_one_connection_are_answered_in_order_bodies_skipped(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            first = get("/1", "x-ztc-nonce: a", "Content-Length: 7", method="POST") + b"GET / \r\n"
            others = get("/2", "x-ztc-nonce: b"), get("/3", "x-ztc-nonce: c", "Connection: close")
            answer = await talk(address, HTTP, first + b"".join(others))
            assert 3 == answer.count(b"HTTP/1.1 200 OK")
            assert 2 == answer.count(b"Connection: keep-alive")
            assert ["a", "b", "c"] == [nonce for nonce, *_ in server.sightings()]

    asyncio.run(scenario())


def test_a_body_that_never_comes_leaves_the_request_unanswered_but_seen(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            request = get("/", "x-ztc-nonce: a", "Content-Length: 7", "Connection: close", method="POST")
            assert b"" == await talk(address, HTTP, request + b"123456")
            assert ["a"] == [nonce for nonce, *_ in server.sightings()]
            assert (await talk(address, HTTP, request + b"1234567")).startswith(b"HTTP/1.1 200")

    asyncio.run(scenario())


def test_a_body_that_comes_late_is_waited_for(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            reader, writer = await asyncio.open_connection(address, HTTP)
            writer.write(get("/", "x-ztc-nonce: a", "Content-Length: 7", "Connection: close", method="POST"))
            while not server.sightings():
                await asyncio.sleep(0.001)
            writer.write(b"1234567")
            assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("line", "header", "connection"),
    [
        ("GET / HTTP/1.1", "Connection: Keep-Alive, Close", "close"),
        ("GET / HTTP/1.1", "x: y", "keep-alive"),
        ("GET / HTTP/1.0", "x: y", "close"),
        ("GET / HTTP/1.0", "Connection: keep-alive", "keep-alive"),
    ],
)
def test_a_connection_ends_where_the_client_says_or_its_version_implies(line: str, header: str, connection: str) -> None:
    session = HttpSession(lambda _: Reply(200, b""))
    answer = session.feed(f"{line}\r\n{header}\r\n\r\n".encode())
    assert f"Connection: {connection}\r\n".encode() in answer
    assert session.closing == (connection == "close")


@pytest.mark.parametrize("header", ["x-other: abc", "x-ztc-nonce: a b", "x-ztc-nonce: a\r\nx-ztc-nonce: b", "x-ztc-nonce: \xe9"])
def test_a_request_without_one_clear_nonce_is_answered_and_counted_but_no_sighting(address: str, header: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            answer = await talk(address, HTTP, get("/", header, "Connection: close"))
            assert b'"sequence":0,"nonce":""' in answer
            assert ([], 1) == (server.sightings(), server.witness.unmarked)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET  / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nname : x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n folded\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"501"),
        (b"GET /" + b"x" * 70000, b"431"),
    ],
)
def test_what_is_not_http_is_refused_and_the_server_lives_on(address: str, data: bytes, status: bytes) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            assert b"HTTP/1.1 " + status == (await talk(address, HTTP, data))[:12]
            assert (await talk(address, HTTP, get("/", "x-ztc-nonce: a", "Connection: close"))).startswith(b"HTTP/1.1 200")
            assert ["a"] == [nonce for nonce, *_ in server.sightings()]

    asyncio.run(scenario())


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"GET / HTTP/1.1\r\n", b"Content-Length: 3\r\n", b"\r\n"])))
def test_no_bytes_break_an_http_session_however_they_are_cut(pieces: list[bytes]) -> None:
    whole, cut = (HttpSession(lambda request: Reply(200, request.path.encode("latin-1"))) for _ in range(2))
    answers = []
    for piece in pieces:
        if not cut.closing:
            answers.append(cut.feed(piece))
    assert whole.feed(b"".join(pieces)) == b"".join(answers)
    assert whole.closing == cut.closing


@given(st.text(st.characters(max_codepoint=255)))
def test_a_head_is_read_or_refused(head: str) -> None:
    with contextlib.suppress(Malformed):
        body_length(read_head(head))


@settings(max_examples=15)
@given(st.lists(st.binary(max_size=2000), min_size=3, max_size=3))
def test_a_live_server_outlives_garbage_on_every_port(data: list[bytes]) -> None:
    address = f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.253"

    async def scenario() -> None:
        with serving(address, PORTS), socket.socket(type=socket.SOCK_DGRAM) as sock:
            await talk(address, HTTP, data[0])
            await talk(address, TCP, data[1])
            sock.sendto(data[2], (address, UDP))
            prober = Prober(socket.socket)
            probes = [("http", HTTP), ("tcp", TCP), ("udp", UDP)]
            seen = await prober.probe_all([{"kind": kind, "address": address, "port": port} for kind, port in probes])
            assert ["shop/payment"] * 3 == [each["backend"] for each in seen]
            prober.close()

    asyncio.run(scenario())


def test_lines_of_one_tcp_connection_are_each_answered_with_a_mark_until_one_is_not_ours(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            answer = await talk(address, TCP, b"ZTC a\nZTC b\r\nGET / HTTP/1.1\r\nZTC c\n")
            marks = [read_answer_line(line) for line in answer.splitlines()]
            assert [("a", 1, "TCP"), ("b", 2, "TCP")] == [(m.nonce, m.sequence, m.method) for m in marks if m is not None]
            assert 1 == server.witness.unmarked

    asyncio.run(scenario())


@given(st.binary(max_size=100))
def test_a_request_line_gives_a_nonce_only_behind_the_prefix(line: bytes) -> None:
    assert not read_request_line(line) or line.startswith(b"ZTC ")


@given(st.text())
def test_what_no_agent_wrote_is_no_mark(text: str) -> None:
    assert read_mark(text) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"ztc":1}',
        Mark("a", "b", 1, "c", "d", "e", "f").encode().decode().replace('"ztc":1', '"ztc":2'),
        Mark("a", "b", 1, "c", "d", "e", "f").encode().decode().replace('"a"', "7"),
        Mark("a", "b", 1, "c", "d", "e", "f").encode().decode().replace(":1,", ':"1",'),
        "[1]",
        '"ztc"',
        "[" * 100_000,
    ],
    ids=["empty", "version", "number for pod", "text for numbers", "list", "text", "deep"],
)
def test_json_that_lacks_a_field_is_no_mark(text: str) -> None:
    assert read_mark(text) is None


def test_a_datagram_is_recorded_each_time_it_comes(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server, socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            for sequence in (1, 2):
                sock.sendto(b"ZTC abc\n", (address, UDP))
                mark = read_answer_line(await asyncio.wait_for(loop.sock_recv(sock, 4096), 5))
                assert mark is not None
                assert ("abc", sequence, server.boot) == (mark.nonce, mark.sequence, mark.boot)
            assert [1, 2] == [sequence for _, _, sequence, _ in server.sightings()]

    asyncio.run(scenario())


def test_sequences_have_no_gap_under_1000_parallel_requests(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            prober = Prober(socket.socket)
            kinds = [("http", HTTP), ("tcp", TCP), ("udp", UDP)]
            specs = [
                {"kind": kind, "address": address, "port": port, "nonce": f"{kind}{at}", "timeout": 10, "retry": True}
                for at in range(334)
                for kind, port in kinds
            ]
            seen = await prober.probe_all(specs)
            assert {("answered", "shop/payment", server.boot)} == {(e["signal"], e["backend"], e["boot"]) for e in seen}
            sightings = server.sightings()
            assert list(range(1, len(sightings) + 1)) == [sequence for _, _, sequence, _ in sightings]
            assert {spec["nonce"] for spec in specs} == {nonce for nonce, *_ in sightings}
            prober.close()

    asyncio.run(scenario())


def test_health_is_answered_on_a_port_of_its_own_and_not_recorded(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            answer = await talk(address, HEALTH_PORT, get("/", "x-ztc-nonce: a", "Connection: close"))
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert b"200 ok\n" == body_of(answer)
            assert ([], 0) == (server.sightings(), server.witness.unmarked)

    asyncio.run(scenario())


@pytest.mark.parametrize("taken", [TCP, UDP])
def test_a_port_in_use_is_named_and_nothing_is_left_listening(address: str, taken: int) -> None:
    async def scenario() -> None:
        with socket.socket(type=socket.SOCK_DGRAM if taken == UDP else socket.SOCK_STREAM) as holder:
            holder.bind((address, taken))
            if taken == TCP:
                holder.listen()
            server = Server("shop/payment", socket.socket, PORTS, [address])
            with pytest.raises(AgentError, match=f"port {taken} at {address} is in use"):
                server.start()
        with serving(address, PORTS):
            assert (await talk(address, HTTP, get("/", "Connection: close"))).startswith(b"HTTP/1.1 200")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "port",
    [
        {"number": 1, "protocol": "SCTP", "app": "tcp"},
        {"number": 1, "protocol": "TCP", "app": "http3"},
        {"number": 1, "protocol": "UDP", "app": "http"},
        {"number": 1, "protocol": "TCP", "app": "tcp", "more": 1},
        {"protocol": "TCP", "app": "tcp"},
    ],
)
def test_a_port_that_the_agent_cannot_serve_is_refused(address: str, port: dict[str, object]) -> None:
    async def scenario() -> None:
        with pytest.raises(AgentError, match="is not one that the agent serves: http over TCP"):
            Server("shop/payment", socket.socket, [port], [address]).start()

    asyncio.run(scenario())


def test_a_wildcard_server_answers_by_both_families_and_from_the_address_it_was_asked_at() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET6) as probe, socket.socket(socket.AF_INET6) as other:
            probe.bind(("::", 0))
            other.bind(("::", 0))
            port, health = probe.getsockname()[1], other.getsockname()[1]
        ports = [{"number": port, "protocol": "TCP", "app": "tcp"}, {"number": port, "protocol": "UDP", "app": "udp"}]
        server = Server("shop/payment", socket.socket, ports, health=health)
        server.start()
        prober = Prober(socket.socket)
        targets = [(kind, address) for kind in ("tcp", "udp") for address in ("127.0.0.1", "127.0.0.2", "::1")]
        seen = await prober.probe_all([{"kind": kind, "address": address, "port": port} for kind, address in targets])
        assert ["answered"] * 6 == [each["signal"] for each in seen]
        server.stop()
        prober.close()

    asyncio.run(scenario())


ASKED_AT = """
import asyncio, socket
from ztconform.agent.prober import Prober
from ztconform.agent.server import Server

async def main():
    server = Server("a/b", socket.socket, [{"number": 9, "protocol": "UDP", "app": "udp"}])
    server.start()
    prober = Prober(socket.socket)
    addresses = "10.7.0.1", "10.7.0.2", "fd07::1", "fd07::2"
    binds = {4: "10.7.0.1", 6: "fd07::1"}
    specs = [{"kind": "udp", "address": a, "port": 9, "bind": binds[6 if ":" in a else 4], "timeout": 2} for a in addresses]
    print([each["backend"] for each in await prober.probe_all(specs)])

asyncio.run(main())
"""


def test_a_wildcard_server_with_two_addresses_of_a_family_answers_from_the_one_it_was_asked_at() -> None:
    wiring = "ip link set lo up && for a in 10.7.0.1/32 10.7.0.2/32 fd07::1/128 fd07::2/128; do ip address add $a dev lo; done"
    line = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", f'{wiring} && exec "$0" -c "$1"']
    if shutil.which("ip") is None or subprocess.run([*line[:4], "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace, or no iproute2: only 127.0.0.0/8 was asked")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*line, sys.executable, ASKED_AT], capture_output=True, text=True, timeout=30, check=False, env=environment
    )
    assert ("['a/b', 'a/b', 'a/b', 'a/b']\n", "") == (done.stdout, done.stderr)


def test_a_stopped_server_keeps_what_it_saw_and_its_ports_are_free(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as first:
            await talk(address, HTTP, get("/", "x-ztc-nonce: a", "Connection: close"))
        with serving(address, PORTS) as second:
            assert ["a"] == [nonce for nonce, *_ in first.sightings()]
            assert [] == second.sightings()
            assert first.boot != second.boot

    asyncio.run(scenario())
