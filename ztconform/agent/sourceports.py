# SPDX-License-Identifier: Apache-2.0
"""Which UDP source port is fresh towards a target: one that no conntrack entry can remember.

A port used again too early rides on the old flow's verdict, and a denial looks like a leak or a leak like a denial. Binding the
port is left to the exchange.
"""

from __future__ import annotations

import secrets
from collections import deque

FIRST = 20000
LAST = 60999
REST = 180.0  # seconds; nf_conntrack_udp_timeout_stream is 120


class SourcePorts:
    """Hand out UDP source ports in rotation, each target with a rotation of its own."""

    def __init__(self, first: int = FIRST, last: int = LAST, rest: float = REST) -> None:
        self._first = first
        self._count = last - first + 1
        self._rest = rest
        self._targets: dict[tuple[str, int], _Rotation] = {}

    def take(self, target: tuple[str, int], now: float, until: float) -> int | None:
        """Return a port that has rested towards the target, taken from now until `until`; None if there is none."""
        rotation = self._targets.get(target)
        if rotation is None:
            # A random start: a process that was started again shall not begin where its predecessor did.
            rotation = self._targets[target] = _Rotation(secrets.randbelow(self._count))
        if len(rotation.until) == self._count:
            # All ports were used, in rotation: the oldest entry is that of the very port which is next.
            if rotation.until[0] + self._rest > now:
                return None
            rotation.until.popleft()
        rotation.until.append(until)
        port = self._first + rotation.next
        rotation.next = (rotation.next + 1) % self._count
        return port


class _Rotation:
    __slots__ = ("next", "until")

    def __init__(self, start: int) -> None:
        self.next = start
        self.until: deque[float] = deque()
