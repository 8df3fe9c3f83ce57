# SPDX-License-Identifier: Apache-2.0
"""How streams keep their schedule, and how an agent process takes orders; live on loopback."""

import asyncio
import contextlib
import itertools
import json
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from agent_servers import serving

from ztconform.agent.prober import Prober
from ztconform.agent.stream import Streams
from ztconform.agent.wire import AgentError

HTTP, SILENT = 18380, 18381
PORTS = ({"number": HTTP, "protocol": "TCP", "app": "http"},)
ROOT = Path(__file__).resolve().parents[2]


def http(address: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "http", "address": address, "port": HTTP, "timeout": 2, **fields}


def test_a_stream_sends_each_spec_every_period_evenly_spread_and_gives_out_every_observation(address: str) -> None:
    async def scenario() -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        with serving(address, PORTS) as server:
            prober = Prober(socket.socket)
            streams = Streams(prober)
            streams.start("s", [http(address, attempt=name) for name in ("a", "b", "c", "d")], 0.1, seen.append)
            await asyncio.sleep(1)
            await streams.stop("s")
            prober.close()
            assert {each["nonce"] for each in seen} == {nonce for nonce, *_ in server.sightings()}
        return seen

    seen = sorted(asyncio.run(scenario()), key=lambda each: float(each["sent"]))
    assert len(seen) == len({each["nonce"] for each in seen})
    assert {"answered"} == {each["signal"] for each in seen}
    assert 20 <= len(seen) <= 44, "40, and fewer where this machine had no time for us"
    assert ["a", "b", "c", "d"] == [each["attempt"] for each in seen[:4]]
    gaps = [later["sent"] - sooner["sent"] for sooner, later in itertools.pairwise(seen)]
    assert 0.02 < statistics.median(gaps) < 0.03


def test_a_stream_goes_on_while_nothing_comes_back_and_stop_waits_for_what_is_under_way(address: str) -> None:
    async def scenario() -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        prober = Prober(socket.socket)
        streams = Streams(prober)
        spec = {"kind": "udp", "address": address, "port": SILENT, "timeout": 0.5}
        streams.start("s", [spec], 0.02, seen.append)
        await asyncio.sleep(0.4)
        await streams.stop("s")
        prober.close()
        return seen

    with socket.socket(type=socket.SOCK_DGRAM) as sink:
        sink.bind((address, SILENT))
        seen = asyncio.run(scenario())
        sink.setblocking(False)
        sent = []
        with contextlib.suppress(BlockingIOError):
            while True:
                sent.append(sink.recv(100))
    assert {"silence"} == {each["signal"] for each in seen}
    assert [f"ZTC {each['nonce']}\n".encode() for each in sorted(seen, key=lambda each: float(each["sent"]))] == sent
    assert max(each["sent"] for each in seen) < min(each["ended"] for each in seen)


def test_after_a_stall_each_spec_is_sent_once_and_the_schedule_goes_on(address: str) -> None:
    async def scenario() -> None:
        seen: list[dict[str, Any]] = []
        with serving(address, PORTS):
            prober = Prober(socket.socket)
            streams = Streams(prober)
            streams.start("s", [http(address, attempt=name) for name in ("a", "b")], 0.02, seen.append)
            await asyncio.sleep(0.1)
            stall_ends = time.monotonic() + 0.3
            while time.monotonic() < stall_ends:
                pass
            while sum(each["sent"] > stall_ends for each in seen) < 10:
                await asyncio.sleep(0.01)
            await streams.stop("s")
            prober.close()
        after = sorted((each for each in seen if each["sent"] > stall_ends), key=lambda each: float(each["sent"]))
        assert {"a", "b"} == {each["attempt"] for each in after[:2]}
        for attempt in ("a", "b"):
            sent = [each["sent"] for each in after if each["attempt"] == attempt]
            # One to catch up and the next regular one may be close; a third cannot.
            assert all(third - first > 0.015 for first, third in zip(sent, sent[2:], strict=False))

    asyncio.run(scenario())


def test_streams_that_cannot_be_are_refused(address: str) -> None:
    async def scenario() -> None:
        prober = Prober(socket.socket)
        streams = Streams(prober)
        for specs, every, clause in (
            ([], 1.0, "needs a spec"),
            ([http(address)], 0.0, "needs a spec and a period"),
            ([{"kind": "x", "port": 1}], 1.0, "kind 'x'"),
        ):
            with pytest.raises(AgentError, match=clause):
                streams.start("s", specs, every, print)
        streams.start("s", [http(address)], 1.0, lambda _: None)
        with pytest.raises(AgentError, match="runs already"):
            streams.start("s", [http(address)], 1.0, print)
        await streams.stop("s")
        with pytest.raises(AgentError, match="no stream 's' runs"):
            await streams.stop("s")
        prober.close()

    asyncio.run(scenario())


