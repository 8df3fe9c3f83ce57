# SPDX-License-Identifier: Apache-2.0
"""What a proof leaves out, and says so: rows that a cluster cannot play, nodes that were not tested, a CNI that enforces none."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ztconform.cluster import Facts, Resolver
from ztconform.evidence import RowResult
from ztconform.model import OUTSIDE, Case, Outcome, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import complaint, untested
from ztconform.proof.canary import canary
from ztconform.proof.examiner import Examiner
from ztconform.proof.plan import with_satellites, without_outsiders
from ztconform.proof.protocol import _with_left_out
from ztconform.stacks.cilium import SELECTED_BY
from ztconform.stacks.ciliumidentity import left_out, relabelled
from ztconform.timeouts import KUBERNETES

SERVER, WORLD = Ref("shop", "server"), Ref(OUTSIDE, "world")


def row(name: str, source: Ref, target: Ref, want: str = "allowed") -> Row:
    return Row(id=name, probe=Probe(source=source, target=target, port=80), want=want)  # type: ignore[arg-type]  # of a Literal


INSIDE, INWARD, OUTWARD = row("a", SERVER, SERVER), row("b", WORLD, SERVER), row("c", SERVER, WORLD)
CASE = Case(
    id="case",
    topology=Topology(namespaces={"shop": {}}, workloads=(Workload(ref=SERVER),), outsiders=(Workload(ref=WORLD),)),
    steps=(Step(rows=(INWARD, INSIDE)), Step(rows=(OUTWARD,))),
)


def result(of: Row, outcome: Outcome) -> RowResult:
    return RowResult(row=of, outcome=outcome, why="", control="", window=None, observations=(), cause=None)


def test_without_hosts_outside_their_rows_go_and_all_others_stay() -> None:
    left = without_outsiders(CASE)
    assert () == left.topology.outsiders
    assert [(INSIDE,), ()] == [step.rows for step in left.steps]
    assert CASE.topology.workloads == left.topology.workloads


def test_a_row_that_was_left_out_is_not_supported_in_its_place_and_no_result_is_lost() -> None:
    refused = result(row("refuse x", WORLD, SERVER), "PROVED")
    told = _with_left_out([refused, result(INSIDE, "VIOLATED")], [INWARD, INSIDE, OUTWARD], "no such host")
    assert ["refuse x", "b", "a", "c"] == [r.row.id for r in told]
    assert ["PROVED", "NOT_SUPPORTED", "VIOLATED", "NOT_SUPPORTED"] == [r.outcome for r in told]
    assert "no such host" == told[1].why


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_the_canary_tries_both_directions_on_every_node(nodes: int) -> None:
    case = with_satellites(canary([f"node-{n}" for n in range(nodes)]))
    placed = {w.ref: {w.node, *([(w.node or 0) + 1] if w.satellite and nodes > 1 else [])} for w in case.topology.workloads}
    rows = case.steps[0].rows
    entered = {n for r in rows if r.want == "denied" and "ingress" in r.id for n in placed[r.probe.target]}
    left = {n for r in rows if r.want == "denied" and "egress" in r.id for n in placed[r.probe.source]}
    assert set(range(nodes)) == entered
    assert set(range(nodes)) <= left
    assert all(any(r.id == f"permitted -> server on node-{n}" for r in rows) for n in range(nodes))
    assert len({r.id for r in rows}) == len(rows)


def test_a_cni_that_enforces_nothing_is_said_in_one_sentence_and_one_that_enforces_something_is_not() -> None:
    denied = [result(replace(INSIDE, want="denied"), "VIOLATED"), result(replace(INWARD, want="denied"), "VIOLATED")]
    assert "enforces no NetworkPolicy: all 2 requests" in complaint([*denied, result(OUTWARD, "PROVED")], "l34")
    assert "" == complaint([*denied, result(replace(OUTWARD, want="denied"), "PROVED")], "l34")
    assert "" == complaint([*denied, result(replace(OUTWARD, want="denied"), "INCONCLUSIVE")], "l34")
    assert "" == complaint([result(OUTWARD, "VIOLATED")], "l34")
    assert "" == complaint(denied, "mesh")


def test_a_node_that_was_left_out_is_named_and_red() -> None:
    assert () == untested({})
    (told,) = untested({"worker-7": "not Ready"})
    assert ("INCONCLUSIVE", "node worker-7 was not tested: not Ready") == (told.outcome, told.why)


@pytest.mark.parametrize(
    ("filters", "lost"),
    [
        ("", []),
        ("!io.kubernetes !app.kubernetes.io", []),
        ("k8s:app k8s:role k8s:tier", []),
        ("k8s:app", ["role", "tier"]),
        ("k8s:io.kubernetes.pod.namespace", ["app", "role", "tier"]),
        ("!k8s:tier", ["tier"]),
        ("app role tier !role", ["role"]),
        ("reserved:.* k8s:.*", []),
    ],
)
def test_labels_that_ciliums_identities_leave_out_are_named(filters: str, lost: list[str]) -> None:
    assert lost == left_out(filters, SELECTED_BY)


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ({}, 35.0),
        ({"identity-max-jitter": "1s"}, 6.0),
        ({"identity-max-jitter": "1m30s", "identity-change-grace-period": "500ms"}, 90.5),
        ({"identity-max-jitter": "0s", "identity-change-grace-period": "0"}, 0.0),
    ],
)
def test_how_long_cilium_leaves_changed_labels_alone_is_read_from_its_settings(config: dict[str, str], seconds: float) -> None:
    assert pytest.approx(seconds) == relabelled(config)


def test_a_wait_that_is_bounded_by_its_caller_is_not_longer_for_labels() -> None:
    slow = replace(KUBERNETES, relabelled=35.0)
    resolver = Resolver(address="10.0.0.10", namespace="kube-system", labels={}, port=53)
    facts = Facts(
        stack="x", dialects=(), features={}, versions={}, signatures=(), timeouts=slow, resolver=resolver, nodes=("node",)
    )
    cluster: Any = SimpleNamespace(facts=lambda: facts)
    assert 35.0 == Examiner(cluster).facts.timeouts.relabelled
    assert (2.0, 0.0) == ((bounded := Examiner(cluster, 2.0).facts.timeouts).converge, bounded.relabelled)


def test_a_workload_with_ports_is_a_server_of_the_canary_and_one_without_is_not() -> None:
    servers = [w for w in canary(["a", "b"]).topology.workloads if w.ports]
    assert {(Port(number=8080, name="http"),)} == {w.ports for w in servers}
    assert {"server"} == {w.labels["role"] for w in servers}
