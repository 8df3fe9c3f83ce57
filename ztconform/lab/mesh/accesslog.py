# SPDX-License-Identifier: Apache-2.0
"""Which proxy refused a probe, and by which rule: Envoy's access log, joined with what was sent.

Where the log is written and when it is read is for the mesh; which policies a denial is owed to, for `attribution`.

A request that reached a server's proxy is found by its nonce. What was refused before there was a request is found by its
connection: of a client without a proxy by the address and port it left from, of a captured client through its own proxy's entry
(nonce or source -> upstream local address -> the server's connection). Seen with Envoy 1.40: a failed upstream handshake logs no
upstream local address, so that there the client's own entry is the evidence; one connection is logged by its listener and by
tcp_proxy, with the same start. A source port comes round again after some seconds, so that a join holds in a short time only.
"""

import ipaddress
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ztconform.mesh.denial import Denial, of_connection, of_request, of_upstream, was_denied, was_refused
from ztconform.mesh.logentry import FORMAT, Address, Entry, Shadow, Side, plain, read
from ztconform.model import Ref

__all__ = ["FORMAT", "AccessLog", "Denial", "Entry", "Side"]

_KEPT = 200_000  # entries remembered; more than belong to anything under way
_LONGEST = 1 << 20  # bytes of a line; Envoy's own limit on headers is far below
# Seconds around a sending in which its connection was accepted. The proxy may run before the sender looks at its clock, and a
# source port comes round again within two seconds in 3 of 100 connections at 200 a second.
_EARLIER, _LATER = 0.05, 2.0
_APART = 0.05  # seconds within which two connections of one port could be either; the proxy's own clocks agree to microseconds
_SERVICES = (ipaddress.ip_network("10.96.0.0/16"), ipaddress.ip_network("fd00:10:96::/112"))


@dataclass(frozen=True, slots=True)
class _Sent:
    at: float
    source: Address
    target: Address
    captured: bool


