# SPDX-License-Identifier: Apache-2.0
"""Faults really done in the middle of a proof on a real cluster: none of them is a denial, and none is taken for a leak."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from kube_cases import CASE, NAMESPACE, outcomes, proved, row
from kube_clusters import Ready, docker

from ztconform.errors import ClusterError, Rejected
from ztconform.evidence import RowResult
from ztconform.kube.cluster import KubeCluster
from ztconform.model import Manifest, Ref, Step
from ztconform.proof import prove_case

pytestmark = pytest.mark.usefixtures("nothing_left")
ALL_PROVED = {"friend allowed": "PROVED", "stranger denied": "PROVED"}


@pytest.fixture
def cluster(cilium: Ready) -> Iterator[KubeCluster]:
    with cilium.start() as started:
        yield started


@pytest.fixture
def later() -> Iterator[Callable[[float, Callable[[], object]], None]]:
    """Do something after so many seconds, and in any case before the test ends."""
    timers: list[tuple[threading.Timer, Callable[[], object]]] = []

    def start(seconds: float, what: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, what)
        timers.append((timer, what))
        timer.start()

    yield start
    for timer, _ in timers:
        timer.join()


def never_red_without_reason(results: dict[str, RowResult]) -> None:
    """Demand that nothing is VIOLATED, and that what is not PROVED says why."""
    for result in results.values():
        assert result.outcome in ("PROVED", "INCONCLUSIVE"), result.why
        assert result.why


def test_without_a_fault_everything_is_proved(cluster: KubeCluster) -> None:
    assert ALL_PROVED == outcomes(proved(cluster))


@pytest.mark.parametrize("phase", ["converge", "hold"])
def test_a_control_plane_that_stops_for_ten_seconds_proves_and_violates_nothing(
    cluster: KubeCluster, cilium: Ready, later: Callable[[float, Callable[[], object]], None], phase: str
) -> None:
    control = f"{cilium.name}-control-plane"

    def fault() -> None:
        docker("pause", control)
        later(10, lambda: docker("unpause", control))

    never_red_without_reason(proved(cluster, at=phase, fault=fault))
    assert ALL_PROVED == outcomes(proved(cluster))


@pytest.mark.parametrize("phase", ["apply", "converge", "hold"])
def test_a_deleted_server_denies_nobody(cluster: KubeCluster, cilium: Ready, phase: str) -> None:
    def fault() -> None:
        pod = cluster._case.pods[Ref(NAMESPACE, "server-0")].real
        cilium.kubectl("delete", "pod", "--namespace", pod.namespace, pod.name, "--grace-period=1")

    came = proved(cluster, at=phase, fault=fault)
    assert {"INCONCLUSIVE"} == set(outcomes(came).values()), came
    assert ALL_PROVED == outcomes(proved(cluster))


def test_a_stopped_kubelet_makes_no_false_green_and_the_next_run_passes(cluster: KubeCluster, cilium: Ready) -> None:
    node = cluster.facts().nodes[0]
    try:
        never_red_without_reason(
            proved(cluster, at="converge", fault=lambda: docker("exec", node, "systemctl", "stop", "kubelet"))
        )
    finally:
        docker("exec", node, "systemctl", "start", "kubelet")
        cilium.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=90s")
    assert ALL_PROVED == outcomes(proved(cluster))


def test_without_dns_rows_by_name_are_inconclusive_and_others_are_proved(cluster: KubeCluster, cilium: Ready) -> None:
    by_name = replace(row("friend", "allowed", address="name"), id="friend by name")
    case = replace(CASE, steps=(replace(CASE.steps[0], rows=(*CASE.steps[0].rows, by_name)),))

    def fault() -> None:
        cilium.kubectl("scale", "--namespace", "kube-system", "deployment/coredns", "--replicas=0")
        cilium.kubectl("wait", "--namespace", "kube-system", "pod", "-l", "k8s-app=kube-dns", "--for=delete", "--timeout=60s")

    try:
        came = proved(cluster, case, at="apply", fault=fault)
    finally:
        cilium.kubectl("scale", "--namespace", "kube-system", "deployment/coredns", "--replicas=2")
        cilium.kubectl("rollout", "status", "--namespace", "kube-system", "deployment/coredns", "--timeout=90s")
    assert {**ALL_PROVED, "friend by name": "INCONCLUSIVE"} == outcomes(came)
    assert "did not resolve" in came["friend by name"].why


def test_a_cilium_agent_that_is_deleted_while_a_deny_is_held_leaks_nothing_or_the_leak_is_told(
    cluster: KubeCluster, cilium: Ready
) -> None:
    node = cluster.facts().nodes[0]

    def fault() -> None:
        on_node = ["-l", "k8s-app=cilium", "--field-selector", f"spec.nodeName={node}"]
        cilium.kubectl("delete", "pod", "--namespace", "kube-system", *on_node, "--wait=false")

    came = proved(cluster, at="hold", fault=fault)
    cilium.kubectl("rollout", "status", "--namespace", "kube-system", "daemonset/cilium", "--timeout=120s")
    denied = came["stranger denied"]
    assert denied.outcome in ("PROVED", "INCONCLUSIVE") or "let through" in denied.why or "answered" in denied.why
    assert ALL_PROVED == outcomes(proved(cluster))


def test_a_cut_off_exec_is_begun_anew_and_one_that_is_refused_proves_nothing(cluster: KubeCluster) -> None:
    def cut() -> None:
        for link in list(cluster._links._links.values()):
            link._pipe.close()

    came = proved(cluster, at="hold", fault=cut)
    never_red_without_reason(came)
    assert ALL_PROVED == outcomes(proved(cluster))


def test_a_namespace_that_exists_is_one_line_and_nothing_is_created(cluster: KubeCluster, cilium: Ready) -> None:
    before = cilium.kubectl("get", "namespaces", "-o", "name")
    topology = replace(CASE.topology, namespaces={NAMESPACE: {}, "default": {}}, private=False)
    with pytest.raises(Exception, match="namespace default exists already and is not ours: nothing was created"):
        proved(cluster, replace(CASE, topology=topology))
    assert before == cilium.kubectl("get", "namespaces", "-o", "name")


def test_pods_that_the_admission_refuses_are_one_line(cilium: Ready) -> None:
    options = replace(cilium.settings.pods, agent_image="registry.invalid/agent:0")
    with pytest.raises(ClusterError, match=r"its image registry.invalid/agent:0 cannot be pulled .*--ztc-agent-image"):
        cilium.start(pods=options)


REFUSAL = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-agents}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations: [{expression: "!object.metadata.name.startsWith('caller-')", message: "no agents here"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-agents}
spec: {policyName: no-agents, validationActions: [Deny]}
"""


