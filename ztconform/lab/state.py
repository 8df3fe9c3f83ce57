# SPDX-License-Identifier: Apache-2.0
"""What the lab should be running: pods, labels, Services and policies, and how a step changes them; pure.

Turning one state into the next in the kernel is for `cluster`, and into rules for the compilers.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from itertools import count
from typing import get_args

from ztconform.agent.wire import HEALTH_PORT
from ztconform.errors import Rejected, UsageError
from ztconform.lab.inventory import Inventory, LabPod
from ztconform.lab.mesh.authorizationpolicy import AuthorizationPolicy, parse_authorization_policy
from ztconform.lab.mesh.peerauthentication import PeerAuthentication, parse_peer_authentication
from ztconform.lab.mesh.view import MeshConfig, Normalization
from ztconform.lab.networkpolicy import NetworkPolicy, parse_policy
from ztconform.lab.services import Service, own_headless, own_service, parse_service
from ztconform.model import OUTSIDE, Lifecycle, Manifest, Port, Ref, Step, Topology, Workload, of_manifest

NAMESPACE_LABEL = "kubernetes.io/metadata.name"  # set by the API server on every namespace
NODES = 2
# Every lab has them, for its DNS and mesh-wide policies; what a topology adds to them goes with the topology.
SHARED_NAMESPACES = frozenset({"kube-system", "istio-system"})
_PODS_PER_NODE = 250
SERVED = (("TCP", "http"), ("TCP", "http2"), ("TCP", "grpc"), ("TCP", "tcp"), ("UDP", "udp"))
Policy = NetworkPolicy | PeerAuthentication | AuthorizationPolicy
Key = tuple[str, Ref]  # kind and name
# What the lab enforces, by kind; the parsers check the group and version.
_PARSERS: Mapping[str, Callable[[object], Policy]] = {
    "NetworkPolicy": parse_policy,
    "PeerAuthentication": parse_peer_authentication,
    "AuthorizationPolicy": parse_authorization_policy,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Hold a policy as it was given and as it is understood, and whose it is."""

    manifest: Manifest
    policy: Policy
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Hold everything that is declared; each change returns another state."""

    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)  # namespace, or workload elsewhere -> whose it is
    workloads: Mapping[Ref, Workload] = field(default_factory=dict)
    pods: Mapping[Ref, LabPod] = field(default_factory=dict)
    services: Mapping[Ref, Service] = field(default_factory=dict)
    policies: Mapping[Key, Applied] = field(default_factory=dict)  # in the order of their creation
    mesh: MeshConfig = field(default_factory=MeshConfig)
    ended: Mapping[Ref, tuple[LabPod, ...]] = field(default_factory=dict)  # workload -> its pods when it ended
    made: int = 0  # pods ever made: names devices, and keeps addresses from being handed out again at once

    @property
    def inventory(self) -> Inventory:
        """Return what the compilers read."""
        return Inventory(pods=tuple(self.pods.values()), namespaces=self.namespaces)

    def deploy(self, topology: Topology, owner: str) -> "State":
        """Return the state with a topology added; raises UsageError for a namespace or outsider that exists already."""
        taken = sorted((set(topology.namespaces) & set(self.namespaces)) - SHARED_NAMESPACES)
        if taken:
            raise UsageError(f"namespace {taken[0]} exists already and is not ours: nothing was created")
        namespaces = {n: {**labels, NAMESPACE_LABEL: n} for n, labels in topology.namespaces.items()}
        created = set(namespaces) - set(self.namespaces)
        services = {s.ref: s for s in map(parse_service, topology.services)}
        declared = [*services, *(w.ref for w in (*topology.workloads, *topology.outsiders))]
        guests = [ref for ref in declared if ref.namespace not in created]
        state = replace(
            self,
            namespaces={**self.namespaces, **namespaces},
            owners={**self.owners, **dict.fromkeys((*created, *map(str, guests)), owner)},
            services={**self.services, **services},
            mesh=_mesh_config(topology.mesh) if topology.mesh else self.mesh,
        )
        for workload in (*topology.workloads, *topology.outsiders):
            state = state.start(workload)
        return state

    def start(self, workload: Workload, reuse: Iterable[LabPod] = ()) -> "State":
        """Return the state with a workload's pods added, at the addresses of `reuse` as far as those go."""
        namespace = workload.ref.namespace
        if namespace != OUTSIDE and namespace not in self.namespaces:
            raise UsageError(f"workload {workload.ref}: namespace {namespace} is not declared")
        if workload.ref in self.workloads:
            raise UsageError(f"workload {workload.ref} exists already")
        if workload.host_network:
            raise UsageError(f"workload {workload.ref}: the lab's nodes have no network of their own that a pod could be on")
        for port in workload.ports:
            _demand_servable(workload, port)
        own = {s.ref: s for s in (own_service(workload), own_headless(workload)) if s is not None and namespace != OUTSIDE}
        clash = sorted(str(ref) for ref in own if ref in self.services)
        if clash:
            raise UsageError(f"Service {clash[0]} would stand beside the workload's own of that name; rename one")
        state = replace(self, workloads={**self.workloads, workload.ref: workload}, services={**self.services, **own})
        return state._with_pods(workload, list(reuse))

    def _with_pods(self, workload: Workload, reuse: list[LabPod]) -> "State":
        first = len(self.workloads) % NODES if workload.node is None else workload.node
        if not 0 <= first < NODES:
            raise UsageError(f"workload {workload.ref}: the lab has nodes 0 to {NODES - 1}, and no node {first}")
        outside = workload.ref.namespace == OUTSIDE
        placed = [(first + i) % NODES if workload.node is None else first for i in range(workload.replicas)]
        # A pod that comes after one of the same workload has ended is another pod, with another name and log.
        again = f"-{self.made}" if workload.ref in self.ended else ""
        names = [workload.ref.name if outside else f"{workload.ref.name}-{i}{again}" for i in range(workload.replicas)]
        serves = [True] * len(names)
        # Beside a workload on both nodes already, a satellite would show nothing new.
        if workload.satellite and not outside and len(set(placed)) == 1:
            names.append(f"{workload.ref.name}-satellite{again}")
            placed.append((first + 1) % NODES)
            serves.append(False)
        pods, made = dict(self.pods), self.made
        for name, node, serving in zip(names, placed, serves, strict=True):
            ref = Ref(workload.ref.namespace, name)
            old = next((p for p in reuse if p.serves == serving), None)
            made += 1
            if old is not None:
                reuse.remove(old)
                at: tuple[int | None, str, str] = (old.node, old.v4, old.v6)
            elif outside:
                at = (None, *_outside_addresses(workload, pods.values()))
            else:
                at = (node, *_pod_addresses(node, made, pods.values()))
            pods[ref] = LabPod(
                ref=ref,
                workload=workload.ref,
                node=at[0],
                device=f"ztc{made}",
                v4=at[1],
                v6=at[2],
                labels=dict(workload.labels),
                ports=workload.ports,
                serves=serving,
                ready=serving,
                service_account=workload.service_account,
                meshed=workload.meshed and not outside,
            )
        return replace(self, pods=pods, made=made)

    def pods_of(self, workload: Ref) -> tuple[LabPod, ...]:
        """Return the workload's pods; raises UsageError if it has none."""
        found = tuple(p for p in self.pods.values() if p.workload == workload)
        if not found:
            raise UsageError(f"workload {workload} is not there")
        return found

    def end(self, workload: Ref) -> "State":
        """Return the state without a workload: its pods are gone, and so are its own Services."""
        gone = {p.ref for p in self.pods_of(workload)}
        return replace(
            self,
            pods={r: p for r, p in self.pods.items() if r not in gone},
            workloads={r: w for r, w in self.workloads.items() if r != workload},
            services={r: s for r, s in self.services.items() if s.selected != workload},
            ended={**self.ended, workload: self.pods_of(workload)},
        )

    def remove(self, owner: str) -> "State":
        """Return the state without anything of this owner."""
        mine = {n for n, o in self.owners.items() if o == owner}

        def others(ref: Ref) -> bool:
            return ref.namespace not in mine and str(ref) not in mine

        shared = {n: {NAMESPACE_LABEL: n} for n in self.namespaces if n in SHARED_NAMESPACES}
        return replace(
            self,
            namespaces={**{n: x for n, x in self.namespaces.items() if n not in mine}, **shared},
            owners={n: x for n, x in self.owners.items() if n not in mine},
            workloads={r: x for r, x in self.workloads.items() if others(r)},
            pods={r: x for r, x in self.pods.items() if others(x.workload)},
            services={r: x for r, x in self.services.items() if others(r) and not _of_workload(x, mine)},
            policies={k: x for k, x in self.policies.items() if others(k[1]) and x.owner != owner},
            mesh=MeshConfig(),
            ended={r: x for r, x in self.ended.items() if others(r)},
        )

    def perform(self, step: Step, owner: str) -> "State":
        """Return the state after a step; raises Rejected or UsageError for what cannot be done."""
        state = self
        for manifest in step.delete:
            state = state._deleted(manifest)
        for manifest in step.apply:
            state = state._applied(manifest, owner)
        for ref, change in step.relabel:
            state = state._relabelled(ref, change)
        for event in step.lifecycle:
            state = state._happened(event)
        return state

    def _applied(self, manifest: Manifest, owner: str) -> "State":
        if manifest.get("kind") == "Service":
            service = parse_service(manifest)
            self._demand_namespace(manifest, service.ref.namespace)
            return replace(self, services={**self.services, service.ref: service})
        kind = str(manifest.get("kind"))
        if kind not in _PARSERS:
            raise Rejected(of_manifest(manifest), f"the lab enforces {', '.join(_PARSERS)} and Service, and no other kind")
        policy = _PARSERS[kind](manifest)
        self._demand_namespace(manifest, policy.ref.namespace)
        applied = Applied(manifest=manifest, policy=policy, owner=owner)
        return replace(self, policies={**self.policies, (kind, policy.ref): applied})

    def _demand_namespace(self, manifest: Manifest, namespace: str) -> None:
        if namespace not in self.namespaces:
            raise Rejected(of_manifest(manifest), f"namespace {namespace} does not exist")

    def _deleted(self, manifest: Manifest) -> "State":
        metadata = manifest.get("metadata") or {}
        ref = Ref(str(metadata.get("namespace") or "default"), str(metadata.get("name")))
        if manifest.get("kind") == "Service":
            return replace(self, services={r: s for r, s in self.services.items() if r != ref})
        gone = (str(manifest.get("kind")), ref)
        return replace(self, policies={k: p for k, p in self.policies.items() if k != gone})

    def _relabelled(self, ref: Ref, change: Mapping[str, str | None]) -> "State":
        if not ref.name:
            if ref.namespace not in self.namespaces:
                raise UsageError(f"namespace {ref.namespace} is not there to relabel")
            labels = _changed(self.namespaces[ref.namespace], change)
            return replace(self, namespaces={**self.namespaces, ref.namespace: labels})
        pods = {p.ref: replace(p, labels=_changed(p.labels, change)) for p in self.pods_of(ref)}
        return replace(self, pods={**self.pods, **pods})

    def _happened(self, event: Lifecycle) -> "State":
        match event.action:
            case "start":
                if event.spec is None:
                    raise UsageError(f"workload {event.workload}: start needs its description")
                if event.reuse is not None and event.reuse not in self.ended:
                    raise UsageError(f"workload {event.workload}: {event.reuse} has not ended, so its address is not free")
                reuse = self.ended[event.reuse] if event.reuse is not None else ()
                if {p.v4 for p in reuse} & {p.v4 for p in self.pods.values()}:
                    raise UsageError(f"workload {event.workload}: the address of {event.reuse} is another's by now")
                return self.start(event.spec, reuse)
            case "restart":
                ended = self.end(event.workload)
                return ended.start(self.workloads[event.workload])
            case "terminate":
                pods = {p.ref: replace(p, ready=False) for p in self.pods_of(event.workload)}
                return replace(self, pods={**self.pods, **pods})
            case "complete" | "remove":
                return self.end(event.workload)


