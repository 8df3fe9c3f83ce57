# SPDX-License-Identifier: Apache-2.0
"""Where the time of a run goes: seconds by phase, one phase at a time; adding them up over a run is left to `record`."""

from time import monotonic


class Stopwatch:
    """Add up the seconds of phases, each of which ends where the next one begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._phase = ""
        self._since = 0.0

    def begin(self, phase: str) -> None:
        """End the phase that is under way and begin this one; "" begins none."""
        now = monotonic()
        if self._phase:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now
