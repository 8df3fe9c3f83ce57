# SPDX-License-Identifier: Apache-2.0
"""One round in the lab: the attempts, and beside them in the same moment every target's vitals and the bystanders."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ztconform.agent.wire import HEALTH_PORT
from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.view import MeshConfig
from ztconform.lab.services import endpoints
from ztconform.lab.state import NODES, State
from ztconform.lab.zone import CLUSTER_DOMAIN
from ztconform.model import (
    OUTSIDE,
    Attempt,
    Bystander,
    Observation,
    Port,
    Ref,
    Round,
    Topology,
    Transport,
    Vital,
    Workload,
)
from ztconform.timeouts import LAB

BYSTANDERS = "ztc-bystanders"
_PORT = 8080  # of every bystander, by TCP and UDP


@dataclass(frozen=True, slots=True)
class Dns:
    """Name the lab's resolver."""

    workload: Ref
    pod: Ref
    port: int


DNS = Dns(Ref("kube-system", "kube-dns"), Ref("kube-system", "kube-dns-0"), 53)


class Aimed(Protocol):
    """Turn attempts into the agent's terms."""

    def spec(self, attempt: Attempt) -> dict[str, Any]:
        """Return what the agent sends, but for its nonce."""


def base_topology() -> Topology:
    """Return what every lab has: a DNS server, and bystanders on each node and outside that no policy selects."""
    dns = Workload(
        ref=DNS.workload,
        labels={"k8s-app": "kube-dns"},
        node=0,
        ports=(
            Port(number=DNS.port, name="dns", protocol="UDP", app="udp", service=53),
            Port(number=DNS.port, name="dns-tcp", protocol="TCP", app="tcp", service=53),
        ),
    )
    ports = (Port(number=_PORT), Port(number=_PORT, protocol="UDP", app="udp"))
    inside = [
        Workload(ref=Ref(BYSTANDERS, f"{role}-{node}"), node=node, ports=ports if role == "listener" else ())
        for node in range(NODES)
        for role in ("caller", "listener")
    ]
    outside = Workload(ref=Ref(OUTSIDE, "bystander"), ports=ports)
    return Topology(
        namespaces={DNS.workload.namespace: {}, BYSTANDERS: {}, MeshConfig().root_namespace: {}},
        workloads=(dns, *inside),
        outsiders=(outside,),
    )


@dataclass(frozen=True, slots=True)
class _SelfProbe:
    server: LabPod
    port: int
    transport: Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """Hold a round's specs in the order sent: attempts, self-probes, health probes, bystanders."""

    attempts: Sequence[Attempt]
    itself: Sequence[_SelfProbe]
    health: Sequence[LabPod]
    pairs: Sequence[tuple[int | None, int | None, Transport]]
    specs: list[dict[str, Any]]


def compose(attempts: Sequence[Attempt], state: State, aim: Aimed) -> Composed:
    """Return everything that one round sends."""
    servers = {
        (t, a.probe.port, a.probe.transport, _own_kind(state.pods[t], a)): state.pods[t]
        for a in attempts
        for t in a.targets
        if t in state.pods
    }
    itself = [_SelfProbe(pod, port, transport) for (_, port, transport, _), pod in servers.items()]
    health = list({pod.ref: pod for pod in servers.values()}.values())
    pairs = sorted(
        {
            (state.pods[a.probe.source].node, state.pods[t].node, a.probe.transport)
            for a in attempts
            for t in a.targets
            if t in state.pods
        },
        key=str,
    )
    timeout = min((a.timeout for a in attempts), default=LAB.denied)
    specs = [aim.spec(a) for a in attempts]
    specs += [_own(pod, kind, port, a_transport, timeout) for (_, port, a_transport, kind), pod in servers.items()]
    specs += [_health(pod, timeout) for pod in health]
    specs += [_pass_by(state, *pair, timeout) for pair in pairs]
    for index, spec in enumerate(specs):
        spec["attempt"] = str(index)
        spec["nonce"] = secrets.token_hex(8)
    return Composed(attempts=attempts, itself=itself, health=health, pairs=pairs, specs=specs)


