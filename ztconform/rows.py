# SPDX-License-Identifier: Apache-2.0
"""The words in which a scenario says its truth table: allowed, denied, step; what they mean is for the proof to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict, Unpack

from ztconform.errors import UsageError
from ztconform.model import OUTSIDE, Address, ControlKind, Kind, Layer, Port, Probe, Provider, Ref, Row, Workload

# A verb's first word, where it is no HTTP method; "H2 GET" is a GET by HTTP/2, "GRPC" has the method as its path.
_KINDS: Mapping[str, Kind] = {
    "TCP": "tcp",
    "UDP": "udp",
    "DNS": "dns",
    "H2": "http2",
    "GRPC": "grpc",
    "WEBSOCKET": "websocket",
    "TLS": "tls",
}
_PORTS: Mapping[Kind, tuple[str, ...]] = {
    "http": ("http",),
    "websocket": ("http",),
    "http2": ("http2",),
    "grpc": ("grpc",),
    "tcp": ("http", "tcp"),
    "tls": ("http", "tcp"),
    "udp": ("udp",),
    "dns": ("udp",),
}


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, so that a peer can be a key of `relabel`
class Peer:
    """Hold one end of a row: a workload, the port on it, and the way to its address."""

    workload: Workload
    port: Port | None = None
    address: Address | None = None
    via: Ref | None = None  # another Service than the workload's own

    def on(self, port: int | str, protocol: Literal["TCP", "UDP"] = "TCP") -> "Peer":
        """Return this peer at another of its ports, by number or name."""
        for declared in self.workload.ports:
            if port in (declared.number, declared.name) and declared.protocol == protocol:
                return replace(self, port=declared)
        raise UsageError(f"{self.workload.ref} declares no {protocol} port {port}")

    def by(self, address: Address) -> "Peer":
        """Return this peer as it is reached by pod address, Service, headless Service, name or node port."""
        return replace(self, address=address)

    def first(self, kind: Kind) -> Port:
        """Return the chosen port, or the first that serves this kind of probe."""
        if self.port is not None:
            return self.port
        for declared in self.workload.ports:
            if declared.app in _PORTS.get(kind, ()):
                return declared
        raise UsageError(f"{self.workload.ref} declares no port for a probe of kind {kind}")


class Attributes(TypedDict, total=False):
    """Hold what a probe may have beyond its ends, method and path; see `model.Probe`."""

    headers: tuple[tuple[str, str], ...]
    host: str | None
    raw: str | None
    past_proxy: bool
    cert: str | None
    connection: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Hold a later step of a scenario: what changes, and what is then demanded."""

    policy: str | Sequence[str] | None = None
    relabel: Mapping[Ref, Mapping[str, str | None]] = field(default_factory=dict)
    restart: Sequence[Ref] = ()
    provider: Provider = "sound"
    unregistered: frozenset[Ref] = frozenset()
    audited: frozenset[Ref] = frozenset()
    rows: Sequence[Row] = ()


def allowed(
    source: Peer,
    verb: str,
    target: Peer,
    path: str = "/",
    *,
    identity: str | None = None,
    logged: Sequence[str] | None = None,
    needs: str = "",
    unless: str = "",
    **attributes: Unpack[Attributes],
) -> Row:
    """Demand that the request passes.

    Verb is an HTTP method, "H2 GET", GRPC, WEBSOCKET, TCP, TLS, UDP, or DNS with the name as path. `identity` is the principal
    that the server must report; `logged` are the policies that must have objected in vain (dry run, audit mode), or "plaintext".
    On a stack without the feature `needs` there is no such row, and the report has a note of that; nor is there on one with the
    feature `unless`, where a row that needs it demands otherwise.
    """
    probe = _probe(source, verb, target, path, attributes)
    return Row(
        id=_name(probe, verb),
        probe=probe,
        want="allowed",
        identity=identity,
        logged=None if logged is None else frozenset(logged),
        needs=_needed(probe, needs),
        unless=unless,
    )


