# SPDX-License-Identifier: Apache-2.0
"""Bytes to and from a command that runs elsewhere: by a websocket exec in a pod, or as a process of this machine.

What the bytes mean is left to `link`. A pipe is read and written by a thread of its own, so that no two threads ever use one TLS
connection and nobody but it waits for the network.
"""

import json
import os
import select
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream
from websocket import ABNF, WebSocketException

from ztconform.errors import ClusterError
from ztconform.kube.client import Connection, first_line, reason

OnData = Callable[[bytes], None]
OnEnd = Callable[[str], None]  # told once, why

_STDIN, _STDOUT, _STDERR, _STATUS = range(4)  # channels of the v4 and v5 remote command protocols
_CHUNK = 65536
_ENDED = "the command has ended"
_LAST_WORDS = 2000  # bytes of standard error that are kept to say why


class Pipe(Protocol):
    """Carry bytes in both directions until closed."""

    def send(self, data: bytes) -> None:
        """Send bytes in order, without waiting; what cannot be sent any more is dropped, and its end was told."""

    def close(self) -> None:
        """End the connection, and with it the command's input."""


class ExecPipe:
    """Run a command in a container of a pod."""

    def __init__(
        self,
        connection: Connection,
        pod: tuple[str, str],
        container: str,
        command: Sequence[str],
        *,
        on_data: OnData,
        on_end: OnEnd,
    ) -> None:
        """Begin to connect, and return at once; `pod` is its namespace and name."""
        self._outgoing: deque[bytes] = deque()
        self._awake, self._wake = socket.socketpair()
        self._closing = False
        self._on_data, self._on_end = on_data, on_end
        self._errors = b""
        self._status = ""
        arguments = (connection, *pod, container, list(command))
        self._thread = threading.Thread(target=self._run, args=arguments, name=f"exec {'/'.join(pod)}", daemon=True)
        self._thread.start()

    def send(self, data: bytes) -> None:
        """Send bytes in order, without waiting."""
        self._outgoing.extend(data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK))
        self._poke()

    def close(self) -> None:
        """End the connection."""
        self._closing = True
        self._poke()

    def _poke(self) -> None:
        try:
            self._wake.send(b"!", socket.MSG_DONTWAIT)
        except OSError:  # the thread has ended, or has many pokes to read already
            return

    def _run(self, connection: Connection, namespace: str, pod: str, container: str, command: list[str]) -> None:
        why = "closed"
        try:
            # `stream` swaps a method of the API client while it connects, so that every exec needs one of its own.
            with connection.api() as api:
                websocket = stream(
                    client.CoreV1Api(api).connect_get_namespaced_pod_exec,
                    pod,
                    namespace,
                    container=container,
                    command=command,
                    stdin=True,
                    stdout=True,
                    stderr=True,
                    tty=False,
                    _preload_content=False,
                    binary=True,
                ).sock
                try:
                    why = self._pump(websocket)
                finally:
                    websocket.close(timeout=0)
        except ApiException as error:
            why = f"exec failed: {reason(error)}"
        except (WebSocketException, OSError, ValueError) as error:
            why = f"exec was cut off: {first_line(str(error)) or type(error).__name__}"
        finally:
            self._awake.close()
            self._wake.close()
        words = first_line(self._errors.decode("utf-8", "replace"))
        self._on_end(": ".join(filter(None, (self._status or why, words))))

    def _pump(self, websocket: Any) -> str:
        poll = select.poll()
        poll.register(websocket.sock, select.POLLIN)
        poll.register(self._awake, select.POLLIN)
        while not self._closing:
            while self._outgoing:
                websocket.send(bytes([_STDIN]) + self._outgoing.popleft(), opcode=ABNF.OPCODE_BINARY)
            # Frames that came with the last TLS record lie decrypted where poll() does not see them.
            if not getattr(websocket.sock, "pending", int)():
                ready = {fd for fd, _ in poll.poll()}
                if self._awake.fileno() in ready:
                    self._awake.recv(4096)
                if websocket.sock.fileno() not in ready:
                    continue
            opcode, frame = websocket.recv_data_frame(True)
            if opcode == ABNF.OPCODE_CLOSE:
                return _ENDED
            if opcode in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) and frame.data:
                self._take(frame.data[0], bytes(frame.data[1:]))
        return "closed"

    def _take(self, channel: int, data: bytes) -> None:
        if channel == _STDOUT:
            self._on_data(data)
        elif channel == _STDERR:
            self._errors = (self._errors + data)[-_LAST_WORDS:]
        elif channel == _STATUS:
            try:
                status = json.loads(data)
            except ValueError:
                return
            if status.get("status") != "Success":
                self._status = f"exec failed: {first_line(str(status.get('message')))}"


def output(connection: Connection, pod: tuple[str, str], container: str, command: Sequence[str], seconds: float) -> bytes:
    """Run a command in a pod to its end, and return its standard output; `pod` is its namespace and name.

    Raises ClusterError where it fails, cannot be run, or has not ended after so many seconds.
    """
    taken, ends, ended = bytearray(), list[str](), threading.Event()

    def end(why: str) -> None:
        ends.append(why)
        ended.set()

    pipe = ExecPipe(connection, pod, container, command, on_data=taken.extend, on_end=end)
    try:
        if not ended.wait(seconds):
            ends.append(f"it has not ended after {seconds:.0f} s")
    finally:
        pipe.close()
    if not ends[0].startswith(_ENDED):
        raise ClusterError(f"{' '.join(command)} in pod {'/'.join(pod)}: {ends[0]}")
    return bytes(taken)


class ProcessPipe:
    """Run a command on this machine, in a session of its own, so that Ctrl-C reaches only us."""

    def __init__(self, command: Sequence[str], *, on_data: OnData, on_end: OnEnd) -> None:
        """Start the command; raises OSError where that is impossible."""
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        self._on_data, self._on_end = on_data, on_end
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name=f"pipe {command[0]}", daemon=True).start()

    def send(self, data: bytes) -> None:
        """Send bytes in order."""
        assert self._process.stdin is not None
        try:
            with self._lock:
                self._process.stdin.write(data)
                self._process.stdin.flush()
        except (OSError, ValueError):  # ended or closed; the reading thread tells why
            return

    def close(self) -> None:
        """End the command."""
        self._process.kill()

    def _run(self) -> None:
        assert self._process.stdout is not None and self._process.stderr is not None
        while data := os.read(self._process.stdout.fileno(), _CHUNK):
            self._on_data(data)
        errors = self._process.stderr.read(_LAST_WORDS)
        self._process.wait()
        for end in (self._process.stdin, self._process.stdout, self._process.stderr):
            if end is not None:
                try:
                    end.close()
                except OSError:  # what was still to be flushed has nowhere to go
                    continue
        self._on_end(f"the command has ended: {first_line(errors.decode('utf-8', 'replace')) or self._process.returncode}")
