# SPDX-License-Identifier: Apache-2.0
"""A stack without a cluster, for inner pytest runs: rows come out as the first word of their ID says.

It stands in for `ztconform.stacks` (through the plugin's own hook) and for `ztconform.proof`, so that what is tested is the
plugin alone. FAKE_LOG names a file that takes a line for all that happens; FAKE_PREFLIGHT, FAKE_START, FAKE_CANARY and
FAKE_FINISH make these fail. The stack `shared` is one cluster for all processes of a run.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from ztconform import proof
from ztconform.cluster import Facts, Resolver
from ztconform.errors import ClusterError, Rejected
from ztconform.evidence import Observation, RowResult
from ztconform.model import Case, Manifest, Probe, Ref, Row, Topology
from ztconform.settings import Settings
from ztconform.timeouts import LAB

HERE, THERE = Ref("shop", "frontend"), Ref("shop", "payment")
TOPOLOGY = Topology(namespaces={"shop": {}}, workloads=())
POLICY = {"kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "deny"}, "spec": {}}


def log(line: str) -> None:
    if path := os.environ.get("FAKE_LOG"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def row(name: str, *needs: str) -> Row:
    probe = Probe(source=HERE, target=THERE, port=8080)
    return Row(id=name, probe=probe, want="denied", by=frozenset({"l34"}), needs=frozenset(needs))


def result(demand: Row, outcome: str) -> RowResult:
    seen = Observation(attempt=demand.id, nonce="5eed", sent=1.0, ended=1.5, signal="answered", stage="done", status=200)
    return RowResult(
        row=demand, outcome=outcome, why=f"it was {outcome}", control="open", window=None, observations=(seen,), cause=None,
        fate="seen by shop/payment-0", policies=(POLICY,), repeat="curl http://payment",
        recorded=(f"{demand.id} was only looked at",) if "RECORDED" in demand.id else (),
    )  # fmt: skip


class FakeCluster:
    def facts(self) -> Facts:
        return Facts(
            stack="fake", dialects=("kubernetes",), features={"l34": "", "outsider": "", "flow-log": "the fake logs nothing"},
            versions={"fake": "1"}, signatures=(), timeouts=LAB, nodes=("one",),
            untested={name: "it was left out" for name in os.environ.get("FAKE_UNTESTED", "").split()},
            notes=tuple(filter(None, [os.environ.get("FAKE_NOTE")])),
            resolver=Resolver(address="10.0.0.1", namespace="kube-system", labels={}, port=53),
        )  # fmt: skip

    def remove(self, owner: str) -> None:
        log(f"remove {owner}")


class FakeStack:
    name = "fake"
    summary = "no cluster at all"
    shared = False

    def preflight(self, settings: Settings) -> None:
        log("preflight")
        if message := os.environ.get("FAKE_PREFLIGHT"):
            raise ClusterError(message)

    @contextmanager
    def start(self, settings: Settings) -> Iterator[FakeCluster]:
        if message := os.environ.get("FAKE_START"):
            raise ClusterError(message)
        held = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)  # ends with its standard input
        log(f"start {os.getpid()} {held.pid}")
        try:
            yield FakeCluster()
        finally:
            if os.environ.get("FAKE_SLOW_END"):
                log("ending")
                _wait_for(os.environ["FAKE_SLOW_END"])
            held.communicate()
            log(f"stop {os.getpid()}")

    def finish(self, settings: Settings, *, failed: bool) -> None:
        log("finish of what is not shared")


class SharedStack(FakeStack):
    """Be created by the first process that comes, and removed by the one that the user started."""

    name = "shared"
    shared = True

    @contextmanager
    def start(self, settings: Settings) -> Iterator[FakeCluster]:
        with FileLock(settings.folder / "fake.lock"):
            made = settings.folder / "fake.made"
            if not made.exists():
                made.touch()
                settings.notify("creating a cluster")
                log(f"create {settings.run}")
                settings.notify("installing a stack")
        with super().start(settings) as cluster:
            yield cluster

    def finish(self, settings: Settings, *, failed: bool) -> None:
        log(f"finish {os.getpid()} {settings.run} {failed}")
        if os.environ.get("FAKE_SLOW_FINISH"):
            _wait_for(os.environ["FAKE_SLOW_FINISH"])
        if message := os.environ.get("FAKE_FINISH"):
            raise ClusterError(message)
        log("finished")


def prove_case(case: Case, cluster: FakeCluster, *, mutate=None, notify=None, keep_policy=False) -> tuple[RowResult, ...]:
    log(f"prove {case.id}{' keeping' if keep_policy else ''}")
    log(f"begin {case.id} {time.monotonic()}")
    for step in case.steps:
        log(" ".join(["change", *(f"+{_name(m)}" for m in step.apply), *(f"-{_name(m)}" for m in step.delete)]))
    for phase in ("control", "apply", "release"):
        notify(phase)
    results = tuple(result(r, _outcome(r.id)) for step in case.steps for r in step.rows)
    if not keep_policy:
        cluster.remove(case.id)
    log(f"end {case.id} {time.monotonic()}")
    return results


def _name(manifest: Manifest) -> str:
    return f"{manifest['metadata'].get('namespace', '')}/{manifest['metadata']['name']}"


def _outcome(row: str) -> str:
    word = row.split(maxsplit=1)[0]
    if word == "DIE":
        os._exit(7)
    if word == "REJECT":
        raise Rejected("NetworkPolicy shop/deny spec.egress", "the fake cannot enforce it")
    if word == "LOST":
        raise ClusterError("the cluster went away; start it again")
    if word == "WAIT":
        log("waiting")
        _wait_for(os.environ["FAKE_GO_ON"])
        return "PROVED"
    if word == "SLOW":
        time.sleep(0.15)
        return "PROVED"
    if word == "TERM":
        os.kill(os.getpid(), signal.SIGTERM)
    if word == "FLAKY":  # red in the first attempt only
        before = Path(os.environ["FAKE_LOG"]).read_text(encoding="utf-8").count("prove ")
        return "VIOLATED" if before == 1 else "PROVED"
    return word


def _wait_for(path: str) -> None:
    deadline = time.monotonic() + 30
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def prove_canary(cluster: FakeCluster, layer: str = "l34") -> tuple[RowResult, ...]:
    log("canary")
    outcome = os.environ.get("FAKE_CANARY", "PROVED")
    if outcome == "EMPTY":
        return ()
    return result(row("permitted -> server-0"), "PROVED"), result(row("refused -> server-0"), outcome)


def pytest_ztconform_stacks(config: pytest.Config) -> list[FakeStack]:
    return [FakeStack(), SharedStack()]


@pytest.fixture
def ztc_shop():
    class Shop:
        topology = TOPOLOGY

    return Shop()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REAL] = (proof.prove_case, proof.prove_canary)
    proof.prove_case, proof.prove_canary = prove_case, prove_canary


def pytest_unconfigure(config: pytest.Config) -> None:
    proof.prove_case, proof.prove_canary = config.stash[_REAL]


_REAL = pytest.StashKey[tuple]()
