# SPDX-License-Identifier: Apache-2.0
"""A pod whose policies are only logged, on a real Cilium: it is reached, what would be denied is known, and then it is denied."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from kube_cases import CASE, POLICY, SERVER, outcomes, proved, row
from kube_clusters import Ready

from ztconform.errors import ClusterError
from ztconform.kube.cluster import KubeCluster
from ztconform.model import Case, Ref, Row, Step
from ztconform.stacks.ciliumaudit import audit

pytestmark = pytest.mark.usefixtures("nothing_left")
OBJECTED = frozenset({"faults/from-friend"})


def audited(logged: frozenset[str] = OBJECTED) -> Row:
    return replace(row("stranger", "allowed"), id="stranger audited", logged=logged)


def case(passed: Row, *, workloads: frozenset[Ref] = frozenset({SERVER})) -> Case:
    """Return a case of three steps: enforced, audited, enforced."""
    friend, stranger = CASE.steps[0].rows
    again = [replace(one, id=f"{one.id} again") for one in (friend, stranger)]
    return replace(
        CASE,
        steps=(
            Step(apply=(POLICY,), rows=(friend, stranger)),
            Step(audited=workloads, rows=(passed,)),
            Step(rows=tuple(again)),
        ),
    )


@pytest.fixture
def cluster(cilium: Ready) -> Iterator[KubeCluster]:
    with cilium.start() as started:
        yield started


def test_an_audited_pod_is_reached_and_the_policy_that_objects_is_named(cluster: KubeCluster) -> None:
    results = proved(cluster, case(audited()))
    print({name: result.why for name, result in results.items()})
    assert {"PROVED"} == set(outcomes(results).values())


def test_a_pod_that_is_not_audited_is_not_reached(cluster: KubeCluster) -> None:
    results = proved(cluster, case(audited(), workloads=frozenset()), patience=20)
    assert "PROVED" != results["stranger audited"].outcome
    assert "PROVED" == results["stranger denied again"].outcome


def test_an_objection_that_a_row_does_not_expect_is_a_violation(cluster: KubeCluster) -> None:
    result = proved(cluster, case(audited(logged=frozenset())))["stranger audited"]
    assert ("VIOLATED", "what was logged of it is faults/from-friend, not nothing") == (result.outcome, result.why)


def test_a_request_that_nothing_objects_to_is_in_no_log(cluster: KubeCluster) -> None:
    friend = replace(row("friend", "allowed"), id="friend audited", logged=OBJECTED)
    result = proved(cluster, case(friend))["friend audited"]
    assert ("INCONCLUSIVE", "no log knows the request, or events were lost") == (result.outcome, result.why)


def test_a_pod_that_cilium_does_not_know_cannot_be_audited(cilium: Ready) -> None:
    with pytest.raises(ClusterError, match="has no endpoint for pod faults/nobody"):
        audit(cilium.connection(), {Ref("faults", "nobody"): f"{cilium.name}-worker"}, on=True)
