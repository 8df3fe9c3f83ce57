# SPDX-License-Identifier: Apache-2.0
"""One round on Kubernetes: the attempts, and beside them in the same moment every target's vitals and the bystanders.

Sending them is left to `cluster`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ztconform import controls
from ztconform.controls import Pair, SelfProbe, observation
from ztconform.evidence import Round
from ztconform.kube.pods import KubePod
from ztconform.model import OUTSIDE, Attempt, Port, Ref, Topology, Workload

BYSTANDERS = "ztc-bystanders"
BYSTANDER = Ref(OUTSIDE, "bystander")
NONCE = "{nonce}"  # in a header's value
_PORT = 8080  # of every bystander, by TCP and UDP
_PORTS = (Port(number=_PORT, name="http"), Port(number=_PORT, name="udp", protocol="UDP", app="udp"))


class Site(Protocol):
    """Tell where things are."""

    def pod(self, ref: Ref) -> KubePod | None:
        """Return a pod of ours, if it is there."""

    def spec(self, attempt: Attempt) -> dict[str, Any]:
        """Return what the agent sends for an attempt, but for its nonce."""

    def sender(self, attempt: Attempt) -> Ref:
        """Return whose agent sends an attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Hold what the API server says in one round."""

    ready: frozenset[Ref]  # pods of ours that are Ready
    endpoints: frozenset[Ref]  # pods of ours that stand behind a Service
    foreign: frozenset[str]  # policies that are not ours and may select our pods
    doubt: str = ""  # why it could not be asked


def bystander_workloads(node: int) -> tuple[Workload, ...]:
    """Return who stands by on a node: one that calls and one that listens."""
    return tuple(
        Workload(ref=Ref(BYSTANDERS, f"{role}-{node}"), node=node, ports=_PORTS if role == "listener" else ())
        for role in ("caller", "listener")
    )


def base_topology() -> Topology:
    """Return what stands by from the beginning: pods on the first two nodes come with the first case."""
    return Topology(namespaces={BYSTANDERS: {}}, workloads=())


def outside_bystander() -> Workload:
    """Return who stands by outside."""
    return Workload(ref=BYSTANDER, ports=_PORTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """Hold a round's specs in the order sent (attempts, self-probes, bystanders), each with the pod that sends it."""

    attempts: Sequence[Attempt]
    itself: Sequence[SelfProbe]
    pairs: Sequence[Pair]
    senders: Sequence[Ref]
    specs: Sequence[dict[str, Any]]


def compose(attempts: Sequence[Attempt], site: Site, patience: float) -> Composed:
    """Return everything that one round sends; self-probes and bystanders get `patience` seconds."""
    # Where no pod of ours is the target (the cluster's own resolver is one), no agent of ours could answer itself.
    itself = controls.self_probes(attempts, site.pod)
    pairs = controls.pairs(attempts, site.pod)
    sent = [(site.sender(a), site.spec(a)) for a in attempts]
    sent += [(probe.server, _own(site, probe, patience)) for probe in itself]
    sent += [_pass_by(site, pair, patience) for pair in pairs]
    specs = [_known_by(secrets.token_hex(8), {**spec, "attempt": str(at)}) for at, (_, spec) in enumerate(sent)]
    return Composed(attempts=attempts, itself=itself, pairs=pairs, senders=[ref for ref, _ in sent], specs=specs)


def _known_by(nonce: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec with its nonce, also in a header by which a mesh's log may know it."""
    if "headers" not in spec:
        return {**spec, "nonce": nonce}
    return {**spec, "nonce": nonce, "headers": [[name, value.replace(NONCE, nonce)] for name, value in spec["headers"]]}


def _own(site: Site, probe: SelfProbe, timeout: float) -> dict[str, Any]:
    """Probe a server from its own pod on its own address, which no policy can forbid (network-policy-api#390)."""
    pod = site.pod(probe.server)
    address = pod.addresses[0] if pod is not None else ""
    spec = {"kind": probe.kind, "address": address, "port": probe.port, "timeout": timeout}
    return spec | {"bind": address, "retry": probe.transport == "UDP"}


def _pass_by(site: Site, pair: Pair, timeout: float) -> tuple[Ref, dict[str, Any]]:
    source, target, transport = pair
    caller = BYSTANDER if source is None else Ref(BYSTANDERS, f"caller-{source}-0")
    listener = site.pod(BYSTANDER if target is None else Ref(BYSTANDERS, f"listener-{target}-0"))
    spec = {
        "kind": "udp" if transport == "UDP" else "http",
        "address": listener.addresses[0] if listener is not None else "",
        "port": _PORT,
        "timeout": timeout,
        "retry": transport == "UDP",
    }
    return caller, spec


def read_round(composed: Composed, answers: Sequence[Mapping[str, Any]], seen: Seen) -> Round:
    """Return the round that the agents' answers, in the order of the specs, and the API server tell of."""
    count = len(composed.attempts)
    observations = tuple(observation(answer, attempt.id) for answer, attempt in zip(answers, composed.attempts, strict=False))
    itself = answers[count : count + len(composed.itself)]
    vitals = tuple(
        controls.vital(
            probe,
            answer,
            ready=probe.server in seen.ready or probe.server.namespace == OUTSIDE,
            in_endpoints=probe.server in seen.endpoints,
        )
        for probe, answer in zip(composed.itself, itself, strict=True)
    )
    bystanders = tuple(map(controls.bystander, composed.pairs, answers[count + len(composed.itself) :]))
    return Round(observations=observations, vitals=vitals, bystanders=bystanders, foreign=seen.foreign, doubt=seen.doubt)
