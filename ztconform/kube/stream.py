# SPDX-License-Identifier: Apache-2.0
"""An open-loop stream on Kubernetes: the agents of its client pods send on their own, and we collect."""

import queue
import threading
from collections.abc import Mapping, Sequence
from itertools import count
from time import monotonic
from typing import Any

from ztconform.controls import observation
from ztconform.evidence import Observation
from ztconform.kube.link import Link, LinkError, Message, Pending
from ztconform.model import Attempt, Ref

_numbers = count(1)
_ANSWER = 5.0  # seconds for an order that waits for nothing
_REST = 15.0  # seconds for what is still under way when a stream is stopped


class KubeStream:
    """Send attempts every `spacing` seconds until halted; a context manager whose end stops it."""

    def __init__(
        self,
        links: Mapping[Ref, Link | None],
        attempts: Sequence[Attempt],
        specs: Sequence[tuple[Ref, dict[str, Any]]],
        every: float,
    ) -> None:
        """Start at once; `specs` come with whose agent sends each.

        From an agent that has no link nothing is sent, and its windows will not be measured.
        """
        self.spacing = every
        self._attempts = attempts
        self._name = f"stream-{next(_numbers)}"
        self._came: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._halting: list[Pending] = []
        self._lock = threading.Lock()
        self._halted = self._stopped = False
        self._timer: threading.Timer | None = None
        by_sender: dict[Ref, list[dict[str, Any]]] = {}
        self._senders: dict[Ref, set[Ref]] = {}  # by client pod: those that send for it share its node's clock
        for at, (attempt, (sender, spec)) in enumerate(zip(attempts, specs, strict=True)):
            by_sender.setdefault(sender, []).append({**spec, "attempt": str(at)})
            self._senders.setdefault(attempt.probe.source, set()).add(sender)
        self._links = {sender: link for sender in by_sender if (link := links.get(sender)) is not None}
        started = []
        for sender, link in self._links.items():
            link.listen(self._name, self._came)
            started.append(link.ask("stream", stream=self._name, specs=by_sender[sender], every=every))
        _results(started, _ANSWER)

    def __enter__(self) -> "KubeStream":
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._stopped:
            self.stop()

    def mark(self) -> Mapping[Ref, float]:
        """Return now on the clock of each client pod's agent; one that cannot be asked is left out."""
        asked = {sender: link.ask("mark") for sender, link in self._links.items()}
        answers = dict(zip(asked, _results(asked.values(), _ANSWER), strict=True))
        marks = {
            source: [answer["now"] for sender in senders if (answer := answers.get(sender)) is not None]
            for source, senders in self._senders.items()
        }
        # The earliest: a window that is too long by the difference is never too short.
        return {source: min(found) for source, found in marks.items() if len(found) == len(self._senders[source])}

    def drain(self, wait: float = 0.0) -> Sequence[Observation]:
        """Return what came since the last call, waiting up to `wait` seconds for the first."""
        found: list[Observation] = []
        if wait and not self._stopped:
            try:
                found.append(self._read(self._came.get(timeout=wait)))
            except queue.Empty:
                return found
        while True:
            try:
                found.append(self._read(self._came.get_nowait()))
            except queue.Empty:
                return found

    def halt(self, after: float = 0.0) -> None:
        """Stop sending after so many seconds; what is under way then still counts."""
        if self._timer is None and not self._stopped:
            self._timer = threading.Timer(after, self._halt)
            self._timer.daemon = True
            self._timer.start()

    def _halt(self) -> None:
        with self._lock:
            if not self._halted:
                self._halted = True
                self._halting = [link.ask("stop", stream=self._name) for link in self._links.values()]

    def stop(self) -> Sequence[Observation]:
        """Stop sending, wait for what is under way, and return what came since the last drain."""
        if self._stopped:
            return ()
        if self._timer is not None:
            self._timer.cancel()
        self._halt()
        _results(self._halting, _REST)
        rest = self.drain()
        self._stopped = True
        for link in self._links.values():
            link.forget(self._name)
        return rest

    def _read(self, answer: Message) -> Observation:
        return observation(answer, self._attempts[int(answer["attempt"])].id)


def _results(asked: Any, seconds: float) -> list[Message | None]:
    """Return the answers; None for one that did not come: its windows will lack a marker, or their end."""
    deadline = monotonic() + seconds
    found: list[Message | None] = []
    for pending in asked:
        try:
            found.append(pending.result(deadline))
        except LinkError:
            found.append(None)
    return found
