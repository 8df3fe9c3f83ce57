# SPDX-License-Identifier: Apache-2.0
"""What a machine must have for a stack on kind, thing by thing, looked at before the first minute is spent; creates nothing.

Whether the first fault ends it (a run) or each gets its line (`ztconform doctor`) is left to the caller.
"""

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ztconform.errors import ClusterError
from ztconform.kube import docker, helm, kind, kindconfig, machine
from ztconform.settings import Settings
from ztconform.stacks import installing, kernel
from ztconform.stacks.component import Kernel

if TYPE_CHECKING:
    from ztconform.stacks.kubernetes import KubernetesStack

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold what was seen of a thing that is as it must be, and what is only worth a warning."""

    text: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """Name a thing, and how it is looked at: `look` raises UsageError or ClusterError, in one line with the cure."""

    name: str
    look: Callable[[], Seen]
    after: str = ""  # the check without which this one cannot be made


def of(stack: "KubernetesStack", settings: Settings) -> Iterator[Check]:
    """Yield all checks of a stack, the cheap ones first; nothing is looked at before it is asked for."""
    from ztconform.stacks.kubernetes import settled  # noqa: PLC0415 - it imports this module

    settings = settled(settings)
    yield Check("packages", _packages)
    yield Check("options", lambda: _options(stack, settings))
    yield Check("docker", _docker)
    yield Check("kind", lambda: Seen(str(machine.kind(settings.kind_bin))), after="docker")
    demanded = cache(lambda: _demanded(stack, settings))
    for name, judge in (("cgroup", machine.cgroup), ("memory", machine.memory), ("inotify", machine.inotify)):
        yield Check(name, partial(_judged, name, judge, demanded), after="kind")
    for need in stack.kernel:
        yield Check(f"kernel {need.what}", partial(_kernel, need), after="docker")
    yield Check("ports", lambda: _ports(stack, settings))
    steps = stack.steps(settings)
    if charts := installing.charts(steps):
        yield Check("helm", lambda: Seen(str(machine.helm(settings.helm_bin))))
        for chart in charts:
            yield Check(f"chart {chart.component}", partial(_chart, chart, settings), after="helm")
    for objects in installing.objects(steps):
        yield Check(f"{objects.what}", partial(_checked, objects.check))


def _packages() -> Seen:
    if find_spec("pytest_kind") is None:
        raise ModuleNotFoundError(name="pytest_kind")
    return Seen("the Python packages of the extra kind are there")


def _options(stack: "KubernetesStack", settings: Settings) -> Seen:
    stack.check(settings)
    archives = kind.archives(settings.load_images)
    stack.kind_config(settings)
    for chart in installing.charts(stack.steps(settings)):
        helm.check(chart)
    return Seen(f"{len(archives)} image archives to load" if archives else "images are pulled by the nodes")


def _docker() -> Seen:
    there = docker.reachable()
    return Seen(f"{there.version} on Linux {there.kernel}")


@dataclass(frozen=True, slots=True)
class _Demanded:
    here: machine.Machine | None  # None: the cluster is there already, and has all that it needs
    demand: machine.Demand


def _demanded(stack: "KubernetesStack", settings: Settings) -> _Demanded:
    config = stack.kind_config(settings)
    demand = machine.Demand(
        memory=stack.memory,
        nodes=len(config["nodes"]),
        kubernetes=machine.kubernetes_of(settings.kind_image),
        allows_cgroup_1=kindconfig.lifts_cgroup_1(config),
    )
    there = stack.cluster(settings) in kind.clusters(machine.kind(settings.kind_bin))
    return _Demanded(None if there else machine.read(docker.reachable()), demand)


def _judged(
    name: str,
    judge: Callable[[machine.Machine, machine.Demand], Iterable[machine.Finding]],
    demanded: Callable[[], _Demanded],
) -> Seen:
    known = demanded()
    if known.here is None:
        return Seen("the cluster is there already")
    found = tuple(judge(known.here, known.demand))
    for finding in found:
        if finding.fatal:
            raise ClusterError(finding.text)
    return Seen(_told(name, known.here, known.demand), tuple(finding.text for finding in found))


def _told(name: str, here: machine.Machine, demand: machine.Demand) -> str:
    free = here.available if here.available is not None else here.docker.memory
    match name:
        case "cgroup":
            return f"v{here.docker.cgroup}"
        case "memory":
            return f"{free // _MIB} MiB, of about {demand.memory} that it needs" if free else "cannot be read from here"
        case _:
            known = here.instances is not None
            return f"{here.instances} instances, {here.watches} watches" if known else "cannot be read from here"


def _kernel(need: Kernel) -> Seen:
    return Seen(kernel.demand(need, docker.reachable()))


def _ports(stack: "KubernetesStack", settings: Settings) -> Seen:
    """Demand that ports of this machine, which the user's kind configuration takes, are free; kind picks its own."""
    wanted = sorted(set(_host_ports(stack.kind_config(settings))))
    for address, port in wanted:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind((address, port))
            except OSError as error:
                raise ClusterError(
                    f"port {port} of {address}, which the kind configuration takes, cannot be had ({error.strerror}): "
                    f"end what listens there, or name another in {kindconfig.OPTION}"
                ) from None
    return Seen(", ".join(str(port) for _, port in wanted) or "none is fixed")


def _host_ports(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    if port := (config.get("networking") or {}).get("apiServerPort"):
        yield str(config["networking"].get("apiServerAddress") or "127.0.0.1"), int(port)
    for node in config["nodes"]:
        for mapping in node.get("extraPortMappings") or []:
            if port := mapping.get("hostPort"):
                yield str(mapping.get("listenAddress") or "0.0.0.0"), int(port)


def _chart(chart: helm.Chart, settings: Settings) -> Seen:
    helm.render(machine.helm(settings.helm_bin), chart)
    return Seen(str(chart))


def _checked(check: Callable[[], None]) -> Seen:
    check()
    return Seen("can be had")