class AccessLog:
    """Remember what was sent and what was logged."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """Begin with an empty log; `clock` is Envoy's, seconds since the epoch."""
        self.damaged = 0  # lines that could not be read: with any, the log proves no absence
        self._clock = clock
        self._rest = b""
        self._skipping = False
        self._entries: deque[Entry] = deque()
        self._sent: dict[str, _Sent] = {}
        self._by_nonce: dict[tuple[bool, str], list[Entry]] = {}  # whether inbound, nonce
        self._by_remote: dict[tuple[bool, Address], list[Entry]] = {}  # connections: whether inbound, client

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return what is remembered, oldest first."""
        return tuple(self._entries)

    def sent(
        self, nonce: str, transport: str, source: str, source_port: int, target: str, target_port: int, *, captured: bool
    ) -> None:
        """Remember as it is sent from where a probe leaves; `captured`: into its pod's own proxy."""
        if transport != "TCP":
            return
        if len(self._sent) > _KEPT:
            self._sent.clear()
        self._sent[nonce] = _Sent(self._clock(), (plain(source), source_port), (plain(target), target_port), captured)

    def feed(self, data: bytes) -> None:
        """Take what was written to the log; the end of a line may come later."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
            elif line.strip():
                self._take(line)
        if self._skipping or len(rest) > _LONGEST:
            self.damaged += not self._skipping
            self._skipping, rest = True, b""
        self._rest = rest

    def of(self, nonce: str) -> Denial | None:
        """Return which proxy refused this probe; None if none did, if nothing is known, or if several could have."""
        inbound, outbound = self._by_nonce.get((True, nonce), ()), self._by_nonce.get((False, nonce), ())
        if inbound:
            return of_request(inbound[0], nonce) if len(inbound) == 1 else None
        sent = self._sent.get(nonce)
        if not outbound and sent is not None:
            if not sent.captured:
                return self._of_connections(nonce, sent.source, sent.target, sent.at)
            outbound = self._connections(inbound=False, remote=sent.source, local=sent.target, at=sent.at)
        followed = _one(outbound)
        return None if followed is None else self._through(followed, nonce)

    def would_deny(self, nonce: str) -> str | None:
        """Return the dry-run rule that would have refused this request, or "" where no dry-run rule would have allowed it.

        None if the dry runs would have let it through, if nothing is known of it, or if it came more than once.
        """
        shadows = self._shadows(nonce)
        denying = next((shadow for shadow in reversed(shadows) if shadow.of != "audit" and shadow.denied), None)
        return None if denying is None else denying.rule

    def server_of(self, nonce: str) -> Ref | None:
        """Return the pod whose proxy saw this request; None if none did, or more than one."""
        entry = _one(self._by_nonce.get((True, nonce), ()))
        return None if entry is None else entry.pod

    def audited(self, nonce: str) -> str:
        """Return the AUDIT rule that matched this request; "" if none did, or if nothing is known of it."""
        return next((shadow.rule for shadow in self._shadows(nonce) if shadow.of == "audit"), "")

    def in_plaintext(self, nonce: str) -> bool | None:
        """Return whether this request was served in plaintext; None if it was not served, or came more than once."""
        entry = _one(self._by_nonce.get((True, nonce), ()))
        return None if entry is None or was_denied(entry) else not entry.tls

    def plaintext_callers(self) -> Mapping[Ref, frozenset[str]]:
        """Return by pod the addresses of the clients that it served in plaintext."""
        found: dict[Ref, set[str]] = {}
        for entry in self._entries:
            if entry.remote is not None and _served_in_plaintext(entry):
                found.setdefault(entry.pod, set()).add(entry.remote[0])
        return {pod: frozenset(addresses) for pod, addresses in found.items()}

    def _shadows(self, nonce: str) -> tuple[Shadow, ...]:
        entry = _one(self._by_nonce.get((True, nonce), ()))
        return () if entry is None else entry.shadows

    def _take(self, line: bytes) -> None:
        entry = read(line)
        if entry is None:
            self.damaged += 1
            return
        self._entries.append(entry)
        for index, key in self._indices(entry):
            index.setdefault(key, []).append(entry)
        if len(self._entries) > _KEPT:
            oldest = self._entries.popleft()
            for index, key in self._indices(oldest):
                index[key].remove(oldest)
                if not index[key]:
                    del index[key]

    def _indices(self, entry: Entry) -> list[tuple[dict[Any, list[Entry]], tuple[bool, Any]]]:
        inbound = entry.side.startswith("inbound")
        found: list[tuple[dict[Any, list[Entry]], tuple[bool, Any]]] = []
        if entry.side.endswith("request"):
            if entry.nonce:
                found.append((self._by_nonce, (inbound, entry.nonce)))
        elif entry.remote is not None:
            found.append((self._by_remote, (inbound, entry.remote)))
        return found

    def _connections(self, *, inbound: bool, remote: Address, local: Address, at: float) -> list[Entry]:
        """Return the connections from one client to one target that began then; behind a Service's address any target."""
        anywhere = inbound and any(ipaddress.ip_address(local[0]) in service for service in _SERVICES)
        found = sorted(
            (
                entry
                for entry in self._by_remote.get((inbound, remote), ())
                if -_EARLIER <= entry.start - at <= _LATER and (anywhere or entry.local == local)
            ),
            key=lambda entry: entry.start,
        )
        # Two connections between the same ends follow each other: ours is the first of those that began when it was sent.
        return [entry for entry in found if entry.start - found[0].start <= _APART]

    def _through(self, outbound: Entry, nonce: str) -> Denial | None:
        """Follow a captured client's connection to the server, or read what its own proxy has against that."""
        denial = of_upstream(outbound, nonce)
        if denial is not None:
            return denial
        if outbound.upstream_failure or outbound.upstream_local is None or outbound.upstream is None:
            return None
        return self._of_connections(nonce, outbound.upstream_local, outbound.upstream, outbound.start)

    def _of_connections(self, nonce: str, remote: Address, local: Address, at: float) -> Denial | None:
        entries = self._connections(inbound=True, remote=remote, local=local, at=at)
        if len({(entry.pod, entry.start) for entry in entries}) != 1:
            return None
        denials = {denial for denial in (of_connection(entry, nonce) for entry in entries) if denial is not None}
        return denials.pop() if len(denials) == 1 else None


def _served_in_plaintext(entry: Entry) -> bool:
    return entry.side.startswith("inbound") and bool(entry.chain) and not entry.tls and not was_refused(entry)


def _one(entries: Sequence[Entry]) -> Entry | None:
    """Return the one connection or request that these tell of."""
    if len({(entry.pod, entry.start) for entry in entries}) != 1 or len({_essence(entry) for entry in entries}) != 1:
        return None
    return entries[0]


def _essence(entry: Entry) -> tuple[object, ...]:
    return entry.upstream_failure, entry.upstream_local, entry.upstream, entry.shadows
