# SPDX-License-Identifier: Apache-2.0
"""Pods that start, restart, terminate, complete and reuse addresses are judged by their labels; every control keeps its kind."""

from dataclasses import replace

import pytest

from ztconform.errors import Rejected, UsageError
from ztconform.lab.cluster import LabCluster
from ztconform.model import OUTSIDE, Case, Lifecycle, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import prove_case

HTTP = Port(number=8080, name="http", service=80)
SERVER, GOOD, BAD, LATE, WORLD = Ref("t", "server"), Ref("t", "good"), Ref("t", "bad"), Ref("t", "late"), Ref(OUTSIDE, "world")
L34 = frozenset({"l34"})


def policy(name="from-good", *, spec=None):
    admitted = {"from": [{"podSelector": {"matchLabels": {"role": "good"}}}]}
    spec = spec or {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [admitted]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "t"},
        "spec": spec,
    }


def workload(ref, role, *, ports=(), **more):
    return Workload(ref=ref, labels={"app": ref.name, "role": role}, ports=ports, **more)


def allowed(source, target=SERVER, *, port=8080, row="", **probe):
    name = row or f"{source} -> {target}:{port} allowed {probe}"
    return Row(id=name, probe=Probe(source=source, target=target, port=port, **probe), want="allowed")


def denied(source, target=SERVER, *, port=8080, row="", twin=None, control="open", **probe):
    made = Probe(source=source, target=target, port=port, **probe)
    name = row or f"{source} -> {target}:{port} denied {probe}"
    return Row(id=name, probe=made, want="denied", by=L34, twin=twin, control=control)


WORKLOADS = (workload(SERVER, "server", ports=(HTTP,)), workload(GOOD, "good"), workload(BAD, "bad"))


def case(*steps, workloads=WORKLOADS, **more):
    outsiders = (Workload(ref=WORLD, ports=(HTTP,)),)
    return Case(id="t", topology=Topology(namespaces={"t": {}}, workloads=workloads, outsiders=outsiders), steps=steps, **more)


def prove(lab, proved):
    return {r.row.id: r for r in prove_case(proved, lab)}


def all_proved(lab, proved):
    results = prove(lab, proved)
    assert results
    assert {} == {k: (r.outcome, r.why) for k, r in results.items() if r.outcome != "PROVED"}
    return results


def start(ref, role, **more):
    return Lifecycle(action="start", workload=ref, spec=workload(ref, role), **more)


def test_a_pod_that_starts_under_a_policy_gets_what_its_labels_allow(lab):
    came = all_proved(
        lab,
        case(
            Step(apply=(policy(),), rows=(allowed(GOOD), denied(BAD))),
            Step(lifecycle=(start(LATE, "bad"),), rows=(denied(LATE),)),
            Step(lifecycle=(start(Ref("t", "later"), "good"),), rows=(allowed(Ref("t", "later")),)),
        ),
    )
    assert "open" == came[f"{BAD} -> {SERVER}:8080 denied {{}}"].control
    assert "after removal only" in came[f"{LATE} -> {SERVER}:8080 denied {{}}"].control


def test_a_restarted_pod_has_another_address_and_the_same_access(lab):
    lab.deploy(case().topology, "before")
    before = {p.workload: p.addresses for p in lab.pods()}
    lab.perform(Step(lifecycle=(Lifecycle(action="restart", workload=GOOD),)))
    assert before[GOOD] != {p.workload: p.addresses for p in lab.pods()}[GOOD]
    lab.remove("before")
    restart = tuple(Lifecycle(action="restart", workload=w) for w in (GOOD, BAD))
    all_proved(
        lab,
        case(
            Step(apply=(policy(),), rows=(allowed(GOOD), denied(BAD))),
            Step(lifecycle=restart, rows=(allowed(GOOD, row="again"), denied(BAD, row="still denied"))),
        ),
    )


def test_a_restarted_server_is_protected_from_its_first_packet_on(lab):
    all_proved(
        lab,
        case(
            Step(apply=(policy(),), rows=(allowed(GOOD), denied(BAD))),
            Step(
                lifecycle=(Lifecycle(action="restart", workload=SERVER),),
                rows=(allowed(GOOD, row="again"), denied(BAD, row="still denied")),
            ),
        ),
    )


@pytest.mark.parametrize("end", ["complete", "remove"])
def test_a_pod_that_reuses_an_address_gains_none_of_its_old_owners_rights(lab, end):
    came = all_proved(
        lab,
        case(
            Step(apply=(policy(),), rows=(allowed(GOOD), denied(BAD))),
            Step(
                lifecycle=(Lifecycle(action=end, workload=GOOD), start(LATE, "bad", reuse=GOOD)),
                rows=(denied(LATE),),
            ),
        ),
    )
    assert 2 <= len(came)


