# SPDX-License-Identifier: Apache-2.0
"""A host outside is led to a pod by the pod's own node, wherever the CNI takes its address from."""

from ztconform.kube.nodes import Nodes
from ztconform.kube.outside import astray
from ztconform.kube.pods import KubePod
from ztconform.model import Ref, Workload

NODES = Nodes(
    used=("one", "two"),
    left_out={},
    addresses={"one": "172.18.0.2", "two": "172.18.0.3"},
    pod_networks={"one": ("10.244.1.0/24", "fd00:1::/64"), "two": ()},
)


def pod(*addresses: str, node: int | None = 0, host: bool = False) -> KubePod:
    ref = Ref("shop", "payment-0")
    workload = Workload(ref=ref, host_network=host)
    return KubePod(ref=ref, real=ref, workload=workload, node=node, addresses=addresses, serves=True)


def test_a_pod_in_its_nodes_range_is_reached_by_the_range() -> None:
    assert {} == astray([pod("10.244.1.7", "fd00:1::7")], NODES)


def test_a_pod_beyond_it_has_a_route_of_its_own_by_its_node() -> None:
    pods = [pod("10.244.143.205"), pod("10.244.1.8", node=1)]
    assert {"10.244.143.205": "172.18.0.2", "10.244.1.8": "172.18.0.3"} == astray(pods, NODES)


def test_who_is_outside_or_on_a_nodes_own_network_needs_none() -> None:
    assert {} == astray([pod("172.18.0.9", node=None), pod("172.18.0.2", host=True)], NODES)