def _of_workload(service: Service, names: Container[str]) -> bool:
    return isinstance(service.selected, Ref) and str(service.selected) in names


def _mesh_config(mesh: Mapping[str, str]) -> MeshConfig:
    """Return the mesh's settings; raises UsageError for one that there is not."""
    fields = {"pathNormalization": "path_normalization", "rootNamespace": "root_namespace", "trustDomain": "trust_domain"}
    unknown = sorted(set(mesh) - set(fields))
    if unknown:
        raise UsageError(f"mesh.{unknown[0]}: the lab's mesh has {', '.join(fields)}")
    if mesh.get("pathNormalization", "BASE") not in get_args(Normalization):
        raise UsageError(f"mesh.pathNormalization: must be one of {', '.join(get_args(Normalization))}")
    return MeshConfig(**{fields[name]: value for name, value in mesh.items()})  # type: ignore[arg-type]  # checked right above


def _demand_servable(workload: Workload, port: Port) -> None:
    """Raise UsageError for a port on which the agent could not listen."""
    where = f"workload {workload.ref} port {port.number}"
    if port.number == HEALTH_PORT:
        raise UsageError(f"{where}: the agent answers health probes there; take another")
    if port.listening and port.protocol != "SCTP" and (port.protocol, port.app) not in SERVED:
        served = ", ".join(f"{app} over {protocol}" for protocol, app in SERVED)
        raise UsageError(f"{where}: the lab does not serve {port.app} over {port.protocol}, but {served}")


