# SPDX-License-Identifier: Apache-2.0
"""The mesh inside the lab's child process: captures pods, runs the one Envoy, and reads its access log.

What Envoy is told comes from outside (`ztconform.lab.mesh.control`).
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ztconform.errors import ClusterError
from ztconform.lab.mesh import capture
from ztconform.lab.mesh.accesslog import AccessLog, Denial
from ztconform.lab.mesh.envoy import Envoy
from ztconform.lab.mesh.scratch import Scratch


class Meshing:
    """Hold Envoy, the paths of captured namespaces, and the log."""

    def __init__(self, namespace_of: Callable[[str], int]) -> None:
        """Take what returns the descriptor of a pod's network namespace by its device."""
        self._namespace_of = namespace_of
        self._scratch: Scratch | None = None
        self._envoy: Envoy | None = None
        self._paths: dict[str, str] = {}
        self._past: set[str] = set()  # nonces of probes that leave past their pod's proxy
        self._captured: set[str] = set()  # pods, by name
        self._read = 0
        self.log = AccessLog()

    async def open(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Make a place for Envoy's files, which goes with this process."""
        if self._envoy is None:
            self._scratch = Scratch([request["binary"], *request["beside"]])
            directory = Path(self._scratch.path) / "envoy"
            directory.mkdir(mode=0o700)
            self._envoy = Envoy(request["binary"], directory)
        return {"directory": self._envoy.resource_directory}

    async def capture(self, request: Mapping[str, Any]) -> dict[str, str]:
        """Redirect pods to Envoy, and return the paths by which it opens their namespaces."""
        scratch = self.scratch()
        found = {}
        for device in request["devices"]:
            fd = self._namespace_of(device)
            capture.install(fd)
            found[device] = self._paths[device] = scratch.bind(fd)
        return found

    def scratch(self) -> Scratch:
        """Return the file system of the lab's own, which goes with this process."""
        if self._scratch is None:
            raise ClusterError("the lab's mesh was not opened; please report")
        return self._scratch

    async def release(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Drop the paths of pods that have gone."""
        for device in request["devices"]:
            if self._scratch is not None and device in self._paths:
                self._scratch.unbind(self._paths.pop(device))
        return {}

    async def tell(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Tell Envoy, which starts with the first word."""
        envoy = self._running()
        told = {name: request[name] for name in ("listeners", "clusters", "secrets", "authorization")}
        if envoy.pid is None and told["listeners"] is not None and not envoy.log.exists():
            await envoy.start(**told)
        else:
            await envoy.push(**told)
        return {}

    async def restart(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Start Envoy again."""
        await self._running().restart()
        return {}

    async def memory(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Return Envoy's memory."""
        return {"bytes": 0 if self._envoy is None else self._envoy.memory()}

    def _running(self) -> Envoy:
        if self._envoy is None:
            raise ClusterError("the lab's mesh was not opened; please report")
        return self._envoy

    def past(self, nonce: str) -> None:
        """Remember that a probe leaves past its pod's proxy."""
        self._past.add(nonce)

    def sent(self, captured: bool, nonce: str, *flow: Any) -> None:
        """Remember a probe's flow, for the log's entries of connections without a nonce."""
        if self._envoy is not None:
            self.log.sent(nonce, *flow, captured=captured and nonce not in self._past)

    def denials(self, nonces: Iterable[str]) -> list[tuple[str, Denial]]:
        """Return who refused these, as far as the log says by now."""
        self.read()
        return [(n, denial) for n in nonces if (denial := self.log.of(n)) is not None]

    def remarks(self, nonces: Iterable[str]) -> dict[str, tuple[str, str | None, bool]]:
        """Return pod, dry-run rule that would have denied, and whether it was plaintext, of each request that the log knows."""
        self.read()
        served = {n: self.log.in_plaintext(n) for n in nonces}
        return {
            n: (str(self.log.server_of(n)), self.log.would_deny(n), plaintext)
            for n, plaintext in served.items()
            if plaintext is not None
        }

    def read(self) -> None:
        """Read what Envoy has logged since the last time."""
        if self._envoy is None or not self._envoy.log.exists():
            return
        with open(self._envoy.log, "rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        self.log.feed(data)