def test_a_reused_address_is_really_the_same(lab):
    lab.deploy(case().topology, "t")
    old = next(p.addresses for p in lab.pods() if p.workload == GOOD)
    lab.perform(Step(lifecycle=(Lifecycle(action="complete", workload=GOOD), start(LATE, "bad", reuse=GOOD))))
    assert old == next(p.addresses for p in lab.pods() if p.workload == LATE)
    lab.remove("t")


def test_an_address_that_is_still_held_cannot_be_reused(lab):
    lab.deploy(case().topology, "t")
    with pytest.raises(UsageError, match="has not ended"):
        lab.perform(Step(lifecycle=(start(LATE, "bad", reuse=GOOD),)))
    lab.remove("t")


def test_a_terminating_pod_is_still_judged_and_is_no_endpoint(lab):
    terminate = (Lifecycle(action="terminate", workload=SERVER, grace=30.0),)
    all_proved(
        lab,
        case(
            Step(apply=(policy(),), rows=(allowed(GOOD), denied(BAD, address="pod"))),
            Step(
                lifecycle=terminate,
                rows=(
                    allowed(GOOD, row="by pod", address="pod"),
                    denied(BAD, row="denied by pod", address="pod"),
                    replace(allowed(GOOD, row="by Service"), want="inconclusive"),
                ),
            ),
        ),
    )


def test_a_terminating_client_keeps_its_rights_until_it_is_gone(lab):
    terminate = tuple(Lifecycle(action="terminate", workload=w, grace=30.0) for w in (GOOD, BAD))
    all_proved(
        lab,
        case(
            Step(apply=(policy(),), rows=(allowed(GOOD), denied(BAD))),
            Step(lifecycle=terminate, rows=(allowed(GOOD, row="still"), denied(BAD, row="still denied"))),
        ),
    )


def test_a_pod_is_gone_when_its_grace_is_over(lab):
    lab.deploy(case().topology, "t")
    lab.perform(Step(lifecycle=(Lifecycle(action="terminate", workload=GOOD, grace=0.0),)))
    assert GOOD not in {p.workload for p in lab.pods()}
    lab.remove("t")


def test_a_denial_of_an_earlier_step_is_released_before_its_pod_ends_whatever_labels_say_by_then(lab):
    came = all_proved(
        lab,
        case(
            Step(apply=(policy(),), rows=(allowed(GOOD), denied(BAD, row="before"))),
            Step(relabel=((BAD, {"role": "good"}),), rows=(allowed(BAD, row="now"),)),
            Step(lifecycle=(Lifecycle(action="restart", workload=SERVER),), rows=(allowed(GOOD, row="again"),)),
        ),
    )
    assert "open" == came["before"].control


def test_a_label_opens_and_closes_at_once(lab):
    all_proved(
        lab,
        case(
            Step(apply=(policy(),), rows=(allowed(GOOD), denied(BAD))),
            Step(
                relabel=((GOOD, {"role": None}), (BAD, {"role": "good"})),
                rows=(denied(GOOD, row="lost"), allowed(BAD, row="gained")),
            ),
        ),
    )


