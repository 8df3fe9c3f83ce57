# SPDX-License-Identifier: Apache-2.0
"""How one agent process is driven: JSON objects come in with their length in front, and go out one a line.

A request is its length in bytes as a decimal number, an end of line, and so many bytes of JSON: what was cut off on its way is
known by that. The objects are:

    {"id": 1, "op": "probe", "specs": [...]}                          -> {"id": 1, "observations": [...]}
    {"id": 2, "op": "seen", "since": 0}                               -> {"id": 2, "boot": ..., "sightings": [...]}
    {"id": 3, "op": "stream", "stream": "s", "specs": [...], "every": 0.01}  -> {"id": 3}
        and from then on                                              -> {"stream": "s", "observations": [...]}
    {"id": 4, "op": "mark"}                                           -> {"id": 4, "now": ...}, on the clock of the observations
    {"id": 5, "op": "stop", "stream": "s"}                            -> {"id": 5}, behind the stream's last observations
    {"id": 6, "op": "resolver"}                                       -> {"id": 6, "servers": [...], "search": [...]}
    {"id": 7, "op": "linger"}                                         -> {"id": 7}; SIGTERM no longer ends the agent
    {"id": 8, "op": "exit"}                                           -> {"id": 8}; the agent ends as if its work were done
    {"id": 9, "op": "capture", "interface": "172.18.0.3", "addresses": [...], "seconds": 2.0}
                                                                      -> {"id": 9, "pcap": ..., "lost": 0, "full": false}
    anything else                                                     -> {"id": ..., "error": ...}

What the operations do is in `prober`, `stream`, `server` and `capture`; who speaks to whom is for the caller.
"""

from __future__ import annotations

import asyncio
import functools
import json
from time import monotonic
from typing import TYPE_CHECKING

from .resolvconf import read_resolver
from .stream import Streams
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .attempt import Observation
    from .prober import Prober
    from .server import Server

MAX_REQUEST = 1 << 26  # bytes: 100,000 specs and more
_LONGEST_HEADER = 10  # digits and the end of line

_FIELDS = {
    "probe": {"specs"},
    "seen": {"since"},
    "stream": {"stream", "specs", "every"},
    "mark": set(),
    "stop": {"stream"},
    "resolver": set(),
    "linger": set(),
    "exit": set(),
    "capture": {"interface", "addresses", "seconds"},
}


class Life:
    """Say when the agent process ends."""

    def __init__(self) -> None:
        self._lingers = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def terminate(self) -> None:
        """End, as SIGTERM demands, unless the agent was told to linger."""
        if not self._lingers:
            self.end()

    def linger(self) -> None:
        """Go on serving after SIGTERM, as a pod does for the length of its grace."""
        self._lingers = True

    def end(self) -> None:
        """End once the answers under way are written."""
        self._over.get_loop().call_soon(self._end)

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def wait(self) -> None:
        """Return when the process is to end."""
        await self._over


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next request, or None at the end of input; raises AgentError for one that is cut off or no frame at all."""
    try:
        header = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial.strip():
            return None
        raise AgentError("the input ended within a request") from error
    except asyncio.LimitOverrunError as error:
        raise AgentError("a request does not begin with its length") from error
    if len(header) > _LONGEST_HEADER or not header.strip().isdigit() or int(header) > MAX_REQUEST:
        raise AgentError(f"a request begins with its length, at most {MAX_REQUEST} bytes, and not with {header[:40]!r}")
    try:
        return await reader.readexactly(int(header))
    except asyncio.IncompleteReadError as error:
        raise AgentError("the input ended within a request") from error


class Channel:
    """Carry out what the lines ask for and `write` the answers, each with its end of line."""

    def __init__(self, prober: Prober, server: Server | None, write: Callable[[bytes], None], life: Life | None = None) -> None:
        self._prober = prober
        self._streams = Streams(prober)
        self._server = server
        self._write = write
        self._life = life or Life()
        self._tasks: set[asyncio.Task[None]] = set()
        self._came: dict[str, list[Observation]] = {}  # by stream, not yet written

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Serve a connection until its end, and end its streams with it; raises AgentError for what is no request's frame."""
        try:
            while True:
                payload = await _read(reader)
                if payload is None:
                    break
                # A task for each: a round of probes must not hold up a mark.
                task = asyncio.get_running_loop().create_task(self._handle(payload))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            self._streams.abandon()

    async def _handle(self, payload: bytes) -> None:
        request_id: Any = None
        try:
            request = json.loads(payload)
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
        if operation == "resolver":
            return read_resolver()
        if operation in ("linger", "exit"):
            self._life.linger() if operation == "linger" else self._life.end()
            return {}
        if operation == "capture":
            from .capture import capture  # noqa: PLC0415 - ctypes, which only one pod of ours needs

            looking = functools.partial(capture, **request)
            return await asyncio.get_running_loop().run_in_executor(None, looking)
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
