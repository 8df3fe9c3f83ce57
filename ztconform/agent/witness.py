# SPDX-License-Identifier: Apache-2.0
"""What a server saw: every nonce, under one boot ID and a sequence without gaps.

Folding the copies of one nonce (UDP is sent again, proxies retry) is left to the caller.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from .wire import Mark

if TYPE_CHECKING:
    from typing import Any


class Witness:
    """Remember the nonces that reached one pod since it started."""

    def __init__(self, pod: str) -> None:
        self.pod = pod
        self.boot = secrets.token_hex(8)
        self.unmarked = 0  # requests that carried no nonce
        self._seen: list[tuple[str, str | None]] = []

    def record(self, nonce: str, method: str, path: str, peer: str, identity: str | None = None) -> Mark:
        """Record a request and return the mark to answer it with; one without a nonce is only counted."""
        sequence = 0
        if nonce:
            self._seen.append((nonce, identity))
            sequence = len(self._seen)
        else:
            self.unmarked += 1
        return Mark(self.pod, self.boot, sequence, nonce, path, method, peer)

    def sightings(self, since: int = 0) -> list[list[Any]]:
        """Return [nonce, boot, sequence, identity] for every sequence above `since`."""
        first = max(since, 0)
        return [[nonce, self.boot, first + at, identity] for at, (nonce, identity) in enumerate(self._seen[first:], 1)]
