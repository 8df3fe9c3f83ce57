# SPDX-License-Identifier: Apache-2.0
"""What a machine must have for a stack on kind, thing by thing, looked at before the first minute is spent; creates nothing.

Whether the first fault ends it (a run) or each gets its line (`ztconform doctor`) is left to the caller.
"""

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ztconform.errors import ClusterError
from ztconform.kube import docker, helm, kind, kindconfig, machine
from ztconform.settings import Settings
from ztconform.stacks import installing, kernel
from ztconform.stacks.component import Kernel, Objects, always

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


class Here:
    """Look at what all stacks have in common once, and at nothing before it is asked for; raises ClusterError with the cure."""

    def __init__(self, settings: Settings) -> None:
        """Begin with nothing looked at."""
        self._settings = settings
        self._kernel: dict[Kernel, str] = {}

    @cached_property
    def docker(self) -> docker.Docker:
        """Return what Docker says of itself."""
        return docker.reachable()

    @cached_property
    def kind(self) -> Path:
        """Return the program kind."""
        return machine.kind(self._settings.kind_bin)

    @cached_property
    def helm(self) -> Path:
        """Return the program helm."""
        return machine.helm(self._settings.helm_bin)

    @cached_property
    def clusters(self) -> frozenset[str]:
        """Return the kind clusters that there are."""
        return kind.clusters(self.kind)

    @cached_property
    def machine(self) -> machine.Machine:
        """Return what was read of the machine."""
        return machine.read(self.docker)

    def kernel(self, need: Kernel) -> str:
        """Return what was seen of the kernel."""
        if need not in self._kernel:
            self._kernel[need] = kernel.demand(need, self.docker)
        return self._kernel[need]


def of(stack: "KubernetesStack", settings: Settings, here: Here | None = None, *, charts: bool = True) -> Iterator[Check]:
    """Yield all checks of a stack, the cheap ones first; nothing is looked at before it is asked for.

    Without `charts` those are left out that reach beyond this machine.
    """
    from ztconform.stacks.kubernetes import settled  # noqa: PLC0415 - it imports this module

    settings = settled(settings)
    here = here or Here(settings)
    yield Check("packages", _packages)
    yield Check("options", lambda: _options(stack, settings))
    yield Check("docker", lambda: Seen(f"{here.docker.version} on Linux {here.docker.kernel}"))
    yield Check("kind", lambda: Seen(str(here.kind)), after="docker")
    judges = {"cgroup": machine.cgroup, "memory": machine.memory, "disk": machine.disk, "inotify": machine.inotify}
    for name, judge in judges.items():
        yield Check(name, partial(_judged, name, judge, stack, settings, here), after="kind")
    for need in stack.kernel:
        yield Check(f"kernel {need.what}", lambda need=need: Seen(here.kernel(need)), after="docker")  # type: ignore[misc]  # bound now
    yield Check("ports", lambda: _ports(stack, settings))
    steps = stack.steps(settings)
    if needed := installing.charts(steps):
        yield Check("helm", lambda: Seen(str(here.helm)))
        for chart in needed if charts else ():
            yield Check(f"chart {chart.component}", partial(_chart, chart, here), after="helm")
    for objects in installing.objects(steps) if charts else ():
        if objects.check is not always:
            yield Check(objects.component, partial(_checked, objects))


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


def _judged(
    name: str,
    judge: Callable[[machine.Machine, machine.Demand], Iterable[machine.Finding]],
    stack: "KubernetesStack",
    settings: Settings,
    here: Here,
) -> Seen:
    if stack.cluster(settings) in here.clusters:
        return Seen("the cluster is there already")
    config = stack.kind_config(settings)
    demand = machine.Demand(
        memory=stack.memory,
        nodes=len(config["nodes"]),
        kubernetes=machine.kubernetes_of(settings.kind_image),
        allows_cgroup_1=kindconfig.lifts_cgroup_1(config),
        archives=sum(archive.stat().st_size for archive in kind.archives(settings.load_images)),
    )
    found = tuple(judge(here.machine, demand))
    for finding in found:
        if finding.fatal:
            raise ClusterError(finding.text)
    return Seen(_told(name, here.machine, demand), tuple(finding.text for finding in found))


def _told(name: str, here: machine.Machine, demand: machine.Demand) -> str:
    free = here.available if here.available is not None else here.docker.memory
    match name:
        case "cgroup":
            return f"v{here.docker.cgroup}"
        case "memory":
            return f"{free // _MIB} MiB, of about {demand.memory} that it needs" if free else "cannot be read from here"
        case "disk":
            return f"{here.disk // _MIB} MiB free in {here.docker.root}" if here.disk is not None else "cannot be read from here"
        case _:
            known = here.instances is not None
            return f"{here.instances} instances, {here.watches} watches" if known else "cannot be read from here"


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


def _chart(chart: helm.Chart, here: Here) -> Seen:
    helm.render(here.helm, chart)
    return Seen(str(chart))


def _checked(objects: Objects) -> Seen:
    objects.check()
    return Seen(objects.what)
