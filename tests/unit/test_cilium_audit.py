# SPDX-License-Identifier: Apache-2.0
"""Which endpoint of Cilium is a pod's, and which of a case's pods are audited while a step lasts."""

from collections.abc import Mapping
from typing import Any

import pytest

from ztconform.kube.auditing import Auditing
from ztconform.kube.nodes import Nodes
from ztconform.kube.pods import KubePod
from ztconform.kube.resources import Identity
from ztconform.model import Ref, Workload
from ztconform.stacks.ciliumaudit import endpoint

# As `cilium-dbg endpoint list --output json` of 1.19.6 says them: the node's own and the health check's have no pod.
LISTED: list[dict[str, Any]] = [
    {"id": 982, "status": {"external-identifiers": {"pod-name": "/"}}},
    {"id": 3044, "status": {"external-identifiers": {"container-name": "cilium-health", "pod-name": "/"}}},
    {"id": 17, "status": {"external-identifiers": {"pod-name": "shop-1/payment-0"}}},
    {"id": 18},
]
PAYMENT = Ref("shop", "payment")


@pytest.mark.parametrize(
    ("pod", "found"),
    [(Ref("shop-1", "payment-0"), "17"), (Ref("shop", "payment-0"), ""), (Ref("a", "b"), "")],
)
def test_an_endpoint_is_known_by_its_pods_whole_name(pod: Ref, found: str) -> None:
    assert found == endpoint(LISTED, pod)


def pod(name: str, uid: str, node: int = 0) -> KubePod:
    return KubePod(
        ref=Ref("shop", f"{name}-0"),
        real=Ref("shop-1", f"{name}-0"),
        workload=Workload(ref=Ref("shop", name)),
        node=node,
        addresses=(),
        serves=True,
        identity=Identity(path=f"/pods/{name}-0", uid=uid, what="pod"),
    )


def auditing(said: list[tuple[Mapping[Ref, str], bool]]) -> Auditing:
    nodes = Nodes(used=("one", "two"), addresses={}, left_out={}, pod_networks={})
    return Auditing(None, lambda _, pods, on: said.append((dict(pods), on)), nodes)  # type: ignore[arg-type]  # nobody is asked


def test_pods_are_audited_while_a_step_wants_it_and_a_new_one_in_anothers_place_too() -> None:
    said: list[tuple[Mapping[Ref, str], bool]] = []
    held, pods = auditing(said), [pod("payment", "1"), pod("checkout", "2", node=1)]
    here = {Ref("shop-1", "payment-0"): "one"}
    held.hold({PAYMENT}, pods)
    held.hold({PAYMENT}, pods)
    assert [(here, True)] == said
    assert held
    held.hold({PAYMENT}, [pod("payment", "3"), pods[1]])
    assert [(here, True), (here, True)] == said
    held.hold((), [pod("payment", "3"), pods[1]])
    assert [(here, True), (here, True), (here, False)] == said
    assert not held


def test_a_pod_that_has_gone_is_not_spoken_of() -> None:
    said: list[tuple[Mapping[Ref, str], bool]] = []
    held = auditing(said)
    held.hold({PAYMENT}, [pod("payment", "1")])
    held.hold((), [])
    assert 1 == len(said)
    assert not held
