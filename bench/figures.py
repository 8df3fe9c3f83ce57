# SPDX-License-Identifier: Apache-2.0
"""What each benchmark measures, in one function a figure; printing is for `__main__`."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from time import perf_counter

from ztconform.lab.cluster import LabCluster
from ztconform.model import Attempt, Case, Manifest, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import prove_case
from ztconform.proof.window import measure

HTTP = Port(number=8080, name="http", service=80)
SECONDS = 10.0  # of load
DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny", "namespace": "bench"},
    "spec": {"podSelector": {"matchLabels": {"app": "w0"}}, "policyTypes": ["Ingress"]},
}


@dataclass(frozen=True, slots=True)
class Figure:
    """Hold one line of the table."""

    what: str
    value: str
    goal: str
    met: bool | None  # None: there is no goal


def topology(count: int) -> Topology:
    """Return a namespace of so many pods that all serve."""
    workloads = tuple(Workload(ref=Ref("bench", f"w{i}"), ports=(HTTP,), labels={"app": f"w{i}"}) for i in range(count))
    return Topology(namespaces={"bench": {}}, workloads=workloads)


def attempt(source: int, target: int, timeout: float = 3.5, name: str = "a") -> Attempt:
    """Return a probe from one bench pod to another."""
    server = Ref("bench", f"w{target}-0")
    probe = Probe(source=Ref("bench", f"w{source}-0"), target=server, port=8080, address="pod")
    return Attempt(id=name, row=name, probe=probe, targets=(server,), timeout=timeout)


def ready(count: int, goal: float) -> Figure:
    """Measure from nothing to so many pods that answer, over five labs."""
    times = []
    for _ in range(5):
        start = perf_counter()
        with LabCluster() as lab:
            lab.deploy(topology(count), "bench")
            answers = lab.run([attempt(0, 1)]).observations
            times.append(perf_counter() - start)
            if answers[0].signal != "answered":
                raise SystemExit(f"the lab of {count} pods did not come up: {answers[0]}")
    median = statistics.median(times)
    return Figure(f"lab of {count} pods ready (median of 5)", f"{median:.3f} s", f"< {goal} s", median < goal)


def load(lab: LabCluster, goal: float) -> Figure:
    """Measure HTTP probes per second, a new connection each, through the whole way that a proof takes."""
    batch = [attempt(i % 6, (i + 1 + i % 5) % 6, name=str(i)) for i in range(600)]
    done, failed, start = 0, 0, perf_counter()
    while (elapsed := perf_counter() - start) < SECONDS:
        observations = lab.run(batch).observations
        done += len(observations)
        failed += sum(o.signal != "answered" or not o.backend for o in observations)
    rate = done / elapsed
    return Figure(
        f"HTTP probes, new connection each, over {SECONDS:.0f} s ({failed} failed)",
        f"{rate:.0f}/s",
        f">= {goal:.0f}/s",
        rate >= goal and not failed,
    )


def in_force(lab: LabCluster, what: str, watched: Attempt, manifest: Manifest, every: float, goal_ms: float) -> Figure:
    """Measure from the marker before apply to the last request let through, and to perform()'s return, 40 times."""
    leaks, returns = [], []
    for _ in range(40):
        with lab.watch([watched], every) as stream:
            came = list(stream.drain(wait=0.1))
            before = stream.mark()
            start = perf_counter()
            lab.perform(Step(apply=(manifest,)))
            returns.append(perf_counter() - start)
            came += stream.drain(wait=0.02)
            came += stream.stop()
        window = measure([watched], came, before, every, ())
        if window is None:
            raise SystemExit(f"{what}: the window could not be measured")
        leaks.append(window.seconds)
        lab.perform(Step(delete=(manifest,)))
    leak, returned = (statistics.quantiles(x, n=20)[-1] * 1e3 for x in (leaks, returns))
    return Figure(
        f"{what} in force after apply (p95 of 40: last leak; apply returned)",
        f"{leak:.1f} ms; {returned:.1f} ms",
        f"< {goal_ms:.0f} ms",
        max(leak, returned) < goal_ms,
    )


def timing_out(lab: LabCluster, goal: float) -> Figure:
    """Measure 500 probes that all time out after 1 s."""
    lab.perform(Step(apply=(DENY,)))
    batch = [attempt(1 + i % 5, 0, timeout=1.0, name=str(i)) for i in range(500)]
    start = perf_counter()
    observations = lab.run(batch).observations
    elapsed = perf_counter() - start
    silent = sum(o.signal == "timeout" for o in observations)
    lab.perform(Step(delete=(DENY,)))
    return Figure(
        f"500 probes that time out after 1 s ({silent} did)", f"{elapsed:.2f} s", f"< {goal} s", elapsed < goal and silent == 500
    )