def _own_kind(pod: LabPod, attempt: Attempt) -> str:
    """Return what the port serves: a probe of another kind (TLS, a WebSocket) is answered by the same application."""
    if attempt.probe.kind in ("dns", "udp"):
        return attempt.probe.kind
    apps = [p.app for p in pod.ports if (p.number, p.protocol) == (attempt.probe.port, "TCP")]
    return apps[0] if apps else attempt.probe.kind


def _own(pod: LabPod, kind: str, port: int, transport: Transport, timeout: float) -> dict[str, Any]:
    """Probe a server from its own pod on its own address, which no policy can forbid (network-policy-api#390)."""
    name = f"{DNS.workload.name}.{DNS.workload.namespace}.svc.{CLUSTER_DOMAIN}."
    spec = {"pod": str(pod.ref), "kind": kind, "address": pod.v4, "port": port, "timeout": timeout}
    return spec | {"path": name if kind == "dns" else "/", "bind": pod.v4, "retry": transport == "UDP"}


def _health(pod: LabPod, timeout: float) -> dict[str, Any]:
    """Ask a server's health from its own node, as the kubelet does; a host outside asks itself."""
    asker = str(pod.ref) if pod.node is None else f"node-{pod.node}"
    return {"pod": asker, "kind": "http", "address": pod.v4, "port": HEALTH_PORT, "path": "/healthz", "timeout": timeout}


def _pass_by(state: State, source: int | None, target: int | None, transport: Transport, timeout: float) -> dict[str, Any]:
    outside = state.pods[Ref(OUTSIDE, "bystander")]
    caller = outside if source is None else state.pods[Ref(BYSTANDERS, f"caller-{source}-0")]
    listener = outside if target is None else state.pods[Ref(BYSTANDERS, f"listener-{target}-0")]
    return {
        "pod": str(caller.ref),
        "kind": "udp" if transport == "UDP" else "http",
        "address": listener.v4,
        "port": _PORT,
        "timeout": timeout,
        "path": "/",
        "bind": caller.v4 if caller.node is None else None,
        "retry": transport == "UDP",
    }


def read_round(composed: Composed, answers: Sequence[Mapping[str, Any]], state: State) -> Round:
    """Return the round that the agent's answers, in the order of the specs, tell of."""
    count = len(composed.attempts)
    observations = tuple(observation(answer, attempt.id) for answer, attempt in zip(answers, composed.attempts, strict=False))
    itself = answers[count : count + len(composed.itself)]
    rest = answers[count + len(composed.itself) :]
    healthy = {
        pod.ref: answer["signal"] == "answered" and answer["status"] == 200
        for pod, answer in zip(composed.health, rest, strict=False)
    }
    behind = {p.ref for s in state.services.values() for p in endpoints(s, state.inventory)}
    vitals = tuple(
        Vital(
            server=probe.server.ref,
            port=probe.port,
            transport=probe.transport,
            boot=answer["boot"],
            answers_itself=answer["signal"] == "answered" and answer["backend"] == str(probe.server.ref),
            ready=healthy[probe.server.ref] and probe.server.ready,
            in_endpoints=probe.server.ref in behind,
            detail=f"{answer['signal']} {answer['detail']}".strip(),
        )
        for probe, answer in zip(composed.itself, itself, strict=True)
    )
    bystanders = tuple(
        Bystander(
            nodes=(source, target),
            transport=transport,
            through=None if answer["signal"] == "not-run" else bool(answer["backend"]),
            detail=f"{answer['signal']} {answer['detail']} from {_place(source)} to {_place(target)}",
        )
        for (source, target, transport), answer in zip(composed.pairs, rest[len(composed.health) :], strict=True)
    )
    return Round(observations=observations, vitals=vitals, bystanders=bystanders)


def _place(node: int | None) -> str:
    return "outside" if node is None else f"node {node}"


def observation(answer: Mapping[str, Any], attempt: str) -> Observation:
    """Return the agent's answer as an observation of this attempt."""
    return Observation(**{**answer, "attempt": attempt})