def test_a_pod_always_reaches_itself_by_its_own_address(lab):
    deny_all = policy(spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
    all_proved(lab, case(Step(apply=(deny_all,), rows=(allowed(SERVER, address="pod"), denied(GOOD)))))


def test_a_pod_that_calls_itself_through_its_service_is_recorded_and_never_judged(lab):
    came = prove(lab, case(Step(apply=(policy(),), rows=(allowed(SERVER), denied(BAD)))))
    assert "INCONCLUSIVE" == came[f"{SERVER} -> {SERVER}:8080 allowed {{}}"].outcome
    assert "never judged" in came[f"{SERVER} -> {SERVER}:8080 allowed {{}}"].why


def test_a_port_that_nobody_serves_is_inconclusive_and_never_denied(lab):
    mute = Port(number=9, name="mute", listening=False)
    server = workload(SERVER, "server", ports=(HTTP, mute))
    rows = (replace(denied(BAD, port=9, address="pod"), want="inconclusive", by=frozenset()), denied(BAD))
    all_proved(lab, case(Step(apply=(policy(),), rows=rows), workloads=(server, *WORKLOADS[1:])))
    came = prove(
        lab, case(Step(apply=(policy(),), rows=(denied(BAD, port=9, address="pod"),)), workloads=(server, *WORKLOADS[1:]))
    )
    assert {"INCONCLUSIVE"} == {r.outcome for r in came.values()}


def test_a_denial_with_a_twin_needs_the_twin_in_the_same_round_and_no_open_control(lab):
    rows = (allowed(GOOD, row="twin"), denied(BAD, row="bad", twin="twin", control="twin"))
    assert "twin" == all_proved(lab, case(Step(apply=(policy(),), rows=rows)))["bad"].control
    nobody = policy(spec={"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]})
    came = prove(lab, case(Step(apply=(nobody,), rows=rows)))
    assert {"twin": "VIOLATED", "bad": "INCONCLUSIVE"} == {k: r.outcome for k, r in came.items()}


def test_named_ports_may_be_another_number_on_each_pod(lab):
    one, two = Ref("t", "one"), Ref("t", "two")
    servers = [
        workload(ref, "server", ports=(Port(number=n, name="api"), Port(number=m, name="other")))
        for ref, n, m in ((one, 8001, 8002), (two, 8002, 8001))
    ]
    spec = {
        "podSelector": {"matchLabels": {"role": "server"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": "api"}]}],
    }
    rows = [allowed(GOOD, ref, port=n, address="pod") for ref, n in ((one, 8001), (two, 8002))]
    rows += [denied(GOOD, ref, port=n, address="pod") for ref, n in ((one, 8002), (two, 8001))]
    all_proved(lab, case(Step(apply=(policy(spec=spec),), rows=tuple(rows)), workloads=(*servers, workload(GOOD, "good"))))


def test_ipv6_is_judged_as_ipv4_is(lab):
    rows = tuple(
        one
        for address in ("pod", "service")
        for one in (allowed(GOOD, address=address, family=6), denied(BAD, address=address, family=6))
    )
    all_proved(lab, case(Step(apply=(policy(),), rows=rows)))


def test_two_replicas_are_judged_each(lab):
    server = workload(SERVER, "server", ports=(HTTP,), replicas=2)
    came = all_proved(
        lab,
        case(
            Step(apply=(policy(),), rows=(allowed(GOOD, address="pod"), denied(BAD, address="pod"))),
            workloads=(server, *WORKLOADS[1:]),
        ),
    )
    peers = {o.peer for r in came.values() for o in r.observations}
    assert 2 == len(peers)


def test_every_denial_is_probed_from_the_same_node_and_across_nodes(lab):
    came = all_proved(lab, case(Step(apply=(policy(),), rows=(denied(BAD, row="d"), allowed(GOOD, row="a")))))
    assert 2 == len({o.source.split()[0] for o in came["d"].observations})
    assert {"10.244.0", "10.244.1"} == {o.source.split()[0].rpartition(".")[0] for o in came["d"].observations}


def test_a_manifest_that_must_be_refused_is_tried(lab):
    bad = policy("bad", spec={"podSelector": {}, "ingress": [{"from": [{}]}]})
    came = prove(lab, case(Step(apply=(policy(),), rows=(denied(BAD),)), refuse=(bad, policy("fine"))))
    assert "PROVED" == came["refuse NetworkPolicy t/bad"].outcome
    assert "VIOLATED" == came["refuse NetworkPolicy t/fine"].outcome


def test_a_refused_manifest_in_a_step_changes_nothing_and_removes_the_case(lab):
    bad = policy("bad", spec={"podSelector": {}, "ingress": [{"from": [{}]}]})
    with pytest.raises(Rejected, match="NetworkPolicy t/bad"):
        prove(lab, case(Step(apply=(policy(), bad), rows=(denied(BAD),))))
    assert [] == [p.ref for p in lab.pods() if p.ref.namespace == "t"]


def test_a_namespace_that_exists_is_refused_before_anything_is_created(lab):
    lab.deploy(case().topology, "first")
    count = len(lab.pods())
    with pytest.raises(UsageError, match="namespace t exists already"):
        lab.deploy(case().topology, "second")
    assert count == len(lab.pods())
    lab.remove("first")


def test_a_baseline_that_denies_is_opened_first_and_the_control_says_so():
    generated = policy("generated", spec={"podSelector": {}, "policyTypes": ["Ingress"]})
    with LabCluster(baseline=(generated,)) as lab:
        came = all_proved(lab, case(Step(apply=(policy(),), rows=(allowed(GOOD, row="a"), denied(BAD, row="d")))))
    assert "opened" == came["d"].control


def test_an_outsider_is_denied_and_admitted_by_address(lab):
    listed = policy(
        spec={
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": "${host:outsider/world}"}}]}],
        }
    )
    rows = (allowed(WORLD, address="pod"), denied(BAD))
    all_proved(lab, case(Step(apply=(listed,), rows=rows)))
    all_proved(lab, case(Step(apply=(policy(),), rows=(denied(WORLD, address="pod"), allowed(GOOD)))))


def test_outsiders_of_one_case_are_not_in_the_way_of_anothers(lab):
    """Their addresses stay on the outside host; each case gives them out anew."""
    rows = (allowed(WORLD, address="pod"), denied(BAD))
    listed = policy(
        spec={
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": "${host:outsider/world}"}}]}],
        }
    )
    metadata = Workload(ref=Ref(OUTSIDE, "metadata"), ports=(HTTP,), fixed_address="169.254.169.254")
    world = Workload(ref=WORLD, ports=(HTTP,))
    for outsiders in ((metadata, world), (world,), (world, metadata)):
        topology = Topology(namespaces={"t": {}}, workloads=WORKLOADS, outsiders=outsiders)
        all_proved(lab, Case(id="t", topology=topology, steps=(Step(apply=(listed,), rows=rows),)))
