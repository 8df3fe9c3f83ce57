# SPDX-License-Identifier: Apache-2.0
"""A stack of components: what they ask of kind as one, their steps in order, what they say of themselves as one profile.

Which components those are is left to `composition`, and what is in them to their modules.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from ztconform.settings import Settings
from ztconform.stacks import charts, interplay, networkpolicy
from ztconform.stacks.component import Component, Composition, Findings, Site, Step
from ztconform.stacks.composition import PARTS
from ztconform.stacks.kubernetes import KubernetesStack

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.profile import Profile
    from ztconform.kube.ready import Goal

_BASE = 2172  # MiB for three nodes with our pods and no CNI; with Cilium's it is what was seen to suffice
_T = TypeVar("_T")


class ComposedStack(KubernetesStack):
    """Start a CNI with what is laid over it."""

    def __init__(self, stack: Composition) -> None:
        """Put the components of a stack together; imports nothing that an extra brings."""
        from ztconform.kube.kindconfig import merge  # noqa: PLC0415 - only here

        self.stack = stack
        self.name = stack.name
        self.parts: tuple[Component, ...] = tuple(component(part) for part in stack.parts)
        self.summary = "; ".join(part.summary for part in self.parts)
        self.memory = _BASE + sum(part.memory for part in self.parts)
        self.kernel = _each(need for part in self.parts for need in part.kernel(stack))
        needs: Mapping[str, Any] = {}
        for part in self.parts:
            needs = merge(needs, part.kind_needs(stack))
        self.kind_needs = needs

    def check(self, settings: Settings) -> None:
        """Raise UsageError for options about charts that cannot be meant."""
        from ztconform.stacks import installing, undoing  # noqa: PLC0415 - it reaches into what the extras bring

        charts.check(settings)
        if self.stack.options and settings.values:
            without = ComposedStack(replace(self.stack, options=frozenset()))
            undoing.check(self.name, *(installing.charts(stack.steps(settings)) for stack in (self, without)))

    def steps(self, settings: Settings) -> Sequence[Step]:
        """Return the components' steps; what comes before another component is waited for, so that a fault has one name."""
        from ztconform.kube.helm import Chart  # noqa: PLC0415 - the extra may be missing
        from ztconform.kube.kindconfig import merge  # noqa: PLC0415 - likewise

        site = self._site(settings)
        found: list[Step] = []
        for number, part in enumerate(self.parts):
            if number > 0:
                found.append(self._joined(self.parts[:number]))
            for step in part.steps(self.stack, settings, site):
                more = interplay.values(step.component, self.stack) if isinstance(step, Chart) else {}
                found.append(replace(step, values=merge(step.values, more)) if isinstance(step, Chart) and more else step)
        return (*found, *interplay.steps(self.stack))

    def goal(self, *, provisioned: bool) -> "Goal":
        """Return what all components want; on kind the cluster too, which is not ready without a CNI."""
        return replace(self._joined(self.parts), cluster=provisioned)

    def absence(self, connection: "Connection") -> str:
        """Return which component, or which option of one, a cluster does not run; "" if it has all of them."""
        for part in self.parts:
            found = part.found(connection)
            if found is None:
                return f"it has no {part.name}"
        lacking = self.stack.options - self._found(connection)
        return f"what runs there is not {', '.join(sorted(lacking))}" if lacking else ""

    def demand(self, connection: "Connection") -> None:
        """Raise ClusterError where a component is set so that our policies would mean something else."""
        for part in self.parts:
            part.demand(connection)

    def profile(self, connection: "Connection", settings: Settings, kind: str) -> "Profile":
        """Return what all components say of themselves, as one."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing
        from ztconform.kube.profile import Profile  # noqa: PLC0415 - likewise

        told = [part.findings(connection, settings, self.stack, kind) for part in self.parts]
        return Profile(
            stack=self.name,
            dialects=_each(iter(dialects(self.parts, told))),
            features=features(networkpolicy.features(settings, kind), told),
            versions={"kubernetes": inventory.kubernetes_version(connection), **_merged(one.versions for one in told)},
            signatures=_each(signature for one in told for signature in one.signatures),
            patience=max(one.patience for one in told),
            relabelled=max(one.relabelled for one in told),
            notes=tuple(note for one in told for note in one.notes),
            kind=kind,
            flows=next((one.flows for one in told if one.flows is not None), None),
            audit=next((one.audit for one in told if one.audit is not None), None),
            mesh=next((one.mesh for one in told if one.mesh is not None), None),
        )

    def status(self, connection: "Connection") -> str:
        """Return what is not ready, and each component's own word on how it is."""
        from ztconform.kube import ready  # noqa: PLC0415 - the extra may be missing

        lines = [f"{lack.text}\n" for lack in ready.missing(connection, self.goal(provisioned=True))]
        return "".join([*lines, *(part.status(connection) for part in self.parts)])

    def _found(self, connection: "Connection") -> frozenset[str]:
        return frozenset[str]().union(*(found.options for part in self.parts if (found := part.found(connection))))

    def _joined(self, parts: Sequence[Component]) -> "Goal":
        from ztconform.kube.ready import Goal  # noqa: PLC0415 - the extra may be missing

        goals = [part.goal(self.stack) for part in parts]
        return Goal(
            what=" and ".join(goal.what for goal in goals),
            wants=_each(want for goal in goals for want in goal.wants),
            crds=_each(crd for goal in goals for crd in goal.crds),
            conditions=_each(condition for goal in goals for condition in goal.conditions),
            webhooks=_each(name for goal in goals for name in goal.webhooks),
            annotations=_each(key for goal in goals for key in goal.annotations),
        )

    def _site(self, settings: Settings) -> Site:
        networking = self.kind_config(settings)["networking"]
        return Site(cluster=self.cluster(settings), pods=tuple(str(networking["podSubnet"]).split(",")))


