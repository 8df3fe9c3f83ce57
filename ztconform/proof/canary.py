# SPDX-License-Identifier: Apache-2.0
"""The enforcement canary: one allow and one deny, both directions, on every node, before anything else is believed."""

from ztconform.cluster import Cluster
from ztconform.model import Case, Port, Probe, Ref, Row, RowResult, Step, Topology, Workload
from ztconform.proof.protocol import prove_case

NAMESPACE = "ztc-canary"


def canary(nodes: int) -> Case:
    """Return the L3/L4 canary: on each node a server that admits one client and calls one server."""
    servers = [_workload(f"server-{n}", n, (Port(number=8080, name="http"),)) for n in range(nodes)]
    clients = [_workload(name, 0, ()) for name in ("permitted", "refused")]
    rows = []
    for server in servers:
        rows.append(Row(id=f"permitted -> {server.ref.name}", probe=_probe("permitted", server), want="allowed"))
        rows.append(_denied(f"refused -> {server.ref.name} (ingress)", "refused", server))
    mute = _workload("mute", 0, ())
    for server in servers:
        rows.append(_denied(f"mute -> {server.ref.name} (egress)", "mute", server))
    topology = Topology(namespaces={NAMESPACE: {}}, workloads=(*servers, *clients, mute))
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "canary-ingress", "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"role": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchExpressions": [_one_of("app", "permitted", "mute")]}}]}],
        },
    }
    egress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "canary-egress", "namespace": NAMESPACE},
        "spec": {"podSelector": {"matchLabels": {"app": "mute"}}, "policyTypes": ["Egress"]},
    }
    return Case(id="canary", topology=topology, steps=(Step(apply=(ingress, egress), rows=tuple(rows)),))


def prove_canary(cluster: Cluster) -> tuple[RowResult, ...]:
    """Prove that the cluster enforces NetworkPolicy at all; any row that is not PROVED means that nothing else counts."""
    return prove_case(canary(len(cluster.facts().nodes)), cluster)


def _one_of(key: str, *values: str) -> dict[str, object]:
    return {"key": key, "operator": "In", "values": list(values)}


def _workload(name: str, node: int, ports: tuple[Port, ...]) -> Workload:
    role = "server" if ports else "client"
    return Workload(ref=Ref(NAMESPACE, name), ports=ports, labels={"app": name, "role": role}, node=node)


def _probe(source: str, server: Workload) -> Probe:
    return Probe(source=Ref(NAMESPACE, source), target=server.ref, port=8080, address="pod")


def _denied(row: str, source: str, server: Workload) -> Row:
    return Row(id=row, probe=_probe(source, server), want="denied", by=frozenset({"l34"}))