def test_an_admission_that_refuses_our_pods_is_one_line_and_nothing_is_left(cilium: Ready) -> None:
    cilium.kubectl("apply", "-f", "-", told=REFUSAL)
    try:
        deadline = time.monotonic() + 60  # until the API server has read its new policy
        while time.monotonic() < deadline:
            try:
                cilium.start().close()
            except ClusterError as error:
                told = str(error)
                break
        assert "refuses an object of ours" in told
        assert "no agents here" in told
        assert "--ztc-namespace-label" in told
        assert "\n" not in told
    finally:
        cilium.kubectl("delete", "-f", "-", told=REFUSAL)


def test_cluster_scoped_work_is_done_alone_and_overwrites_nothing_of_others(cluster: KubeCluster, cilium: Ready) -> None:
    """A ClusterRole that permits nothing stands for any object of the whole cluster."""
    role: dict[str, object] = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    ours = {**role, "metadata": {"name": "ztconform-test-nothing"}, "rules": []}
    theirs = {**role, "metadata": {"name": "view"}, "rules": []}
    cluster.deploy(CASE.topology, "faults")
    with cilium.start() as other:
        other.deploy(CASE.topology, "faults")
        try:
            with pytest.raises(Rejected, match="an object of this name is there, and it is not ours"):
                cluster.perform(Step(apply=(theirs,)))
            cluster.perform(Step(apply=(ours,)))
            assert "ztconform-exclusive" in cilium.kubectl("get", "leases", "--all-namespaces", "-o", "name")
            assert "ztconform-test-nothing" in cilium.kubectl("get", "clusterroles", "-o", "name")
        finally:
            cluster.remove("faults")
        other.perform(Step(apply=(ours,)))
        other.remove("faults")
    assert "ztconform-test-nothing" not in cilium.kubectl("get", "clusterroles", "-o", "name")
    assert "ztconform-exclusive" not in cilium.kubectl("get", "leases", "--all-namespaces", "-o", "name")


@pytest.mark.parametrize("loosened", ["dropped", "for everybody", "for another port"])
def test_a_policy_that_is_dropped_or_loosened_is_red(cluster: KubeCluster, loosened: str) -> None:
    def mutate(manifest: Manifest) -> Manifest | None:
        ingress = {"for everybody": [{}], "for another port": [{"ports": [{"port": 8080}]}]}
        return None if loosened == "dropped" else {**manifest, "spec": {**manifest["spec"], "ingress": ingress[loosened]}}

    came = {r.row.id: r.outcome for r in prove_case(CASE, cluster, mutate=mutate, patience=8)}
    assert {"friend allowed": "PROVED", "stranger denied": "VIOLATED"} == came
