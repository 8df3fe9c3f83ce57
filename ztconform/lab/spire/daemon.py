# SPDX-License-Identifier: Apache-2.0
"""One SPIRE process, server or agent: started, found to answer, and ended; what it is for is left to `server` and `host`.

It is a child of the lab's own process, in its namespaces, and ends with it.
"""

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from ztconform.errors import ClusterError

START_SECONDS = 60.0  # one or two are usual
_POLL = 0.02  # seconds between two looks
_LONGEST = 600  # characters of its log in a message


class Daemon:
    """Hold a process that listens on a Unix socket; every method raises ClusterError in its own words where it fails."""

    def __init__(self, name: str, command: Sequence[str], socket: Path, log: Path) -> None:
        self.name = name
        self.socket = socket
        self.log = log
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Return whether the process runs."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start the process, and return when its socket is answered."""
        self.socket.unlink(missing_ok=True)  # one that was killed leaves it, and nobody behind it
        with open(self.log, "ab") as log:
            try:
                self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            except OSError as error:
                raise ClusterError(f"{self.name} ({self._command[0]}) cannot be started: {error.strerror}") from error
        deadline = monotonic() + START_SECONDS
        while not await self._answers():
            self.demand()
            if monotonic() > deadline:
                raise ClusterError(f"{self.name} did not start in time; is this machine overloaded? {self.said()}")
            await asyncio.sleep(_POLL)

    def demand(self) -> None:
        """Raise where the process has ended and nobody stopped it."""
        if self._process is not None and not self.alive:
            raise ClusterError(f"{self.name} ended by itself: {self.said()}")

    async def ended(self, seconds: float) -> None:
        """Return when the process has ended by itself."""
        deadline = monotonic() + seconds
        while self.alive:
            if monotonic() > deadline:
                raise ClusterError(f"{self.name} still runs after {seconds:.0f} s: {self.said()}")
            await asyncio.sleep(_POLL)

    def stop(self) -> None:
        """End the process at once, as a failed node would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def said(self) -> str:
        """Return the end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " ".join(text.split())[-_LONGEST:] or "it said nothing"

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:  # it does not listen yet
            return False
        writer.close()
        return True
