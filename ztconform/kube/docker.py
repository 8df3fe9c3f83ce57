# SPDX-License-Identifier: Apache-2.0
"""How we speak to Docker: through its command line, which knows the user's contexts, sockets and credentials.

What is asked of it is left to the callers.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ztconform.errors import ClusterError
from ztconform.kube import command

CALL = 30.0  # seconds for a call that moves no image
_CURE = "start Docker, or name another one by DOCKER_HOST or `docker context use`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """Describe the machine that a Docker daemon runs on."""

    version: str
    cgroup: int  # version of the hierarchy, 1 or 2
    memory: int  # bytes in all
    kernel: str
    root: str = ""  # where it keeps images and containers, as it calls that place


def reachable() -> Docker:
    """Return what the daemon says of itself, or raise ClusterError with the cure if none answers."""
    done = command.run([_program(), "info", "--format", "{{json .}}"], within=CALL)
    said: Mapping[str, Any] = {}
    if done.code == 0:
        try:
            said = json.loads(done.out)
        except ValueError:
            raise ClusterError(f"`docker info` answers with something that is not JSON: {done.complaint}") from None
    # Some versions of the client exit with 0 although no daemon answered.
    if not said.get("ServerVersion"):
        why = command.complaint(done.err) or command.complaint(", ".join(said.get("ServerErrors") or [])) or done.complaint
        raise ClusterError(f"Docker cannot be reached: {why.removesuffix('.')}; {_CURE}")
    return Docker(
        version=str(said["ServerVersion"]),
        cgroup=2 if str(said.get("CgroupVersion", "")) == "2" else 1,
        memory=int(said.get("MemTotal") or 0),
        kernel=str(said.get("KernelVersion", "")),
        root=str(said.get("DockerRootDir") or ""),
    )


def run(args: Sequence[str], within: float = CALL) -> str:
    """Run `docker ARGS` and return its output without the last newline; raises ClusterError with its complaint."""
    done = command.run([_program(), *args], within=within)
    if done.code != 0:
        raise ClusterError(f"docker {args[0]} failed: {command.complaint(done.err) or done.complaint}")
    return done.out.removesuffix("\n")


def runs(container: str) -> bool:
    """Return whether a container that is there runs; raises ClusterError."""
    return run(["inspect", "--format", "{{.State.Running}}", container]) == "true"


def last_words(container: str) -> str:
    """Return the line of a container's log that says what went wrong, or ""; raises ClusterError."""
    done = command.run([_program(), "logs", "--tail", "20", container], within=CALL)
    return command.complaint(f"{done.out}\n{done.err}")


def _program() -> str:
    found = shutil.which("docker")
    if found is None:
        raise ClusterError(
            "docker is not on the PATH, and kind needs it: install Docker, or use a cluster that is there (--ztc-context)"
        )
    return found
