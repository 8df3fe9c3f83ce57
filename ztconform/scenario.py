# SPDX-License-Identifier: Apache-2.0
"""How the words of a scenario, policy, rows and steps, become a case; proving it is for `proof`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ztconform import policies
from ztconform.errors import UsageError
from ztconform.model import Case, Lifecycle, Manifest, Ref, Row, Step, Topology
from ztconform.placeholders import named
from ztconform.proof.change import key
from ztconform.rows import Change

# What only a mesh has: a scenario that needs one of these is played with sidecars.
MESH_FEATURES = frozenset({"mtls", "l7-authz", "identity", "svid-rotation", "authorization-dry-run", "authorization-audit"})
Policy = str | Manifest | Sequence[str | Manifest]


def case(
    name: str,
    topology: Topology,
    dialects: Iterable[str],
    *,
    policy: Policy,
    rows: Sequence[Row],
    steps: Sequence[Change] = (),
    mesh: bool = False,
) -> Case | policies.Gap:
    """Return the case, or the reason why the dialects have no words for one of its policies.

    A policy is an intent's name, a manifest, or several of them; a step's policy takes the place of the one before it. Without
    `mesh` the workloads have no sidecars. Raises
    UsageError for a row that cannot be meant, or an intent that is not there.
    """
    in_force = _manifests(policy, dialects)
    if isinstance(in_force, policies.Gap):
        return in_force
    made = [Step(apply=in_force, rows=_demanded(rows, "prove()"))]
    for number, change in enumerate(steps, start=2):
        label = f"step {number}"
        apply: tuple[Manifest, ...] = ()
        delete: tuple[Manifest, ...] = ()
        if change.policy is not None:
            found = _manifests(change.policy, dialects)
            if isinstance(found, policies.Gap):
                return found
            apply = found
            delete = tuple(m for m in in_force if key(m) not in map(key, apply))
            in_force = apply
        # The same demand may come back in a later step, and evidence is joined by a row's id.
        demanded = tuple(_renamed(row, label) for row in _demanded(change.rows, label))
        made.append(
            Step(
                name=label,
                apply=apply,
                delete=delete,
                relabel=tuple(change.relabel.items()),
                lifecycle=tuple(Lifecycle(action="restart", workload=ref) for ref in change.restart),
                provider=change.provider,
                unregistered=change.unregistered,
                audited=change.audited,
                rows=demanded,
            )
        )
    needed = replace(_needed(topology, made), private=True)
    return Case(id=name, topology=needed if mesh else _without_mesh(needed), steps=tuple(made))


def within(rows: Sequence[Row], features: Mapping[str, str]) -> tuple[tuple[Row, ...], Mapping[str, str]]:
    """Return the rows that a stack of these features can play, and the features that the others lack, each with the reason.

    A row goes with its twin.
    """
    lacking = {name: features.get(name, "the stack says nothing of it") for row in rows for name in row.needs}
    lacking = {name: why for name, why in lacking.items() if why}
    there = {name for name, why in features.items() if not why}
    kept = [row for row in rows if not row.needs & lacking.keys() and row.unless not in there]
    ids = {row.id for row in kept}
    return tuple(row for row in kept if row.twin is None or row.twin in ids), lacking


def _needed(topology: Topology, steps: Sequence[Step]) -> Topology:
    """Return the topology without what no row, change or placeholder speaks of: it would prove nothing.

    A Service beside the workloads' own is there for the rows that go through it.
    """
    spoken = {ref for s in steps for r in s.rows for ref in (r.probe.source, r.probe.target)}
    through = {r.probe.via for s in steps for r in s.rows}
    for step in steps:
        spoken |= (
            {ref for ref, _ in step.relabel} | {event.workload for event in step.lifecycle} | step.unregistered | step.audited
        )
        spoken |= {ref for manifest in step.apply for ref in named(manifest)}
    return replace(
        topology,
        workloads=tuple(w for w in topology.workloads if w.ref in spoken),
        services=tuple(s for s in topology.services if _ref(s) in through),
        outsiders=tuple(w for w in topology.outsiders if w.ref in spoken),
    )


def _ref(manifest: Manifest) -> Ref:
    metadata = manifest["metadata"]
    return Ref(metadata["namespace"], metadata["name"])


def _without_mesh(topology: Topology) -> Topology:
    """Return the topology without sidecars: what needs no mesh is judged without one between probe and packet filter."""
    return replace(topology, workloads=tuple(replace(w, meshed=False) for w in topology.workloads))


def _manifests(policy: Policy, dialects: Iterable[str]) -> tuple[Manifest, ...] | policies.Gap:
    found: list[Manifest] = []
    for one in [policy] if isinstance(policy, str | Mapping) else policy:
        if isinstance(one, Mapping):
            found.append(one)
            continue
        loaded = policies.load(one, tuple(dialects))
        if isinstance(loaded, policies.Gap):
            return loaded
        found += loaded
    return tuple(found)


def _demanded(rows: Sequence[Row], where: str) -> tuple[Row, ...]:
    if not rows:
        raise UsageError(f"{where} demands no row, and would prove nothing; give it rows=[allowed(...), denied(...)]")
    twice = [name for name, times in Counter(row.id for row in rows).items() if times > 1]
    if twice:
        raise UsageError(f"{where} demands the same row twice: {', '.join(twice)}")
    return tuple(rows)


def _renamed(row: Row, step: str) -> Row:
    return replace(row, id=f"{row.id}, {step}", twin=row.twin and f"{row.twin}, {step}")
