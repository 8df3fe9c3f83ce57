# SPDX-License-Identifier: Apache-2.0
"""Probes sent open loop, so that a window in which a denied one is answered can be measured.

Each probe is sent on schedule, whether or not the last came back; what the answers mean is for the proof protocol.
"""

from __future__ import annotations

import asyncio
import secrets
from time import monotonic
from typing import TYPE_CHECKING

from .spec import SpecError, read_spec
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    from .attempt import Done, Observation
    from .spec import Spec

    class Sender(Protocol):
        """Send one probe, as `Prober` does."""

        def send(self, spec: Spec, nonce: str, done: Done) -> None: ...


class Streams:
    """Run streams of probes on one prober, in the running loop."""

    def __init__(self, prober: Sender) -> None:
        self._prober = prober
        self._streams: dict[str, _Stream] = {}

    def start(self, stream: str, specs: Sequence[Mapping[str, Any]], every: float, emit: Callable[[Observation], None]) -> None:
        """Send each spec every so many seconds, under fresh nonces; raises AgentError for a spec that cannot be sent."""
        if stream in self._streams:
            raise AgentError(f"stream {stream!r} runs already")
        if not specs or not every > 0:
            raise AgentError(f"stream {stream!r} needs a spec and a period above 0, not {len(specs)} and {every}")
        try:
            read = [read_spec(fields) for fields in specs]
        except SpecError as error:
            raise AgentError(f"stream {stream!r}, {error}") from error
        if any(spec.connection for spec in read):
            raise AgentError(f"stream {stream!r}: each of its probes has a connection of its own, and takes none by name")
        self._streams[stream] = _Stream(self._prober, read, every, emit)

    async def stop(self, stream: str) -> None:
        """Send no more, and return when the last observation was given out; raises AgentError for a stream that is not."""
        if stream not in self._streams:
            raise AgentError(f"no stream {stream!r} runs")
        await self._streams.pop(stream).stop()

    def abandon(self) -> None:
        """Send no more in any stream, and give out nothing more: nobody listens."""
        for stream in self._streams.values():
            stream.abandon()
        self._streams.clear()


class _Stream:
    """Send in slots: slot n is due at n times the period over the number of specs, and sends spec n modulo that number."""

    def __init__(self, prober: Sender, specs: Sequence[Spec], every: float, emit: Callable[[Observation], None]) -> None:
        self._prober = prober
        self._specs = specs
        self._spacing = every / len(specs)
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._started = monotonic()
        self._slot = 0  # the next to be sent
        self._outstanding = 0
        self._drained: asyncio.Future[None] | None = None
        self._timer = self._loop.call_soon(self._send)

    async def stop(self) -> None:
        self._timer.cancel()
        self._drained = self._loop.create_future()
        if not self._outstanding:
            return
        await self._drained

    def abandon(self) -> None:
        self._timer.cancel()
        self._emit = _nobody

    def _send(self) -> None:
        due = int((monotonic() - self._started) / self._spacing)
        # After a stall each spec is sent once: a burst would not tell what happened during it.
        first = max(self._slot, due - len(self._specs) + 1)
        for slot in range(first, due + 1):
            self._outstanding += 1
            self._prober.send(self._specs[slot % len(self._specs)], secrets.token_hex(8), self._came)
        self._slot = max(self._slot, due + 1)
        self._timer = self._loop.call_at(self._started + self._slot * self._spacing, self._send)

    def _came(self, observation: Observation) -> None:
        self._outstanding -= 1
        self._emit(observation)
        if self._drained is not None and not self._outstanding and not self._drained.done():
            self._drained.set_result(None)


def _nobody(observation: Observation) -> None:
    """Take what nobody waits for any more."""
