# SPDX-License-Identifier: Apache-2.0
"""How one probe goes, from its first packet to its observation.

How sockets behave is for `exchange`, how names are found for `lookup`, what is sent and read over TCP for `talk`; starting probes
and waiting for them is for `prober`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from .exchange import ANSWERED, Network, Outcome, TcpExchange
from .lookup import Found, Lookup, Question
from .readers import HttpReader, LineReader
from .talk import connection, opening
from .tlsexchange import TlsExchange
from .udpexchange import UdpExchange
from .wire import FOREIGN_NONCE, UNMARKED, Mark, read_mark, request_line

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any, Union

    from .readers import AnswerReader
    from .spec import Spec

    Observation = dict[str, Any]
    Done = Callable[[Observation], None]
    Step = Union[TcpExchange, UdpExchange, Lookup]

MAX_BODY = 512  # characters


class Attempt:
    """Take one probe from its first packet to its observation."""

    __slots__ = (
        "_deadline",
        "_done",
        "_network",
        "_reader",
        "_sent",
        "_step",
        "_target",
        "_timer",
        "_under_way",
        "nonce",
        "spec",
    )

    def __init__(self, network: Network, spec: Spec, nonce: str, done: Done, under_way: set[Attempt]) -> None:
        self._network = network
        self.spec = spec
        self.nonce = nonce
        self._done: Done | None = done
        self._under_way = under_way
        self._target = (spec.address, spec.port)
        self._step: Step | None = None
        self._reader: AnswerReader = LineReader()
        self._sent = monotonic()  # the loop's clock too
        self._deadline = self._sent + spec.timeout
        self._timer: asyncio.TimerHandle | None = None
        under_way.add(self)

    def start(self) -> None:
        """Send; the attempt may end before this returns."""
        spec = self.spec
        self._timer = self._network.loop.call_at(self._deadline, self._expire)
        if spec.kind == "dns":
            self._look_up(spec.path, self._target, marked=True, done=self._found)
        elif spec.name:
            # The nonce stays out of these questions: it belongs to the server that is dialled, and a nameserver that
            # witnessed it would turn a denied probe into one that came through.
            self._look_up(spec.name, spec.resolver, marked=False, done=self._resolved)
        else:
            self._exchange()

    def take_turn(self, before: AnswerReader | None) -> tuple[bytes, AnswerReader]:
        """Begin on a connection that others use too, behind the answer that was read `before`; return what to send."""
        self._sent = monotonic()
        self._deadline = self._sent + self.spec.timeout
        self._timer = self._network.loop.call_at(self._deadline, self._expire)
        request, self._reader = opening(self.spec, self.nonce, before)
        return request, self._reader

    def share(self, exchange: TcpExchange) -> None:
        """Watch over the shared connection's exchange while the turn lasts."""
        self._step = exchange

    @property
    def over(self) -> bool:
        """Return whether the observation was given out."""
        return self._done is None

    def abandon(self, detail: str) -> None:
        """End as not run."""
        self._report(Outcome("not-run", "exec", detail))

    def _look_up(self, name: str, resolver: tuple[str, int], marked: bool, done: Callable[[Found], None]) -> None:
        spec = self.spec
        until = self._deadline
        question = Question(name, spec.family, resolver, spec.search, self.nonce, marked, spec.bind, until, spec.retry)
        lookup = Lookup(self._network, question, done)
        self._step = lookup
        lookup.start()

    def _resolved(self, found: Found) -> None:
        if found.addresses:
            self._target = (found.addresses[0], self.spec.port)
            self._exchange()
        elif found.outcome.signal == "not-run":
            self._report(found.outcome, found.source)
        else:
            signal, _, detail = found.outcome
            if signal == "answered":
                reason = found.rcode if found.rcode != "NOERROR" else "no address"
            elif signal in ("silence", "timeout"):
                reason = "timeout"
            else:
                reason = f"{signal} {detail}"
            self._report(Outcome("dns", "dns", reason), found.source)

    def _found(self, found: Found) -> None:
        if found.outcome.signal != "answered":
            self._report(found.outcome, found.source)
            return
        mark = read_mark(found.mark.decode("latin-1")) if found.mark else None
        body = " ".join(found.addresses)
        if len(body) > MAX_BODY:
            body = body[: MAX_BODY + 1].rpartition(" ")[0]  # half an address would be another one
        self._report(Outcome("answered", "done", found.rcode), found.source, body=body, mark=mark)

    def _exchange(self) -> None:
        spec = self.spec
        if spec.kind == "udp":
            datagram = UdpExchange(self._network, request_line(self.nonce), self._take_datagram, self._exchanged)
            self._step = datagram
            datagram.start(self.nonce, self._target, spec.bind, self._deadline, spec.retry)
            return
        request, self._reader = opening(spec, self.nonce)
        try:
            stream = connection(self._network, spec, request, self._reader, self._exchanged)
        except (OSError, ValueError) as error:
            self._report(Outcome("not-run", "tls", f"tls: {error}"))
            return
        self._step = stream
        stream.start(self.nonce, self._target, spec.bind, spec.mark)

    def _take_datagram(self, data: bytes) -> bool:
        self._reader.feed(data)
        return True

    def _exchanged(self, outcome: Outcome) -> None:
        step = self._step
        if outcome is ANSWERED and self.spec.kind == "tls" and isinstance(step, TlsExchange):
            outcome = Outcome("answered", "done", step.describe())
        self._conclude(outcome, step.source if isinstance(step, (TcpExchange, UdpExchange)) else "")

    def end_turn(self, outcome: Outcome, source: str) -> None:
        """End, and leave the shared connection to the next."""
        self._step = None
        self._conclude(outcome, source)

    def _conclude(self, outcome: Outcome, source: str) -> None:
        reader = self._reader
        if outcome.signal != "answered":
            self._report(outcome, source, server=reader.server if isinstance(reader, HttpReader) else "")
            return
        answer = reader.answer()
        if answer.closed:
            outcome = Outcome("closed", "request", answer.detail)
        elif answer.detail:
            outcome = Outcome("answered", "done", answer.detail)
        self._report(outcome, source, body=answer.body[:MAX_BODY], mark=answer.mark, status=answer.status, server=answer.server)

    def _expire(self) -> None:
        step = self._step
        if step is None:
            return
        loop = self._network.loop
        try:
            # What lies in the socket came in time, and what was sent late has had no time to be answered: a loop that was
            # busy or starved must not make silence of it.
            late = step.look(self._deadline)
            if self._done is None:
                return
            if late:
                self._deadline = loop.time() + self.spec.timeout
                self._timer = loop.call_at(self._deadline, self._expire)
                return
            step.expire()
        except Exception as error:  # boundary: a probe never raises, and one that did would hang its round
            self.abandon(repr(error))

    def _report(
        self,
        outcome: Outcome,
        source: str = "",
        *,
        body: str = "",
        mark: Mark | None = None,
        status: int | None = None,
        server: str = "",
    ) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        step, self._step = self._step, None
        if step is not None:
            step.end(outcome)
        self._under_way.discard(self)
        signal, stage, detail = outcome
        backend = boot = ""
        if mark is not None and mark.nonce == self.nonce:
            backend, boot = mark.pod, mark.boot
        elif signal == "answered" and not detail:
            detail = UNMARKED if mark is None else FOREIGN_NONCE
        target = self._target
        done(
            {
                "attempt": self.spec.attempt,
                "nonce": self.nonce,
                "sent": self._sent,
                "ended": monotonic(),
                "signal": signal,
                "stage": stage,
                "detail": detail,
                "source": source,
                "peer": f"{target[0]} {target[1]}" if target[0] else "",
                "status": status,
                "server": server,
                "body": body,
                "backend": backend,
                "boot": boot,
            }
        )
