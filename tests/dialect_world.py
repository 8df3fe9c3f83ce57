# SPDX-License-Identifier: Apache-2.0
"""The sample shop as it stands before any cluster, and our intents' manifests filled in for it: what tables are compared on."""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from policy_oracle import Connection
from truth_tables import inventory_of

from ztconform import placeholders, policies
from ztconform.cluster import Resolver
from ztconform.lab.inventory import Inventory, LabPod
from ztconform.model import Pod, Port, Ref, Topology, Workload
from ztconform.shop import shop

Relabelling = Mapping[Ref, Mapping[str, str | None]]  # a namespace is a Ref with an empty name

RESOLVER = Resolver(address="10.96.0.10", namespace="kube-system", labels={"k8s-app": "kube-dns"}, port=53)
# What N16 changes, in this order: a caller loses its label, another gains it, a namespace becomes a partner.
RELABELLINGS: tuple[Relabelling, ...] = (
    {},
    {Ref("shop", "legacy"): {"role": "caller"}, Ref("shop", "checkout"): {"role": None}},
    {Ref("shop-twin", ""): {"partner": "yes"}},
)


def world(topology: Topology | None = None) -> Inventory:
    """Return the shop, or what a scenario needs of it, with the resolver of its cluster beside it."""
    topology = topology or shop().topology
    dns = tuple(Port(number=53, name=f"dns-{protocol}", protocol=protocol) for protocol in ("UDP", "TCP"))
    resolver = Workload(ref=Ref("kube-system", "kube-dns"), labels=RESOLVER.labels, ports=dns)
    namespaces = {**topology.namespaces, "kube-system": {}}
    found = inventory_of(replace(topology, namespaces=namespaces, workloads=(*topology.workloads, resolver)))
    # A client on its node's own network is known by an address alone, as one outside is.
    hosts = {workload.ref for workload in topology.workloads if workload.host_network}
    return replace(found, pods=tuple(replace(pod, node=None) if pod.workload in hosts else pod for pod in found.pods))


def relabelled(inventory: Inventory, changes: Relabelling) -> Inventory:
    """Return the inventory with labels changed as a step does it; None takes one away."""

    def changed(labels: Mapping[str, str], ref: Ref) -> dict[str, str]:
        merged = {**labels, **changes.get(ref, {})}
        return {key: value for key, value in merged.items() if value is not None}

    pods = tuple(replace(pod, labels=changed(pod.labels, pod.workload)) for pod in inventory.pods)
    return Inventory(
        pods=pods, namespaces={name: changed(labels, Ref(name, "")) for name, labels in inventory.namespaces.items()}
    )


def rendered(manifests: Sequence[Any], inventory: Inventory) -> list[Any]:
    """Return manifests with their placeholders filled in."""
    pods = [Pod(ref=p.ref, workload=p.workload, node=p.node, addresses=(p.v4, p.v6)) for p in inventory.pods]
    return [placeholders.render(manifest, pods, RESOLVER) for manifest in manifests]


def load(intent: str, dialect: str, inventory: Inventory) -> list[Any]:
    """Return an intent in one dialect, for anybody to change."""
    found = policies.load(intent, (dialect,))
    assert not isinstance(found, policies.Gap), found
    return copy.deepcopy(rendered(found, inventory))


def said_in(*dialects: str) -> list[str]:
    """Return the intents that have a manifest in all of these dialects."""
    return [i for i in policies.known() if not any(isinstance(policies.load(i, (d,)), policies.Gap) for d in dialects)]


def connections(inventory: Inventory) -> Iterator[Connection]:
    """Yield every connection between two of the shop, its twin, the resolver and hosts outside, on every port of the target."""
    for source, target in itertools.permutations(inventory.pods, 2):
        if source.node is None and target.node is None:
            continue  # no policy of the cluster sees it
        for port in target.ports:
            yield Connection(source=source, target=target, protocol=port.protocol, port=port.number, family=4)


def name(connection: Connection) -> str:
    """Return a connection in words."""
    source, target = connection.source.ref, connection.target.ref
    return f"{source} -> {target}:{connection.port}/{connection.protocol}"


def pod(inventory: Inventory, ref: Ref) -> LabPod:
    """Return the pod or outsider of a workload."""
    (found,) = [each for each in inventory.pods if each.workload == ref]
    return found
