# SPDX-License-Identifier: Apache-2.0
"""Clients on their node's own network: who may have them, how their pods are made, and which of their results are judged."""

import json
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("kubernetes")

from ztconform.cluster import Facts, Resolver
from ztconform.errors import UsageError
from ztconform.evidence import Bystander, Observation, Round, Vital
from ztconform.kube import objects, privileged
from ztconform.kube.deploying import Deployment
from ztconform.kube.labels import Labels
from ztconform.kube.making import Surroundings
from ztconform.kube.names import Names
from ztconform.kube.nodes import Nodes
from ztconform.lab.state import State
from ztconform.model import PRIVILEGED, Attempt, Lifecycle, Pod, Port, Probe, Ref, Row, Topology, Workload
from ztconform.proof import plan
from ztconform.proof.examiner import Examiner
from ztconform.proof.trial import Trial
from ztconform.settings import PodOptions
from ztconform.stacks.networkpolicy import SIGNATURES
from ztconform.timeouts import LAB

HOST, SERVER, SERVICE = Ref(PRIVILEGED, "host"), Ref("shop", "payment"), Ref("shop", "payment")
HERE, THERE, TARGET = Ref(PRIVILEGED, "host-0"), Ref(PRIVILEGED, "host-satellite"), Ref("shop", "payment-0")
CLIENT = Workload(ref=HOST, host_network=True)
SHOP = Workload(ref=SERVER, ports=(Port(number=8080),))
ROW = Row(id="r", probe=Probe(source=HOST, target=SERVER, port=8080), want="denied", by=frozenset({"l34"}))
TOPOLOGY = Topology(namespaces={"shop": {"team": "shop"}}, workloads=(SHOP, CLIENT))
LABELS, OPTIONS = Labels("ztconform.io", "1a2b3c"), PodOptions(agent_image="python:3")


def pod(ref: Ref, node: int, *, host_network: bool = True, serves: bool = True) -> Pod:
    workload = SERVER if ref.namespace == "shop" else HOST
    return Pod(ref=ref, workload=workload, node=node, addresses=(), serves=serves, host_network=host_network)


PODS = (pod(TARGET, 0, host_network=False), pod(HERE, 0), pod(THERE, 1, serves=False))


def planned(*pods: Pod, address: str = "pod", behind: tuple[Ref, ...] = (TARGET,)) -> tuple[dict[str, bool], str]:
    row = replace(ROW, probe=replace(ROW.probe, address=address))  # type: ignore[arg-type]  # of a Literal
    attempts, why = plan.attempts(row, pods, lambda service: behind, LAB)
    return {attempt.probe.source.name: attempt.judged for attempt in attempts}, why


@pytest.mark.parametrize("address", ["pod", "service"])
def test_what_comes_from_the_targets_own_node_is_sent_and_not_judged(address: str) -> None:
    assert ({"host-0": False, "host-satellite": True}, "") == planned(*PODS, address=address)


@pytest.mark.parametrize("address", ["pod", "service"])
def test_a_client_with_a_network_of_its_own_is_judged_on_any_node(address: str) -> None:
    inside = [replace(found, host_network=False) for found in PODS]
    assert ({"host-0": True, "host-satellite": True}, "") == planned(*inside, address=address)


def test_a_row_that_only_the_targets_own_node_could_send_proves_nothing_and_says_why() -> None:
    assert ({}, plan.FROM_ITS_OWN_NODE) == planned(*PODS[:2])


def test_a_service_is_judged_only_where_none_of_its_endpoints_may_be_on_the_clients_node() -> None:
    stranger = Ref("shop", "not-of-ours")  # on a node that is not known
    assert ({}, plan.FROM_ITS_OWN_NODE) == planned(*PODS, address="service", behind=(TARGET, stranger))


class Alone:
    """Answer what comes from one client, and stay silent to the others."""

    def __init__(self, answered: Ref) -> None:
        self._answered = answered

    def facts(self) -> Facts:
        resolver = Resolver(address="", namespace="", labels={}, port=53)
        return Facts(
            stack="",
            dialects=(),
            features={},
            versions={},
            signatures=SIGNATURES,
            timeouts=LAB,
            resolver=resolver,
            nodes=("a", "b"),
        )

    def run(self, attempts: list[Attempt]) -> Round:
        vital = Vital(server=TARGET, port=8080, transport="TCP", boot="b", answers_itself=True, ready=True, in_endpoints=True)
        bystander = Bystander(nodes=(0, 1), transport="TCP", through=True)
        return Round(observations=tuple(map(self._met, attempts)), vitals=(vital,), bystanders=(bystander,))

    def _met(self, attempt: Attempt) -> Observation:
        met = Observation(attempt=attempt.id, nonce=attempt.id, sent=1.0, ended=2.0, signal="timeout", stage="connect")
        answer = replace(met, signal="answered", stage="done", status=200, backend=str(TARGET), boot="b")
        return answer if attempt.probe.source == self._answered else met

    def causes(self, nonces: list[str]) -> tuple[()]:
        return ()


def examined(answered: Ref) -> tuple[Trial, dict[str, list[str]]]:
    row = replace(ROW, probe=replace(ROW.probe, address="pod"))
    trial = Trial(row=row, step=0)
    trial.aim(plan.attempts(row, PODS, lambda service: (), LAB)[0])
    examiner = Examiner(Alone(answered))  # type: ignore[arg-type]  # as much of a cluster as a round needs
    examiner.round([trial], opening=True)
    assert {} == trial.recorded, "what passes without a policy says nothing of it"
    return trial, {name: [f.verdict.kind for f in found] for name, found in examiner.round([trial]).items()}


