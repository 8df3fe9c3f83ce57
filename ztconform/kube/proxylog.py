# SPDX-License-Identifier: Apache-2.0
"""What the proxies' access logs say of a round's probes: who refused them, and what was remarked on those that passed.

The kubelet is asked for the lines since the round began, again and again until each probe is found or has had its time: Envoy
writes its log once a second (Istio's agent asks for that, pkg/envoy/proxy.go). A request is found by its nonce; what was refused
before there was one by its connection: of a client without a proxy by the port it left from, of a captured one through its own
proxy's entry. Clocks of nodes are not compared: only lines since the round began are looked at, and a port that two connections
had since then proves nothing.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from time import monotonic, sleep
from typing import Generic, Protocol, TypeVar

import urllib3
from kubernetes.client.exceptions import ApiException

from ztconform.errors import ClusterError
from ztconform.evidence import Observation
from ztconform.kube.pods import KubePod
from ztconform.kube.resources import Resources
from ztconform.mesh.denial import Denial, of_connection, of_request, of_upstream
from ztconform.mesh.logentry import Address, Entry, plain
from ztconform.model import Attempt, Ref

_LATE = 4.0  # seconds: a second until Envoy writes, and as much as a busy node's kubelet may take
_AGAIN = 0.25  # seconds between two looks
_SIDE_BY_SIDE = 8
_UNHEARD = (ApiException, urllib3.exceptions.HTTPError, ClusterError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Hold a probe that was sent, and through which pods' proxies it may have gone."""

    attempt: Attempt
    observation: Observation
    client: KubePod | None  # the source, where its proxy captured the probe
    servers: tuple[KubePod, ...]  # meshed pods that may have been reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Hold what the logs say of one probe."""

    known: bool  # whether its whole way was found
    denial: Denial | None = None
    served: Entry | None = None  # the server's own entry of the request
    unreached: bool = False  # the client's own proxy could not connect


_UNKNOWN = Word(known=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Name the container whose output is a proxy's log."""

    namespace: str
    pod: str
    container: str


# Where the logs of pods' proxies are, each with whose it is.
Places = Callable[[Collection[KubePod]], Mapping[Place, Sequence[KubePod]]]


def beside(container: str) -> Places:
    """Return where the logs of sidecars are that are containers of this name."""
    return lambda pods: {Place(pod.real.namespace, pod.real.name, container): [pod] for pod in pods}


class Told(Protocol):
    """Say what logs tell of a probe."""

    @property
    def known(self) -> bool:
        """Return whether its whole way was found."""

    @property
    def unreached(self) -> bool:
        """Return whether the client's own proxy could not connect."""


E = TypeVar("E")  # a line of a log, as it is understood
W = TypeVar("W", bound=Told)  # what lines come to for one probe


class ProxyLogs(Generic[E, W]):
    """Read the logs of a cluster's proxies."""

    def __init__(
        self,
        resources: Resources,
        places: Places,
        read: Callable[[bytes, Ref, Collection[str]], E | None],
        word: Callable[[Sent, Sequence[E]], W],
    ) -> None:
        """Take how a line of a pod's proxy is read, by whose it is and that pod's addresses, and what lines say of a probe."""
        self._resources = resources
        self._places = places
        self._read = read
        self._word = word

    def words(self, sent: Collection[Sent], since: float) -> dict[str, W]:
        """Return by nonce what is known of these, sent since an instant of this machine's monotonic clock."""
        pods = {pod.ref: pod for one in sent for pod in (*one.servers, one.client) if pod is not None}
        deadline = monotonic() + _LATE
        while True:
            entries = self._entries(list(pods.values()), since)
            found = {one.observation.nonce: self._word(one, entries) for one in sent}
            if all(each.known for each in found.values()) or monotonic() >= deadline:
                return found
            sleep(_AGAIN)

    def _entries(self, pods: Collection[KubePod], since: float) -> list[E]:
        def lines(place: Place, pods: Sequence[KubePod]) -> list[E]:
            # A whole second is the API's finest grain.
            text = self._text(place, ceil(monotonic() - since) + 1).splitlines()
            read = (self._read(line, pod.ref, pod.addresses) for pod in pods for line in text)
            return [entry for entry in read if entry is not None]

        # What is not found is not known, and a denial without a cause proves nothing.
        try:
            found = self._places(pods)
        except _UNHEARD:
            return []
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            return [entry for one in pool.map(lines, found.keys(), found.values()) for entry in one]

    def _text(self, place: Place, seconds: int) -> bytes:
        path = f"/api/v1/namespaces/{place.namespace}/pods/{place.pod}/log"
        try:
            return self._resources.text(path, container=place.container, sinceSeconds=str(seconds))
        except _UNHEARD:
            return b""


def word(sent: Sent, entries: Iterable[Entry]) -> Word:
    """Return what log entries say of a probe; pure."""
    nonce = sent.observation.nonce
    inbound = _one(e for e in entries if e.side == "inbound-request" and e.nonce == nonce)
    if inbound is not None:
        return Word(known=True, denial=of_request(inbound, nonce), served=inbound)
    servers = frozenset(pod.ref for pod in sent.servers)
    if sent.client is None:
        return _of_connection(nonce, address(sent.observation.source), sent.attempt.probe.port, servers, entries)
    outbound = _one(e for e in entries if _is_ours(e, sent))
    if outbound is None:
        return _UNKNOWN
    denial = of_upstream(outbound, nonce)
    if denial is not None:
        return Word(known=True, denial=denial)
    if outbound.upstream_local is None:
        return Word(known=True, unreached=True)
    return _of_connection(nonce, outbound.upstream_local, sent.attempt.probe.port, servers, entries)


def _is_ours(entry: Entry, sent: Sent) -> bool:
    """Return whether an entry is the client's own proxy's of this probe."""
    if sent.client is None or entry.pod != sent.client.ref or not entry.side.startswith("outbound"):
        return False
    if entry.side == "outbound-request":
        return entry.nonce == sent.observation.nonce
    return entry.remote == address(sent.observation.source)


def _of_connection(nonce: str, source: Address | None, port: int, servers: frozenset[Ref], entries: Iterable[Entry]) -> Word:
    """Return what the servers' proxies say of the connection that came from an address."""
    mine = [
        e
        for e in entries
        if e.side == "inbound-connection"
        and e.pod in servers
        and e.remote == source
        and e.local is not None
        and e.local[1] == port
    ]
    # One connection is logged by its listener and by its proxy filter; two connections could be either.
    if source is None or len({(e.pod, round(e.start, 3)) for e in mine}) != 1:
        return _UNKNOWN
    denials = {denial for entry in mine if (denial := of_connection(entry, nonce)) is not None}
    return Word(known=bool(denials), denial=denials.pop() if len(denials) == 1 else None, served=mine[0])


def _one(entries: Iterable[Entry]) -> Entry | None:
    found = list(entries)
    return found[0] if len({(e.pod, e.start) for e in found}) == 1 else None


def address(text: str) -> Address | None:
    """Return "address port" as a log has it."""
    address, _, port = text.partition(" ")
    return (plain(address), int(port)) if port.isdigit() else None


def unlogged(observation: Observation) -> bool:
    """Return whether no proxy has a line about what a client met: packets that were lost, and a handshake's alert.

    Istio has its listeners log only connections for which no filter chain was found (pilot/pkg/networking/core/accesslog.go): a
    certificate that a server's proxy refuses is told by its alert alone.
    """
    return observation.signal in ("silence", "icmp", "tls-alert") or (
        observation.signal == "timeout" and observation.stage == "connect"
    )
