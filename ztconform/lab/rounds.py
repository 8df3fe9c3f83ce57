# SPDX-License-Identifier: Apache-2.0
"""One round in the lab: the attempts, and beside them in the same moment every target's vitals and the bystanders."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ztconform import controls
from ztconform.agent.wire import HEALTH_PORT
from ztconform.controls import Pair, SelfProbe, observation
from ztconform.evidence import Round
from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.view import MeshConfig
from ztconform.lab.services import endpoints
from ztconform.lab.state import NODES, State
from ztconform.lab.zone import CLUSTER_DOMAIN
from ztconform.model import OUTSIDE, Attempt, Port, Ref, Topology, Transport, Workload
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """Hold a round's specs in the order sent: attempts, self-probes, health probes, bystanders."""

    attempts: Sequence[Attempt]
    itself: Sequence[SelfProbe]
    health: Sequence[LabPod]
    pairs: Sequence[Pair]
    specs: list[dict[str, Any]]


def compose(attempts: Sequence[Attempt], state: State, aim: Aimed) -> Composed:
    """Return everything that one round sends."""
    itself = controls.self_probes(attempts, state.pods.get)
    health = list({probe.server: state.pods[probe.server] for probe in itself}.values())
    pairs = controls.pairs(attempts, state.pods.get)
    timeout = min((a.timeout for a in attempts), default=LAB.denied)
    specs = [aim.spec(a) for a in attempts]
    specs += [_own(state.pods[probe.server], probe, timeout) for probe in itself]
    specs += [_health(pod, timeout) for pod in health]
    specs += [_pass_by(state, *pair, timeout) for pair in pairs]
    for index, spec in enumerate(specs):
        spec["attempt"] = str(index)
        spec["nonce"] = secrets.token_hex(8)
    return Composed(attempts=attempts, itself=itself, health=health, pairs=pairs, specs=specs)


def _own(pod: LabPod, probe: SelfProbe, timeout: float) -> dict[str, Any]:
    """Probe a server from its own pod on its own address, which no policy can forbid (network-policy-api#390)."""
    name = f"{DNS.workload.name}.{DNS.workload.namespace}.svc.{CLUSTER_DOMAIN}."
    spec = {"pod": str(pod.ref), "kind": probe.kind, "address": pod.v4, "port": probe.port, "timeout": timeout}
    return spec | {"path": name if probe.kind == "dns" else "/", "bind": pod.v4, "retry": probe.transport == "UDP"}


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
        controls.vital(
            probe,
            answer,
            ready=healthy[probe.server] and state.pods[probe.server].ready,
            in_endpoints=probe.server in behind,
        )
        for probe, answer in zip(composed.itself, itself, strict=True)
    )
    bystanders = tuple(map(controls.bystander, composed.pairs, rest[len(composed.health) :]))
    return Round(observations=observations, vitals=vitals, bystanders=bystanders)
