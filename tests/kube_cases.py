# SPDX-License-Identifier: Apache-2.0
"""A small case for the tests of real clusters, and a fault at a phase of its proof."""

from collections.abc import Callable, Mapping
from typing import Any

from ztconform.evidence import RowResult
from ztconform.kube.cluster import KubeCluster
from ztconform.model import Case, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import prove_case

NAMESPACE = "faults"
SERVER = Ref(NAMESPACE, "server")
POLICY: Mapping[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "from-friend", "namespace": NAMESPACE},
    "spec": {
        "podSelector": {"matchLabels": {"app": "server"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
    },
}


def workload(name: str, *ports: Port, node: int = 0) -> Workload:
    return Workload(ref=Ref(NAMESPACE, name), ports=ports, labels={"app": name}, node=node)


def row(source: str, want: str, **probe: Any) -> Row:
    sent = Probe(source=Ref(NAMESPACE, source), target=SERVER, port=8080, **probe)
    return Row(id=f"{source} {want}", probe=sent, want=want, by=frozenset({"l34"}) if want == "denied" else frozenset())  # type: ignore[arg-type]


HTTP = Port(number=8080, name="http", service=80)
WORKLOADS = (workload("server", HTTP), workload("friend", node=1), workload("stranger"))
TOPOLOGY = Topology(namespaces={NAMESPACE: {}}, workloads=WORKLOADS, private=True)
CASE = Case(
    id="faults", topology=TOPOLOGY, steps=(Step(apply=(POLICY,), rows=(row("friend", "allowed"), row("stranger", "denied"))),)
)


def proved(
    cluster: KubeCluster,
    case: Case = CASE,
    *,
    at: str = "",
    fault: Callable[[], object] | None = None,
    patience: float | None = None,
) -> dict[str, RowResult]:
    """Prove the case, with the fault done when it comes to a phase, and return the results by row."""
    done: list[str] = []

    def notify(phase: str) -> None:
        if phase == at and fault is not None and not done:
            done.append(phase)
            fault()

    results = {result.row.id: result for result in prove_case(case, cluster, notify=notify, patience=patience)}
    assert not at or done, f"the proof never came to {at}"
    return results


def outcomes(results: Mapping[str, RowResult]) -> dict[str, str]:
    return {name: result.outcome for name, result in results.items()}
