# SPDX-License-Identifier: Apache-2.0
"""The pods' own processes, which ask SPIRE's agent who they are: each in its pod's network namespace, from a path of its own.

The path is what tells them apart. SPIRE knows processes by user, group and path; in a user namespace that maps one user, as an
unprivileged lab's does, there is no second user. A bind mount gives one interpreter as many paths as there are pods, and
/proc/PID/exe, which the agent reads, names the one that a process was started from.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from ztconform.errors import ClusterError
from ztconform.lab import netns
from ztconform.lab.mesh.scratch import Scratch
from ztconform.lab.spire.agentlog import AgentLog

_PROGRAM = Path(__file__).with_name("workload.py")
_SECONDS = 60.0  # for an answer, with the start of the process; half a second on an idle machine
_LONGEST = 1 << 20  # bytes of an answer


@dataclass(frozen=True, slots=True)
class _Workload:
    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hold what the Workload API told a pod, and what the agent logged meanwhile."""

    told: Mapping[str, Any]  # as `workload.ask` returns it
    asked: float  # on this process's monotonic clock
    pid: int
    logged: bytes

    @property
    def refusal(self) -> str:
        """Return the gRPC code and words of a refusal, or ""."""
        return f"{self.told['refused']} {self.told['detail']}".strip() if "refused" in self.told else ""


class Workloads:
    """Start, ask and end pods' processes."""

    def __init__(self, scratch: Scratch, agent: Path, log: AgentLog, namespace_of: Callable[[str], int]) -> None:
        """Take the agent's socket and log, and what returns the descriptor of a pod's network namespace by its device."""
        self._scratch = scratch
        self._agent = agent
        self._log = log
        self._namespace_of = namespace_of
        self._paths: dict[str, str] = {}
        self._running: dict[str, _Workload] = {}

    def path(self, device: str) -> str:
        """Return the path that a pod's process is started from."""
        if device not in self._paths:
            self._paths[device] = self._scratch.run_as(os.path.realpath(sys.executable), device)
        return self._paths[device]

    async def ask(self, device: str) -> Answer:
        """Return what the Workload API tells a pod now; raises ClusterError where its process cannot be asked."""
        workload = self._running.get(device) or await self._start(device)
        async with workload.turn:
            before, asked = self._log.end(), monotonic()
            try:
                workload.writer.write(b"\n")
                line = await asyncio.wait_for(workload.reader.readline(), _SECONDS)
            except (TimeoutError, OSError):
                line = b""
            if not line:
                self._end(device)  # what it may still say would be taken for the answer to the next question
                raise ClusterError(f"the workload of pod {device} ended or does not answer: {self._said(device)}")
            return Answer(told=json.loads(line), asked=asked, pid=workload.process.pid, logged=self._log.since(before))

    async def _start(self, device: str) -> _Workload:
        ours, theirs = socket.socketpair()
        program = self.path(device)
        # By its own name Python finds its libraries, whatever path it is started from.
        command = [sys.executable, "-P", "-B", str(_PROGRAM), str(self._agent)]
        with theirs, open(self._output(device), "wb") as output, netns.inside(self._namespace_of(device)):
            process = subprocess.Popen(command, executable=program, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=output)
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST)
        if device in self._running:  # another has asked for it meanwhile, and one process a pod is enough
            _stop(process, writer)
        return self._running.setdefault(device, _Workload(process, reader, writer))

    def release(self, device: str) -> None:
        """End a pod's process, and give its path back."""
        self._end(device)
        if device in self._paths:
            self._scratch.unbind(self._paths.pop(device))

    def _end(self, device: str) -> None:
        workload = self._running.pop(device, None)
        if workload is not None:
            _stop(workload.process, workload.writer)

    def _output(self, device: str) -> Path:
        return self._scratch.path / f"{device}.log"

    def _said(self, device: str) -> str:
        return " ".join(self._output(device).read_text(errors="replace").split())[-600:] or "it said nothing"


def _stop(process: subprocess.Popen[bytes], writer: asyncio.StreamWriter) -> None:
    writer.close()
    process.kill()
    process.wait()
