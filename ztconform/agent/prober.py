# SPDX-License-Identifier: Apache-2.0
"""What each probe meets, told as an observation: one dict for one spec, whatever happens.

How one probe goes is for `attempt`; what an observation proves is for the judge.
"""

from __future__ import annotations

import asyncio
import secrets
from time import monotonic
from typing import TYPE_CHECKING

from .attempt import Attempt
from .exchange import Network
from .poller import Poller
from .sourceports import SourcePorts
from .spec import Spec, SpecError, read_spec
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .attempt import Done, Observation
    from .wire import OnSent, OpenSocket

_SIDE_BY_SIDE = 64  # probes started before the loop may look at answers; all in one go would make the first ones late


class Prober:
    """Send probes from the sockets that `open_socket` gives, in the running loop."""

    def __init__(self, open_socket: OpenSocket, on_sent: OnSent | None = None, source_ports: SourcePorts | None = None) -> None:
        """Call `on_sent` with source and target as soon as the kernel chose the source port, before the loop runs again.

        Probers that leave from the same address share `source_ports`.
        """
        loop = asyncio.get_running_loop()
        self._network = Network(loop, Poller(loop), open_socket, on_sent, source_ports or SourcePorts())
        self._under_way: set[Attempt] = set()

    def start(self, fields: Mapping[str, Any], done: Done) -> None:
        """Send one probe and call back with its observation, possibly before this returns; never raises.

        One that shares its connection is refused: only `start_in_turn` knows with whom.
        """
        spec = _read(fields, done)
        if spec is None:
            return
        if spec.connection:
            done(unsent(fields, f"spec: connection {spec.connection!r} is for probes that are sent together"))
            return
        self.send(spec, spec.nonce or secrets.token_hex(8), done)

    def start_in_turn(self, probes: Sequence[tuple[Mapping[str, Any], Done]]) -> None:
        """Send probes over one connection, each when the last was answered, and call back as `start` does; never raises.

        They differ in nothing that makes a connection: kind, address, port, bind, tls and mark.
        """
        attempts: list[Attempt] = []
        for fields, done in probes:
            spec = _read(fields, done)
            if spec is None:
                continue
            if attempts and _connecting(spec) != _connecting(attempts[0].spec):
                done(unsent(fields, f"spec: connection {spec.connection!r} was begun with another kind, target or way to it"))
                continue
            attempts.append(Attempt(self._network, spec, spec.nonce or secrets.token_hex(8), done, self._under_way))
        if not attempts:
            return
        try:
            Turns(self._network, attempts).start()
        except Exception as error:  # boundary: the socket factory is foreign code, and a probe never raises
            for attempt in attempts:
                attempt.abandon(repr(error))

    def send(self, spec: Spec, nonce: str, done: Done) -> None:
        """Send a spec that was read before, under a nonce of its own."""
        attempt = Attempt(self._network, spec, nonce, done, self._under_way)
        try:
            attempt.start()
        except Exception as error:  # boundary: the socket factory is foreign code, and a probe never raises
            attempt.abandon(repr(error))

    async def probe(self, fields: Mapping[str, Any]) -> Observation:
        """Send one probe and return its observation."""
        return (await self.probe_all([fields]))[0]

    async def probe_all(self, specs: Sequence[Mapping[str, Any]]) -> list[Observation]:
        """Send probes and return their observations in the same order: side by side, save those that share a connection."""
        observations: list[Any] = [None] * len(specs)
        missing = len(specs)
        complete = self._network.loop.create_future()

        def collect(at: int) -> Done:
            def done(observation: Observation) -> None:
                nonlocal missing
                observations[at] = observation
                missing -= 1
                if not missing and not complete.done():
                    complete.set_result(None)

            return done

        shared = _by_connection(specs)
        for at, fields in enumerate(specs):
            together = shared.get(at, ())
            if together is None:
                continue  # sent with the first on its connection
            if together:
                self.start_in_turn([(specs[other], collect(other)) for other in together])
            else:
                self.start(fields, collect(at))
            if at % _SIDE_BY_SIDE == _SIDE_BY_SIDE - 1:
                await asyncio.sleep(0)
        if specs:
            await complete
        return observations

    def close(self) -> None:
        """End the probes under way as not run, and leave the loop."""
        for attempt in tuple(self._under_way):
            attempt.abandon("the prober was closed")
        self._network.poller.close()


def _read(fields: Mapping[str, Any], done: Done) -> Spec | None:
    try:
        return read_spec(fields)
    except Exception as error:  # boundary: whatever is wrong with a spec becomes an observation
        done(unsent(fields, f"spec: {error}" if isinstance(error, SpecError) else f"spec: {error!r}"))
        return None


def _connecting(spec: Spec) -> tuple[Any, ...]:
    return spec.kind, spec.address, spec.port, spec.bind, spec.tls, spec.mark, spec.connection


def _by_connection(specs: Sequence[Mapping[str, Any]]) -> dict[int, list[int] | None]:
    """Return, at the place of the first probe on each connection, the places of all of them, and None at the others'."""
    first: dict[str, int] = {}
    places: dict[int, list[int] | None] = {}
    for at, fields in enumerate(specs):
        name = fields.get("connection") if isinstance(fields, dict) else None
        if not name or not isinstance(name, str):
            continue
        together = places.get(first.setdefault(name, at))
        if together is None:
            places[at] = [at]
        else:
            together.append(at)
            places[at] = None
    return places


def unsent(fields: Mapping[str, Any], detail: str) -> Observation:
    """Return the observation of a spec that could not be read or sent, or whose answer was lost."""
    now = monotonic()
    texts = {name: str(fields.get(name) or "") for name in ("attempt", "nonce")} if isinstance(fields, dict) else {}
    return {
        "attempt": texts.get("attempt", ""),
        "nonce": texts.get("nonce", ""),
        "sent": now,
        "ended": now,
        "signal": "not-run",
        "stage": "exec",
        "detail": detail,
        "source": "",
        "peer": "",
        "status": None,
        "server": "",
        "body": "",
        "backend": "",
        "boot": "",
    }
