# SPDX-License-Identifier: Apache-2.0
"""The test host itself as a host outside: its probes leave from this process, by `requests`, as any client's in the north would.

What is said to it and by it is left to the agent's `channel`; how a probe is judged, to nobody here. It serves nothing, and what
`requests` cannot send as it was asked for is not run, never sent otherwise.
"""

import asyncio
import contextlib
import http.client
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

import requests
import urllib3
from urllib3.exceptions import ConnectTimeoutError, InvalidChunkLength, NewConnectionError, ProtocolError, ReadTimeoutError

from ztconform.agent.attempt import MAX_BODY
from ztconform.agent.channel import MAX_REQUEST, Channel
from ztconform.agent.exchange import Outcome, failure
from ztconform.agent.prober import Prober, unsent
from ztconform.agent.readers import MAX_ANSWER
from ztconform.agent.spec import Spec
from ztconform.agent.wire import (
    FOREIGN_NONCE,
    MARK_HEADER,
    NONCE_HEADER,
    SERVER_NAME,
    UNMARKED,
    AgentError,
    authority,
    read_mark,
)
from ztconform.kube.pipes import OnData, OnEnd

_CHUNK = 8192
_GRACE = 1.0  # seconds beyond a probe's own: an answer that comes in drops never lets `requests` time out
_ANY_PORT = 9  # nothing is sent

Observation = dict[str, Any]
Done = Callable[[Observation], None]


