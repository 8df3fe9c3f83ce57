# SPDX-License-Identifier: Apache-2.0
"""How one agent process is driven: JSON objects, one a line, in both directions.

    {"id": 1, "op": "probe", "specs": [...]}                          -> {"id": 1, "observations": [...]}
    {"id": 2, "op": "seen", "since": 0}                               -> {"id": 2, "boot": ..., "sightings": [...]}
    {"id": 3, "op": "stream", "stream": "s", "specs": [...], "every": 0.01}  -> {"id": 3}
        and from then on                                              -> {"stream": "s", "observations": [...]}
    {"id": 4, "op": "mark"}                                           -> {"id": 4, "now": ...}, on the clock of the observations
    {"id": 5, "op": "stop", "stream": "s"}                            -> {"id": 5}, behind the stream's last observations
    anything else                                                     -> {"id": ..., "error": ...}

What the operations do is in `prober`, `stream` and `server`; who speaks to whom is for the caller.
"""

from __future__ import annotations

import asyncio
import json
from time import monotonic
from typing import TYPE_CHECKING

from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .attempt import Observation
    from .prober import Prober
    from .server import Server
    from .stream import Streams

MAX_REQUEST = 1 << 26  # bytes in a line: 100,000 specs and more

_FIELDS = {
    "probe": {"specs"},
    "seen": {"since"},
    "stream": {"stream", "specs", "every"},
    "mark": set(),
    "stop": {"stream"},
}


class Channel:
    """Carry out what the lines ask for and `write` the answers, each with its end of line."""

    def __init__(self, prober: Prober, streams: Streams, server: Server | None, write: Callable[[bytes], None]) -> None:
        self._prober = prober
        self._streams = streams
        self._server = server
        self._write = write
        self._tasks: set[asyncio.Task[None]] = set()
        self._came: dict[str, list[Observation]] = {}  # by stream, not yet written

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Serve a connection until its end."""
        while True:
            try:
                line = await reader.readline()
            except ValueError as error:
                raise AgentError(f"a request is longer than {MAX_REQUEST} bytes") from error
            if not line:
                break
            # A task for each: a round of probes must not hold up a mark.
            task = asyncio.get_running_loop().create_task(self._handle(line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for task in tuple(self._tasks):
            task.cancel()

    async def _handle(self, line: bytes) -> None:
        request_id: Any = None
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise AgentError("a request is a JSON object")
            request_id = request.pop("id", None)
            answer = await self._perform(request)
        except (AgentError, ValueError, TypeError, RecursionError) as error:
            answer = {"error": str(error)}
        self._send({"id": request_id, **answer})

    async def _perform(self, request: dict[str, Any]) -> dict[str, Any]:
        operation = request.pop("op", None)
        fields = _FIELDS.get(operation) if isinstance(operation, str) else None
        if fields is None or request.keys() != fields:
            wanted = f"takes {sorted(fields)}, not {sorted(request)}" if fields is not None else "is none of the agent's"
            raise AgentError(f"operation {operation!r} {wanted}")
        if operation == "probe":
            return {"observations": await self._prober.probe_all(request["specs"])}
        if operation == "seen":
            if self._server is None:
                raise AgentError("this agent serves nothing")
            return {"boot": self._server.boot, "sightings": self._server.sightings(request["since"])}
        if operation == "mark":
            return {"now": monotonic()}
        stream = str(request["stream"])
        if operation == "stream":
            self._streams.start(stream, request["specs"], request["every"], lambda seen: self._collect(stream, seen))
        else:
            await self._streams.stop(stream)
            self._flush(stream)
        return {}

    def _collect(self, stream: str, observation: Observation) -> None:
        if stream not in self._came:
            self._came[stream] = []
            asyncio.get_running_loop().call_soon(self._flush, stream)
        self._came[stream].append(observation)

    def _flush(self, stream: str) -> None:
        observations = self._came.pop(stream, None)
        if observations:
            self._send({"stream": stream, "observations": observations})

    def _send(self, message: dict[str, Any]) -> None:
        self._write(json.dumps(message).encode("ascii") + b"\n")
