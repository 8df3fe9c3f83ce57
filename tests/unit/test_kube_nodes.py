# SPDX-License-Identifier: Apache-2.0
"""Which nodes are used, which are left out, and what a pod's status says."""

from typing import Any

import pytest

from ztconform.errors import ClusterError, UsageError
from ztconform.kube import pods
from ztconform.kube.nodes import choose, recovering
from ztconform.settings import PodOptions


def node(name: str, *, ready: bool = True, taints: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": more.pop("labels", {})},
        "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints], "podCIDRs": ["10.244.0.0/24"], **more},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "172.18.0.2"}],
        },
    }


CONTROL = node("control", taints=("node-role.kubernetes.io/control-plane",))
TOLERANT = PodOptions(tolerations=({"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},))


@pytest.mark.parametrize(
    ("nodes", "wanted", "options", "used", "missing"),
    [
        ([CONTROL, node("b"), node("a")], (), PodOptions(), ("a", "b"), {}),
        ([CONTROL, node("a")], (), TOLERANT, ("a", "control"), {}),
        ([node("a"), node("b", unschedulable=True)], (), PodOptions(), ("a",), {}),
        ([node("a"), node("b")], ("a",), PodOptions(), ("a",), {"b": "not named by --ztc-nodes"}),
        ([node("a"), node("b", ready=False)], (), PodOptions(), ("a",), {"b": "not Ready"}),
        (
            [node("a", labels={"zone": "1"}), node("b")],
            (),
            PodOptions(node_selector={"zone": "1"}),
            ("a",),
            {"b": "not selected by --ztc-node-selector"},
        ),
        (
            [node("a"), node("b", taints=("node.cilium.io/agent-not-ready",))],
            (),
            PodOptions(),
            ("a",),
            {"b": "not fit for pods now (node.cilium.io/agent-not-ready)"},
        ),
        ([node("a"), node("b", ready=False, taints=("dedicated",))], (), PodOptions(), ("a",), {}),
    ],
)
def test_every_schedulable_node_is_used_or_named(
    nodes: list[Any], wanted: tuple[str, ...], options: PodOptions, used: tuple[str, ...], missing: dict[str, str]
) -> None:
    chosen = choose(nodes, wanted, options)
    assert used == chosen.used
    assert missing == chosen.missing()
    assert {"172.18.0.2"} == set(chosen.addresses.values())


@pytest.mark.parametrize(
    ("nodes", "wanted", "told"),
    [
        ([CONTROL, node("a")], (), ""),
        ([node("a"), node("b", ready=False)], (), "node b is not Ready"),
        ([node("a"), node("b", ready=False)], ("a",), ""),
        ([node("a", ready=False, taints=("node.kubernetes.io/not-ready",))], (), "node a is not Ready"),
        (
            [node("a", taints=("node.kubernetes.io/disk-pressure",))],
            (),
            "node a is not fit for pods now (node.kubernetes.io/disk-",
        ),
        ([node("a", unschedulable=True, taints=("node.kubernetes.io/unschedulable",))], (), ""),
        ([node("a", ready=False, taints=("dedicated",))], (), ""),
    ],
)
def test_a_node_that_may_recover_is_told_from_one_that_stays_out(nodes: list[Any], wanted: tuple[str, ...], told: str) -> None:
    assert recovering(nodes, wanted, PodOptions()).startswith(told)
    assert bool(told) == bool(recovering(nodes, wanted, PodOptions()))


@pytest.mark.parametrize(
    ("nodes", "wanted", "error", "clause"),
    [
        ([], (), ClusterError, "it has none at all"),
        ([CONTROL], (), ClusterError, "control: tainted node-role.kubernetes.io/control-plane:NoSchedule"),
        ([node("a")], ("b",), UsageError, "--ztc-nodes: the cluster has no node b; it has a"),
    ],
)
def test_without_a_node_there_is_one_line(nodes: list[Any], wanted: tuple[str, ...], error: type[Exception], clause: str) -> None:
    with pytest.raises(error, match=clause):
        choose(nodes, wanted, PodOptions())


def pod(waiting: dict[str, str] | None = None, phase: str = "Pending", **conditions: str) -> dict[str, Any]:
    state = {"waiting": waiting} if waiting else {"running": {}}
    return {
        "metadata": {"namespace": "shop", "name": "payment-0"},
        "status": {
            "phase": phase,
            "conditions": [{"type": kind, "status": status, "message": "no room"} for kind, status in conditions.items()],
            "containerStatuses": [{"image": "agent:1", "state": state}],
            "podIPs": [{"ip": "fd00::1"}, {"ip": "10.0.0.1"}],
        },
    }


def test_what_a_pod_waits_for_is_said() -> None:
    assert "" == pods.lacking(pod(phase="Running", ContainersReady="True"))
    assert "pod shop/payment-0 is not ready" == pods.lacking(pod(phase="Running", ContainersReady="False"))
    assert "pod shop/payment-0 is not scheduled: no room" == pods.lacking(pod(PodScheduled="False"))
    assert ("10.0.0.1", "fd00::1") == pods.addresses(pod())


@pytest.mark.parametrize("reason", ["RunContainerError", "CrashLoopBackOff"])
def test_a_container_that_could_not_be_started_is_waited_for_until_that_is_hopeless(reason: str) -> None:
    found = pod({"reason": reason, "message": "runc"})
    (container,) = found["status"]["containerStatuses"]
    container["restartCount"] = 2
    assert "is not ready" in pods.lacking(found)
    container |= {"restartCount": 3, "lastState": {"terminated": {"exitCode": 128, "reason": "StartError"}}}
    with pytest.raises(ClusterError, match=rf"cannot be started: {reason}: runc exit code 128 StartError"):
        pods.lacking(found)


@pytest.mark.parametrize(
    ("status", "clause"),
    [
        (
            pod({"reason": "ErrImagePull", "message": "not found"}),
            "image agent:1 cannot be pulled .ErrImagePull: not found.*--ztc-agent-image",
        ),
        (
            pod({"reason": "CreateContainerConfigError", "message": "no map"}),
            "cannot be started: CreateContainerConfigError: no map",
        ),
        (pod(phase="Failed"), "has ended before it was ready"),
    ],
)
def test_a_pod_that_will_never_be_ready_ends_the_waiting(status: dict[str, Any], clause: str) -> None:
    with pytest.raises(ClusterError, match=clause):
        pods.lacking(status)
