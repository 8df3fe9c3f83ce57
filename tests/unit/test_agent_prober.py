# SPDX-License-Identifier: Apache-2.0
"""What a probe says of what it met: every signal, live on loopback."""

import asyncio
import contextlib
import dataclasses
import errno
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agent_servers import serving
from hypothesis import given
from hypothesis import strategies as st

from ztconform.agent.prober import Prober
from ztconform.agent.readers import HttpReader
from ztconform.agent.sourceports import FIRST, LAST, SourcePorts
from ztconform.agent.spec import SpecError, read_spec
from ztconform.agent.talk import http_request
from ztconform.agent.wire import Mark, answer_line
from ztconform.evidence import Observation

HTTP, TCP, UDP, CLOSED, STRANGE = 18180, 18181, 18182, 18183, 18184
UNMARKED = "answer carries no mark of an agent"
PORTS = (
    {"number": HTTP, "protocol": "TCP", "app": "http"},
    {"number": TCP, "protocol": "TCP", "app": "tcp"},
    {"number": UDP, "protocol": "UDP", "app": "udp"},
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
OTHERS = answer_line(Mark("a/b", "boot", 1, "other", "", "TCP", ""))


@contextlib.contextmanager
def strange_server(address: str, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Accept connections in a thread and let `answer` do what no agent does."""
    listener = socket.create_server((address, STRANGE), backlog=1024)

    def work() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    answer(connection)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@contextlib.contextmanager
def full_listener(address: str) -> Iterator[socket.socket]:
    """Listen with a full backlog: a SYN more is dropped, as by a policy."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind((address, STRANGE))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, STRANGE))
        yield listener


def probe(spec: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Send one probe from a prober of its own, and hold its observation against the model."""

    async def scenario() -> dict[str, Any]:
        prober = Prober(socket.socket, **options)
        try:
            return await prober.probe(spec)
        finally:
            prober.close()

    observation = asyncio.run(scenario())
    assert {field.name for field in dataclasses.fields(Observation)} == set(observation)
    assert observation["sent"] <= observation["ended"]
    return observation


def told(observation: dict[str, Any]) -> tuple[str, str, str]:
    return observation["signal"], observation["stage"], observation["detail"]


@pytest.mark.parametrize(("kind", "port", "transport"), [("http", HTTP, "TCP"), ("tcp", TCP, "TCP"), ("udp", UDP, "UDP")])
def test_an_agents_answer_names_its_pod_and_the_source_that_was_announced(
    address: str, kind: str, port: int, transport: str
) -> None:
    async def scenario() -> None:
        announced: list[tuple[str, str, str, int, str, int]] = []
        with serving(address, PORTS) as server:
            prober = Prober(socket.socket, lambda *sent: announced.append(sent))
            answers: list[dict[str, Any]] = []
            prober.start({"attempt": "row 1", "nonce": "abc", "kind": kind, "address": address, "port": port}, answers.append)
            assert [("abc", transport)] == [sent[:2] for sent in announced], "announced before the loop runs again"
            while not answers:
                await asyncio.sleep(0)
            (seen,) = answers
            assert ("answered", "done", "") == told(seen)
            assert ("row 1", "abc") == (seen["attempt"], seen["nonce"])
            assert ("shop/payment", server.boot) == (seen["backend"], seen["boot"])
            _, _, source, source_port, *target = announced[0]
            assert (f"{source} {source_port}", f"{address} {port}") == (seen["source"], seen["peer"])
            assert [address, port] == target
            assert f'"peer":"{seen["source"]}"' in seen["body"]
            assert (200, "ztc-agent") == (seen["status"], seen["server"]) or kind != "http"
            prober.close()

    asyncio.run(scenario())


def test_an_applications_own_refusal_is_an_answer_with_its_status(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS):
            prober = Prober(socket.socket)
            spec = {"kind": "http", "address": address, "port": HTTP, "path": "/status/403", "method": "POST"}
            seen = await prober.probe(spec)
            assert ("answered", "done", "", 403, "shop/payment") == (*told(seen), seen["status"], seen["backend"])
            seen = await prober.probe({**spec, "method": "HEAD"})
            assert (403, "", "shop/payment") == (seen["status"], seen["body"], seen["backend"])
            prober.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_dropped_syn_is_a_timeout_in_connect(address: str, kind: str) -> None:
    with full_listener(address):
        seen = probe({"kind": kind, "address": address, "port": STRANGE, "timeout": 0.2})
    assert ("timeout", "connect", "") == told(seen)
    assert 0.2 <= seen["ended"] - seen["sent"] < 2


def test_a_connection_without_answer_is_a_timeout_in_request(address: str) -> None:
    with socket.create_server((address, STRANGE)):
        assert ("timeout", "request", "") == told(probe({"kind": "tcp", "address": address, "port": STRANGE, "timeout": 0.8}))


def test_500_probes_that_time_out_side_by_side_cost_one_timeout(address: str) -> None:
    async def scenario() -> None:
        prober = Prober(socket.socket)
        began = time.monotonic()
        seen = await prober.probe_all([{"kind": "tcp", "address": address, "port": STRANGE, "timeout": 1}] * 500)
        assert time.monotonic() - began < 3
        assert {("timeout", "connect", "")} == {told(each) for each in seen}
        prober.close()

    with full_listener(address):
        asyncio.run(scenario())


@pytest.mark.parametrize("retry", [False, True])
def test_a_datagram_without_answer_is_silence_and_sent_again_only_where_that_is_wished(address: str, retry: bool) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sink:
        sink.bind((address, STRANGE))
        sink.setblocking(False)
        seen = probe(
            {"kind": "udp", "address": address, "port": STRANGE, "timeout": 2.5 if retry else 0.5, "retry": retry, "nonce": "abc"}
        )
        came = []
        with contextlib.suppress(BlockingIOError):
            while True:
                came.append(sink.recvfrom(100))
    assert ("silence", "request", "") == told(seen)
    assert [b"ZTC abc\n"] * (4 if retry else 1) == [data for data, _ in came]
    assert 1 == len({sender for _, sender in came}), "a datagram is repeated from the same port"


@pytest.mark.parametrize("kind", ["http", "tcp", "udp"])
def test_a_port_where_nobody_listens_refuses(address: str, kind: str) -> None:
    detail = "3/3" if kind == "udp" else "ECONNREFUSED"
    assert ("refused", "request" if kind == "udp" else "connect", detail) == told(
        probe({"kind": kind, "address": address, "port": CLOSED})
    )


@pytest.mark.parametrize(
    ("start_of_answer", "reset", "detail"),
    [
        (b"", False, "EOF"),
        (b"", True, "ECONNRESET"),
        (b"HTTP/1.1 200 OK\r\nContent-", False, "EOF"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123", False, "EOF"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", False, "EOF"),
    ],
)
def test_an_end_before_the_answer_is_complete_is_closed(address: str, start_of_answer: bytes, reset: bool, detail: str) -> None:
    def break_off(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(start_of_answer)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with strange_server(address, break_off):
        assert ("closed", "request", detail) == told(probe({"kind": "http", "address": address, "port": STRANGE}))


@pytest.mark.parametrize(
    ("kind", "answer", "detail", "status_and_body"),
    [
        ("http", b"HTTP/1.1 403 Forbidden\r\nServer: envoy\r\n\r\nRBAC: access denied", UNMARKED, (403, "RBAC: access denied")),
        ("http", INTERIM + b"HTTP/1.0 200\r\n" + CHUNKED + b"2;x=y\r\nab\r\n0\r\n\r\n", UNMARKED, (200, "ab")),
        ("http", INTERIM + b"HTTP/1.1 200 \r\n" + CHUNKED + b"xy\r\n", "answer's chunks are malformed", (200, "xy\r\n")),
        ("http", b"SSH-2.0-x\r\n", "answer is not HTTP", (None, "SSH-2.0-x\r\n")),
        ("http", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000, "answer is longer than 1048576 bytes", (200, "x" * 512)),
        ("tcp", b"220 mail\r\n", UNMARKED, (None, "220 mail\r\n")),
        ("tcp", OTHERS, "answer carries another nonce", (None, OTHERS.decode())),
    ],
)
def test_an_answer_that_is_not_ours_has_no_backend_and_says_why(
    address: str, kind: str, answer: bytes, detail: str, status_and_body: tuple[int | None, str]
) -> None:
    def send(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with strange_server(address, send):
        seen = probe({"kind": kind, "address": address, "port": STRANGE})
    assert ("answered", "done", detail) == told(seen)
    assert ("", "") == (seen["backend"], seen["boot"])
    assert status_and_body == (seen["status"], seen["body"])


def start(prober: Prober, spec: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Start probes without letting the loop run, and return the list that their observations will come to."""
    seen: list[dict[str, Any]] = []
    for _ in range(count):
        prober.start(spec, seen.append)
    return seen


async def until_all(seen: list[dict[str, Any]], count: int) -> set[tuple[str, str]]:
    while len(seen) < count:
        await asyncio.sleep(0.01)
    return {(each["signal"], each["stage"]) for each in seen}


def test_answers_that_came_in_time_count_though_the_loop_looks_late(address: str) -> None:
    """More of them than the loop takes at once, so that time is up for the last before they are looked at."""
    answered = threading.Semaphore(0)

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        answered.release()

    async def scenario() -> None:
        prober = Prober(socket.socket)
        seen = start(prober, {"kind": "http", "address": address, "port": STRANGE, "timeout": 0.1}, 300)
        deadline = time.monotonic() + 0.2
        for _ in range(300):
            assert answered.acquire(timeout=5)
        while time.monotonic() < deadline:
            pass  # the stall
        assert {("answered", "done")} == await until_all(seen, 300)
        prober.close()

    with strange_server(address, answer):
        asyncio.run(scenario())


def test_connections_made_in_time_get_their_time_to_answer_though_the_loop_looks_late(address: str) -> None:
    async def scenario(listener: socket.socket) -> None:
        prober = Prober(socket.socket)
        seen = start(prober, {"kind": "tcp", "address": address, "port": STRANGE, "timeout": 1.5}, 300)
        assert [] == seen
        stall_ends = time.monotonic() + 1.6
        listener.listen(4096)  # room for the SYNs that come again after a second
        accepted = []
        while time.monotonic() < stall_ends:
            with contextlib.suppress(BlockingIOError):
                accepted.append(listener.accept()[0])
        assert len(accepted) > 300
        assert {("timeout", "request")} == await until_all(seen, 300)
        assert all(each["ended"] > stall_ends + 1 for each in seen), "a time limit of its own from the late request on"
        for connection in accepted:
            connection.close()
        prober.close()

    with full_listener(address) as listener:
        listener.setblocking(False)
        asyncio.run(scenario(listener))


@pytest.mark.parametrize(
    ("spec", "detail"),
    [
        ({"kind": "tcp", "bind": "198.51.100.1"}, "EADDRNOTAVAIL"),
        ({"kind": "udp", "bind": "198.51.100.1"}, "EADDRNOTAVAIL"),
        ({"kind": "tcp", "bind": "::1"}, "spec: "),
        ({"kind": "tcp", "address": "255.255.255.255"}, "E"),
    ],
)
def test_what_cannot_be_sent_is_not_run_with_its_errno(address: str, spec: dict[str, Any], detail: str) -> None:
    seen = probe({"address": address, "port": CLOSED, **spec})
    assert "not-run" == seen["signal"]
    assert seen["detail"].startswith(detail)


def test_a_process_out_of_files_reports_not_run(address: str) -> None:
    async def scenario() -> None:
        prober = Prober(socket.socket)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) // 2, hard))
        try:
            seen = await prober.probe({"kind": "tcp", "address": address, "port": CLOSED})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert ("not-run", "connect", "EMFILE") == told(seen)
        prober.close()

    asyncio.run(scenario())


def test_a_socket_factory_that_fails_in_any_way_is_not_run() -> None:
    def vanished(*_: int) -> socket.socket:
        raise OSError(errno.ENOENT, "no such namespace")

    def broken(*_: int) -> socket.socket:
        raise LookupError("pod")

    async def scenario() -> None:
        for factory, expected in ((vanished, "ENOENT"), (broken, "LookupError('pod')")):
            for kind in ("tcp", "udp", "http", "dns"):
                prober = Prober(factory)
                seen = await prober.probe({"kind": kind, "address": "127.0.0.1", "port": 1, "path": "x"})
                assert ("not-run", expected) == (seen["signal"], seen["detail"])
                prober.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({"kind": "sctp"}, "kind 'sctp'"),
        ({"port": 0}, "port 0"),
        ({"port": True}, "port True"),
        ({"port": "80"}, "port '80'"),
        ({"timeout": 0}, "timeout 0"),
        ({"timeout": float("nan")}, "timeout nan"),
        ({"more": 1}, "unknown field 'more'"),
        ({"nonce": "a b"}, "nonce 'a b'"),
        ({"path": 1}, "path is not text"),
        ({"path": "/\r\nx"}, "cannot stand in a request's line"),
        ({"path": "/\u20ac"}, "cannot stand in a request's line"),
        ({"method": "G T"}, "method 'G T'"),
        ({"headers": [["a"]]}, "header ('a',)"),
        ({"headers": {"a": "b"}}, "headers is not a list"),
        ({"address": "localhost"}, "address 'localhost'"),
        ({"address": "", "name": ""}, "one of address and name"),
        ({"address": "", "name": "x"}, "resolver ('', 0)"),
        ({"address": "", "name": "x..y", "resolver": ["127.0.0.1", 53]}, "a label is empty"),
        ({"retry": 1}, "retry 1"),
        ({"family": 5}, "family 5"),
    ],
)
def test_a_spec_that_cannot_be_sent_is_not_run_and_names_the_field(change: dict[str, Any], clause: str) -> None:
    spec = {"attempt": "row", "kind": "http", "address": "127.0.0.1", "port": CLOSED, **change}
    with pytest.raises(SpecError) as refused:
        read_spec(spec)
    assert clause in str(refused.value)
    seen = probe(spec)
    assert ("not-run", "exec", f"spec: {refused.value}", "row") == (*told(seen), seen["attempt"])


