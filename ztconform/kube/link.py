# SPDX-License-Identifier: Apache-2.0
"""A conversation with one agent: requests with their answers, and streams of observations, over a pipe that may be cut off.

The messages are those of `ztconform.agent.channel`. An answer that does not come, a stream that is cut off, and a line that is no
JSON all end as LinkError, whose text is the reason: what becomes of the probes is left to the caller.
"""

import json
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from itertools import count
from time import monotonic
from typing import Any

from ztconform.kube.pipes import OnData, OnEnd, Pipe

Message = Mapping[str, Any]
OpenPipe = Callable[[OnData, OnEnd], Pipe]


class LinkError(Exception):
    """Say why an agent could not be asked."""


class Pending:
    """Wait for one answer."""

    def __init__(self, who: str, future: "Future[Message]") -> None:
        self._who = who
        self._future = future

    def result(self, deadline: float) -> Message:
        """Return the answer; raises LinkError where none has come by the deadline on the monotonic clock, or it is an error."""
        try:
            answer = self._future.result(max(deadline - monotonic(), 0.0))
        except FutureTimeout:
            raise LinkError(f"the agent in {self._who} did not answer in time") from None
        if "error" in answer:
            raise LinkError(f"the agent in {self._who}: {answer['error']}")
        return answer


class Link:
    """Speak with one agent; it greets first."""

    def __init__(self, who: str, open_pipe: OpenPipe) -> None:
        """Begin to connect; `who` names the agent in messages."""
        self.who = who
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._pending: dict[int, Future[Message]] = {}
        self._streams: dict[str, queue.SimpleQueue[Message]] = {}
        self._greeting: Future[Message] = Future()
        self._rest = b""
        self._dead = ""
        self._pipe: Pipe | None = None  # its thread may speak before we know it
        self._pipe = open_pipe(self._take, self._end)
        if self._dead:
            self._pipe.close()

    @property
    def dead(self) -> str:
        """Return why nothing can be asked any more, or ""."""
        return self._dead

    @property
    def greeted(self) -> Pending:
        """Return the greeting, which carries the agent's boot ID."""
        return Pending(self.who, self._greeting)

    def ask(self, op: str, **fields: Any) -> Pending:
        """Send a request, and return its answer to wait for."""
        future: Future[Message] = Future()
        with self._lock:
            number = next(self._numbers)
            if self._dead:
                future.set_result({"error": self._dead})
                return Pending(self.who, future)
            self._pending[number] = future
        payload = json.dumps({"id": number, "op": op, **fields}, separators=(",", ":")).encode("ascii")
        if self._pipe is not None:
            self._pipe.send(b"%d\n" % len(payload) + payload)
        return Pending(self.who, future)

    def listen(self, stream: str, into: "queue.SimpleQueue[Message]") -> None:
        """Put the observations of a stream into a queue."""
        with self._lock:
            self._streams[stream] = into

    def forget(self, stream: str) -> None:
        """Drop what a stream may still bring."""
        with self._lock:
            self._streams.pop(stream, None)

    def close(self, why: str = "closed") -> None:
        """End the conversation."""
        self._end(why)
        if self._pipe is not None:
            self._pipe.close()

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise ValueError(line)
            except ValueError:
                self.close(f"garbled: {line[:60]!r}")
                return
            self._hear(message)

    def _hear(self, message: Message) -> None:
        if "ready" in message:
            with self._lock:
                if not self._greeting.done():  # closed before it was greeted
                    self._greeting.set_result(message)
        elif "id" in message:
            with self._lock:
                future = self._pending.pop(message["id"], None)
            if future is not None:
                future.set_result(message)
        elif "stream" in message:
            with self._lock:
                into = self._streams.get(message["stream"])
            for observation in message["observations"] if into is not None else ():
                into.put(observation)  # type: ignore[union-attr]  # the loop is empty without it

    def _end(self, why: str) -> None:
        with self._lock:
            if self._dead:
                return
            self._dead = why or "closed"
            pending, self._pending = list(self._pending.values()), {}
            if not self._greeting.done():
                self._greeting.set_result({"error": self._dead})
        for future in pending:
            future.set_result({"error": self._dead})
