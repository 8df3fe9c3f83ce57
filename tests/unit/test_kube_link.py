# SPDX-License-Identifier: Apache-2.0
"""How a conversation with an agent goes, and ends: a real agent packed as it is for a pod, and processes that are none."""

import json
import queue
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ztconform.kube import agentpyz
from ztconform.kube.link import Link, LinkError
from ztconform.kube.links import Links
from ztconform.kube.pipes import ProcessPipe
from ztconform.kube.pods import KubePod
from ztconform.model import Ref, Workload

PORT = 18880


@pytest.fixture
def agent(packed: Path, address: str) -> Iterator[str]:
    """Yield the name of a pod whose agent serves on this machine and takes orders by its socket."""
    pod = f"shop/payment-{secrets.token_hex(4)}"
    config = {
        "pod": pod,
        "orders": "socket",
        "addresses": [address],
        "ports": [{"number": PORT, "protocol": "TCP", "app": "http"}],
    }
    with subprocess.Popen([sys.executable, "-IS", str(packed), "serve", json.dumps(config)]) as process:
        deadline = time.monotonic() + 30
        while attached(packed, pod).greeting() is None:
            assert process.poll() is None and time.monotonic() < deadline
        yield pod
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(10)


class Attached(Link):
    def greeting(self) -> str | None:
        try:
            return str(self.greeted.result(time.monotonic() + 20)["boot"])
        except LinkError:
            return None


def attached(packed: Path, pod: str) -> Attached:
    command = [sys.executable, "-IS", str(packed), "attach", json.dumps({"pod": pod})]
    return Attached(pod, lambda on_data, on_end: ProcessPipe(command, on_data=on_data, on_end=on_end))


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def http(address: str, **fields: object) -> dict[str, object]:
    return {"kind": "http", "address": address, "port": PORT, "timeout": 2, **fields}


def test_the_archive_is_the_same_every_time() -> None:
    assert agentpyz.pack() == agentpyz.pack.__wrapped__()
    assert agentpyz.digest() == agentpyz.digest.__wrapped__()
    assert len(agentpyz.pack()) < 1 << 20, "a ConfigMap holds no more"


def test_requests_are_answered_side_by_side_and_streams_come_as_they_are_seen(agent: str, packed: Path, address: str) -> None:
    link = attached(packed, agent)
    boot = link.greeting()
    late = link.ask("probe", specs=[{"kind": "tcp", "address": address, "port": PORT, "timeout": 1.5, "nonce": "slow"}])
    quick = link.ask("probe", specs=[http(address, nonce="quick")]).result(soon())["observations"]
    assert [("answered", agent, boot)] == [(o["signal"], o["backend"], o["boot"]) for o in quick]
    came: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
    link.listen("s", came)
    link.ask("stream", stream="s", specs=[http(address)], every=0.02).result(soon())
    assert "answered" == came.get(timeout=5)["signal"]
    link.ask("stop", stream="s").result(soon())
    assert 1 == len(late.result(soon())["observations"])
    assert {"servers", "search"} <= link.ask("resolver").result(soon()).keys()
    link.close()


def test_an_agent_outlives_its_conversations_and_remembers(agent: str, packed: Path, address: str) -> None:
    first = attached(packed, agent)
    first.ask("probe", specs=[http(address, nonce="kept")]).result(soon())
    boot = first.greeting()
    first.close()
    second = attached(packed, agent)
    assert boot == second.greeting()
    assert "kept" in [nonce for nonce, *_ in second.ask("seen", since=0).result(soon())["sightings"]]
    second.close()


def test_what_is_cut_off_is_said_of_everything_that_was_asked(agent: str, packed: Path, address: str) -> None:
    link = attached(packed, agent)
    assert link.greeting()
    pending = link.ask("probe", specs=[{"kind": "udp", "address": address, "port": 18881, "timeout": 30}])
    link._pipe.close()
    with pytest.raises(LinkError, match="the command has ended"):
        pending.result(soon())
    with pytest.raises(LinkError, match="the command has ended"):
        link.ask("mark").result(soon())


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("print('no json')", "garbled: b'no json'"),
        ("print('[1]')", "garbled"),
        ("print('{\"ready\": tr', end='')", "the command has ended"),
        ("raise SystemExit('no such pod')", "the command has ended: no such pod"),
    ],
)
def test_whatever_is_no_agent_is_no_answer(script: str, why: str) -> None:
    open_pipe = partial(
        lambda code, on_data, on_end: ProcessPipe([sys.executable, "-c", code], on_data=on_data, on_end=on_end), script
    )
    link = Link("x", open_pipe)
    with pytest.raises(LinkError, match=why):
        link.greeted.result(soon())


def test_an_answer_that_does_not_come_in_time_is_none() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(30)"]
    link = Link("x", lambda on_data, on_end: ProcessPipe(command, on_data=on_data, on_end=on_end))
    with pytest.raises(LinkError, match="the agent in x did not answer in time"):
        link.ask("mark").result(time.monotonic() + 0.2)
    link.close()


def pod_of(agent: str) -> KubePod:
    namespace, _, name = agent.partition("/")
    ref = Ref(namespace, name)
    return KubePod(ref=ref, real=ref, workload=Workload(ref=ref), node=0, addresses=("127.0.0.1",), serves=True)


def test_probes_through_a_conversation_that_cannot_be_had_are_not_run_and_the_others_are(
    agent: str, packed: Path, address: str
) -> None:
    def opener(pod: KubePod):  # type: ignore[no-untyped-def]
        return lambda on_data, on_end: ProcessPipe(
            [sys.executable, "-IS", str(packed), "attach", json.dumps({"pod": str(pod.ref)})], on_data=on_data, on_end=on_end
        )

    links = Links(opener)
    alive, dead = pod_of(agent), pod_of("shop/nobody")
    specs = [http(address, nonce=f"n{at}", attempt=str(at)) for at in range(3)]
    gone = Ref("shop", "gone")
    pods = {alive.ref: alive, dead.ref: dead, gone: None}
    came = links.probe(pods, [alive.ref, dead.ref, gone], specs, 10)
    assert ["answered", "not-run", "not-run"] == [o["signal"] for o in came]
    assert "no agent serves shop/nobody" in came[1]["detail"]
    assert ["n0", "n1", "n2"] == [o["nonce"] for o in came]
    seen = links.seen([alive.ref, dead.ref], pods)
    assert ["n0"] == [s.nonce for s in seen[alive.ref] or ()]
    assert seen[dead.ref] is None
    links.close(list(pods))


def test_a_log_with_a_gap_or_of_another_boot_is_none_at_all() -> None:
    links, ref = Links(lambda pod: pytest.fail("nobody is asked")), Ref("a", "b")
    links._note(ref, [["n1", "boot", 1, None], ["n2", "boot", 2, None]])
    assert ["n1", "n2"] == [s.nonce for s in links.seen([ref], {})[ref] or ()]
    links._note(ref, [["n4", "boot", 4, None]])
    assert links.seen([ref], {})[ref] is None
    links._note(other := Ref("a", "c"), [["n1", "boot", 1, None], ["n2", "reborn", 2, None]])
    assert links.seen([other], {})[other] is None
