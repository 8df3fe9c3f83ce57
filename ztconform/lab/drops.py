# SPDX-License-Identifier: Apache-2.0
"""Which probe a packet belonged to that the firewall dropped: joins its log with what was sent, by addresses and ports."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import NamedTuple

from ztconform.lab.nflog import NfLog

_Flow = tuple[str, str, int, str, int]  # transport, source address and port, target address and port
_KEPT = 200_000  # flows remembered; more than are under way at any moment
_UNCLAIMED = 5_000  # of these remembered
_SERVICES = ("10.96.", "fd00:10:96:")


class Unclaimed(NamedTuple):
    """Tell of a dropped packet that no probe sent itself."""

    at: float  # of its reading, on this process's monotonic clock
    source: str
    target: str
    port: int
    prefix: str


class Drops:
    """Remember what was sent, and read every log as it comes."""

    def __init__(self, logs: Sequence[NfLog]) -> None:
        """Read these logs in the running loop."""
        self._logs = logs
        self._sent: dict[_Flow, str] = {}
        self._by_service: dict[tuple[str, str, int], str] = {}
        self._found: dict[str, str] = {}
        self._unclaimed: deque[Unclaimed] = deque(maxlen=_UNCLAIMED)
        for log in logs:
            asyncio.get_running_loop().add_reader(log.fileno(), self._read, log)

    @property
    def lost(self) -> bool:
        """Return whether any log ever lost an event."""
        return any(log.lost for log in self._logs)

    def sent(self, nonce: str, transport: str, source: str, source_port: int, target: str, target_port: int) -> None:
        """Remember under which flow a probe was sent, before the packet can have been judged and logged."""
        if len(self._sent) > _KEPT:
            self._sent.clear()
            self._by_service.clear()
        self._sent[transport, source, source_port, target, target_port] = nonce
        if target.startswith(_SERVICES):
            # The firewall sees such a flow behind its translation: another target, the same source.
            self._by_service[transport, source, source_port] = nonce

    def of(self, nonces: Iterable[str]) -> list[tuple[str, str]]:
        """Return (nonce, log prefix) of those that were logged; they are then forgotten."""
        for log in self._logs:
            self._read(log)
        return [(n, self._found.pop(n)) for n in nonces if n in self._found]

    def unclaimed(self) -> list[Unclaimed]:
        """Return recent drops of packets that no probe sent itself: those of a pod's proxy on its behalf."""
        for log in self._logs:
            self._read(log)
        return list(self._unclaimed)

    def _read(self, log: NfLog) -> None:
        for drop in log.drain():
            transport = drop.proto.upper()
            nonce = self._sent.get((transport, drop.src, drop.sport, drop.dst, drop.dport))
            if nonce is None:
                nonce = self._by_service.get((transport, drop.src, drop.sport))
            if nonce is not None:
                self._found.setdefault(nonce, drop.prefix)
            else:
                self._unclaimed.append(Unclaimed(monotonic(), drop.src, drop.dst, drop.dport, drop.prefix))
