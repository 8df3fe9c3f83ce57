# SPDX-License-Identifier: Apache-2.0
"""An open-loop stream in the lab: the prober sends on its own, and we collect."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from ztconform.controls import observation
from ztconform.evidence import Observation
from ztconform.lab.process import Channel
from ztconform.model import Attempt, Ref

_numbers = count(1)


class LabStream:
    """Send attempts every `spacing` seconds until halted; a context manager whose end stops it."""

    def __init__(self, prober: Channel, attempts: Sequence[Attempt], specs: Sequence[dict[str, Any]], every: float) -> None:
        self.spacing = every
        self._prober = prober
        self._attempts = attempts
        self._number = next(_numbers)
        self._stopped = not attempts
        if attempts:
            sent = [{**spec, "attempt": str(i)} for i, spec in enumerate(specs)]
            prober.ask("watch", stream=self._number, specs=sent, every=every)

    def __enter__(self) -> "LabStream":
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._stopped:
            self.stop()

    def mark(self) -> Mapping[Ref, float]:
        """Return now; all of the lab's clients share one clock."""
        if not self._attempts:
            return {}
        now = self._prober.ask("mark")["now"]
        return {a.probe.source: now for a in self._attempts}

    def drain(self, wait: float = 0.0) -> Sequence[Observation]:
        """Return what came since the last call, waiting up to `wait` seconds for the first."""
        if self._stopped:
            return ()
        return self._read(self._prober.ask("drain", stream=self._number, wait=wait))

    def halt(self, after: float = 0.0) -> None:
        """Stop sending after so many seconds; what is under way then still counts."""
        if not self._stopped:
            self._prober.ask("halt", stream=self._number, after=after)

    def stop(self) -> Sequence[Observation]:
        """Stop sending, wait for what is under way, and return what came since the last drain."""
        if self._stopped:
            return ()
        self._stopped = True
        return self._read(self._prober.ask("stop", stream=self._number))

    def _read(self, answer: Mapping[str, Any]) -> list[Observation]:
        return [observation(o, self._attempts[int(o["attempt"])].id) for o in answer["observations"]]
