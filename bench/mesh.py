# SPDX-License-Identifier: Apache-2.0
"""What each benchmark of the lab's mesh measures, in one function a figure; printing is for `__main__`."""

import statistics
from dataclasses import replace
from time import perf_counter

from bench.figures import SECONDS, Figure, attempt, topology
from ztconform.lab.cluster import LabCluster
from ztconform.model import Ref, Topology

STRICT = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": "bench"},
    "spec": {"mtls": {"mode": "STRICT"}},
}
NOBODY = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "nobody", "namespace": "bench"},
    "spec": {"selector": {"matchLabels": {"app": "w0"}}},
}


def meshed(count: int, of: int) -> Topology:
    """Return a namespace of so many pods of which the first are meshed, each with an account of its own."""
    plain = topology(of)
    workloads = tuple(replace(w, meshed=i < count, service_account=w.ref.name) for i, w in enumerate(plain.workloads))
    return replace(plain, workloads=workloads)


def by_service(source: int, target: int, name: str = "a", timeout: float = 3.5):
    """Return a probe from one bench pod to another's Service: mTLS where both are meshed."""
    made = attempt(source, target, timeout, name)
    return replace(made, probe=replace(made.probe, target=Ref("bench", f"w{target}"), address="service"))


def ready(count: int, of: int, goal: float) -> Figure:
    """Measure from nothing to meshed pods that answer each other by mTLS, over three labs; Envoy's memory beside it."""
    times, memory = [], 0
    for _ in range(3):
        start = perf_counter()
        with LabCluster() as lab:
            lab.deploy(meshed(count, of), "bench")
            answer = lab.run([by_service(0, 1)]).observations[0]
            times.append(perf_counter() - start)
            memory = lab.mesh.memory()
            if not answer.backend:
                raise SystemExit(f"the mesh of {count} pods did not come up: {answer}")
    median = statistics.median(times)
    what = f"lab of {of} pods, {count} meshed, ready with Envoy (median of 3; Envoy has {memory / 2**20:.0f} MiB)"
    return Figure(what, f"{median:.3f} s", f"< {goal} s", median < goal)


def load(lab: LabCluster) -> Figure:
    """Measure mTLS probes per second under STRICT, a new connection of the client's each."""
    batch = [by_service(i % 4, (i + 1 + i % 3) % 4, str(i)) for i in range(200)]
    done, failed, start = 0, 0, perf_counter()
    while (elapsed := perf_counter() - start) < SECONDS / 2:
        observations = lab.run(batch).observations
        done += len(observations)
        failed += sum(not o.backend for o in observations)
    return Figure(f"mTLS probes through both sidecars ({failed} failed)", f"{done / elapsed:.0f}/s", "", None)


def rotation(lab: LabCluster, goal_ms: float) -> Figure:
    """Measure the rotation of every SVID while requests are in flight, until at least 1,000 were."""
    watched = [by_service(i % 4, (i + 1) % 4, str(i)) for i in range(4)]
    times, came = [], []
    with lab.watch(watched, 0.004) as stream:
        while len(came) < 1_000:
            start = perf_counter()
            lab.rotate(Ref("bench", f"w{i}") for i in range(4))
            times.append(perf_counter() - start)
            came += stream.drain(wait=0.05)
        came += stream.stop()
    failed = sum(not o.backend for o in came)
    worst = max(times) * 1e3
    return Figure(
        f"rotation of 4 SVIDs, {len(times)} times ({failed} failed of {len(came)} requests in flight)",
        f"{statistics.median(times) * 1e3:.1f} ms, at most {worst:.1f} ms",
        f"< {goal_ms:.0f} ms",
        statistics.median(times) * 1e3 < goal_ms and not failed,
    )