def component(name: str) -> Component:
    """Return the component of a name that `composition` knows."""
    found: Component = import_module(f"ztconform.stacks.{name}").COMPONENT
    return found


def components() -> Iterator[Component]:
    """Yield all components there are."""
    yield from map(component, PARTS)


def promised(stack: "ComposedStack", settings: Settings) -> Mapping[str, str]:
    """Return what a stack on kind will be able to prove, and why not the rest, as far as can be said before it runs."""
    told = [Findings(features=part.promises(stack.stack)) for part in stack.parts]
    return features(networkpolicy.features(settings, stack.cluster(settings)), told)


def dialects(parts: Sequence[Component], told: Sequence[Findings]) -> Sequence[str]:
    """Return in order of preference what a stack speaks: NetworkPolicy, then what is laid over the CNI, then the CNI's own.

    L7 is left to a mesh where there is one: a CNI cannot read what the mesh encrypts (https://docs.cilium.io/en/v1.19/network/servicemesh/istio).
    """
    of_all = ["kubernetes"] if any("kubernetes" in one.dialects for one in told) else []
    laid = [dialect for part, one in zip(parts, told, strict=True) if part.role != "cni" for dialect in one.dialects]
    return [*of_all, *laid, *(dialect for one in told for dialect in one.dialects)]


def features(base: Mapping[str, str], told: Sequence[Findings]) -> Mapping[str, str]:
    """Return what the components make of what any CNI has: what one adds, a later one does not take away."""
    found = dict(base)
    added: set[str] = set()
    for one in told:
        found |= {name: why for name, why in one.features.items() if name not in added}
        added |= {name for name, why in one.features.items() if not why}
    return found


def _each(items: Iterator[_T]) -> tuple[_T, ...]:
    """Return each item once, in order."""
    found: list[_T] = []
    for item in items:
        if item not in found:
            found.append(item)
    return tuple(found)


def _merged(some: Iterator[Mapping[str, str]]) -> Mapping[str, str]:
    whole: dict[str, str] = {}
    for one in some:
        whole |= one
    return whole
