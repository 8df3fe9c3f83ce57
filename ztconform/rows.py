# SPDX-License-Identifier: Apache-2.0
"""The words in which a scenario says its truth table: allowed, denied, step; what they mean is for the proof to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ztconform.errors import UsageError
from ztconform.model import OUTSIDE, Address, Kind, Layer, Port, Probe, Ref, Row, Workload

_KINDS: Mapping[str, Kind] = {"TCP": "tcp", "UDP": "udp", "DNS": "dns"}


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, so that a peer can be a key of `relabel`
class Peer:
    """Hold one end of a row: a workload, the port on it, and the way to its address."""

    workload: Workload
    port: Port | None = None
    address: Address | None = None

    def on(self, port: int | str, protocol: Literal["TCP", "UDP"] = "TCP") -> "Peer":
        """Return this peer at another of its ports, by number or name."""
        for declared in self.workload.ports:
            if port in (declared.number, declared.name) and declared.protocol == protocol:
                return replace(self, port=declared)
        raise UsageError(f"{self.workload.ref} declares no {protocol} port {port}")

    def by(self, address: Address) -> "Peer":
        """Return this peer as it is reached by pod address, Service, headless Service or name."""
        return replace(self, address=address)

    def first(self, kind: Kind) -> Port:
        """Return the chosen port, or the first that serves this kind of probe."""
        if self.port is not None:
            return self.port
        wanted = {"http": ("http",), "tcp": ("http", "tcp"), "udp": ("udp",), "dns": ("udp",)}.get(kind, ())
        for declared in self.workload.ports:
            if declared.app in wanted:
                return declared
        raise UsageError(f"{self.workload.ref} declares no port for a probe of kind {kind}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Hold a later step of a scenario: what changes, and what is then demanded."""

    policy: str | None = None
    relabel: Mapping[Ref, Mapping[str, str | None]] = field(default_factory=dict)
    rows: Sequence[Row] = ()


def allowed(source: Peer, verb: str, target: Peer, path: str = "/") -> Row:
    """Demand that the request passes: verb is an HTTP method, TCP, UDP, or DNS with the name as path."""
    probe = _probe(source, verb, target, path)
    return Row(id=_name(probe, verb), probe=probe, want="allowed")


def denied(source: Peer, verb: str, target: Peer, path: str = "/", *, by: Layer = "l34", named: Sequence[str] = ()) -> Row:
    """Demand that this layer refuses the request; `named` are the policies it must be attributed to."""
    probe = _probe(source, verb, target, path)
    return Row(id=_name(probe, verb), probe=probe, want="denied", by=frozenset({by}), named=frozenset(named))


def step(
    *,
    policy: str | None = None,
    relabel: Mapping[Peer, Mapping[str, str | None]] | None = None,
    relabel_namespaces: Mapping[str, Mapping[str, str | None]] | None = None,
    rows: Sequence[Row],
) -> Change:
    """Change policies or labels (None removes one) after the rows before it are proved, then demand these rows."""
    labels = {peer.workload.ref: change for peer, change in (relabel or {}).items()}
    labels.update((Ref(namespace, ""), change) for namespace, change in (relabel_namespaces or {}).items())
    return Change(policy=policy, relabel=labels, rows=tuple(rows))


def _probe(source: Peer, verb: str, target: Peer, path: str) -> Probe:
    kind = _KINDS.get(verb, "http")
    port = target.first(kind)
    if verb == "TCP" and port.app == "http":
        kind = "http"  # an HTTP server answers no bare line: TCP to it is shown by a request
    outside = OUTSIDE in (source.workload.ref.namespace, target.workload.ref.namespace)
    address: Address = target.address or ("pod" if outside or port.service is None else "service")
    return Probe(
        source=source.workload.ref,
        target=target.workload.ref,
        port=port.number,
        address=address,
        kind=kind,
        method=verb if kind == "http" else "GET",
        path=path,
    )


def _name(probe: Probe, verb: str) -> str:
    """Name a row by all that tells it from another; scenarios have no two equal ones in a step."""
    path = f" {probe.path}" if probe.path != "/" else ""
    return f"{probe.source} {verb} {probe.target}:{probe.port}{path} by {probe.address}"
