# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can hold a kind cluster, asked before anything is created: tools, memory, disk, cgroups, inotify.

What a stack needs is told by the stack; whether Docker answers at all is left to `docker`.
"""

import platform
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ztconform.errors import ClusterError
from ztconform.kube import command, docker
from ztconform.kube.docker import Docker

KIND_SINCE = (0, 27, 0)  # older ones load no image into a node with containerd 2 (kind#3853)
HELM_SINCE = (3, 8, 0)  # charts from OCI registries

_NO_CGROUP_1 = (1, 35)  # the first kubelet that refuses to start on cgroup v1 by default
_WATCHES, _INSTANCES = 524288, 512  # kind's own advice ("too many open files")
_INSTANCES_A_NODE = 20  # counted on nodes that run nothing yet; with 7 nodes and 128 of them kube-proxy did not start
_TOOL = 10.0  # seconds for a program to say its version
_MIB = 1 << 20
_A_NODE = 512 * _MIB  # of disk that a node takes with nothing loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Hold what was read of the machine that the nodes would run on; None: cannot be read from here."""

    docker: Docker
    available: int | None  # bytes of memory
    watches: int | None  # fs.inotify.max_user_watches
    instances: int | None  # fs.inotify.max_user_instances
    disk: int | None = None  # bytes that are free where Docker keeps its containers
    nodes: int = 0  # of kind clusters that run already


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Say what a cluster asks of the machine."""

    memory: int  # MiB
    nodes: int
    kubernetes: tuple[int, int] | None  # None: not known from the node image's name
    allows_cgroup_1: bool = False  # the kind config tells the kubelet so
    archives: int = 0  # bytes of images that each node is given


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what may go wrong; `fatal` where it certainly will."""

    fatal: bool
    text: str


def read(daemon: Docker) -> Machine:
    """Return the facts; files of this machine count only where Docker runs on this very kernel."""
    here = sys.platform == "linux" and daemon.kernel == platform.release()
    return Machine(
        docker=daemon,
        nodes=len(docker.run(["ps", "--quiet", "--filter", "label=io.x-k8s.kind.cluster"]).split()),
        available=_available() if here else None,
        disk=_free(daemon.root) if here else None,
        watches=_number("/proc/sys/fs/inotify/max_user_watches") if here else None,
        instances=_number("/proc/sys/fs/inotify/max_user_instances") if here else None,
    )


def judge(machine: Machine, demand: Demand) -> tuple[Finding, ...]:
    """Return what stands against this demand on this machine, the fatal first."""
    found = [*cgroup(machine, demand), *memory(machine, demand), *disk(machine, demand), *inotify(machine, demand)]
    return tuple(sorted(found, key=lambda finding: not finding.fatal))


def cgroup(machine: Machine, demand: Demand) -> Iterable[Finding]:
    """Yield what the hierarchy of cgroups stands against."""
    version = demand.kubernetes
    if machine.docker.cgroup == 1 and version is not None and version >= _NO_CGROUP_1 and not demand.allows_cgroup_1:
        yield Finding(
            True,
            f"this machine is on cgroup v1, where the kubelet of Kubernetes {version[0]}.{version[1]} refuses to start: boot it "
            "with cgroup v2, take a node image before 1.35 (--ztc-kind-image), or set failCgroupV1: false in --ztc-kind-config",
        )


def memory(machine: Machine, demand: Demand) -> Iterable[Finding]:
    """Yield whether there is too little memory."""
    free = machine.available if machine.available is not None else machine.docker.memory
    if not free or free >= demand.memory * _MIB:
        return
    have = f"{free // _MIB} MiB of memory are {'available' if machine.available is not None else 'there'}"
    # What a stack asks for leaves room; with less than half of it nodes are killed while they start.
    if free < demand.memory * _MIB // 2:
        yield Finding(True, f"{have}, and this stack needs about {demand.memory}: end something, or give Docker more")
    else:
        yield Finding(False, f"{have}; this stack wants about {demand.memory}")


def disk(machine: Machine, demand: Demand) -> Iterable[Finding]:
    """Yield whether images that are to be loaded have no room: each node has its own copy, packed and unpacked."""
    needed = demand.nodes * (2 * demand.archives + _A_NODE)
    if machine.disk is not None and machine.disk < needed:
        yield Finding(
            True,
            f"{machine.disk // _MIB} MiB are free where Docker keeps its containers ({machine.docker.root}), and "
            f"{demand.nodes} nodes with these images need about {needed // _MIB}: remove what Docker keeps for "
            "nobody (docker system prune --volumes)",
        )


def inotify(machine: Machine, demand: Demand) -> Iterable[Finding]:
    """Yield whether nodes run out of watches for files."""
    nodes = machine.nodes + demand.nodes
    if machine.instances is not None and machine.instances < nodes * _INSTANCES_A_NODE:
        yield Finding(
            True,
            f"fs.inotify.max_user_instances is {machine.instances}, too few for {nodes} kind nodes "
            f"({machine.nodes} of them run already): run  sysctl fs.inotify.max_user_instances={_INSTANCES}  as root, "
            "or delete a cluster (kind get clusters)",
        )
        return
    # What else uses them cannot be known: three nodes start with 128 instances.
    for name, value, want in (("watches", machine.watches, _WATCHES), ("instances", machine.instances, _INSTANCES)):
        if value is not None and value < want:
            key = f"fs.inotify.max_user_{name}"
            yield Finding(False, f"{key} is {value}: if nodes fail with `too many open files`, run  sysctl {key}={want}  as root")


def kubernetes_of(image: str) -> tuple[int, int] | None:
    """Return the Kubernetes version that a node image's tag tells, or None if it tells none."""
    told = re.search(r":v(\d+)\.(\d+)(?:\.\d+)?(?:[-+.@]|$)", image)
    return (int(told[1]), int(told[2])) if told else None


def tool(name: str, where: str, option: str, cure: str) -> Path:
    """Return the path of a program, or raise ClusterError with the cure if it is not there."""
    found = shutil.which(where)
    if found is None:
        place = "on the PATH" if "/" not in where else f"at {where}"
        raise ClusterError(f"{name} is not {place}: {cure}, or say where it is by {option}")
    return Path(found).absolute()


def kind(where: str) -> Path:
    """Return the path of a kind that is new enough, or raise ClusterError with the cure."""
    found = tool("kind", where, "--ztc-kind-bin", "install it (https://kind.sigs.k8s.io)")
    _since("kind", command.run([str(found), "version"], within=_TOOL), KIND_SINCE, "--ztc-kind-bin")
    return found


def helm(where: str) -> Path:
    """Return the path of a helm that is new enough, or raise ClusterError with the cure."""
    found = tool("helm", where, "--ztc-helm-bin", "install it (https://helm.sh)")
    _since("helm", command.run([str(found), "version", "--short"], within=_TOOL), HELM_SINCE, "--ztc-helm-bin")
    return found


def parsed(text: str) -> tuple[int, ...]:
    """Return the first version number in a text; () if it has none."""
    told = re.search(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in told.groups()) if told else ()


def _since(name: str, said: command.Done, since: tuple[int, ...], option: str) -> None:
    version = parsed(said.out) if said.code == 0 else ()
    if not version:
        raise ClusterError(f"{option}: this is no {name} that tells its version ({said.complaint})")
    if version < since:
        want = ".".join(map(str, since))
        raise ClusterError(f"{name} {'.'.join(map(str, version))} is too old: install {want} or newer, or name one by {option}")


def _available() -> int | None:
    try:
        told = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(told[1]) * 1024 if told else None


def _free(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).free if folder else None
    except OSError:
        return None


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