@given(
    st.dictionaries(
        st.sampled_from(["kind", "port", "address", "timeout", "headers", "search", "resolver", "name", "bind", "x"]),
        st.none() | st.integers() | st.text() | st.floats() | st.lists(st.text() | st.integers()),
    )
)
def test_no_spec_raises_anything_but_its_own_error(fields: dict[str, Any]) -> None:
    with contextlib.suppress(SpecError):
        read_spec(fields)


def test_headers_keep_order_case_and_duplicates_and_ours_are_added_where_they_lack() -> None:
    spec = read_spec({
        "kind": "http", "address": "::1", "port": 80, "method": "POST", "path": "/a//b%2F\xe9",
        "headers": [["X-B", "1"], ["x-b", "2"], ["User-Agent", "me"]],
    })  # fmt: skip
    assert (
        "POST /a//b%2F\xe9 HTTP/1.1\r\nHost: [::1]:80\r\nX-B: 1\r\nx-b: 2\r\nUser-Agent: me\r\n"
        "x-ztc-nonce: abc\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    ).encode("latin-1") == http_request(spec, "abc")
    other = spec._replace(headers=(("Host", "x"), ("connection", "keep-alive"), ("Content-Length", "3")))
    assert 1 == http_request(other, "abc").lower().count(b"host:")
    assert b"Connection: close" not in http_request(other, "abc")
    assert b"Host: shop\r\n" in http_request(spec._replace(host="shop"), "abc")


def test_a_request_larger_than_the_buffers_on_its_way_arrives_whole(address: str) -> None:
    headers = [["x-long", "x" * 1_000_000]] * 12

    def answer(connection: socket.socket) -> None:
        size = 0
        while size < 12_000_000:
            size += len(connection.recv(1 << 20))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with strange_server(address, answer):
        seen = probe({"kind": "http", "address": address, "port": STRANGE, "headers": headers, "timeout": 20})
    assert ("answered", 200) == (seen["signal"], seen["status"])


@given(st.binary(), st.lists(st.integers(0, 40)))
def test_no_bytes_break_the_reader_of_http_answers(data: bytes, cuts: list[int]) -> None:
    for head in (b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        reader = HttpReader("GET")
        at = 0
        for cut in [*cuts, len(data) + len(head)]:
            piece = (head + data)[at : at + cut]
            at += cut
            if piece and reader.feed(piece):
                break
        reader.end()


def test_udp_probes_leave_from_ports_that_were_not_used_towards_the_target(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS):
            prober = Prober(socket.socket)
            seen = await prober.probe_all([{"kind": "udp", "address": address, "port": UDP, "retry": True}] * 200)
            ports = [int(each["source"].split()[1]) for each in seen]
            assert 200 == len(set(ports))
            assert FIRST <= min(ports) <= max(ports) <= LAST
            prober.close()

    asyncio.run(scenario())


def test_udp_probes_without_a_fresh_port_are_not_run(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS), socket.socket(type=socket.SOCK_DGRAM) as holder:
            holder.bind(("127.0.0.1", 0))
            busy = holder.getsockname()[1]
            prober = Prober(socket.socket, source_ports=SourcePorts(busy - 1, busy + 1))
            seen = [await prober.probe({"kind": "udp", "address": address, "port": UDP, "bind": "127.0.0.1"}) for _ in range(3)]
            assert ["answered", "answered", "not-run"] == [each["signal"] for each in seen]
            assert ("not-run", "request", "no fresh UDP source port") == told(seen[-1])
            prober.close()

    asyncio.run(scenario())


def test_a_source_port_rests_180_seconds_after_its_last_use_towards_each_target() -> None:
    ports = SourcePorts(20000, 20002)
    target, other = ("10.0.0.1", 53), ("10.0.0.1", 54)
    taken = [ports.take(target, now, now + 3.0) for now in (0.0, 1.0, 2.0)]
    assert {20000, 20001, 20002} == set(taken)
    assert ports.take(target, 182.9, 185.9) is None
    assert {20000, 20001, 20002} == {ports.take(other, 2.0, 3.0) for _ in range(3)}
    assert taken[0] == ports.take(target, 183.0, 186.0)
    assert ports.take(target, 183.0, 186.0) is None
    assert taken[1] == ports.take(target, 184.0, 187.0)


def test_a_closed_prober_leaves_nobody_waiting(address: str) -> None:
    async def scenario() -> None:
        prober = Prober(socket.socket)
        pending = asyncio.ensure_future(prober.probe({"kind": "udp", "address": address, "port": STRANGE, "timeout": 60}))
        await asyncio.sleep(0)
        prober.close()
        assert ("not-run", "exec", "the prober was closed") == told(await asyncio.wait_for(pending, 5))

    with socket.socket(type=socket.SOCK_DGRAM) as sink:
        sink.bind((address, STRANGE))
        asyncio.run(scenario())


def test_a_probe_leaves_no_open_file(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS), full_listener(address):
            prober = Prober(socket.socket)
            before = len(os.listdir("/proc/self/fd"))
            kinds = [("http", HTTP), ("tcp", TCP), ("udp", UDP), ("tcp", CLOSED), ("udp", CLOSED), ("tcp", STRANGE)]
            await prober.probe_all([{"kind": k, "address": address, "port": p, "timeout": 0.2} for k, p in kinds] * 5)
            await asyncio.sleep(0.01)  # the server's sides of the connections
            assert before == len(os.listdir("/proc/self/fd"))
            prober.close()

    asyncio.run(scenario())


def test_closing_after_an_answer_leaves_no_time_wait(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS):
            prober = Prober(socket.socket)
            await prober.probe_all([{"kind": "http", "address": address, "port": HTTP}] * 100)
            await asyncio.sleep(0.01)
            prober.close()

    asyncio.run(scenario())
    server = f"{socket.inet_aton(address)[::-1].hex().upper()}:{HTTP:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        assert [] == [line for line in table if server in line]
