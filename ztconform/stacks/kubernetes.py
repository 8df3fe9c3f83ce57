# SPDX-License-Identifier: Apache-2.0
"""What all stacks on Kubernetes share: a kind cluster of their own, or one that is there, checked before anything is created.

Which CNI that is, what makes it ready and what it can prove is left to the stacks that derive from this one.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ztconform.cluster import Cluster
from ztconform.errors import ClusterError, ZtconformError
from ztconform.settings import Settings
from ztconform.stacks import pins
from ztconform.stacks.component import Kernel, Step

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.kind import Plan
    from ztconform.kube.profile import Profile
    from ztconform.kube.ready import Goal

_EXTRAS = frozenset({"kubernetes", "pytest_kind", "pykube", "requests", "tenacity", "urllib3", "websocket"})
_READY = 300.0  # seconds; images may have to be pulled
_THERE = 30.0  # of a cluster that runs already


class KubernetesStack:
    """Start a stack on Kubernetes; what is left open here is a CNI's own."""

    name = ""
    summary = ""
    shared = True

    memory = 3072  # MiB for three nodes with the CNI and our pods
    kind_needs: Mapping[str, Any] = MappingProxyType({"networking": {"disableDefaultCNI": True}})
    kernel: tuple[Kernel, ...] = ()  # what the nodes' kernel must be able to do

    def preflight(self, settings: Settings) -> None:
        """Raise UsageError or ClusterError, in one line with the cure, if the stack cannot run; creates nothing."""
        with extras():
            if settings.context:
                from ztconform.kube import access  # noqa: PLC0415 - the extra may be missing

                connection = self._connected(settings)
                self._recognised(connection)
                access.check(connection)
                self.demand(connection)
            else:
                self._creatable(settings)

    @contextmanager
    def start(self, settings: Settings) -> Iterator[Cluster]:
        """Yield the cluster; the first process that asks for one on kind creates it, and `finish` removes it."""
        settings = settled(settings)
        with extras():
            from ztconform.kube import ready  # noqa: PLC0415 - the extra may be missing
            from ztconform.kube.cluster import KubeCluster  # noqa: PLC0415 - likewise

            kind = "" if settings.context else self.cluster(settings)
            connection = self._connected(settings) if settings.context else self.provided(settings)
            if settings.context:
                self._recognised(connection)
            ready.wait(connection, self.goal(provisioned=bool(kind)), _THERE, settings.notify)
            if kind:
                self._as_made(connection)
            profile = self.profile(connection, settings, kind)
        with KubeCluster(connection, settings, profile) as cluster:
            yield cluster

    def finish(self, settings: Settings, *, failed: bool) -> None:
        """Remove the kind cluster unless it is to be kept, its logs saved first if the run failed; and what workers have left.

        xdist gives an interrupted worker 10 s to clean up, and a cluster may take longer.
        """
        with extras():
            from ztconform.kube import kind, ledger, machine  # noqa: PLC0415 - the extra may be missing
            from ztconform.kube.client import connect  # noqa: PLC0415 - likewise

            if settings.context:
                _sweep(self._connected(settings), settings)
                return
            name = self.cluster(settings)
            if ledger.default().read(name) is None:
                return
            binary = machine.kind(settings.kind_bin)
            if failed:
                self._save_logs(settings, binary, name)
            if settings.keep:
                plan = self._plan(settings)
                kind.export_kubeconfig(binary, name, plan.kubeconfig)
                _sweep(connect(plan.context, plan.kubeconfig), settings)
            else:
                settings.notify(f"removing the cluster {name}")
                kind.remove(binary, name)
                _sweep(None, settings)

    # What a CNI says of itself.

    def check(self, settings: Settings) -> None:
        """Raise UsageError for options of the stack's own that are wrong."""

    def demand(self, connection: "Connection") -> None:
        """Raise ClusterError for an existing cluster whose CNI is set so that our policies would mean something else."""

    def steps(self, settings: Settings) -> Sequence[Step]:
        """Return how the stack is installed on kind, in order; the same again changes nothing."""
        return ()

    def made(self, settings: Settings) -> Mapping[str, str]:
        """Return the options of the stack's own that a kept cluster cannot change afterwards."""
        return {}

    def install(self, settings: Settings, plan: "Plan") -> None:
        """Install the stack into a new kind cluster; what comes last need not be ready yet."""
        from ztconform.stacks import installing  # noqa: PLC0415 - it reaches into what the extras bring

        installing.run(self.steps(settings), settings, plan)

    def goal(self, *, provisioned: bool) -> "Goal":
        """Return what must be ready; of a cluster that is not ours, no more than the CNI itself."""
        raise NotImplementedError

    def absence(self, connection: "Connection") -> str:
        """Return why an existing cluster is not of this stack; "" if it is."""
        raise NotImplementedError

    def profile(self, connection: "Connection", settings: Settings, kind: str) -> "Profile":
        """Return what runs there and what it can prove."""
        raise NotImplementedError

    def status(self, connection: "Connection") -> str:
        """Return the CNI's own word on how it is, for the logs of a failed run."""
        raise NotImplementedError

    def _creatable(self, settings: Settings) -> None:
        from ztconform.stacks import examination  # noqa: PLC0415 - it reaches into what the extras bring

        for check in examination.of(self, settings):
            for warning in check.look().warnings:
                settings.notify(warning)

    def _connected(self, settings: Settings) -> "Connection":
        from ztconform.kube.client import connect  # noqa: PLC0415 - the extra may be missing

        return connect(settings.context, settings.kubeconfig)

    def _recognised(self, connection: "Connection") -> None:
        if why := self.absence(connection):
            raise ClusterError(f"context {connection.context} does not run the stack {self.name}: {why}; leave --ztc-stack out")

    def _as_made(self, connection: "Connection") -> None:
        if why := self.absence(connection):
            raise ClusterError(
                f"the kind cluster was made as {self.name}, but {why}: a value of yours (--ztc-values) undoes what the stack sets"
            )

    def provided(self, settings: Settings) -> "Connection":
        """Return a connection to the kind cluster of this run, which the first process to get here makes."""
        from ztconform.kube import kind, machine, ready  # noqa: PLC0415 - the extra may be missing
        from ztconform.kube.client import connect  # noqa: PLC0415 - likewise

        binary = machine.kind(settings.kind_bin)
        plan = self._plan(settings)

        def install() -> None:
            self.install(settings, plan)
            settings.notify(f"waiting until {plan.name} is ready")
            ready.wait(connect(plan.context, plan.kubeconfig), self.goal(provisioned=True), _READY, settings.notify)

        kind.ensure(binary, plan, install=install, rescue=lambda: self._save_logs(settings, binary, plan.name))
        return connect(plan.context, plan.kubeconfig)

    def _plan(self, settings: Settings) -> "Plan":
        from ztconform.kube import kind, ledger  # noqa: PLC0415 - the extra may be missing
        from ztconform.stacks import installing  # noqa: PLC0415 - likewise

        folder = settings.folder or ledger.default().folder
        folder.mkdir(parents=True, exist_ok=True)
        config = self.kind_config(settings)
        return kind.Plan(
            name=self.cluster(settings),
            image=settings.kind_image,
            config=config,
            archives=kind.archives(settings.load_images),
            made={
                "--ztc-kind-image": settings.kind_image,
                "--ztc-kind-config": _digest({**config, "nodes": [{**node, "labels": 0} for node in config["nodes"]]}),
                **self.made(settings),
            },
            installs=_digest(installing.content(self.steps(settings))),
            keep=settings.keep,
            run=settings.run,
            worker=bool(settings.worker),
            folder=folder,
            notify=settings.notify,
        )

    def kind_config(self, settings: Settings) -> dict[str, Any]:
        """Return what kind is told: ours, and what the user's file adds to it; raises UsageError for a file that is wrong."""
        from ztconform.kube import kind, kindconfig  # noqa: PLC0415 - the extra may be missing

        extra = kindconfig.read(settings.kind_config) if settings.kind_config else None
        return kindconfig.compose(self.kind_needs, extra, {kind.RUN_LABEL: settings.run})

    def cluster(self, settings: Settings) -> str:
        """Return the name of this run's kind cluster."""
        from ztconform.kube import kind  # noqa: PLC0415 - the extra may be missing

        return kind.name_of(self.name, settings.run, keep=settings.keep)

    def _save_logs(self, settings: Settings, binary: Path, name: str) -> None:
        """Save what may tell why a run failed beside its report; never raises, for the run has a failure of its own to tell."""
        from ztconform.kube import inventory, kind  # noqa: PLC0415 - the extra may be missing
        from ztconform.kube.client import connect  # noqa: PLC0415 - likewise

        if settings.report is None:
            return
        folder = settings.report / "logs" / name
        settings.notify(f"saving the logs of {name} in {folder}")
        lost = [kind.export_logs(binary, name, folder)]
        try:
            kubeconfig = folder / "kubeconfig"
            kind.export_kubeconfig(binary, name, kubeconfig)
            connection = connect(kind.context(name), kubeconfig)
            kubeconfig.unlink()
            (folder / "events.txt").write_text(inventory.events(connection), encoding="utf-8")
            (folder / f"{'-'.join(re.findall(r'[a-z]+', self.name))}.txt").write_text(self.status(connection), encoding="utf-8")
        except (ZtconformError, OSError) as error:
            lost.append(str(error))
        for why in filter(None, lost):
            settings.notify(f"not all logs of {name} could be saved: {why}")


def settled(settings: Settings) -> Settings:
    """Return the settings with pinned images where the user named none."""
    known = pins.load()
    agent = settings.pods.agent_image or pins.mirrored(known.agent, settings.pods.image_registry)
    return replace(settings, kind_image=settings.kind_image or known.node, pods=replace(settings.pods, agent_image=agent))


@contextmanager
def extras() -> Iterator[None]:
    """Tell an extra that is not installed from a bug of ours."""
    try:
        yield
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if top not in _EXTRAS:
            raise
        raise ClusterError(f"this stack needs the Python package {top}: pip install 'ztconform[kind]'") from None


def _sweep(connection: "Connection | None", settings: Settings) -> None:
    """Remove what processes of this run have left in a cluster and beside it."""
    from ztconform.kube import containers, sweep  # noqa: PLC0415 - the extra may be missing

    prefix = settings.pods.label_prefix
    if connection is not None:
        found = sweep.leftovers(connection, prefix)
        mine = [run for run in (*found.dead, *found.living) if run.id == settings.run]
        if mine:
            sweep.remove(connection, mine, prefix, settings.notify)
    if settings.outsider or not settings.context:
        for container in containers.ours():
            if container.run == settings.run:
                containers.remove(container)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
