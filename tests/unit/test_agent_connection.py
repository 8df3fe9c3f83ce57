# SPDX-License-Identifier: Apache-2.0
"""What is special in a connection: several probes on it, a raw request, a mark on its socket; and whom a proxy vouches for."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_servers import serving
from hypothesis import given
from hypothesis import strategies as st

from ztconform.agent import xfcc
from ztconform.agent.prober import Prober
from ztconform.agent.spec import SpecError, read_spec
from ztconform.agent.stream import Streams
from ztconform.agent.wire import AgentError

HTTP, H2, GRPC, CLOSED, STRANGE = 18680, 18681, 18682, 18683, 18684
PORTS = (
    {"number": HTTP, "protocol": "TCP", "app": "http"},
    {"number": H2, "protocol": "TCP", "app": "http2"},
    {"number": GRPC, "protocol": "TCP", "app": "grpc"},
)
KINDS = pytest.mark.parametrize(("kind", "port"), [("http", HTTP), ("http2", H2), ("grpc", GRPC)])
ENDED = ("closed", "request", "connection ended before this request")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def strange_server(address: str, *answers: bytes) -> Iterator[list[bytes]]:
    """Accept one connection in a thread, answer what comes in turn, close, and collect what came."""
    listener = socket.create_server((address, STRANGE))
    came: list[bytes] = []

    def work() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(3)
                for answer in answers:
                    came.append(connection.recv(65536))
                    connection.sendall(answer)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield came
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def probe_all(specs: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    async def scenario() -> list[dict[str, Any]]:
        prober = Prober(socket.socket, **options)
        try:
            return await prober.probe_all(specs)
        finally:
            prober.close()

    return asyncio.run(scenario())


def told(observation: dict[str, Any]) -> tuple[str, str, str]:
    return observation["signal"], observation["stage"], observation["detail"]


@KINDS
def test_probes_with_one_connection_go_over_it_in_order_each_with_its_own_nonce(address: str, kind: str, port: int) -> None:
    async def scenario() -> None:
        announced: list[Any] = []
        with serving(address, PORTS) as server:
            prober = Prober(socket.socket, lambda *sent: announced.append(sent))
            spec = {"kind": kind, "address": address, "port": port}
            paths = ["/status/403", "/b", "/c"] if kind != "grpc" else ["/a.B/A", "/a.B/B", "/a.B/C"]
            shared = [{**spec, "connection": "one", "path": path, "nonce": f"n{at}"} for at, path in enumerate(paths)]
            other = {**spec, "connection": "other", "path": "/a.B/D", "nonce": "o"}
            alone = {**spec, "path": "/a.B/E", "nonce": "l"}
            seen = await prober.probe_all([shared[0], alone, shared[1], other, shared[2]])
            together = [seen[0], seen[2], seen[4]]
            assert ["n0", "l", "n1", "o", "n2"] == [each["nonce"] for each in seen]
            assert {"shop/payment"} == {each["backend"] for each in seen}
            assert [403 if kind != "grpc" else 200, 200, 200] == [each["status"] for each in together]
            assert 1 == len({each["source"] for each in together})
            assert 3 == len({each["source"] for each in seen})
            assert together[0]["ended"] <= together[1]["sent"] <= together[1]["ended"] <= together[2]["sent"]
            sequence = {nonce: number for nonce, _, number, _ in server.sightings()}
            assert sequence["n0"] < sequence["n1"] < sequence["n2"]
            flows = {sent[0]: sent[2:] for sent in announced}
            assert flows["n0"] == flows["n1"] == flows["n2"] != flows["l"]
            prober.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answers", "expected", "sent"),
    [
        ([OK, OK, OK], ["answered", "answered", "answered"], 3),
        ([OK, OK], ["answered", "answered", "closed"], 3),
        (
            [OK, b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"],
            ["answered", "answered", "closed"],
            2,
        ),
        ([b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"], ["answered", "closed", "closed"], 1),
        ([b"HTTP/1.1 200 OK\r\n\r\nup to the end"], ["answered", "closed", "closed"], 1),
        ([b"nonsense\r\n"], ["answered", "closed", "closed"], 1),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", OK, OK], ["answered"] * 3, 3),
    ],
)
def test_behind_an_answer_that_ends_the_connection_the_others_are_closed(
    address: str, answers: list[bytes], expected: list[str], sent: int
) -> None:
    announced: list[Any] = []
    with strange_server(address, *answers) as came:
        specs = [{"kind": "http", "address": address, "port": STRANGE, "connection": "a", "timeout": 2}] * 3
        seen = probe_all(specs, on_sent=lambda *sent: announced.append(sent))
    assert expected == [each["signal"] for each in seen]
    assert [each["nonce"] for each in seen[:sent]] == [nonce for nonce, *_ in announced]
    assert [ENDED] * (3 - sent) == [told(each) for each in seen[sent:]]
    assert all("request" == each["stage"] for each in seen if each["signal"] == "closed")
    assert all(b"Connection: keep-alive" in each for each in came)
    assert len(answers) == len(came)


def test_a_timeout_ends_the_connection_for_those_behind_it(address: str) -> None:
    with socket.create_server((address, STRANGE)):
        seen = probe_all([{"kind": "http", "address": address, "port": STRANGE, "connection": "a", "timeout": 0.8}] * 3)
    assert [("timeout", "request", ""), ENDED, ENDED] == [told(each) for each in seen]


def test_each_request_has_a_time_limit_of_its_own(address: str) -> None:
    listener = socket.create_server((address, STRANGE))

    def work() -> None:
        connection, _ = listener.accept()
        with connection:
            for _ in range(3):
                connection.recv(65536)
                release.wait(0.4)
                connection.sendall(OK)

    release = threading.Event()  # never set: the server takes its time
    thread = threading.Thread(target=work)
    thread.start()
    seen = probe_all([{"kind": "http", "address": address, "port": STRANGE, "connection": "a", "timeout": 0.9}] * 3)
    thread.join(5)
    listener.close()
    assert ["answered"] * 3 == [each["signal"] for each in seen]
    assert seen[-1]["ended"] - seen[0]["sent"] > 0.9


def test_where_no_connection_comes_about_all_of_them_say_so(address: str) -> None:
    seen = probe_all([{"kind": "http2", "address": address, "port": CLOSED, "connection": "a"}] * 3)
    assert [("refused", "connect", "ECONNREFUSED")] * 3 == [told(each) for each in seen]
    with socket.create_server((address, STRANGE)):
        specs = [{"kind": "http", "address": address, "port": STRANGE, "connection": "a", "timeout": 0.8, "tls": {}}] * 2
        assert [("timeout", "tls", "")] * 2 == [told(each) for each in probe_all(specs)]
    bad = {"kind": "http", "address": address, "port": STRANGE, "connection": "a", "tls": {"chain": "x", "key": "y"}}
    assert ["not-run"] * 2 == [each["signal"] for each in probe_all([bad, bad])]


def test_a_goaway_between_requests_closes_those_behind_it(address: str) -> None:
    from ztconform.agent import frames, hpack

    answer = frames.headers(1, hpack.encode([(":status", "200")]), True)
    goaway = frames.frame(frames.GOAWAY, 0, 0, b"\0\0\0\1" + bytes(4))
    with strange_server(address, frames.settings() + answer, goaway):
        seen = probe_all([{"kind": "http2", "address": address, "port": STRANGE, "connection": "a", "timeout": 2}] * 3)
    assert ("answered", "done") == told(seen[0])[:2]
    assert [("closed", "request", "GOAWAY NO_ERROR"), ENDED] == [told(each) for each in seen[1:]]


def test_a_closed_prober_leaves_none_of_them_waiting(address: str) -> None:
    async def scenario() -> None:
        prober = Prober(socket.socket)
        specs = [{"kind": "http", "address": address, "port": STRANGE, "connection": "a", "timeout": 60}] * 3
        pending = asyncio.ensure_future(prober.probe_all(specs))
        await asyncio.sleep(0.01)
        prober.close()
        assert [("not-run", "exec", "the prober was closed")] * 3 == [told(each) for each in await asyncio.wait_for(pending, 5)]

    with socket.create_server((address, STRANGE)):
        asyncio.run(scenario())


def test_a_socket_factory_that_fails_is_not_run_for_all_of_them() -> None:
    def broken(*_: int) -> socket.socket:
        raise LookupError("pod")

    async def scenario() -> None:
        prober = Prober(broken)
        specs = [{"kind": "http", "address": "127.0.0.1", "port": 1, "connection": "a"}] * 2
        assert [("not-run", "exec", "LookupError('pod')")] * 2 == [told(each) for each in await prober.probe_all(specs)]
        prober.close()

    asyncio.run(scenario())


def test_a_prober_that_is_closed_by_the_first_answer_ends_the_others(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS):
            announced: list[Any] = []
            prober = Prober(socket.socket, lambda *sent: announced.append(sent))
            seen: list[dict[str, Any]] = []

            def first(observation: dict[str, Any]) -> None:
                seen.append(observation)
                prober.close()

            spec = {"kind": "http", "address": address, "port": HTTP, "connection": "a"}
            prober.start_in_turn([(spec, first), (spec, seen.append)])
            while len(seen) < 2:
                await asyncio.sleep(0.001)
            assert ["answered", "not-run"] == [each["signal"] for each in seen]
            assert 1 == len(announced), "nothing more is sent"

    asyncio.run(scenario())


def test_a_connection_is_refused_where_it_cannot_be_shared(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS):
            prober = Prober(socket.socket)
            seen: list[dict[str, Any]] = []
            spec = {"kind": "http", "address": address, "port": HTTP, "connection": "a"}
            prober.start(spec, seen.append)
            assert [("not-run", "exec", "spec: connection 'a' is for probes that are sent together")] == [
                told(each) for each in seen
            ]
            with pytest.raises(AgentError, match="takes none by name"):
                Streams(prober).start("s", [spec], 1, seen.append)
            mixed = await prober.probe_all([spec, {**spec, "port": H2}, {**spec, "more": 1}, spec])
            assert ["answered", "not-run", "not-run", "answered"] == [each["signal"] for each in mixed]
            assert "another kind, target or way" in mixed[1]["detail"]
            prober.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fields", "clause"),
    [
        ({"kind": "tcp", "connection": "a"}, "connection is for the kinds http, http2, grpc"),
        ({"address": "", "name": "x", "resolver": ["127.0.0.1", 53], "connection": "a"}, "dialled by address"),
        ({"connection": 1}, "connection is not text"),
        ({"kind": "http2", "raw": "x"}, "raw is latin-1 text, and for kind http"),
        ({"raw": "\u20ac"}, "raw is latin-1"),
        ({"raw": 1}, "raw is latin-1"),
        ({"mark": 0}, "mark 0"),
        ({"mark": True}, "mark True"),
        ({"mark": "1"}, "mark '1'"),
        ({"mark": 1 << 31}, "mark 2147483648"),
        ({"kind": "udp", "mark": 1}, "kind udp takes neither mark nor tls"),
        ({"kind": "dns", "path": "x", "mark": 1}, "kind dns takes neither"),
    ],
)
def test_a_field_that_makes_no_connection_is_refused(fields: dict[str, Any], clause: str) -> None:
    with pytest.raises(SpecError, match=clause):
        read_spec({"kind": "http", "address": "127.0.0.1", "port": 1, **fields})


def test_a_raw_request_is_sent_as_it_is_with_the_nonce_in_its_place(address: str) -> None:
    raw = "GET /a/../b%2f\xe9//c HTTP/1.1\r\nhost: x\r\nX-Ztc-Nonce: {nonce}\r\n{nonce}: a\r\n\r\n"
    with strange_server(address, OK) as came:
        probe_all(
            [{"kind": "http", "address": address, "port": STRANGE, "raw": raw, "nonce": "abc", "headers": [["un", "sent"]]}]
        )
    assert [raw.replace("{nonce}", "abc").encode("latin-1")] == came

    async def scenario() -> None:
        with serving(address, PORTS) as server:
            prober = Prober(socket.socket)
            seen = await prober.probe({"kind": "http", "address": address, "port": HTTP, "raw": raw, "nonce": "abc"})
            assert ("answered", "done", "", "shop/payment") == (*told(seen), seen["backend"])
            assert '"path":"/a/../b%2f\\u00e9//c"' in seen["body"]
            assert ["abc"] == [nonce for nonce, *_ in server.sightings()]
            seen = await prober.probe(
                {"kind": "http", "address": address, "port": HTTP, "raw": "HEAD / HTTP/1.1\r\n\r\n", "method": "HEAD"}
            )
            assert ("answered", "answer carries another nonce", 200) == (seen["signal"], seen["detail"], seen["status"])
            prober.close()

    asyncio.run(scenario())


MARKED = """
import asyncio, ctypes, json, os, socket, sys
from ztconform.agent.prober import Prober

