# SPDX-License-Identifier: Apache-2.0
"""How several probes go over one connection, one after the other: to the exchange they are one reader of one long answer.

What each sends and reads is for `talk`. So it is seen whether every request of a connection is judged anew, not the first alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .exchange import ANSWERED, Network, Outcome, TcpExchange
from .talk import connection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .attempt import Attempt
    from .readers import AnswerReader

_ENDED_BEFORE = Outcome("closed", "request", "connection ended before this request")


class Turns:
    """Take attempts in turn over one connection; a reader to its exchange."""

    def __init__(self, network: Network, attempts: Sequence[Attempt]) -> None:
        """Take attempts that differ in nothing which makes a connection."""
        self._network = network
        self._attempts = tuple(attempts)
        self._at = 0
        self._reader: AnswerReader | None = None
        self._exchange: TcpExchange | None = None
        self.reply = b""

    def start(self) -> None:
        """Connect and send the first; the attempts may end before this returns."""
        spec = self._attempts[0].spec
        request, self._reader = self._attempts[0].take_turn(None)
        try:
            exchange = connection(self._network, spec, request, self, self._ended)
        except (OSError, ValueError) as error:
            self._ended(Outcome("not-run", "tls", f"tls: {error}"))
            return
        self._exchange = exchange
        self._attempts[0].share(exchange)
        exchange.start(self._attempts[0].nonce, (spec.address, spec.port), spec.bind, spec.mark)

    def feed(self, data: bytes) -> bool:
        """Take bytes for the one whose turn it is, and return whether they ended the connection's use."""
        reader = self._reader
        if reader is None:
            return True
        complete = reader.feed(data)
        self.reply = reader.reply
        if not complete:
            return False
        if self._at + 1 == len(self._attempts) or not reader.reusable or self._exchange is None:
            return True
        self._attempts[self._at].end_turn(ANSWERED, self._exchange.source)
        self._at += 1
        following = self._attempts[self._at]
        if following.over:  # the prober was closed by whoever was told
            return True
        request, self._reader = following.take_turn(reader)
        following.share(self._exchange)
        self._announce(following)
        self.reply += request
        return False

    def end(self) -> bool:
        """Take the end of the connection."""
        return self._reader is not None and self._reader.end()

    def _announce(self, attempt: Attempt) -> None:
        if self._network.on_sent is not None and self._exchange is not None:
            address, _, port = self._exchange.source.rpartition(" ")
            self._network.on_sent(attempt.nonce, "TCP", address, int(port), attempt.spec.address, attempt.spec.port)

    def _ended(self, outcome: Outcome) -> None:
        source = self._exchange.source if self._exchange is not None else ""
        current, *rest = self._attempts[self._at :]
        current.end_turn(outcome, source)
        # What no connection could be made for met the same as the first; behind an answer the connection is gone.
        shared = outcome if outcome.stage in ("exec", "connect", "tls") else _ENDED_BEFORE
        for attempt in rest:
            attempt.end_turn(shared, source)
