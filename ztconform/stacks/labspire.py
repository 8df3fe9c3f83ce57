# SPDX-License-Identifier: Apache-2.0
"""The stack `lab+spire`: the lab, with a real SPIRE on this machine that issues the identities of its meshed pods.

What runs is in `ztconform.lab.spire`. SPIRE's programs are the user's: nothing is downloaded.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ztconform.cluster import Cluster
from ztconform.errors import ClusterError, UsageError
from ztconform.settings import Settings
from ztconform.stacks.lab import LabStack

if TYPE_CHECKING:
    from ztconform.lab.spire.issuer import Binaries

_CLIENT = "spiffe"  # the Python package by which pods ask the Workload API
_INSTALL = "pip install 'ztconform[spire]'"
_SECONDS = 20.0  # for a program to say its version


class LabSpireStack(LabStack):
    """Start the embedded lab with SPIRE."""

    name = "lab+spire"
    summary = "the lab, whose identities a real SPIRE issues (its programs by --ztc-spire-server-bin and --ztc-spire-agent-bin)"

    def preflight(self, settings: Settings) -> None:
        """Raise ClusterError or UsageError, with the cure, if this machine cannot run the lab, or lacks SPIRE."""
        super().preflight(settings)
        if importlib.util.find_spec(_CLIENT) is None:
            raise ClusterError(f"the stack {self.name} needs the Python package {_CLIENT}: {_INSTALL}")
        binaries(settings)

    @contextmanager
    def start(self, settings: Settings) -> Iterator[Cluster]:
        """Yield a lab of two nodes with SPIRE beside it; both are gone when the context ends, and also if this process dies."""
        from ztconform.lab.cluster import LabCluster  # noqa: PLC0415 - needs Linux

        with LabCluster(svid_ttl=settings.svid_ttl, spire=binaries(settings)) as cluster:
            yield cluster


def binaries(settings: Settings) -> "Binaries":
    """Return SPIRE's programs; raises UsageError, naming the option, for one that is not there or is none."""
    from ztconform.lab.spire.issuer import Binaries  # noqa: PLC0415 - loads cryptography

    server, version = _program("spire-server", settings.spire_server_bin)
    agent, other = _program("spire-agent", settings.spire_agent_bin)
    if version != other:
        raise UsageError(f"spire-server is {version} and spire-agent {other}: name two of one version")
    return Binaries(server=server, agent=agent, version=version)


def _program(name: str, given: str) -> tuple[Path, str]:
    """Return where a program is, and its version as it says it."""
    option, found = f"--ztc-{name}-bin", shutil.which(given)
    if found is None:
        raise UsageError(f"{option}: there is no program {given}; name SPIRE's {name}, from github.com/spiffe/spire/releases")
    path = Path(found).resolve()
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{option} {path}: cannot be run ({error})") from error
    said = (done.stdout or done.stderr).strip()
    if done.returncode != 0 or not said[:1].isdigit():
        raise UsageError(f"{option} {path}: this is no {name}; asked for its version it said {said[:80]!r}")
    return path, said.split()[0]


STACK = LabSpireStack()
