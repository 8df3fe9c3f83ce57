# SPDX-License-Identifier: Apache-2.0
"""From which pods to which pods a row's probe is sent; when it is sent, and what it means, is for `protocol` and `judge`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ztconform.model import OUTSIDE, Attempt, Case, Lifecycle, Manifest, Pod, Probe, Ref, Row, Workload
from ztconform.placeholders import named
from ztconform.timeouts import Timeouts

SELF_THROUGH_SERVICE = "a pod that calls itself through a Service is recorded, never judged"
FROM_ITS_OWN_NODE = "no policy can keep a pod's own node out: what its network sends there is recorded, never judged"


def with_satellites(case: Case) -> Case:
    """Return the case with a prober on the other node beside every workload that is to be denied at L3/L4.

    Not beside one that a manifest names by its address: the satellite has another, and would be judged otherwise.
    """
    by_address = {ref for s in case.steps for m in s.apply for ref in named(m)}
    sources = {r.probe.source for s in case.steps for r in s.rows if r.want == "denied" and "l34" in r.by} - by_address

    def beside(workload: Workload) -> Workload:
        return replace(workload, satellite=True) if workload.ref in sources else workload

    return _each_workload(case, beside)


def with_attackers(case: Case) -> Case:
    """Return the case with every workload saying what its probes show past its own proxy: pods are prepared for that."""
    shown: dict[Ref, set[str]] = {}
    for probe in (row.probe for step in case.steps for row in step.rows):
        if probe.past_proxy:
            shown.setdefault(probe.source, set()).add(probe.cert or "")

    def prepared(workload: Workload) -> Workload:
        return replace(workload, past_proxy=tuple(sorted(shown.get(workload.ref, ()))))

    return _each_workload(case, prepared)


def with_waypoints(case: Case) -> Case:
    """Return the case with a waypoint before every workload that a policy is bound to, or whose callers are to be known."""
    called = {row.probe.target for step in case.steps for row in step.rows if row.identity is not None}
    called |= {service for step in case.steps for manifest in step.apply for service in bound_services(manifest)}
    return _each_workload(case, lambda workload: replace(workload, waypoint=workload.ref in called))


def bound_services(manifest: Manifest) -> frozenset[Ref]:
    """Return the Services that a mesh's policy is bound to, which are of its own namespace."""
    namespace, spec = str(manifest["metadata"].get("namespace", "default")), manifest.get("spec") or {}
    return frozenset(Ref(namespace, str(to.get("name"))) for to in spec.get("targetRefs") or () if to.get("kind") == "Service")


def _each_workload(case: Case, change: Callable[[Workload], Workload]) -> Case:
    """Return the case with every workload changed, those that start later too."""

    def starting(event: Lifecycle) -> Lifecycle:
        return event if event.spec is None else replace(event, spec=change(event.spec))

    topology = replace(case.topology, workloads=tuple(map(change, case.topology.workloads)))
    steps = tuple(replace(s, lifecycle=tuple(map(starting, s.lifecycle))) for s in case.steps)
    return replace(case, topology=topology, steps=steps)


def without_outsiders(case: Case) -> Case:
    """Return the case without hosts outside and the rows that speak of them."""
    steps = tuple(replace(s, rows=tuple(r for r in s.rows if not _is_outside(r))) for s in case.steps)
    return replace(case, topology=replace(case.topology, outsiders=()), steps=steps)


def _is_outside(row: Row) -> bool:
    return OUTSIDE in (row.probe.source.namespace, row.probe.target.namespace)


def service_of(probe: Probe) -> Ref:
    """Return the Service that the probe goes through."""
    if probe.via is not None:
        return probe.via
    name = probe.target.name
    return Ref(probe.target.namespace, f"{name}-headless" if probe.address == "headless" else name)


def attempts(
    row: Row, pods: Sequence[Pod], endpoints: Callable[[Ref], Sequence[Ref]], timeouts: Timeouts
) -> tuple[tuple[Attempt, ...], str]:
    """Return every way to send the row's probe now, or none and the reason why.

    A source is every pod of its workload, its satellite included; a target by pod address every serving pod. From a node's own
    network an attempt is judged only where no pod of that node may answer it.
    """
    probe = row.probe
    sources = [p for p in pods if probe.source in (p.workload, p.ref)]
    targets = [p for p in pods if probe.target in (p.workload, p.ref) and p.serves]
    if not sources:
        return (), f"no pod of {probe.source} is there"
    if not targets:
        return (), f"no pod of {probe.target} is there"
    at = {p.ref: p.node for p in pods}
    itself = sources[0].workload == targets[0].workload
    if probe.address == "pod" or probe.target.namespace == OUTSIDE:
        pairs = [(s, t) for s in sources for t in targets if not (itself and not s.serves)]
        return _judgeable([_attempt(row, s, t.ref, (t.ref,), timeouts, at) for s, t in pairs])
    if itself:
        return (), SELF_THROUGH_SERVICE
    behind = tuple(endpoints(service_of(probe)))
    if not behind:
        return (), f"no endpoint stands behind Service {service_of(probe)}"
    return _judgeable([_attempt(row, s, probe.target, behind, timeouts, at) for s in sources])


def _judgeable(found: Sequence[Attempt]) -> tuple[tuple[Attempt, ...], str]:
    """Return the attempts, or none and the reason where no verdict could follow from any of them."""
    return (tuple(found), "") if any(a.judged for a in found) or not found else ((), FROM_ITS_OWN_NODE)


def _attempt(
    row: Row, source: Pod, target: Ref, may_answer: tuple[Ref, ...], timeouts: Timeouts, at: Mapping[Ref, int | None]
) -> Attempt:
    probe = replace(row.probe, source=source.ref, target=target)
    return Attempt(
        id=f"{row.id} [{source.ref} -> {target}]",
        row=row.id,
        probe=probe,
        targets=may_answer,
        timeout=timeouts.allowed if row.want == "allowed" else _patience(probe, source, timeouts),
        judged=not (source.host_network and any(at.get(ref, source.node) == source.node for ref in may_answer)),
    )


def _patience(probe: Probe, source: Pod, timeouts: Timeouts) -> float:
    """Return after how many seconds a probe gives up that is to be denied; proxies connect for TCP alone."""
    captured = source.captured and probe.transport == "TCP" and not probe.past_proxy
    return timeouts.denied + (timeouts.captured if captured else 0.0)


def as_opening(attempt: Attempt, timeouts: Timeouts) -> Attempt:
    """Return the attempt as it is sent where it must pass: with the patience of an allowed probe."""
    return replace(attempt, timeout=timeouts.allowed)
