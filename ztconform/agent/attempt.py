# SPDX-License-Identifier: Apache-2.0
"""How one probe goes, from its first packet to its observation.

How sockets behave is for `exchange`, how names are found for `lookup`; starting probes and waiting for them is for `prober`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from .exchange import ANSWERED, Network, Outcome, TcpExchange, UdpExchange
from .lookup import Found, Lookup, Question
from .readers import HttpReader, LineReader
from .wire import NONCE_HEADER, SERVER_NAME, Mark, read_answer_line, read_mark, request_line

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any, Union

    from .spec import Spec

    Observation = dict[str, Any]
    Done = Callable[[Observation], None]
    Step = Union[TcpExchange, UdpExchange, Lookup]

MAX_BODY = 512  # characters
_WITH_CONTENT = ("POST", "PUT", "PATCH")


class Attempt:
    """Take one probe from its first packet to its observation."""

    __slots__ = (
        "_deadline",
        "_done",
        "_network",
        "_nonce",
        "_reader",
        "_sent",
        "_spec",
        "_step",
        "_target",
        "_timer",
        "_under_way",
    )

    def __init__(self, network: Network, spec: Spec, nonce: str, done: Done, under_way: set[Attempt]) -> None:
        self._network = network
        self._spec = spec
        self._nonce = nonce
        self._done: Done | None = done
        self._under_way = under_way
        self._target = (spec.address, spec.port)
        self._step: Step | None = None
        self._reader: HttpReader | LineReader = LineReader()
        self._sent = monotonic()  # the loop's clock too
        self._deadline = self._sent + spec.timeout
        self._timer: asyncio.TimerHandle | None = None
        under_way.add(self)

    def start(self) -> None:
        """Send; the attempt may end before this returns."""
        spec = self._spec
        self._timer = self._network.loop.call_at(self._deadline, self._expire)
        if spec.kind == "dns":
            self._look_up(spec.path, self._target, marked=True, done=self._found)
        elif spec.name:
            # The nonce stays out of these questions: it belongs to the server that is dialled, and a nameserver that
            # witnessed it would turn a denied probe into one that came through.
            self._look_up(spec.name, spec.resolver, marked=False, done=self._resolved)
        else:
            self._exchange()

    def abandon(self, detail: str) -> None:
        """End as not run."""
        self._report(Outcome("not-run", "exec", detail))

    def _look_up(self, name: str, resolver: tuple[str, int], marked: bool, done: Callable[[Found], None]) -> None:
        spec = self._spec
        until = self._deadline
        question = Question(name, spec.family, resolver, spec.search, self._nonce, marked, spec.bind, until, spec.retry)
        lookup = Lookup(self._network, question, done)
        self._step = lookup
        lookup.start()

    def _resolved(self, found: Found) -> None:
        if found.addresses:
            self._target = (found.addresses[0], self._spec.port)
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
        spec = self._spec
        if spec.kind == "udp":
            datagram = UdpExchange(self._network, request_line(self._nonce), self._take_datagram, self._exchanged)
            self._step = datagram
            datagram.start(self._nonce, self._target, spec.bind, self._deadline, spec.retry)
            return
        if spec.kind == "http":
            self._reader = HttpReader(spec.method)
            request = http_request(spec, self._nonce)
        else:
            request = request_line(self._nonce)
        stream = TcpExchange(self._network, request, self._reader, self._exchanged)
        self._step = stream
        stream.start(self._nonce, self._target, spec.bind)

    def _take_datagram(self, data: bytes) -> bool:
        self._reader.feed(data)
        return True

    def _exchanged(self, outcome: Outcome) -> None:
        source = self._step.source if isinstance(self._step, (TcpExchange, UdpExchange)) else ""
        reader = self._reader
        if isinstance(reader, HttpReader):
            if outcome is not ANSWERED:
                self._report(outcome, source, server=reader.server)
                return
            text = reader.body.decode("latin-1")
            mark = read_mark(reader.mark or text)
            if reader.problem:
                outcome = Outcome("answered", "done", reader.problem)
            self._report(outcome, source, body=text[:MAX_BODY], mark=mark, status=reader.status, server=reader.server)
        elif outcome is ANSWERED:
            mark = read_answer_line(reader.line)
            self._report(outcome, source, body=reader.line.decode("latin-1")[:MAX_BODY], mark=mark)
        else:
            self._report(outcome, source)

    def _expire(self) -> None:
        step = self._step
        if step is None:
            return
        loop = self._network.loop
        try:
            # What lies in the socket came in time, and what was sent late has had no time to be answered: a loop that was
            # busy or starved must not make silence of it.
            if step.look(self._deadline):
                if self._done is not None:
                    self._deadline = loop.time() + self._spec.timeout
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
        if mark is not None and mark.nonce == self._nonce:
            backend, boot = mark.pod, mark.boot
        elif signal == "answered" and not detail:
            detail = "answer carries no mark of an agent" if mark is None else "answer carries another nonce"
        target = self._target
        done(
            {
                "attempt": self._spec.attempt,
                "nonce": self._nonce,
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


def http_request(spec: Spec, nonce: str) -> bytes:
    """Return the request that an HTTP probe sends: the spec's own headers as they are, ours where it has none."""
    given = {name.lower() for name, _ in spec.headers} if spec.headers else ()
    lines = [f"{spec.method} {spec.path} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {spec.host if spec.host is not None else _authority(spec)}")
    lines += [f"{name}: {value}" for name, value in spec.headers]
    lines.append(f"{NONCE_HEADER}: {nonce}")
    if "user-agent" not in given:
        lines.append(f"User-Agent: {SERVER_NAME}")
    if "connection" not in given:
        lines.append("Connection: close")
    if spec.method in _WITH_CONTENT and "content-length" not in given:
        lines.append("Content-Length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _authority(spec: Spec) -> str:
    address = f"[{spec.address}]" if ":" in spec.address else spec.address
    return f"{spec.name or address}:{spec.port}"
