# SPDX-License-Identifier: Apache-2.0
"""The lab's child process, seen from the outside: spawned in a session of its own and asked in JSON lines.

The child holds every namespace, and when its sockets to us close it ends and all of them with it.
"""

import base64
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import ztconform
from ztconform.errors import ClusterError, InternalError

START_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # beyond any round: what takes longer hangs


class Channel:
    """Ask one of the lab's processes, one question at a time."""

    def __init__(self, sock: socket.socket, who: str) -> None:
        self._sock = sock
        self._who = who
        self._buffer = bytearray()

    def ask(self, op: str, *, seconds: float = ANSWER_SECONDS, **arguments: Any) -> Any:
        """Return the answer to one operation; raises ClusterError if the process is gone, silent or could not do it."""
        line = json.dumps({"op": op, **arguments}, separators=(",", ":")).encode() + b"\n"
        try:
            self._sock.sendall(line)
            answer = json.loads(self._line(monotonic() + seconds))
        except OSError as error:
            raise ClusterError(f"the lab's {self._who} is gone ({error.strerror or error}); start again") from error
        if "error" in answer:
            kind, message = answer["error"]
            raise (ClusterError if kind == "cluster" else InternalError)(message)
        return answer["ok"]

    def _line(self, deadline: float) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            ready, _, _ = select.select([self._sock], [], [], max(0.0, deadline - monotonic()))
            if not ready:
                raise ClusterError(f"the lab's {self._who} did not answer in time; is this machine overloaded?")
            data = self._sock.recv(1 << 20)
            if not data:
                raise ClusterError(f"the lab's {self._who} ended unexpectedly; start again")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def close(self) -> None:
        """Close the channel, which ends the process."""
        self._sock.close()


class LabProcess:
    """Hold the running child and its two channels: `prober` has the namespaces and clients, `servers` all that listens."""

    def __init__(self, nodes: int) -> None:
        ours_prober, theirs_prober = socket.socketpair()
        ours_servers, theirs_servers = socket.socketpair()
        fds = (theirs_prober.fileno(), theirs_servers.fileno())
        root = str(Path(ztconform.__file__).parent.parent)
        # -S: the child needs the standard library and ourselves, and starts in half the time without site-packages.
        command = [sys.executable, "-S", "-B", "-m", "ztconform.lab", *map(str, fds), str(nodes)]
        self._child = subprocess.Popen(
            command,
            env={"PYTHONPATH": root, "PATH": os.environ.get("PATH", os.defpath)},
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches only us, and we end the lab
        )
        theirs_prober.close()
        theirs_servers.close()
        self.prober = Channel(ours_prober, "prober")
        self.servers = Channel(ours_servers, "servers")
        try:
            self.prober.ask("hello", seconds=START_SECONDS)
            self.servers.ask("hello", seconds=START_SECONDS)
        except ClusterError as error:
            raise ClusterError(self._last_words() or str(error)) from error
        self.inner_pid = _only_child(self._child.pid)  # holds the namespaces; as seen from here

    def _last_words(self) -> str:
        """Return the last line that the child wrote before it ended: its own ClusterError."""
        self.close()
        stderr = self._child.stderr.read() if self._child.stderr is not None else b""
        lines = stderr.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def load(self, batches: Mapping[int, Sequence[bytes]]) -> None:
        """Load encoded rulesets into nodes, each batch in one transaction."""
        encoded = [[node, base64.b64encode(batch).decode()] for node, many in batches.items() for batch in many]
        self.prober.ask("load", batches=encoded)

    def close(self) -> None:
        """End the child and everything that it holds."""
        self.prober.close()
        self.servers.close()
        try:
            self._child.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return int(children.read_text().split()[0]) if children.exists() else 0
