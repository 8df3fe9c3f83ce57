# SPDX-License-Identifier: Apache-2.0
"""What `make bench-cluster` measures on a kind cluster with Cilium, in one function a figure; printing is for `__main__`."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from time import perf_counter

from kube_clusters import Ready

from bench.figures import HTTP, Figure
from ztconform.evidence import Round
from ztconform.kube.cluster import KubeCluster
from ztconform.model import Attempt, Case, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import prove_case
from ztconform.stacks.kubernetes import settled

PORTS = (
    HTTP,
    Port(number=7000, name="ledger", app="tcp", service=7000),
    Port(number=8080, name="events", protocol="UDP", app="udp", service=8080),
    Port(number=7000, name="feed", protocol="UDP", app="udp", service=7000),
)
NAMESPACES, NAMES = ("x", "y", "z"), ("a", "b", "c")
TIMEOUT = 1.0  # seconds, of every probe on both sides of a comparison
GOAL_ROUND, GOAL_READY, GOAL_RATIO, GOAL_REQUIREMENTS = 5.0, 6.0, 20.0, 240.0


def topology() -> Topology:
    """Return nine pods in three namespaces, each with two ports by TCP and by UDP."""
    refs = [Ref(namespace, name) for namespace, name in product(NAMESPACES, NAMES)]
    workloads = tuple(Workload(ref=ref, ports=PORTS, labels={"pod": ref.name}, node=at % 2) for at, ref in enumerate(refs))
    return Topology(namespaces={namespace: {"ns": namespace} for namespace in NAMESPACES}, workloads=workloads, private=True)


def policies() -> tuple[dict[str, object], ...]:
    """Return policies under which other namespaces may come in by one of the four ports: half of the table is denied."""
    everybody = {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": 7000}]}
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}, everybody]}
    metadata = [{"name": "half", "namespace": namespace} for namespace in NAMESPACES]
    return tuple({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": m, "spec": spec} for m in metadata)


def table() -> Iterator[Row]:
    """Yield every pair of pods, itself included, on both ports by TCP and UDP; a pod always reaches itself."""
    refs = [Ref(namespace, name) for namespace, name in product(NAMESPACES, NAMES)]
    for source, target, port in product(refs, refs, PORTS):
        kind = "udp" if port.protocol == "UDP" else "http" if port.app == "http" else "tcp"
        denied = source.namespace != target.namespace and (port.number, port.protocol) != (7000, "UDP")
        probe = Probe(source=source, target=target, port=port.number, address="pod", kind=kind)
        yield Row(
            id=f"{source} -> {target}:{port.number}/{port.protocol}",
            probe=probe,
            want="denied" if denied else "allowed",
            by=frozenset({"l34"}) if denied else frozenset(),
        )


def attempts(rows: Sequence[Row]) -> list[Attempt]:
    """Return each row's one way to be sent."""
    made = []
    for row in rows:
        target = Ref(row.probe.target.namespace, f"{row.probe.target.name}-0")
        source = Ref(row.probe.source.namespace, f"{row.probe.source.name}-0")
        probe = replace(row.probe, source=source, target=target)
        made.append(Attempt(id=row.id, row=row.id, probe=probe, targets=(target,), timeout=TIMEOUT))
    return made


def one_round(cluster: KubeCluster) -> tuple[list[Figure], float]:
    """Measure one round of the whole table, K denials against one, and return the round's seconds."""
    rows = list(table())
    sent = attempts(rows)
    _until_settled(cluster, rows, sent)
    start = perf_counter()
    came = cluster.run(sent)
    seconds = perf_counter() - start
    wrong = _wrong(rows, came)
    denied = [a for a, row in zip(sent, rows, strict=True) if row.want == "denied"]
    start = perf_counter()
    cluster.run(denied)
    many = perf_counter() - start
    what = f"one round of {len(rows)} rows, {len(denied)} of them denied, {wrong} wrong"
    return [
        Figure(what, f"{seconds:.2f} s", f"< {GOAL_ROUND:.0f} s", seconds < GOAL_ROUND and not wrong),
        Figure(f"{len(denied)} denials that time out after {TIMEOUT:.0f} s", f"{many:.2f} s", "< 2 s", many < TIMEOUT + 1),
    ], seconds


def _until_settled(cluster: KubeCluster, rows: Sequence[Row], sent: Sequence[Attempt]) -> None:
    for _ in range(30):
        if not _wrong(rows, cluster.run(sent)):
            return


def _wrong(rows: Sequence[Row], came: Round) -> int:
    return sum(bool(o.backend) != (row.want == "allowed") for o, row in zip(came.observations, rows, strict=True))


