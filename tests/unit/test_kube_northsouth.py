# SPDX-License-Identifier: Apache-2.0
"""What the test host reports of each thing that a probe of its own can meet, on loopback, in the words of the agent's channel."""

import json
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ztconform.errors import UsageError
from ztconform.kube import objects
from ztconform.kube.labels import Labels
from ztconform.kube.link import Link, LinkError
from ztconform.kube.nodes import Nodes
from ztconform.kube.northsouth import NorthSouthPipe, address_towards
from ztconform.kube.outside import THIS, DockerOutside
from ztconform.model import Port, Workload

PORT = 18890
RESET = struct.pack("ii", 1, 0)
Answer = Callable[[socket.socket], object]


@pytest.fixture
def agent(packed: Path, address: str) -> Iterator[str]:
    """Yield the boot ID of a real agent that serves at `address`."""
    ports = [{"number": PORT, "protocol": "TCP", "app": "http"}]
    config = {"pod": "shop/payment-0", "addresses": [address], "ports": ports}
    command = [sys.executable, "-I", str(packed), "serve", json.dumps(config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        yield str(json.loads(process.stdout.readline())["boot"])
        process.stdin.close()
        assert 0 == process.wait(10)


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link("the test host", lambda on_data, on_end: NorthSouthPipe(on_data=on_data, on_end=on_end))
    yield link
    link.close()


@contextmanager
def listening(address: str, answer: Answer, backlog: int = 5) -> Iterator[int]:
    """Let whoever connects be answered so, one after another."""
    with socket.create_server((address, 0), backlog=backlog) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    answer(peer)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def soon(seconds: float = 15.0) -> float:
    return time.monotonic() + seconds


def probe(link: Link, address: str, port: int = PORT, **fields: Any) -> dict[str, Any]:
    spec = {"kind": "http", "address": address, "port": port, "timeout": 5.0, "attempt": "7", "nonce": "abc", **fields}
    (observation,) = link.ask("probe", specs=[spec]).result(soon())["observations"]
    assert ("7", "abc") == (observation["attempt"], observation["nonce"])
    assert observation["sent"] <= observation["ended"] <= time.monotonic()
    return dict(observation)


def told(observation: dict[str, Any]) -> tuple[str, str, str]:
    return observation["signal"], observation["stage"], observation["detail"]


def answering(text: str) -> Answer:
    def answer(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(text.encode("latin-1"))

    return answer


def resetting(peer: socket.socket) -> None:
    peer.recv(65536)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def silent(peer: socket.socket) -> None:
    while peer.recv(65536):
        pass  # until the client gives up


def dripping(peer: socket.socket) -> None:
    """Never let a whole second pass without a byte."""
    peer.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    try:
        while True:
            peer.sendall(b"y")
            time.sleep(0.05)
    except OSError:
        return


def test_an_agents_answer_names_it_by_its_mark(link: Link, agent: str, address: str) -> None:
    assert link.greeted.result(soon())["boot"]
    seen = probe(link, address, path="/a?b=c", headers=[["x-tenant", "blue"]], host="payment")
    assert ("answered", "done", "") == told(seen)
    assert (200, "shop/payment-0", agent, f"{address} {PORT}") == (seen["status"], seen["backend"], seen["boot"], seen["peer"])
    assert "ztc-agent" == seen["server"]
    assert len(seen["body"]) <= 512
    assert '"path":"/a?b=c"' in seen["body"]


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE"])
def test_every_method_arrives_as_it_was_asked_for(link: Link, agent: str, address: str, method: str) -> None:
    seen = probe(link, address, method=method)
    assert ("answered", "done", "") == told(seen)
    assert (agent, method == "HEAD") == (seen["boot"], seen["body"] == "")


def test_an_agents_observation_of_the_same_probe_has_the_same_fields(link: Link, agent: str, address: str, packed: Path) -> None:
    spec = {"kind": "http", "address": address, "port": PORT, "attempt": "7", "nonce": "abc"}
    said = subprocess.run([sys.executable, "-I", str(packed), "probe", json.dumps(spec)], capture_output=True, check=True)
    of_agent, ours = json.loads(said.stdout), probe(link, address)
    assert list(of_agent) == list(ours)
    same = ("signal", "stage", "detail", "status", "server", "backend", "boot", "peer")
    assert [of_agent[name] for name in same] == [ours[name] for name in same]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (resetting, ("closed", "request", "ECONNRESET")),
        (lambda peer: peer.recv(65536), ("closed", "request", "EOF")),
        (answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour"), ("closed", "request", "EOF")),
        (answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nfour"), ("closed", "request", "EOF")),
        (answering("SSH-2.0-x\r\n\r\n"), ("answered", "done", "answer is not HTTP")),
        (silent, ("timeout", "request", "")),
        (dripping, ("timeout", "request", "")),
    ],
    ids=["reset", "closed", "cut off", "cut off in a chunk", "no HTTP", "silent", "dripping"],
)
def test_a_listener_that_gives_no_answer_is_named(
    link: Link, address: str, answer: Answer, expected: tuple[str, str, str]
) -> None:
    with listening(address, answer) as port:
        seen = probe(link, address, port, timeout=0.5)
    assert expected == told(seen)
    assert ("", "") == (seen["backend"], seen["boot"])
    assert (seen["ended"] - seen["sent"]) < 2.0


def test_a_port_without_a_listener_is_refused(link: Link, address: str) -> None:
    assert ("refused", "connect", "ECONNREFUSED") == told(probe(link, address))


def test_a_connection_that_nobody_accepts_times_out(link: Link, address: str) -> None:
    with socket.create_server((address, 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]  # the kernel drops the SYN of whoever comes behind a full backlog
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((address, port))
        assert ("timeout", "connect", "") == told(probe(link, address, port, timeout=0.5))
        for filler in fillers:
            filler.close()


def test_an_address_that_no_packet_can_go_to_is_not_run(link: Link) -> None:
    signal, stage, detail = told(probe(link, "255.255.255.255"))
    assert ("not-run", "connect") == (signal, stage)
    assert detail in ("ENETUNREACH", "EACCES")


def test_a_proxys_own_answer_is_nobodys(link: Link, address: str) -> None:
    refusal = "HTTP/1.1 403 Forbidden\r\nServer: envoy\r\nContent-Length: 19\r\n\r\nRBAC: access denied"
    with listening(address, answering(refusal)) as port:
        seen = probe(link, address, port)
    assert ("answered", "done", "answer carries no mark of an agent") == told(seen)
    assert (403, "envoy", "RBAC: access denied", "") == (seen["status"], seen["server"], seen["body"], seen["backend"])


def test_of_a_long_answer_the_beginning_is_kept_and_of_an_endless_one_no_more(link: Link, address: str) -> None:
    head = "HTTP/1.1 200 OK\r\n\r\n"
    with listening(address, answering(head + "a" * 2000)) as port:
        seen = probe(link, address, port)
    assert ("a" * 512, 200, "answer carries no mark of an agent") == (seen["body"], seen["status"], seen["detail"])
    with listening(address, answering(head + "a" * ((1 << 20) + 9000))) as port:
        assert ("answered", "done", "answer is longer than 1048576 bytes") == told(probe(link, address, port))


def test_another_probes_mark_is_nobodys(link: Link, agent: str, address: str) -> None:
    mark = probe(link, address)["body"]
    with listening(address, answering(f"HTTP/1.1 200 OK\r\nContent-Length: {len(mark)}\r\n\r\n{mark}")) as port:
        assert agent == probe(link, address, port)["boot"]
        spec = {"kind": "http", "address": address, "port": port, "nonce": "other"}
        (other,) = link.ask("probe", specs=[spec]).result(soon())["observations"]
    assert ("answered", "answer carries another nonce", "") == (other["signal"], other["detail"], other["backend"])


def test_no_redirect_is_followed_and_no_proxy_of_the_environment_is_used(
    link: Link, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    redirect = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with listening(address, answering(redirect)) as port:
        seen = probe(link, address, port)
    assert (302, "answered") == (seen["status"], seen["signal"])


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"kind": "udp"}, "speaks HTTP alone, and not udp"),
        ({"kind": "grpc", "path": "/a/b"}, "speaks HTTP alone, and not grpc"),
        ({"raw": "GET / HTTP/1.1\r\n\r\n"}, "sends no probe with raw"),
        ({"bind": "127.0.0.1"}, "sends no probe with bind"),
        ({"connection": "one"}, "shares no connection"),
        ({"headers": [["a", "1"], ["A", "2"]]}, "sends no header twice: a"),
        ({"headers": [["a", " 1"]]}, "InvalidHeader"),
        ({"path": "//admin"}, "cannot send GET //admin as it is"),
        ({"path": "/a/../admin"}, "cannot send GET /a/../admin as it is"),
        ({"path": "/%61dmin"}, "cannot send GET /%61dmin as it is"),
        ({"method": "get"}, "cannot send get / as it is"),
        ({"port": 0}, "port 0 is not between"),
        ({"colour": "blue"}, "unknown field 'colour'"),
    ],
)
def test_what_cannot_be_sent_as_it_was_asked_for_is_not_run(link: Link, agent: str, address: str, fields: Any, why: str) -> None:
    signal, stage, detail = told(probe(link, address, **fields))
    assert ("not-run", "exec") == (signal, stage)
    assert why in detail


def test_a_stream_goes_on_while_others_are_asked_and_ends_with_its_last_observation(link: Link, agent: str, address: str) -> None:
    came: queue.SimpleQueue[Any] = queue.SimpleQueue()
    link.listen("s", came)
    before = link.ask("mark").result(soon())["now"]
    spec = {"kind": "http", "address": address, "port": PORT, "attempt": "3"}
    link.ask("stream", stream="s", specs=[spec], every=0.05).result(soon())
    seen = [came.get(timeout=5) for _ in range(4)]
    assert {("answered", "3", agent)} == {(o["signal"], o["attempt"], o["boot"]) for o in seen}
    assert 4 == len({o["nonce"] for o in seen})
    assert before <= min(o["sent"] for o in seen)
    link.ask("stop", stream="s").result(soon())
    rest = came.qsize()
    time.sleep(0.2)
    assert rest == came.qsize()


def test_the_silence_of_one_holds_up_no_other(link: Link, agent: str, address: str) -> None:
    with listening(address, silent) as port:
        late = link.ask("probe", specs=[{"kind": "http", "address": address, "port": port, "timeout": 1.5}])
        prompt = probe(link, address)
        last = late.result(soon())["observations"][0]
        assert ("answered", "timeout") == (prompt["signal"], last["signal"])
        assert prompt["ended"] < last["ended"]


def test_it_serves_nothing_and_says_so_and_ends_when_it_is_closed(link: Link) -> None:
    with pytest.raises(LinkError, match="this agent serves nothing"):
        link.ask("seen", since=0).result(soon())
    assert {"servers", "search"} <= link.ask("resolver").result(soon()).keys()
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    pipe = NorthSouthPipe(on_data=lambda data: None, on_end=ended.put)
    pipe.close()
    assert "closed" == ended.get(timeout=5)
    pipe.send(b"2\n{}")  # into nothing


def test_garbage_ends_it_with_the_reason() -> None:
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    NorthSouthPipe(on_data=lambda data: None, on_end=ended.put).send(b"hello\n")
    assert "a request begins with its length" in ended.get(timeout=5)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> DockerOutside:
    monkeypatch.setattr("ztconform.kube.docker.run", lambda *args, **more: pytest.fail(f"a container for the test host: {args}"))
    nodes = Nodes(used=("a",), left_out={}, addresses={"a": "127.9.9.9"}, pod_networks={})
    return DockerOutside(nodes, Labels("ztconform.io", "abc", ""), "image", "node-image", "kind")


def test_the_test_host_is_no_container_and_known_by_the_address_that_nodes_see(outside: DockerOutside) -> None:
    (host,) = outside.start([Workload(ref=THIS)])
    assert (None, (address_towards("127.9.9.9"),)) == (host.node, host.addresses)
    assert "127.0.0.1" == host.addresses[0]
    link = Link(
        "x", lambda on_data, on_end: outside.pipe(host, objects.orders_command(str(host.ref), host.workload), on_data, on_end)
    )
    assert link.greeted.result(soon())["ready"]
    link.close()
    words = outside.render(host, objects.probe_command({"kind": "http", "address": "127.0.0.1", "port": 1}))
    assert [sys.executable, "-m", "ztconform.agent", "probe"] == list(words[:4])
    assert "refused" == json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["signal"]
    outside.stop([host])


def test_a_test_host_with_a_port_is_an_error_of_the_case(outside: DockerOutside) -> None:
    with pytest.raises(UsageError, match="it serves no port"):
        outside.start([Workload(ref=THIS, ports=(Port(number=8080),))])