def truth_table(goal: float) -> Figure:
    """Measure a proof, with all its controls, of 9 x 9 pods, two ports, TCP and UDP."""
    ports = tuple(
        Port(number=n, name=f"p{n}-{p.lower()}", protocol=p, app="tcp" if p == "TCP" else "udp")  # type: ignore[arg-type] # p is one
        for n, p in product((80, 81), ("TCP", "UDP"))
    )
    pods = [Ref(namespace, pod) for namespace, pod in product("xyz", "abc")]
    workloads = tuple(Workload(ref=r, ports=ports, labels={"pod": r.name}) for r in pods)
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "from-y-or-b", "namespace": "x"},
        "spec": {
            "podSelector": {},
            "ingress": [
                {
                    "from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}, {"podSelector": {"matchLabels": {"pod": "b"}}}],
                    "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "UDP"}],
                }
            ],
        },
    }
    topology = Topology(namespaces={n: {"ns": n} for n in "xyz"}, workloads=workloads)
    case = Case(id="truth", topology=topology, steps=(Step(apply=(policy,), rows=tuple(_rows(pods, ports))),))
    with LabCluster() as lab:
        start = perf_counter()
        results = prove_case(case, lab)
        elapsed = perf_counter() - start
    red = [r for r in results if r.outcome != "PROVED"]
    denied = sum(r.row.want == "denied" for r in results)
    return Figure(
        f"truth table of {len(results)} rows proved ({denied} denied, {len(red)} red)",
        f"{elapsed:.2f} s",
        f"< {goal} s",
        elapsed < goal and not red,
    )


def _rows(pods: list[Ref], ports: tuple[Port, ...]) -> Iterator[Row]:
    for source, target, port in product(pods, pods, ports):
        opened = (port.number, port.protocol) in ((80, "TCP"), (81, "UDP"))
        peer = source.namespace == "y" or (source.namespace == "x" and source.name == "b")
        passes = target.namespace != "x" or source == target or (opened and peer)
        kind = "tcp" if port.protocol == "TCP" else "udp"
        probe = Probe(source=source, target=target, port=port.number, address="pod", kind=kind)  # type: ignore[arg-type] # a Kind
        name = f"{source} -> {target}:{port.number}/{port.protocol}"
        if passes:
            yield Row(id=name, probe=probe, want="allowed")
        else:
            yield Row(id=name, probe=probe, want="denied", by=frozenset({"l34"}))


def requirements(goal: float, *options: str) -> Figure:
    """Measure `ztconform run`, as a user types it."""
    with tempfile.TemporaryDirectory() as report:
        start = perf_counter()
        ran = subprocess.run(
            [sys.executable, "-m", "ztconform.cli", "run", "--report", report, *options],
            check=False,
            capture_output=True,
            text=True,
        )
        elapsed = perf_counter() - start
    told = ran.stdout.strip().splitlines()
    return Figure(
        f"all requirements {' '.join(options) or 'on one process'} (exit {ran.returncode}: {told[-1] if told else 'no output'})"[
            :100
        ],
        f"{elapsed:.1f} s",
        f"< {goal:.0f} s",
        elapsed < goal and ran.returncode == 0,
    )


def curl_ratio(lab: LabCluster) -> Figure:
    """Measure 200 probes by the agent and by one curl process each, in the same lab."""
    batch = [attempt(1, 0, name=str(i)) for i in range(200)]
    start = perf_counter()
    lab.run(batch)
    agent = perf_counter() - start
    nsenter = lab.render(batch[0]).partition(f" {sys.executable} -m")[0]
    target = next(p for p in lab.pods() if p.ref == Ref("bench", "w0-0")).addresses[0]
    command = [*nsenter.split(), "curl", "-s", "-o", "/dev/null", "-m", "3", f"http://{target}:8080/"]
    try:
        start = perf_counter()
        for _ in batch:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        curl = perf_counter() - start
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        return Figure("200 probes: one curl process each", f"not measured: {error}", "", None)
    return Figure(f"200 probes: agent {agent:.3f} s, one curl process each {curl:.2f} s", f"{curl / agent:.0f} times", "", None)