def address_towards(node: str) -> str:
    """Return the address by which a node sees this host; raises OSError where no route leads there."""
    with socket.socket(socket.AF_INET6 if ":" in node else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((node, _ANY_PORT))  # of a datagram socket: the kernel picks a route, and sends nothing
        return str(sock.getsockname()[0])


class NorthSouthPipe:
    """Speak as an agent does, from a thread of this process."""

    def __init__(self, *, on_data: OnData, on_end: OnEnd) -> None:
        """Greet at once."""
        self._loop = asyncio.new_event_loop()
        self._orders = asyncio.StreamReader(limit=MAX_REQUEST, loop=self._loop)
        self._on_data, self._on_end = on_data, on_end
        threading.Thread(target=self._run, name="north-south", daemon=True).start()

    def send(self, data: bytes) -> None:
        """Take orders."""
        self._soon(self._orders.feed_data, data)

    def close(self) -> None:
        """End, and with it the streams."""
        self._soon(self._orders.feed_eof)

    def _soon(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: its end was told
            self._loop.call_soon_threadsafe(call, *arguments)

    def _run(self) -> None:
        why = "closed"
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except AgentError as error:
            why = str(error)
        self._on_end(why)

    async def _serve(self) -> None:
        prober = HostProber()
        try:
            self._on_data(json.dumps({"ready": True, "boot": secrets.token_hex(8)}).encode("ascii") + b"\n")
            await Channel(prober, None, self._on_data).run(self._orders)
        finally:
            prober.close()


class HostProber(Prober):
    """Send probes by `requests`, a session and a thread for each."""

    def __init__(self) -> None:
        """Take part in the running loop."""
        super().__init__(_no_socket)

    def start_in_turn(self, probes: Sequence[tuple[Mapping[str, Any], Done]]) -> None:
        """Refuse: every probe has a connection of its own."""
        for fields, done in probes:
            spec = {"attempt": "", "nonce": "", **fields}
            done(unsent(spec, "the test host shares no connection between probes"))

    def send(self, spec: Spec, nonce: str, done: Done) -> None:
        """Send a spec that was read before, and call back in the loop."""
        loop = asyncio.get_running_loop()
        waiting = [done]

        def report(observation: Observation) -> None:
            timer.cancel()
            while waiting:
                waiting.pop()(observation)

        def expire() -> None:
            report(_observation(spec, nonce, began, Outcome("timeout", "request")))

        def run() -> None:
            observation = observe(spec, nonce)
            with contextlib.suppress(RuntimeError):  # the conversation has ended, and nobody waits
                loop.call_soon_threadsafe(report, observation)

        began = monotonic()
        timer = loop.call_later(spec.timeout + _GRACE, expire)
        threading.Thread(target=run, name="probe", daemon=True).start()


def observe(spec: Spec, nonce: str) -> Observation:
    """Send one probe and return what it met; never raises."""
    began = monotonic()
    if why := _unfit(spec):
        return _observation(spec, nonce, began, Outcome("not-run", "exec", why))
    response: requests.Response | None = None
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy, and no password of ~/.netrc
            session.headers.clear()
            prepared = session.prepare_request(requests.Request(spec.method, _url(spec), headers=_headers(spec, nonce)))
            if (prepared.method, prepared.path_url) != (spec.method, spec.path) or spec.path.startswith("//"):
                detail = f"the test host cannot send {spec.method} {spec.path} as it is"
                return _observation(spec, nonce, began, Outcome("not-run", "exec", detail))
            began = monotonic()
            limit: Any = urllib3.Timeout(total=spec.timeout)  # which `requests` takes, and its stubs do not know
            response = session.send(prepared, timeout=limit, stream=True, allow_redirects=False)
            body, outcome = _read(response, began + spec.timeout)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        return _observation(spec, nonce, began, outcome_of(error), response)
    except Exception as error:  # boundary: a probe never raises, and one that did would hang its round
        return _observation(spec, nonce, began, Outcome("not-run", "exec", repr(error)), response)
    return _observation(spec, nonce, began, outcome, response, body)


def outcome_of(error: BaseException) -> Outcome:
    """Return what an error means in the words of the agent's own exchanges."""
    chain = list(_chain(error))
    stage = "connect" if any(isinstance(one, ConnectTimeoutError) for one in chain) else "request"
    # urllib3 derives the error of every failed connection from that of one which timed out.
    late = [one for one in chain if isinstance(one, ConnectTimeoutError | ReadTimeoutError | TimeoutError)]
    if any(not isinstance(one, NewConnectionError) for one in late):
        return Outcome("timeout", stage)
    if any(isinstance(one, InvalidChunkLength) for one in chain):
        return Outcome("answered", "done", "answer's chunks are malformed")
    if any(isinstance(one, http.client.RemoteDisconnected | http.client.IncompleteRead) for one in chain):
        return Outcome("closed", stage, "EOF")
    for one in chain:
        if isinstance(one, OSError) and not isinstance(one, requests.RequestException) and one.errno:
            return failure(one.errno, stage)
    if any(isinstance(one, http.client.HTTPException) for one in chain):
        return Outcome("answered", "done", "answer is not HTTP")
    if any(isinstance(one, ProtocolError) for one in chain):
        return Outcome("closed", stage, "EOF")
    return Outcome("not-run", "exec", repr(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those behind it, which `requests` and urllib3 wrap in each other."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unfit(spec: Spec) -> str:
    """Return what `requests` could not send as the spec says it, or ""."""
    if spec.kind != "http":
        return f"the test host speaks HTTP alone, and not {spec.kind}"
    for name in ("raw", "tls", "bind", "mark", "name", "connection"):
        if getattr(spec, name):
            return f"the test host sends no probe with {name}"
    names = [name.lower() for name, _ in spec.headers]
    twice = sorted({name for name in names if names.count(name) > 1})
    return f"the test host sends no header twice: {twice[0]}" if twice else ""


def _url(spec: Spec) -> str:
    return f"http://{authority(spec.address, spec.port)}{spec.path}"


def _headers(spec: Spec, nonce: str) -> dict[str, str]:
    """Return the spec's own headers, and the agent's where it has none."""
    given = {name.lower() for name, _ in spec.headers}
    host = spec.host if spec.host is not None else authority(spec.address, spec.port)
    ours = {"Host": host, "User-Agent": SERVER_NAME, "Connection": "close"}
    return {**{k: v for k, v in ours.items() if k.lower() not in given}, **dict(spec.headers), NONCE_HEADER: nonce}


def _read(response: requests.Response, deadline: float) -> tuple[bytes, Outcome]:
    body = b""
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if monotonic() > deadline:
            return body, Outcome("timeout", "request")
        if len(body) > MAX_ANSWER:
            return body, Outcome("answered", "done", f"answer is longer than {MAX_ANSWER} bytes")
    return body, Outcome("answered", "done")


def _observation(
    spec: Spec, nonce: str, began: float, outcome: Outcome, response: requests.Response | None = None, body: bytes = b""
) -> Observation:
    """Return the observation of a probe, as the agent makes its own; only an answer has status, body and mark."""
    made = {**unsent({"attempt": spec.attempt, "nonce": nonce}, ""), "sent": began}
    signal, stage, detail = outcome
    if response is not None and signal == "answered":
        text = body.decode("latin-1")
        mark = read_mark(response.headers.get(MARK_HEADER) or text)
        made |= {"status": response.status_code, "body": text[:MAX_BODY]}
        if mark is not None and mark.nonce == nonce:
            made |= {"backend": mark.pod, "boot": mark.boot}
        else:
            detail = detail or (UNMARKED if mark is None else FOREIGN_NONCE)
    return {
        **made,
        "ended": monotonic(),
        "signal": signal,
        "stage": stage,
        "detail": detail,
        "peer": f"{spec.address} {spec.port}" if spec.address else "",
        "server": response.headers.get("server", "") if response is not None else "",
    }


def _no_socket(family: int, kind: int, protocol: int) -> socket.socket:
    raise AgentError("the test host opens no sockets of its own")
