# SPDX-License-Identifier: Apache-2.0
"""A CNI that acts on changed labels only after a while, on purpose, is given that while; one that does so in vain is red."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import monotonic

import pytest

from ztconform.cluster import Facts
from ztconform.evidence import Round
from ztconform.lab.cluster import LabCluster
from ztconform.model import Attempt, Case, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import prove_case

CLIENT, SERVER = Ref("t", "client"), Ref("t", "server")
LATE, DEADLINE = 8.0, 4.0  # seconds until labels are acted on, and until a policy has to be
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "from-friend", "namespace": "t"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}],
    },
}


class SlowLabels(LabCluster):
    """Act on changed labels after `LATE` seconds, and say that it may take `said`."""

    said = 0.0
    due = 0.0
    waiting: Step | None = None

    def facts(self) -> Facts:
        """Return the lab's facts, with those deadlines."""
        facts = super().facts()
        return replace(facts, timeouts=replace(facts.timeouts, converge=DEADLINE, relabelled=self.said))

    def perform(self, step: Step) -> None:
        """Do a step, but for its labels."""
        super().perform(replace(step, relabel=()))
        if step.relabel:
            self.waiting, self.due = Step(relabel=step.relabel), monotonic() + LATE

    def run(self, attempts: Sequence[Attempt]) -> Round:
        """Send a round, once the labels are changed whose time has come."""
        if self.waiting is not None and monotonic() >= self.due:
            super().perform(self.waiting)
            self.waiting = None
        return super().run(attempts)


@pytest.fixture
def lab() -> Iterator[SlowLabels]:
    with SlowLabels() as cluster:
        yield cluster


def case() -> Case:
    port = Port(number=8080, name="http", service=80)
    workloads = (
        Workload(ref=SERVER, labels={"app": "server"}, ports=(port,)),
        Workload(ref=CLIENT, labels={"app": "client", "role": "friend"}),
    )
    probe = Probe(source=CLIENT, target=SERVER, port=8080)
    first = Row(id="friend", probe=probe, want="allowed")
    then = Row(id="no friend any more", probe=probe, want="denied", by=frozenset({"l34"}))
    change: Mapping[str, str | None] = {"role": "nobody"}
    steps = (Step(apply=(POLICY,), rows=(first,)), Step(relabel=((CLIENT, change),), rows=(then,)))
    return Case(id="relabelled", topology=Topology(namespaces={"t": {}}, workloads=workloads), steps=steps)


@pytest.mark.parametrize(("said", "outcome"), [(30.0, "PROVED"), (0.0, "VIOLATED")])
def test_labels_have_the_time_that_the_cni_takes_on_purpose(lab: SlowLabels, said: float, outcome: str) -> None:
    lab.said = said
    results = prove_case(case(), lab)
    assert {"friend": "PROVED", "no friend any more": outcome} == {r.row.id: r.outcome for r in results}, results