CAP_NET_ADMIN = 12
version_and_pid = (ctypes.c_uint32 * 2)(0x20080522, 0)
none = (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None, use_errno=True).capset(version_and_pid, none) == 0

async def main():
    prober = Prober(socket.socket)
    spec = {"kind": "tcp", "address": "127.0.0.1", "port": 9, "mark": 1337}
    observation = await prober.probe(spec)
    print(observation["signal"], observation["stage"], observation["detail"])

asyncio.run(main())
"""


def test_a_mark_needs_a_capability_and_is_not_run_without_it() -> None:
    done = subprocess.run([sys.executable, "-c", MARKED], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (0, "not-run connect EPERM\n") == (done.returncode, done.stdout), done.stderr


def test_a_mark_is_on_the_socket_before_it_connects(address: str) -> None:
    with socket.socket() as own:
        try:
            own.setsockopt(socket.SOL_SOCKET, 36, 1)
        except PermissionError:
            pytest.skip("no CAP_NET_ADMIN here: marks were not set")
    order: list[tuple[str, int]] = []

    class Watched(socket.socket):
        def connect_ex(self, target: Any) -> int:
            order.append(("connect", self.getsockopt(socket.SOL_SOCKET, 36)))
            return super().connect_ex(target)

    async def scenario() -> None:
        with serving(address, PORTS):
            prober = Prober(Watched)
            for mark in (None, 1337):
                seen = await prober.probe({"kind": "http", "address": address, "port": HTTP, "mark": mark})
                assert "shop/payment" == seen["backend"]
            prober.close()

    asyncio.run(scenario())
    assert [("connect", 0), ("connect", 1337)] == order


@pytest.mark.parametrize(
    ("header", "identity"),
    [
        ("", None),
        (" ", None),
        ("URI=spiffe://a", "spiffe://a"),
        ('By=spiffe://s;Hash=ab;Subject="CN=x,O=y;z";URI=spiffe://a', "spiffe://a"),
        ('By=spiffe://s;Hash=ab;Subject="";URI=spiffe://a', "spiffe://a"),
        ('URI="spiffe://a,b;c\\"d";DNS=x', 'spiffe://a,b;c"d'),
        ("uri=spiffe://a;", "spiffe://a"),
        ("URI=spiffe://forged,By=x;URI=spiffe://b", "spiffe://b"),
        ("URI=spiffe://forged, By=x ; URI=spiffe://b ", "spiffe://b"),
        ('URI=spiffe://forged,Subject="CN=x,O=\\",y";URI=spiffe://c', "spiffe://c"),
        ("URI=spiffe://forged,By=x", "By=x"),
        ("URI=spiffe://forged,Hash=a;URI=", "Hash=a;URI="),
        ("URI=spiffe://a;URI=spiffe://b", "URI=spiffe://a;URI=spiffe://b"),
        ("spiffe://a", "spiffe://a"),
        ("URI spiffe://a", "URI spiffe://a"),
        (
            'URI=spiffe://forged;X=",By=s;Subject="";URI=spiffe://true',
            'URI=spiffe://forged;X=",By=s;Subject="";URI=spiffe://true',
        ),
        ('URI=spiffe://forged;X=",By=s;URI=spiffe://true', 'URI=spiffe://forged;X=",By=s;URI=spiffe://true'),
    ],
)
def test_the_identity_is_the_uri_of_the_headers_last_element(header: str, identity: str | None) -> None:
    assert identity == xfcc.identity(header)


@given(
    st.text(st.characters(codec="latin-1")),
    st.sampled_from(['By=s;Hash=a;Subject="";URI={}', "By=s;Hash=a;URI={}", 'Subject="CN=x";URI={}']),
)
def test_nothing_that_a_client_writes_before_it_becomes_the_identity(forged: str, form: str) -> None:
    for header in (forged, f"URI=spiffe://forged,{forged}", f"URI=spiffe://forged;{forged}", f'URI=spiffe://forged;X="{forged}'):
        identity = xfcc.identity(f"{header},{form.format('spiffe://true')}")
        assert identity == "spiffe://true" or (identity or "").endswith("URI=spiffe://true")


@given(st.text())
def test_no_header_raises(header: str) -> None:
    xfcc.identity(header)


def test_the_identity_of_repeated_headers_is_in_the_last_one(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            prober = Prober(socket.socket)
            headers = [["X-Forwarded-Client-Cert", "URI=spiffe://forged"], ["X-Forwarded-Client-Cert", "By=a;URI=spiffe://true"]]
            await prober.probe({"kind": "http", "address": address, "port": HTTP, "headers": headers, "nonce": "a"})
            assert [["a", server.boot, 1, "spiffe://true"]] == server.sightings()
            prober.close()

    asyncio.run(scenario())
