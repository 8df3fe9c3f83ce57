# SPDX-License-Identifier: Apache-2.0
"""The lab's declared state as the mesh's compilers read it: meshed pods with what is in force on them, and every Service port.

What Envoy is told of it is made by `resources`.
"""

from collections.abc import Mapping, Sequence

from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.authorizationpolicy import AuthorizationPolicy
from ztconform.lab.mesh.modes import modes
from ztconform.lab.mesh.peerauthentication import PeerAuthentication
from ztconform.lab.mesh.rbac import authorization
from ztconform.lab.mesh.view import Endpoint, MeshedPod, MeshService
from ztconform.lab.servicenat import Vip
from ztconform.lab.services import Service, ServicePort, endpoints, target_number
from ztconform.lab.state import State
from ztconform.lab.zone import CLUSTER_DOMAIN
from ztconform.model import App, Ref


def principal(state: State, namespace: str, account: str) -> str:
    """Return the principal of an account, without spiffe://."""
    return f"{state.mesh.trust_domain}/ns/{namespace}/sa/{account}"


def meshed_pods(state: State, namespaces: Mapping[str, str]) -> tuple[MeshedPod, ...]:
    """Return every meshed pod; `namespaces` has the path of each one's network namespace by device."""
    policies = [a.policy for a in state.policies.values()]
    peers = [p for p in policies if isinstance(p, PeerAuthentication)]
    judges = [p for p in policies if isinstance(p, AuthorizationPolicy)]
    found = []
    for pod in state.pods.values():
        if not pod.meshed or pod.device not in namespaces:
            continue
        in_force = modes(pod, peers, state.mesh)
        served = _ports_in_services(state, pod)
        found.append(
            MeshedPod(
                pod=pod,
                principal=principal(state, pod.ref.namespace, pod.service_account),
                netns=namespaces[pod.device],
                # Istio makes a listener for each port that a Service leads to or a policy names; any other meets the default.
                modes={n: mode for n, mode in in_force.ports.items() if n in served or mode != in_force.default},
                default_mode=in_force.default,
                authorization=authorization(pod, judges, state.mesh),
            )
        )
    return tuple(found)


def _ports_in_services(state: State, pod: LabPod) -> frozenset[int]:
    numbers = set()
    for service in state.services.values():
        own_headless = service.headless and isinstance(service.selected, Ref)  # ours, over every port, and nobody's declaration
        if not own_headless and service.ref.namespace == pod.ref.namespace and _selects(service, pod):
            numbers |= {target_number(port, pod) for port in service.ports if port.protocol == "TCP"}
    return frozenset(n for n in numbers if n is not None)


def _selects(service: Service, pod: LabPod) -> bool:
    # A satellite is no endpoint, but its proxy knows the same ports as its workload's.
    return pod.workload == service.selected if isinstance(service.selected, Ref) else service.selected.matches(pod.labels)


def mesh_services(state: State, vips: Mapping[Ref, Vip]) -> tuple[MeshService, ...]:
    """Return every TCP port of every Service, as each client's sidecar knows it."""
    policies = [a.policy for a in state.policies.values()]
    peers = [p for p in policies if isinstance(p, PeerAuthentication)]
    found = []
    for service in state.services.values():
        pods = endpoints(service, state.inventory)
        vip = vips.get(service.ref)
        for port in service.ports:
            if port.protocol != "TCP":
                continue
            targets = [(pod, number) for pod in pods if (number := target_number(port, pod)) is not None]
            found.append(
                MeshService(
                    service=service.ref,
                    port=port.number,
                    app=_app(port, targets),
                    v4="" if vip is None else vip.v4,
                    v6="" if vip is None else vip.v6,
                    hosts=_hosts(service.ref),
                    endpoints=tuple(_endpoint(state, pod, number, peers) for pod, number in targets),
                    headless=service.headless,
                    declared=not isinstance(service.selected, Ref),
                )
            )
    return tuple(found)


def _app(port: ServicePort, targets: Sequence[tuple[LabPod, int]]) -> App:
    """Return what is spoken on a Service's port: what its pods declare for theirs."""
    for pod, number in targets:
        for declared in pod.ports:
            if declared.number == number and declared.protocol == "TCP":
                return declared.app
    return "tcp"


def _hosts(service: Ref) -> tuple[str, ...]:
    full = f"{service.name}.{service.namespace}.svc.{CLUSTER_DOMAIN}"
    return (full, f"{service.name}.{service.namespace}.svc", f"{service.name}.{service.namespace}")


def _endpoint(state: State, pod: LabPod, number: int, peers: Sequence[PeerAuthentication]) -> Endpoint:
    in_force = modes(pod, peers, state.mesh)
    return Endpoint(
        v4=pod.v4,
        v6=pod.v6,
        port=number,
        principal=principal(state, pod.ref.namespace, pod.service_account) if pod.meshed else "",
        mode=in_force.ports.get(number, in_force.default) if pod.meshed else None,
    )