def against_kubectl(cluster: KubeCluster, kubeconfig: Path, seconds: float) -> list[Figure]:
    """Measure the same table by one `kubectl exec` for each probe, one after the other and four at a time."""
    commands = [shlex.split(cluster.render(attempt).partition("  #")[0]) for attempt in attempts(list(table()))]
    figures = []
    for workers, goal in ((1, GOAL_RATIO), (4, None)):
        start = perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda command: _exec(command, kubeconfig), commands))
        took = perf_counter() - start
        how = "one kubectl exec a probe, one after the other" if workers == 1 else f"the same, {workers} at a time"
        ratio = took / seconds
        met = None if goal is None else ratio >= goal
        figures.append(Figure(how, f"{took:.0f} s: {ratio:.0f} times the round", f">= {goal:.0f} times" if goal else "-", met))
    return figures


def _exec(command: Sequence[str], kubeconfig: Path) -> None:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    subprocess.run(command, capture_output=True, check=False, timeout=60, env=environment)


def proved(cluster: KubeCluster) -> Figure:
    """Measure the whole proof of the table, from deployment to removal."""
    times: dict[str, float] = {}
    now = ["workloads", perf_counter()]

    def notify(phase: str) -> None:
        times[str(now[0])] = times.get(str(now[0]), 0.0) + perf_counter() - float(now[1])
        now[:] = [phase, perf_counter()]

    case = Case(id="table", topology=topology(), steps=(Step(apply=policies(), rows=tuple(table())),))
    start = perf_counter()
    results = prove_case(case, cluster, notify=notify)
    took = perf_counter() - start
    notify("")
    red = sum(r.outcome != "PROVED" for r in results)
    split = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in times.items())
    return Figure(f"the table proved with every control ({red} red): {split}", f"{took:.1f} s", "-", None)


def ready(cluster: KubeCluster) -> Figure:
    """Measure from nothing to nine pods that can be asked, the median of three."""
    times = []
    for _ in range(3):
        start = perf_counter()
        cluster.deploy(topology(), "bench")
        times.append(perf_counter() - start)
        cluster.remove("bench")
    took = sorted(times)[1]
    return Figure("9 pods in 3 namespaces ready, agents attached", f"{took:.1f} s", f"< {GOAL_READY:.0f} s", took < GOAL_READY)


def bare(ready: Ready) -> Figure:
    """Measure what as many pods take that only sleep, the median of three: what no suite can be faster than on this machine."""
    image = settled(ready.settings).pods.agent_image
    nodes = sorted(name for name in ready.kubectl("get", "nodes", "--output=name").split() if "worker" in name)
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"bare-{number}", "namespace": "ztc-bench-bare"},
            "spec": {
                "nodeName": nodes[number % 2].removeprefix("node/"),
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "containers": [{"name": "sleep", "image": image, "command": ["sleep", "600"]}],
            },
        }
        for number in range(len(NAMESPACES) * len(NAMES))
    ]
    told, times = json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}), []
    for _ in range(3):
        ready.kubectl("create", "namespace", "ztc-bench-bare")
        start = perf_counter()
        ready.kubectl("apply", "--filename=-", told=told)
        ready.kubectl("wait", "--namespace=ztc-bench-bare", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        times.append(perf_counter() - start)
        ready.kubectl("delete", "namespace", "ztc-bench-bare")
    return Figure("as many pods that only sleep, by kubectl", f"{sorted(times)[1]:.1f} s", "-", None)


def requirements(ready: Ready) -> Iterator[Figure]:
    """Measure all requirements of segmentation with two workers on the cluster that is there, and say where time went."""
    with tempfile.TemporaryDirectory() as folder:
        where = [f"--context={ready.context}", f"--kubeconfig={ready.kubeconfig}"]
        image = ready.settings.pods.agent_image
        which = ["-k", "N0 or N1", "--ztc-partial"]
        own = ["--", *which, "--ztc-outsider=docker:kind", *([f"--ztc-agent-image={image}"] if image else [])]
        command = [sys.executable, "-m", "ztconform.cli", "run", "-n", "2", f"--report={folder}", *where, *own]
        start = perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        took = perf_counter() - start
        report = Path(folder) / "conformance.json"
        told = json.loads(report.read_text(encoding="utf-8"))["requirements"] if report.exists() else []
    outcomes = [r["outcome"] for r in told]
    met = done.returncode == 0 and took < GOAL_REQUIREMENTS
    counted = (
        f"{outcomes.count('PROVED')} requirements of segmentation proved, {outcomes.count('NOT_SUPPORTED')} not supported, -n 2"
    )
    yield Figure(counted, f"{took:.0f} s", f"< {GOAL_REQUIREMENTS:.0f} s", met)
    split = re.search(r"^Time: (.*?)\n(?=\S+:|\d|$)", done.stdout, re.M | re.S)
    yield Figure("its seconds, summed over the workers", " ".join(split[1].split()) if split else "not told", "-", None)
