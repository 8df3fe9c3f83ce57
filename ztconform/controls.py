# SPDX-License-Identifier: Apache-2.0
"""What a round sends on any cluster, attempts and beside them self-probes and bystanders, and how the answers read; pure.

From where and to where they are sent is left to the cluster; what they prove, to the judge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ztconform.evidence import Bystander, Observation, Vital
from ztconform.model import Attempt, Port, Ref, Transport
from ztconform.timeouts import Timeouts

Pair = tuple[int | None, int | None, Transport]  # from node to node, None being outside


class Place(Protocol):
    """Tell where a pod is and what it serves."""

    @property
    def node(self) -> int | None: ...
    @property
    def ports(self) -> Sequence[Port]: ...


Find = Callable[[Ref], Place | None]  # None: not a pod of ours


@dataclass(frozen=True, slots=True)
class SelfProbe:
    """Name a server's port that its own pod is to ask, and in what the application there answers."""

    server: Ref
    port: int
    transport: Transport
    kind: str


def self_probes(attempts: Sequence[Attempt], find: Find) -> list[SelfProbe]:
    """Return one self-probe for each port of each server that these attempts may reach."""
    found = {
        SelfProbe(target, attempt.probe.port, attempt.probe.transport, _kind(place, attempt)): None
        for attempt in attempts
        for target in attempt.targets
        if (place := find(target)) is not None
    }
    return list(found)


def pairs(attempts: Sequence[Attempt], find: Find) -> list[Pair]:
    """Return the pairs of nodes between which these attempts go, each once and in a stable order."""
    found: set[Pair] = set()
    for attempt in attempts:
        source = find(attempt.probe.source)
        places = [place for target in attempt.targets if (place := find(target)) is not None]
        found |= {(source.node, place.node, attempt.probe.transport) for place in places} if source is not None else set()
    return sorted(found, key=str)


def request_of(attempt: Attempt, timeouts: Timeouts) -> dict[str, Any]:
    """Return what the agent sends for an attempt on any cluster; where it is sent is left to the cluster."""
    probe = attempt.probe
    request: dict[str, Any] = {
        "kind": probe.kind,
        "timeout": attempt.timeout,
        "method": probe.method,
        "path": probe.path,
        "headers": [list(h) for h in probe.headers],
        "host": probe.host,
        # Denied UDP is never sent a second time: it could ride on a tuple that has been allowed since.
        "retry": attempt.timeout >= timeouts.allowed,
    }
    if probe.raw is not None:
        request["raw"] = probe.raw
    if probe.connection is not None:
        request["connection"] = probe.connection
    return request


def observation(answer: Mapping[str, Any], attempt: str) -> Observation:
    """Return the agent's answer as an observation of this attempt."""
    return Observation(**{**answer, "attempt": attempt})


def vital(probe: SelfProbe, answer: Mapping[str, Any], *, ready: bool, in_endpoints: bool) -> Vital:
    """Return what a server's self-probe, and what the cluster says of it, tell of the server."""
    return Vital(
        server=probe.server,
        port=probe.port,
        transport=probe.transport,
        boot=answer["boot"],
        answers_itself=answer["signal"] == "answered" and answer["backend"] == str(probe.server),
        ready=ready,
        in_endpoints=in_endpoints,
        detail=f"{answer['signal']} {answer['detail']}".strip(),
    )


def bystander(pair: Pair, answer: Mapping[str, Any]) -> Bystander:
    """Return what became of a bystander's probe."""
    source, target, transport = pair
    return Bystander(
        nodes=(source, target),
        transport=transport,
        through=None if answer["signal"] == "not-run" else bool(answer["backend"]),
        detail=f"{answer['signal']} {answer['detail']} from {_place(source)} to {_place(target)}",
    )


def _kind(place: Place, attempt: Attempt) -> str:
    """Return what the port serves: a probe of another kind (TLS, a WebSocket) is answered by the same application."""
    if attempt.probe.kind in ("dns", "udp"):
        return attempt.probe.kind
    apps = [p.app for p in place.ports if (p.number, p.protocol) == (attempt.probe.port, "TCP")]
    return apps[0] if apps else attempt.probe.kind


def _place(node: int | None) -> str:
    return "outside" if node is None else f"node {node}"
