# SPDX-License-Identifier: Apache-2.0
"""What a case's steps do to pods of a real cluster: they restart, start, change labels, terminate, complete, and rows follow."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from kube_cases import CASE, HTTP, NAMESPACE, POLICY, SERVER, outcomes, proved, row, workload
from kube_clusters import Ready

from ztconform.kube.cluster import KubeCluster
from ztconform.model import Case, Lifecycle, Ref, Step

pytestmark = pytest.mark.usefixtures("nothing_left")
FRIEND, STRANGER = Ref(NAMESPACE, "friend"), Ref(NAMESPACE, "stranger")


@pytest.fixture
def cluster(cilium: Ready) -> Iterator[KubeCluster]:
    with cilium.start() as started:
        yield started


def case(*steps: Step) -> Case:
    return replace(CASE, steps=(Step(apply=(POLICY,), rows=(row("friend", "allowed"), row("stranger", "denied"))), *steps))


def after(name: str, *rows: str, **what: object) -> Step:
    demanded = tuple(replace(row(*one.split()), id=f"{one}, {name}") for one in rows)
    return Step(name=name, rows=demanded, **what)  # type: ignore[arg-type]


def test_pods_that_restart_start_and_change_labels_are_judged_as_they_are_then(cluster: KubeCluster) -> None:
    newcomer = workload("newcomer", node=1)
    steps = (
        after("server restarted", "friend allowed", "stranger denied", lifecycle=(Lifecycle(action="restart", workload=SERVER),)),
        after(
            "newcomer started",
            "friend allowed",
            "newcomer denied",
            lifecycle=(Lifecycle(action="start", workload=newcomer.ref, spec=newcomer),),
        ),
        after(
            "labels swapped",
            "stranger allowed",
            "friend denied",
            relabel=((FRIEND, {"app": "stranger"}), (STRANGER, {"app": "friend"})),
        ),
    )
    came = proved(cluster, case(*steps))
    assert {"PROVED"} == set(outcomes(came).values()), {name: (r.outcome, r.why) for name, r in came.items()}


def test_a_terminating_server_goes_on_serving_by_its_address_and_a_completed_one_does_not(cluster: KubeCluster) -> None:
    other = workload("other", HTTP)
    topology = replace(CASE.topology, workloads=(*CASE.topology.workloads, other))
    by_pod = replace(row("friend", "allowed", address="pod"), id="friend by address")
    ending = Step(name="ending", rows=(by_pod,), lifecycle=(Lifecycle(action="terminate", workload=SERVER, grace=40),))
    over = Step(name="over", lifecycle=(Lifecycle(action="complete", workload=other.ref),))
    first = Step(apply=(POLICY,), rows=(row("friend", "allowed"),))
    came = proved(cluster, replace(CASE, topology=topology, steps=(first, ending, over)))
    assert {"PROVED"} == set(outcomes(came).values()), {name: (r.outcome, r.why) for name, r in came.items()}
    assert not [pod for pod in cluster.pods() if pod.workload == other.ref]
