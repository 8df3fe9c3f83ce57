# SPDX-License-Identifier: Apache-2.0
"""The lab's declared state changes as asked, whole or not at all, and says in one line what it cannot do."""

from dataclasses import replace

import pytest

from ztconform.errors import Rejected, UsageError
from ztconform.lab.rounds import base_topology
from ztconform.lab.state import State
from ztconform.model import OUTSIDE, Lifecycle, Port, Ref, Step, Topology, Workload

A, B = Ref("t", "a"), Ref("t", "b")
HTTP = Port(number=8080, service=80)
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny", "namespace": "t"},
    "spec": {"podSelector": {}},
}


def topology(*workloads, namespaces=("t",), outsiders=()):
    return Topology(namespaces={n: {} for n in namespaces}, workloads=workloads, outsiders=outsiders)


def deployed(*workloads, **more):
    return State().deploy(base_topology(), "lab").deploy(topology(*workloads, **more), "me")


def addresses(state, workload):
    return [(p.v4, p.v6) for p in state.pods.values() if p.workload == workload]


def test_workloads_alternate_between_nodes_and_a_satellite_stands_on_the_other():
    state = deployed(Workload(ref=A, satellite=True), Workload(ref=B))
    a = [p for p in state.pods.values() if p.workload == A]
    assert {0, 1} == {p.node for p in a}
    assert [True, False] == [p.serves for p in a]
    assert [True, False] == [p.ready for p in a]


def test_a_satellite_beside_replicas_on_both_nodes_shows_nothing_new():
    assert 2 == len(addresses(deployed(Workload(ref=A, satellite=True, replicas=2)), A))


def test_no_two_pods_share_an_address_or_a_device():
    state = deployed(*(Workload(ref=Ref("t", f"w{i}"), replicas=2, satellite=True) for i in range(40)))
    pods = list(state.pods.values())
    for field in ("v4", "v6", "device"):
        assert len(pods) == len({getattr(p, field) for p in pods})


def test_an_outsider_may_stand_in_for_a_well_known_address():
    state = deployed(
        outsiders=(Workload(ref=Ref(OUTSIDE, "m"), fixed_address="169.254.169.254"), Workload(ref=Ref(OUTSIDE, "w")))
    )
    assert "169.254.169.254" == state.pods[Ref(OUTSIDE, "m")].v4
    assert 3 == len({p.v6 for p in state.pods.values() if p.ref.namespace == OUTSIDE})


def test_every_namespace_carries_its_name_as_a_label_and_nobody_can_take_it_over():
    state = State().deploy(Topology(namespaces={"t": {"kubernetes.io/metadata.name": "other", "x": "y"}}, workloads=()), "me")
    assert {"kubernetes.io/metadata.name": "t", "x": "y"} == state.namespaces["t"]


def test_the_labs_own_namespace_may_have_guests_who_leave_nothing_behind():
    before = State().deploy(base_topology(), "lab")
    guest = Workload(ref=Ref("kube-system", "guest"), ports=(HTTP,))
    during = before.deploy(Topology(namespaces={"kube-system": {"x": "y"}}, workloads=(guest,)), "me")
    during = during.perform(Step(apply=({**POLICY, "metadata": {"name": "deny", "namespace": "kube-system"}},)), "me")
    after = during.remove("me")
    assert replace(before, made=0) == replace(after, made=0)


def test_removal_takes_what_is_the_owners_and_nothing_else():
    state = deployed(Workload(ref=A, ports=(HTTP,)), outsiders=(Workload(ref=Ref(OUTSIDE, "w")),))
    state = state.perform(Step(apply=(POLICY,)), "me")
    other = state.deploy(Topology(namespaces={"u": {}}, workloads=(Workload(ref=Ref("u", "c")),)), "you").remove("me")
    assert "u" in other.namespaces
    assert Ref("u", "c") in other.workloads
    assert not [
        r for r in (*other.pods, *other.services, *other.policies, *other.workloads) if r.namespace == "t" or r.name == "w"
    ]


