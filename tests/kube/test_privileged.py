# SPDX-License-Identifier: Apache-2.0
"""What --ztc-privileged permits on a real cluster: clients on a node's own network, and a look at a node's wire."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kube_cases import CASE, HTTP, NAMESPACE, SERVER, outcomes, proved, workload
from kube_clusters import Ready, containers, docker, ztconform

from ztconform.kube.cluster import KubeCluster
from ztconform.model import PRIVILEGED, Attempt, Case, Manifest, Probe, Ref, Row, Step, Workload
from ztconform.proof import prove_case

HOST = Ref(PRIVILEGED, "host")
DENY: Manifest = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "nobody", "namespace": NAMESPACE},
    "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]},
}
LISTENS = re.compile(r":EE5C [0-9A-F]+:0000 0A ")  # the agents' health port, 61020, in /proc/net/tcp


@pytest.fixture(scope="module")
def cluster(cilium: Ready) -> Iterator[KubeCluster]:
    """Yield one run's cluster, and demand that nothing is left of it and of all that ran beside it."""
    before = containers()
    with cilium.start(privileged=True) as started:
        yield started
    assert [] == cilium.leftovers(within=60, beside=before)


def from_host(want: str, target: str) -> Row:
    probe = Probe(source=HOST, target=Ref(NAMESPACE, target), port=8080, address="pod")
    by = frozenset({"l34"}) if want == "denied" else frozenset()
    return Row(id=f"host {want} {target}", probe=probe, want=want, by=by)  # type: ignore[arg-type]  # of a Literal


def case() -> Case:
    client = Workload(ref=HOST, host_network=True)
    topology = replace(CASE.topology, workloads=(workload("server", HTTP), workload("other", HTTP), client))
    return replace(
        CASE, topology=topology, steps=(Step(apply=(DENY,), rows=(from_host("denied", "server"), from_host("allowed", "other"))),)
    )


def enforced(cilium: Ready) -> dict[str, str]:
    """Return which Pod Security Standard each namespace of ours enforces, by its name without what makes it one run's."""
    found = json.loads(cilium.kubectl("get", "namespaces", "-l", "app.kubernetes.io/managed-by=ztconform", "-o", "json"))
    labels = {item["metadata"]["name"]: item["metadata"]["labels"] for item in found["items"]}
    return {
        re.sub(r"-[0-9a-f]{6}-\d+$", "", name): had.get("pod-security.kubernetes.io/enforce", "") for name, had in labels.items()
    }


def test_a_client_on_another_nodes_network_is_denied_and_what_the_own_node_meets_is_recorded(
    cilium: Ready, cluster: KubeCluster
) -> None:
    seen: dict[str, str] = {}
    listening: list[str] = []

    def look() -> None:
        seen.update(enforced(cilium))
        for node in cluster.facts().nodes:
            listening.extend(LISTENS.findall(docker("exec", node, "cat", "/proc/net/tcp", "/proc/net/tcp6")))

    came = proved(cluster, case(), at="hold", fault=look)
    assert {"PROVED"} == set(outcomes(came).values()), {name: (r.outcome, r.why) for name, r in came.items()}
    (recorded,) = came["host denied server"].recorded
    assert f"{NAMESPACE}/server-0 port 8080 on its own node: ALLOWED" in recorded
    assert {"ztconform-runs": "", "ztc-bystanders": "restricted", NAMESPACE: "restricted", PRIVILEGED: "privileged"} == seen
    assert [] == listening, "an agent listens on a node's own network"


def test_a_policy_that_lets_nodes_in_is_red_by_the_client_on_another_node(cluster: KubeCluster) -> None:
    def open_up(manifest: Manifest) -> Manifest:
        return {**manifest, "spec": {**manifest["spec"], "ingress": [{}]}}

    results = {r.row.id: r for r in prove_case(case(), cluster, mutate=open_up, patience=3)}
    assert {"host denied server": "VIOLATED", "host allowed other": "PROVED"} == outcomes(results)


def attempt(source: str, target: str) -> Attempt:
    to = Ref(NAMESPACE, f"{target}-0")
    probe = Probe(source=Ref(NAMESPACE, f"{source}-0"), target=to, port=8080, address="pod")
    return Attempt(id=f"{source} -> {target}", row="", probe=probe, targets=(to,), timeout=3.0)


def test_a_nodes_wire_shows_what_goes_to_a_pod_in_plaintext_and_nobody_elses_packets(cluster: KubeCluster) -> None:
    far = (workload("friend", node=1), workload("stranger", node=1))
    cluster.deploy(replace(CASE.topology, workloads=(workload("server", HTTP), workload("other", HTTP), *far)), "capture")
    sent = [attempt("friend", "server"), attempt("stranger", "other")]
    for mine, target in zip(sent, (SERVER, Ref(NAMESPACE, "other")), strict=True):
        with cluster.watch(sent, every=0.05) as stream:
            packets = cluster.capture(target, 1.5)
            answered = [o for o in (*stream.drain(), *stream.stop()) if o.signal == "answered"]
        read = {o.nonce for o in answered if o.nonce.encode() in packets}
        assert {o.nonce for o in answered if o.attempt != mine.id}, "nobody else sent anything meanwhile"
        assert {mine.id} == {o.attempt for o in answered if o.nonce in read}
    cluster.remove("capture")


def test_the_requirement_is_proved_and_its_report_says_what_was_only_recorded(cilium: Ready, tmp_path: Path) -> None:
    own = cilium.settings.pods.agent_image
    where = [f"--context={cilium.context}", f"--kubeconfig={cilium.kubeconfig}", *([f"--agent-image={own}"] if own else [])]
    done = ztconform("run", "--privileged", "--requirement=N12", f"--report={tmp_path}", *where)
    print(done.stdout)
    (told,) = json.loads((tmp_path / "conformance.json").read_text(encoding="utf-8"))["requirements"]
    assert "PROVED" == told["outcome"], told["why"]
    notes = "\n".join(told["notes"])
    assert f"{PRIVILEGED}/host-0 -> shop/payment-0 port 8080 on its own node: ALLOWED" in notes
    assert "without node-ipblock: Cilium matches no node by ipBlock" in notes
    assert "clients ran on the nodes' own network" in notes
    assert "--ztc-privileged: helpers were permitted" in " ".join(done.stdout.split())