def _changed(labels: Mapping[str, str], change: Mapping[str, str | None]) -> dict[str, str]:
    merged: dict[str, str | None] = {**labels, **change}
    return {k: v for k, v in merged.items() if v is not None}


def _pod_addresses(node: int, made: int, pods: Iterable[LabPod]) -> tuple[str, str]:
    used = {p.v4 for p in pods}
    for step in range(_PODS_PER_NODE):
        host = (made + step) % _PODS_PER_NODE + 2
        if (v4 := f"10.244.{node}.{host}") not in used:
            return v4, str(IPv6Address(f"fd00:10:244:{node}::{host:x}"))
    raise UsageError(f"node {node} has no address left: the lab takes {_PODS_PER_NODE} pods a node")


def _outside_addresses(workload: Workload, pods: Iterable[LabPod]) -> tuple[str, str]:
    """Give an outsider an address of the documentation ranges, or the one that it stands in for.

    An IPv4 address has the same IPv6 address beside it whenever it is given: the outside host keeps both for good.
    """
    if workload.fixed_address:
        number = int(IPv4Address(workload.fixed_address))
        return workload.fixed_address, str(IPv6Address(f"2001:db8::{number >> 16:x}:{number & 0xFFFF:x}"))
    used = {p.v4 for p in pods}
    host = next(h for h in count(10) if f"192.0.2.{h}" not in used)
    return f"192.0.2.{host}", str(IPv6Address(f"2001:db8::{host:x}"))
