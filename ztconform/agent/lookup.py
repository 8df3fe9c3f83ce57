# SPDX-License-Identifier: Apache-2.0
"""What a name's addresses are: asked of one resolver with a search list, by UDP and, where that is cut off, by TCP.

Sockets are driven by `exchange` and `udpexchange`, messages read by `dns`; the time limit is the prober's.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from . import dns
from .exchange import Network, Outcome, TcpExchange
from .readers import FrameReader
from .udpexchange import UdpExchange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NDOTS = 5  # what Kubernetes writes into a pod's resolv.conf


class Question(NamedTuple):
    """Say what to ask whom, and how."""

    name: str
    family: int
    resolver: tuple[str, int]
    search: Sequence[str]
    nonce: str  # for on_sent
    marked: bool  # whether the nonce is in the message too, so that a nameserver of ours witnesses it
    bind: str | None
    until: float  # when the caller gives up, on the loop's clock
    retry: bool


class Found(NamedTuple):
    """Say what came of a question."""

    outcome: Outcome
    rcode: str = ""  # "" where nothing answered
    addresses: tuple[str, ...] = ()
    mark: bytes = b""
    source: str = ""


class Lookup:
    """Ask for each candidate name in turn until one has addresses."""

    def __init__(self, network: Network, question: Question, done: Callable[[Found], None]) -> None:
        self._network = network
        self._question = question
        self._done = done
        self._candidates = candidates(question.name, question.search)
        self._at = 0
        self._query_id = 0
        self._answer: dns.Answer | None = None
        self._best: dns.Answer | None = None  # of the candidates that have no address
        self._step: TcpExchange | UdpExchange | None = None
        self._frame = FrameReader()

    def start(self) -> None:
        """Ask for the first candidate; the lookup may end before this returns."""
        self._ask()

    def look(self, deadline: float) -> bool:
        """Look once more for an answer, and return whether one was there or the step began only after the deadline."""
        return self._step is not None and self._step.look(deadline)

    def expire(self) -> None:
        """End because time is up."""
        if self._step is not None:
            self._step.expire()

    def end(self, outcome: Outcome) -> None:
        """Close the socket and report."""
        if self._step is not None:
            self._step.end(outcome)

    def _ask(self) -> None:
        question = self._question
        self._query_id = secrets.randbelow(65536)
        self._answer = None
        step = UdpExchange(self._network, self._message(), self._accept, self._told_by_datagram)
        self._step = step
        step.start(question.nonce, question.resolver, question.bind, question.until, question.retry)

    def _ask_by_stream(self) -> None:
        message = self._message()
        self._frame = FrameReader()
        step = TcpExchange(self._network, len(message).to_bytes(2, "big") + message, self._frame, self._told_by_stream)
        self._step = step
        step.start(self._question.nonce, self._question.resolver, self._question.bind)

    def _message(self) -> bytes:
        question = self._question
        query_type = dns.A if question.family == 4 else dns.AAAA
        return dns.build_query(self._query_id, self._candidates[self._at], query_type, question.nonce if question.marked else "")

    def _accept(self, message: bytes) -> bool:
        try:
            answer = dns.read_answer(message)
        except dns.DnsError:
            return False
        # A server that cannot read a question returns it without one.
        unasked = answer.rcode == "FORMERR" and not answer.name
        asked = self._candidates[self._at].rstrip(".").lower()
        if answer.id != self._query_id or not (unasked or answer.name.lower() == asked):
            return False
        self._answer = answer
        return True

    def _told_by_datagram(self, outcome: Outcome) -> None:
        if outcome.signal == "answered" and self._answer is not None and self._answer.truncated:
            self._ask_by_stream()
        else:
            self._conclude(outcome)

    def _told_by_stream(self, outcome: Outcome) -> None:
        if outcome.signal == "answered" and not self._accept(self._frame.message):
            outcome = Outcome("closed", "request", "answer is not DNS")
        self._conclude(outcome)

    def _conclude(self, outcome: Outcome) -> None:
        answer = self._answer
        source = self._step.source if self._step is not None else ""
        if outcome.signal != "answered" or answer is None:
            self._step = None
            self._done(Found(outcome, source=source))
            return
        # Like the C library: a name that has no address under one suffix, or whose server refuses, is sought under the next.
        if self._best is None or self._best.rcode == "NXDOMAIN":
            self._best = answer
        self._at += 1
        if not answer.addresses and self._at < len(self._candidates):
            self._ask()
            return
        told = answer if answer.addresses else self._best
        self._step = None
        self._done(Found(outcome, told.rcode, told.addresses, told.mark, source))


def candidates(name: str, search: Sequence[str]) -> list[str]:
    """Return the names to ask for, in order, as a resolver with ndots 5 would."""
    if name.endswith(".") or not search:
        return [name]
    expanded = [f"{name}.{suffix.strip('.')}" for suffix in search]
    return [name, *expanded] if name.count(".") >= NDOTS else [*expanded, name]