def test_what_is_recorded_stands_in_the_result_and_no_verdict_follows_from_it() -> None:
    trial, verdicts = examined(answered=HERE)
    assert {"r": ["DENIED"]} == verdicts
    (recorded,) = trial.result().recorded
    where = f"{PRIVILEGED}/host-0 -> shop/payment-0 port 8080 on its own node"
    assert f"{where}: ALLOWED, answered by shop/payment-0 (HTTP 200)" == recorded


def test_what_comes_from_another_node_is_judged_whatever_the_own_one_met() -> None:
    trial, verdicts = examined(answered=THERE)
    assert {"r": ["ALLOWED"]} == verdicts
    assert "DENIED, DROP" in trial.result().recorded[0]


def test_the_namespace_of_such_clients_is_there_where_a_case_has_one() -> None:
    inside = replace(TOPOLOGY, workloads=(SHOP,))
    assert inside is privileged.admitted(inside, permitted=True)
    labels = {"pod-security.kubernetes.io/enforce": "privileged", "pod-security.kubernetes.io/warn": "privileged"}
    found = privileged.admitted(TOPOLOGY, permitted=True).namespaces
    assert {"shop": {"team": "shop"}, PRIVILEGED: labels} == found
    made = objects.namespace("x", found[PRIVILEGED], LABELS, OPTIONS)
    assert "privileged" == made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert (
        "restricted"
        == objects.namespace("x", found["shop"], LABELS, OPTIONS)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    )


@pytest.mark.parametrize(
    ("workload", "permitted", "why"),
    [
        (
            CLIENT,
            False,
            f"workload {HOST} needs a pod on its node's own network, which --ztc-privileged permits; nothing was created",
        ),
        (
            replace(CLIENT, ref=SERVER),
            True,
            f"workload {SERVER}: clients on their node's own network, and nothing else, are in {PRIVILEGED}",
        ),
        (replace(CLIENT, host_network=False), True, f"and nothing else, are in {PRIVILEGED}"),
        (
            replace(CLIENT, ports=SHOP.ports),
            True,
            f"workload {HOST}: on its node's own network it neither serves ports nor is meshed",
        ),
        (replace(CLIENT, meshed=True), True, "neither serves ports nor is meshed"),
    ],
)
def test_what_may_not_be_on_a_nodes_network_is_refused_in_one_line(workload: Workload, permitted: bool, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        privileged.admitted(replace(TOPOLOGY, workloads=(workload,)), permitted=permitted)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_lab_refuses_such_a_client_in_one_line() -> None:
    topology = replace(TOPOLOGY, namespaces={PRIVILEGED: {}}, workloads=(CLIENT,))
    with pytest.raises(UsageError, match=f"workload {HOST}: the lab's nodes have no network of their own"):
        State().deploy(topology, "test")


def test_such_a_client_cannot_start_later_whatever_its_namespace_admits() -> None:
    around = Surroundings(nodes=Nodes((), {}, {}, {}), labels=LABELS, options=OPTIONS)
    deployment = Deployment(None, around, Names())  # type: ignore[arg-type]  # refused before anything is asked
    with pytest.raises(UsageError, match=f"workload {HOST}: clients on their node's own network start with the topology alone"):
        deployment.happened(Lifecycle(action="start", workload=HOST, spec=CLIENT))


@pytest.mark.parametrize(
    ("nodes", "features", "reason"),
    [(1, {"host-network": ""}, "our pods have one node alone"), (2, {"host-network": ""}, ""), (1, {"host-network": "no"}, "no")],
)
def test_on_one_node_no_such_client_proves_anything(nodes: int, features: dict[str, str], reason: str) -> None:
    assert privileged.features(features, nodes)["host-network"].endswith(reason)
    assert ("" == reason) is (privileged.features(features, nodes)["host-network"] == "")


def made(workload: Workload = CLIENT, make: Any = objects.pod) -> Any:
    return make(Ref("real", "host-0"), HERE, workload, "node-a", LABELS, OPTIONS, serves=True)["spec"]


def test_such_a_pod_listens_nowhere_and_may_do_nothing_else_that_others_may_not() -> None:
    inside, client = made(replace(CLIENT, host_network=False)), made()
    assert ("hostNetwork" in inside, client.pop("hostNetwork")) == (False, True)
    (theirs,), (ours,) = inside.pop("containers"), client.pop("containers")
    assert inside == client
    assert [] == ours["ports"]
    assert {"command", "readinessProbe"} == {key for key in theirs if theirs[key] != ours.get(key)}
    assert "serve" not in ours["command"]


def test_its_agent_runs_for_a_conversation_alone_and_on_no_port() -> None:
    *_, command, told = objects.orders_command(str(HERE), CLIENT)
    assert ("serve", {"pod": str(HERE), "health": 0}) == (command, json.loads(told))
    assert "attach" == objects.orders_command("shop/payment-0", SHOP)[-2]


def test_who_looks_at_packets_has_one_capability_and_root_to_have_it() -> None:
    client, looking = made(), made(make=privileged.looking)
    (theirs,), (ours,) = client.pop("containers"), looking.pop("containers")
    assert {"drop": ["ALL"], "add": ["NET_RAW"]} == ours["securityContext"].pop("capabilities")
    assert {"drop": ["ALL"]} == theirs["securityContext"].pop("capabilities")
    assert theirs == ours
    assert (0, 0, False) == tuple(looking["securityContext"].pop(key) for key in ("runAsUser", "runAsGroup", "runAsNonRoot"))
    assert {"type": "RuntimeDefault"} == looking["securityContext"]["seccompProfile"]