@pytest.mark.parametrize(
    ("why", "workload"),
    [
        ("namespace u is not declared", Workload(ref=Ref("u", "a"))),
        ("no node 2", Workload(ref=A, node=2)),
        ("health probes", Workload(ref=A, ports=(Port(number=61020),))),
        ("does not serve grpc over UDP", Workload(ref=A, ports=(Port(number=1, protocol="UDP", app="grpc"),))),
        ("does not serve http over UDP", Workload(ref=A, ports=(Port(number=1, protocol="UDP"),))),
        ("two ports have the Service port", Workload(ref=A, ports=(HTTP, Port(number=81, service=80)))),
    ],
)
def test_a_workload_that_cannot_run_is_one_line(why, workload):
    with pytest.raises(UsageError, match=why) as raised:
        deployed(workload)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("why", "manifest"),
    [
        ("enforces NetworkPolicy", {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "x"}}),
        ("enforces NetworkPolicy", {"kind": "Deployment"}),
        ("namespace u does not exist", {**POLICY, "metadata": {"name": "deny", "namespace": "u"}}),
        ("namespace default does not exist", {**POLICY, "metadata": {"name": "deny"}}),
    ],
)
def test_a_manifest_that_the_lab_cannot_enforce_is_refused_in_one_line(why, manifest):
    with pytest.raises(Rejected, match=why) as raised:
        deployed(Workload(ref=A)).perform(Step(apply=(manifest,)), "me")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("why", "step"),
    [
        ("is not there", Step(lifecycle=(Lifecycle(action="remove", workload=B),))),
        ("is not there", Step(lifecycle=(Lifecycle(action="restart", workload=B),))),
        ("is not there", Step(relabel=((B, {"x": "y"}),))),
        ("is not there to relabel", Step(relabel=((Ref("u", ""), {"x": "y"}),))),
        ("start needs its description", Step(lifecycle=(Lifecycle(action="start", workload=B),))),
        ("has not ended", Step(lifecycle=(Lifecycle(action="start", workload=B, spec=Workload(ref=B), reuse=A),))),
        ("exists already", Step(lifecycle=(Lifecycle(action="start", workload=A, spec=Workload(ref=A)),))),
    ],
)
def test_a_step_that_cannot_be_done_is_one_line(why, step):
    with pytest.raises(UsageError, match=why):
        deployed(Workload(ref=A)).perform(step, "me")


def test_an_address_is_handed_on_once():
    ended = deployed(Workload(ref=A)).perform(Step(lifecycle=(Lifecycle(action="complete", workload=A),)), "me")
    first = ended.perform(Step(lifecycle=(Lifecycle(action="start", workload=B, spec=Workload(ref=B), reuse=A),)), "me")
    assert addresses(deployed(Workload(ref=A)), A) == addresses(first, B)
    c = Ref("t", "c")
    with pytest.raises(UsageError, match="another's by now"):
        first.perform(Step(lifecycle=(Lifecycle(action="start", workload=c, spec=Workload(ref=c), reuse=A),)), "me")


def test_labels_are_set_and_removed():
    state = deployed(Workload(ref=A, labels={"x": "1", "y": "2"})).perform(Step(relabel=((A, {"x": None, "z": "3"}),)), "me")
    assert {"y": "2", "z": "3"} == state.pods[Ref("t", "a-0")].labels


def test_a_restarted_pod_has_another_name_and_address_and_the_labels_of_its_template():
    state = deployed(Workload(ref=A, labels={"x": "1"}))
    after = state.perform(Step(lifecycle=(Lifecycle(action="restart", workload=A),)), "me")
    assert not set(addresses(state, A)) & set(addresses(after, A))
    assert not {p.ref for p in state.pods.values() if p.workload == A} & set(after.pods)
    assert [{"x": "1"}] == [p.labels for p in after.pods.values() if p.workload == A]