def denied(
    source: Peer,
    verb: str,
    target: Peer,
    path: str = "/",
    *,
    by: Layer | Sequence[Layer] = "l34",
    named: Sequence[str] = (),
    twin: Row | None = None,
    needs: str = "",
    **attributes: Unpack[Attributes],
) -> Row:
    """Demand that one of these layers refuses the request.

    `named` are the policies it must be attributed to; `twin` is the allowed row that differs in the tested attribute alone, for a
    request that could never pass (a foreign certificate). `needs` is as above.
    """
    probe = _probe(source, verb, target, path, attributes)
    layers: frozenset[Layer] = frozenset([by] if isinstance(by, str) else by)
    control: ControlKind = "open" if twin is None else "twin"
    return Row(
        id=_name(probe, verb),
        probe=probe,
        want="denied",
        by=layers,
        named=frozenset(named),
        twin=None if twin is None else twin.id,
        control=control,
        needs=_needed(probe, needs),
    )


def step(
    *,
    policy: str | Sequence[str] | None = None,
    relabel: Mapping[Peer, Mapping[str, str | None]] | None = None,
    relabel_namespaces: Mapping[str, Mapping[str, str | None]] | None = None,
    restart: Sequence[Peer] = (),
    provider: Provider = "sound",
    unregister: Sequence[Peer] = (),
    audit: Sequence[Peer] = (),
    rows: Sequence[Row],
) -> Change:
    """Change policies or labels (None removes one), or restart pods, after the rows before it are proved; demand these rows.

    While they are proved the identity provider is in the state `provider` and knows nothing of the workloads in `unregister`, and
    for those in `audit` the CNI only logs what policies would deny.
    """
    labels = {peer.workload.ref: change for peer, change in (relabel or {}).items()}
    labels.update((Ref(namespace, ""), change) for namespace, change in (relabel_namespaces or {}).items())
    return Change(
        policy=policy,
        relabel=labels,
        restart=[peer.workload.ref for peer in restart],
        provider=provider,
        unregistered=frozenset(peer.workload.ref for peer in unregister),
        audited=frozenset(peer.workload.ref for peer in audit),
        rows=tuple(rows),
    )


def _needed(probe: Probe, needs: str) -> frozenset[str]:
    own = {"client-tls"} if probe.past_proxy and probe.cert is not None else set[str]()
    return frozenset(own | ({needs} if needs else set()))


def _probe(source: Peer, verb: str, target: Peer, path: str, attributes: Attributes) -> Probe:
    first, _, second = verb.partition(" ")
    kind = _KINDS.get(first, "http")
    port = target.first(kind)
    if verb == "TCP" and port.app == "http":
        kind = "http"  # an HTTP server answers no bare line: TCP to it is shown by a request
    outside = OUTSIDE in (source.workload.ref.namespace, target.workload.ref.namespace)
    address: Address = target.address or ("pod" if outside or port.service is None else "service")
    method = {"http": "GET" if first == "TCP" else first, "http2": second or "GET", "grpc": "POST"}.get(kind, "GET")
    return Probe(
        source=source.workload.ref,
        target=target.workload.ref,
        port=port.number,
        address=address,
        via=target.via,
        kind=kind,
        method=method,
        path=path,
        **attributes,
    )


def _name(probe: Probe, verb: str) -> str:
    """Name a row by all that tells it from another; scenarios have no two equal ones in a step."""
    path = f" {probe.path}" if probe.path != "/" else ""
    words = [f"{probe.source} {verb} {probe.target}:{probe.port}{path} by {probe.address}"]
    words += [f"via {probe.via}"] if probe.via is not None else []
    words += [f"with {name}: {value}" for name, value in probe.headers]
    words += [f"as host {probe.host}"] if probe.host is not None else []
    words += ["as raw bytes"] if probe.raw is not None else []
    words += ["past its proxy"] if probe.past_proxy else []
    words += [f"with certificate {probe.cert}"] if probe.cert is not None else []
    words += [f"on connection {probe.connection}"] if probe.connection is not None else []
    return " ".join(words)
