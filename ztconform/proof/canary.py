# SPDX-License-Identifier: Apache-2.0
"""The enforcement canary: one allow and one deny, both directions, on every node, before anything else is believed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal, assert_never

from ztconform.cluster import Cluster
from ztconform.evidence import RowResult
from ztconform.model import Case, Layer, Manifest, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof.protocol import prove_case

NAMESPACE, MESH_NAMESPACE = "ztc-canary", "ztc-canary-mesh"
# Seconds after which a cluster that has denied nothing yet is believed to deny nothing: whoever waits for the canary waits for
# everything. One that has begun to deny has its stack's own time: on a busy machine Cilium took up to 12 s (seen).
PATIENCE = 8.0
CanaryLayer = Literal["l34", "mesh"]


def canary(nodes: Sequence[str]) -> Case:
    """Return the L3/L4 canary: on each node a server that admits one client only, and a client that may call nobody."""
    servers = [_workload(f"server-{n}", n, (Port(number=8080, name="http"),)) for n in range(len(nodes))]
    clients = [_workload(name, 0, ()) for name in ("permitted", "refused")]
    rows = []
    for server, node in zip(servers, nodes, strict=True):
        rows.append(Row(id=f"permitted -> server on {node}", probe=_probe("permitted", server), want="allowed"))
        rows.append(_denied(f"refused -> server on {node} (ingress)", "refused", server))
    # The first has a satellite on the second node.
    mutes = [_workload("mute", 0, ()), *(_workload(f"mute-{n}", n, ()) for n in range(2, len(nodes)))]
    for mute in mutes:
        for server, node in zip(servers[:2], nodes[:2], strict=True):
            rows.append(_denied(f"{mute.ref.name} -> server on {node} (egress)", mute.ref.name, server))
    topology = Topology(namespaces={NAMESPACE: {}}, workloads=(*servers, *clients, *mutes), private=True)
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "canary-ingress", "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"role": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchExpressions": [_one_of("role", "permitted", "mute")]}}]}],
        },
    }
    egress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "canary-egress", "namespace": NAMESPACE},
        "spec": {"podSelector": {"matchLabels": {"role": "mute"}}, "policyTypes": ["Egress"]},
    }
    return Case(id="canary", topology=topology, steps=(Step(apply=(ingress, egress), rows=tuple(rows)),))


def mesh_canary(dialects: Collection[str]) -> Case:
    """Return the canary of the mesh: a server that refuses plaintext, and of two meshed clients the one that it does not know."""
    apply, plaintext = _of_linkerd() if "linkerd" in dialects else _of_istio()
    server = _meshed("server", (Port(number=8080, name="http", service=80),))
    plain = replace(_meshed("plain"), meshed=False)
    clients = (_meshed("permitted"), _meshed("stranger"), plain)
    topology = Topology(namespaces={MESH_NAMESPACE: {}}, workloads=(server, *clients), private=True)

    def probe(client: str) -> Probe:
        return Probe(source=Ref(MESH_NAMESPACE, client), target=server.ref, port=8080)

    rows = (
        Row(id="permitted -> server", probe=probe("permitted"), want="allowed"),
        Row(id="stranger -> server", probe=probe("stranger"), want="denied", by=frozenset({"l7"})),
        Row(id="plain -> server", probe=probe("plain"), want="denied", by=frozenset({plaintext})),
    )
    return Case(id="canary-mesh", topology=topology, steps=(Step(apply=apply, rows=rows),))


def _of_istio() -> tuple[tuple[Manifest, ...], Layer]:
    """Return its policies, and the layer that is to refuse plaintext."""
    source = {"principals": [f"cluster.local/ns/{MESH_NAMESPACE}/sa/permitted"]}
    rules = {"selector": {"matchLabels": {"app": "server"}}, "rules": [{"from": [{"source": source}]}]}
    strict = _policy("security.istio.io/v1", "PeerAuthentication", "canary-strict", {"mtls": {"mode": "STRICT"}})
    return (strict, _policy("security.istio.io/v1", "AuthorizationPolicy", "canary-permitted", rules)), "mtls"


def _of_linkerd() -> tuple[tuple[Manifest, ...], Layer]:
    """Return the same for Linkerd, to which plaintext is a caller without an identity as any other."""
    group = "policy.linkerd.io"
    server = {"podSelector": {"matchLabels": {"app": "server"}}, "port": 8080, "proxyProtocol": "HTTP/1", "accessPolicy": "deny"}
    known = {"identityRefs": [{"kind": "ServiceAccount", "name": "permitted"}]}
    allowing = {
        "targetRef": {"group": group, "kind": "Server", "name": "canary-server"},
        "requiredAuthenticationRefs": [{"group": group, "kind": "MeshTLSAuthentication", "name": "canary-permitted"}],
    }
    return (
        _policy(f"{group}/v1beta3", "Server", "canary-server", server),
        _policy(f"{group}/v1alpha1", "MeshTLSAuthentication", "canary-permitted", known),
        _policy(f"{group}/v1alpha1", "AuthorizationPolicy", "canary-permitted", allowing),
    ), "l7"


def prove_canary(cluster: Cluster, layer: CanaryLayer = "l34") -> tuple[RowResult, ...]:
    """Prove that a layer of the cluster enforces anything at all; any row that is not PROVED means that nothing else counts."""
    match layer:
        case "l34":
            return prove_case(canary(cluster.facts().nodes), cluster, give_up=PATIENCE)
        case "mesh":
            return prove_case(mesh_canary(cluster.facts().dialects), cluster)
        case _:
            assert_never(layer)


def complaint(results: Sequence[RowResult], layer: CanaryLayer) -> str:
    """Return in one sentence that a layer enforces nothing at all, where every denial that was tried was answered; else ""."""
    denied = [r for r in results if r.row.want == "denied"]
    if layer != "l34" or not denied or any(r.outcome != "VIOLATED" for r in denied):
        return ""
    return (
        f"this cluster's CNI enforces no NetworkPolicy: all {len(denied)} requests that a policy denies, in both directions "
        "and on every node, were answered; install a CNI that does, or switch its enforcement on"
    )


def untested(nodes: Mapping[str, str]) -> tuple[RowResult, ...]:
    """Return a red row for each node that holds workloads and was left out: what it enforces nobody knows."""
    rows = []
    for node, why in sorted(nodes.items()):
        probe = Probe(source=Ref(NAMESPACE, "permitted"), target=Ref(NAMESPACE, "server"), port=8080, address="pod")
        row = Row(id=f"node {node}", probe=probe, want="allowed")
        rows.append(
            RowResult(
                row=row,
                outcome="INCONCLUSIVE",
                why=f"node {node} was not tested: {why}",
                control="none",
                window=None,
                observations=(),
                cause=None,
            )
        )
    return tuple(rows)


def _meshed(name: str, ports: tuple[Port, ...] = ()) -> Workload:
    return Workload(ref=Ref(MESH_NAMESPACE, name), ports=ports, labels={"app": name}, service_account=name, meshed=True)


def _policy(version: str, kind: str, name: str, spec: Mapping[str, object]) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": MESH_NAMESPACE}, "spec": spec}


def _one_of(key: str, *values: str) -> dict[str, object]:
    return {"key": key, "operator": "In", "values": list(values)}


def _workload(name: str, node: int, ports: tuple[Port, ...]) -> Workload:
    role = "server" if ports else name.partition("-")[0]
    return Workload(ref=Ref(NAMESPACE, name), ports=ports, labels={"app": name, "role": role}, node=node)


def _probe(source: str, server: Workload) -> Probe:
    return Probe(source=Ref(NAMESPACE, source), target=server.ref, port=8080, address="pod")


def _denied(row: str, source: str, server: Workload) -> Row:
    return Row(id=row, probe=_probe(source, server), want="denied", by=frozenset({"l34"}))
