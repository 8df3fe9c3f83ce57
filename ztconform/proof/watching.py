# SPDX-License-Identifier: Apache-2.0
"""The open-loop stream of a step's denied rows, from before apply until convergence, and the windows read from it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from time import monotonic

from ztconform.cluster import Cluster
from ztconform.evidence import Observation
from ztconform.model import Ref
from ztconform.proof import window
from ztconform.proof.examiner import attempts_of
from ztconform.proof.trial import Finding, Trial
from ztconform.timeouts import Timeouts


class Watching:
    """Send the denied rows of a step open loop; use it as a context manager."""

    def __init__(self, cluster: Cluster, trials: Sequence[Trial], timeouts: Timeouts) -> None:
        self._trials = {t.row.id: t.attempts for t in trials}
        self._attempts = attempts_of(trials)
        # Rows beyond the stream's rate are sent less often, and the window prints what it is worth.
        self._every = max(timeouts.spacing, len(self._attempts) / timeouts.stream_rate)
        self._timeouts = timeouts
        self._cluster = cluster
        self._log: list[Observation] = []
        self._before: Mapping[Ref, float] = {}
        self._denied: dict[str, float] = {}  # by attempt: when the probe was sent that first met its denial
        self._stack = ExitStack()

    def __enter__(self) -> "Watching":
        self._stream = self._stack.enter_context(self._cluster.watch(self._attempts, self._every))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def await_first(self) -> None:
        """Wait until every attempt has come back once, so that its window has a beginning."""
        waiting = {a.id for a in self._attempts}
        deadline = monotonic() + self._timeouts.converge
        while waiting and monotonic() < deadline:
            new = self._stream.drain(wait=self._timeouts.spacing)
            self._log += new
            waiting -= {o.attempt for o in new}

    def mark(self) -> None:
        """Set the marker from which windows count: call it right before the change."""
        self._before = self._stream.mark()

    def converged(self, findings: Iterable[Finding]) -> None:
        """Take the first good round: behind its probes nothing may get through any more."""
        self._denied.update((f.attempt.id, f.observation.sent) for f in findings)

    def halt(self, after: float) -> None:
        """Stop sending after so many seconds."""
        self._stream.halt(after)

    def finish(self, trials: Sequence[Trial], seen: Collection[str]) -> None:
        """Collect what is still under way and set the windows of those of the trials that were watched as they now stand."""
        self._log += self._stream.stop()
        for trial in trials:
            attempts = self._trials.get(trial.row.id)
            if attempts and attempts == trial.attempts:
                trial.window = window.measure(attempts, self._log, self._before, self._every, seen)
                again = window.after(attempts, self._log, self._denied, seen)
                if again and not trial.red:
                    trial.blame("VIOLATED", f"let through {again} times after it had been denied")
