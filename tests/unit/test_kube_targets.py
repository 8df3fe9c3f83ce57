# SPDX-License-Identifier: Apache-2.0
"""To which address and port a probe by node port is sent, and for which there is none."""

from collections.abc import Mapping
from typing import Any

import pytest

from ztconform.cluster import Resolver
from ztconform.errors import ClusterError, UsageError
from ztconform.kube.names import Names
from ztconform.kube.nodes import Nodes
from ztconform.kube.pods import KubePod
from ztconform.kube.targets import Targets
from ztconform.model import OUTSIDE, Attempt, Port, Probe, Ref, Workload

SERVER, POD, VIA = Ref("shop", "payment"), Ref("shop", "payment-0"), Ref("shop", "payment-local")
WORLD = Ref(OUTSIDE, "world")
NODES = Nodes(used=("b", "c"), left_out={}, addresses={"a": "172.18.0.2", "b": "172.18.0.3", "c": "172.18.0.4"}, pod_networks={})
NODE_PORTS = [
    {"name": "metrics", "port": 9090, "targetPort": 9090, "nodePort": 30001},
    {"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30002},
]

INWARD = {"type": "ClusterIP", "ports": [{"port": 80, "targetPort": 8080}]}


def targets(*, node: int | None = 0, nodes: Nodes = NODES, spec: Mapping[str, Any] | None = None, there: bool = True) -> Targets:
    workload = Workload(ref=SERVER, ports=(Port(number=8080, name="http"),))
    pod = KubePod(ref=POD, real=POD, workload=workload, node=node, addresses=("10.0.0.1",), serves=True)
    service = {"spec": spec or {"type": "NodePort", "clusterIP": "10.96.0.9", "ports": NODE_PORTS}}
    resolver = Resolver(address="10.96.0.10", namespace="kube-system", labels={}, port=53)
    return Targets(Names(), resolver, "cluster.local", lambda ref: pod if there else None, lambda ref: service, nodes)


def sent(made: Targets, **fields: Any) -> tuple[str, int]:
    probe = Probe(**{"source": WORLD, "target": SERVER, "port": 8080, "address": "node", "via": VIA, **fields})
    spec = made.spec(Attempt(id="row", row="row", probe=probe, targets=(POD,), timeout=1.0))
    return spec["address"], spec["port"]


@pytest.mark.parametrize(
    ("node", "address", "entry"),
    [
        (0, "node", "172.18.0.3"),
        (1, "node", "172.18.0.4"),
        (0, "other-node", "172.18.0.4"),
        (1, "other-node", "172.18.0.3"),
    ],
)
def test_a_node_port_is_entered_by_the_pods_node_or_by_another(node: int, address: str, entry: str) -> None:
    assert (entry, 30002) == sent(targets(node=node), address=address)


def test_a_node_that_holds_no_pods_of_ours_is_another_too() -> None:
    nodes = Nodes(used=("b",), left_out={}, addresses={"a": "172.18.0.2", "b": "172.18.0.3"}, pod_networks={})
    assert ("172.18.0.2", 30002) == sent(targets(nodes=nodes), address="other-node")


@pytest.mark.parametrize(
    ("made", "fields", "why"),
    [
        ({"spec": INWARD}, {}, "has no node port: its type is ClusterIP"),
        ({}, {"port": 8081}, "has no port that leads to shop/payment:8081"),
        ({}, {"target": WORLD}, "a host outside has no node port"),
        ({}, {"family": 6}, "node b has no IPv6 address"),
        (
            {"nodes": Nodes(used=("b",), left_out={}, addresses={"b": "172.18.0.3"}, pod_networks={})},
            {"address": "other-node"},
            "there is no other to enter by",
        ),
    ],
)  # fmt: skip
def test_where_there_is_no_node_port_the_case_is_wrong(made: dict[str, Any], fields: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        sent(targets(**made), **fields)


def test_a_pod_that_has_gone_has_no_node() -> None:
    with pytest.raises(ClusterError, match="is not there any more"):
        sent(targets(there=False))
