# SPDX-License-Identifier: Apache-2.0
"""How steps are done: in order, keys once and other objects each time; and what is told of the one that fails."""

from collections.abc import Callable
from pathlib import Path

import pytest
import recorded

from ztconform.errors import ClusterError
from ztconform.kube import machine
from ztconform.kube.client import Connection
from ztconform.kube.helm import Chart
from ztconform.kube.kind import Plan
from ztconform.kube.ready import Goal, Want
from ztconform.settings import Settings
from ztconform.stacks import installing, interplay, linkerdkeys
from ztconform.stacks.component import Objects, Step

KEYS = Objects(component="linkerd", what="keys", make=linkerdkeys.make, once=True)
PROBES = Objects(component="cilium", what="a policy", make=lambda: (interplay.probes_policy(),))
SECRET = "/api/v1/namespaces/linkerd/secrets/linkerd-identity-issuer"
Do = Callable[..., list[str]]


@pytest.fixture
def do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Do:
    """Return a function that does steps in a recorded cluster, and returns what was notified."""

    def do(connection: Connection, *steps: Step, helm_bin: str = "/bin/true") -> list[str]:
        told: list[str] = []
        monkeypatch.setattr(installing, "connect", lambda context, kubeconfig: connection)
        monkeypatch.setattr(machine, "helm", Path)
        plan = Plan(
            name="a", image="i", config={}, archives=(), made={}, installs="", keep=False, run="r", worker=False,
            folder=tmp_path, notify=told.append,
        )  # fmt: skip
        installing.run(steps, Settings(helm_bin=helm_bin, notify=told.append), plan)
        return told

    return do


def test_steps_are_done_in_order_and_each_is_told(do: Do) -> None:
    chart = Chart(component="istiod", namespace="istio-system", path=Path("charts"))
    goal = Goal(what="Cilium", wants=(Want(kind="daemonset", namespace="kube-system", name="cilium"),), cluster=False)
    with recorded.serving(recorded.objects("cilium")) as connection:
        told = do(connection, chart, goal, PROBES)
    assert ["installing istiod (charts)", "waiting for Cilium", "installing a policy (cilium)"] == told


def test_objects_are_applied_each_time_and_keys_only_where_there_are_none(do: Do) -> None:
    written: list[tuple[str, str, recorded.Object]] = []
    with recorded.serving([], written=written) as connection:
        do(connection, KEYS, PROBES, PROBES)
    probes = ("PATCH", "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies/ztconform-ambient-probes")
    assert [
        ("POST", "/api/v1/namespaces/linkerd"),
        ("POST", "/api/v1/namespaces/linkerd/configmaps/linkerd-identity-trust-roots"),
        ("POST", SECRET),
        probes,
        probes,
    ] == [(method, path) for method, path, _ in written]
    there = [body for _, path, body in written if path.startswith("/api/v1")]
    again: list[tuple[str, str, recorded.Object]] = []
    with recorded.serving(there, written=again) as connection:
        do(connection, KEYS)
    assert [] == again


def test_an_object_that_the_cluster_refuses_is_the_clusters_fault_and_named(do: Do) -> None:
    with recorded.serving([], lambda path: "cilium.io/v2/c" in path) as connection, pytest.raises(ClusterError) as caught:
        do(connection, PROBES)
    assert "the cluster refuses a policy (cilium): CiliumClusterwideNetworkPolicy default/ztconform-ambient-probes: no" == str(
        caught.value
    )


def test_a_chart_that_fails_tells_what_the_cluster_last_warned_of_in_its_namespace(do: Do, tmp_path: Path) -> None:
    program = tmp_path / "helm"
    program.write_text("#!/bin/sh\necho 'Error: UPGRADE FAILED: hook failed: job x' >&2\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "spire-system"},
        "involvedObject": {"name": "x-abc"},
        "reason": "FailedScheduling",
        "message": "0/3 nodes are available",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "type": "Warning",
    }
    chart = Chart(component="spire", namespace="spire-system", path=Path("charts"))
    said = "helm could not install spire (charts): UPGRADE FAILED: hook failed: job x"
    with recorded.serving([event]) as connection, pytest.raises(ClusterError) as caught:
        do(connection, chart, helm_bin=str(program))
    assert f"{said}; FailedScheduling: 0/3 nodes are available" == str(caught.value)
    with recorded.serving([]) as connection, pytest.raises(ClusterError) as caught:
        do(connection, chart, helm_bin=str(program))
    assert said == str(caught.value)


def test_a_part_that_does_not_get_ready_is_named_with_what_hinders_it(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "WITHIN", 0.0)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "cilium-x", "namespace": "kube-system", "labels": {"k8s-app": "cilium"}},
        "spec": {"containers": []},
        "status": {
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no memory"}]
        },
    }
    there = recorded.objects("cilium")
    monkeypatch.setattr(recorded, "_READY", {})  # these say themselves how ready they are
    goal = Goal(what="Cilium", wants=(Want(kind="daemonset", namespace="kube-system", name="cilium"),), cluster=False)
    for one in there:
        if one["kind"] == "DaemonSet":
            one["status"] = {
                "desiredNumberScheduled": 3, "numberReady": 2, "updatedNumberScheduled": 3, "currentNumberScheduled": 3,
                "numberMisscheduled": 0, "observedGeneration": 1,
            }  # fmt: skip
            one["metadata"]["generation"] = 1
            one["spec"]["updateStrategy"] = {}
            one["spec"]["template"]["metadata"] = {}
    with recorded.serving([*there, pod]) as connection, pytest.raises(ClusterError) as caught:
        do(connection, goal)
    assert str(caught.value).endswith(
        "daemonset kube-system/cilium: 2 of 3 ready; pod kube-system/cilium-x: Unschedulable (no memory)"
    )