class Agent:
    """Drive an agent process by its standard input and output."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ztconform.agent", "serve", json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        self.ready = self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        message: dict[str, Any] = json.loads(self.process.stdout.readline())
        return message

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % len(line) + line)
        self.process.stdin.flush()

    def ask(self, **request: Any) -> dict[str, Any]:
        self.say(json.dumps(request).encode())
        return self.hear()

    def close(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            self.process.stdout.close()


def config(address: str) -> dict[str, Any]:
    return {"pod": "shop/payment", "ports": [{"number": HTTP, "protocol": "TCP", "app": "http"}], "addresses": [address]}


def test_an_agent_process_probes_streams_and_tells_what_it_saw_until_its_input_ends(address: str) -> None:
    agent = Agent(config(address))
    try:
        boot = agent.ready["boot"]
        answer = agent.ask(id=1, op="probe", specs=[http(address, nonce="abc"), {"kind": "x"}])
        assert 1 == answer["id"]
        assert ["answered", "not-run"] == [each["signal"] for each in answer["observations"]]
        assert {"id": 2, "boot": boot, "sightings": [["abc", boot, 1, None]]} == agent.ask(id=2, op="seen", since=0)
        before = agent.ask(id=3, op="mark")["now"]
        assert {"id": 4} == agent.ask(id=4, op="stream", stream="s", specs=[http(address)], every=0.02)
        streamed: list[dict[str, Any]] = []
        while len(streamed) < 5:
            message = agent.hear()
            assert "s" == message["stream"]
            streamed += message["observations"]
        agent.say(b'{"id": 5, "op": "stop", "stream": "s"}')
        while "id" not in (message := agent.hear()):
            streamed += message["observations"]
        assert {"id": 5} == message
        assert all(before < each["sent"] for each in streamed)
        sightings = agent.ask(id=6, op="seen", since=1)["sightings"]
        assert [each["nonce"] for each in streamed] == [nonce for nonce, *_ in sightings]
    finally:
        assert 0 == agent.close()


@pytest.mark.parametrize(
    ("line", "clause"),
    [
        (b"garbage \xff", "utf-8"),
        (b"[1]", "a request is a JSON object"),
        (b'{"op": "fly"}', "operation 'fly' is none of the agent's"),
        (b'{"op": []}', "operation [] is none of the agent's"),
        (b'{"op": "seen"}', "operation 'seen' takes ['since'], not []"),
        (b'{"op": "mark", "more": 1}', "operation 'mark' takes [], not ['more']"),
        (b'{"op": "probe", "specs": 1}', "object of type 'int' has no len()"),
        (b'{"op": "seen", "since": "x"}', "not supported between instances"),
        (b'{"op": "stop", "stream": "s"}', "no stream 's' runs"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_answered_with_its_error(address: str, line: bytes, clause: str) -> None:
    agent = Agent(config(address))
    try:
        agent.say(line)
        assert clause in agent.hear()["error"]
        assert "now" in agent.ask(op="mark")
    finally:
        assert 0 == agent.close()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ztconform.agent", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.PIPE)


def test_one_probe_can_be_sent_by_hand(address: str) -> None:
    agent = Agent(config(address))
    try:
        done = command("probe", json.dumps(http(address)))
        assert (0, "") == (done.returncode, done.stderr)
        assert "shop/payment" == json.loads(done.stdout)["backend"]
    finally:
        agent.close()


@pytest.mark.parametrize(
    ("arguments", "code", "clause"),
    [
        ([], 2, "usage: "),
        (["probe", "{"], 2, "usage: "),
        (["probe", "[]"], 2, "not a JSON object"),
        (["fly", "{}"], 2, "usage: "),
        (["serve", "{}"], 3, "serve takes addresses, health, identity, orders, pod, ports, and needs pod"),
        (["serve", '{"pod": "a/b", "more": 1}'], 3, "serve takes addresses"),
        (["serve", '{"pod": "a/b", "addresses": ["192.0.2.1"]}'], 3, "port 61020 at 192.0.2.1 cannot be served"),
    ],
)
def test_a_wrong_command_ends_in_one_line_and_a_code(arguments: list[str], code: int, clause: str) -> None:
    done = command(*arguments)
    assert code == done.returncode
    assert clause in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_ends_the_command_naming_the_port(address: str) -> None:
    with socket.create_server((address, HTTP)):
        done = command("serve", json.dumps(config(address)))
    assert 3 == done.returncode
    assert f"ztconform agent: TCP port {HTTP} at {address} is in use: another process or workload listens there\n" == done.stderr
