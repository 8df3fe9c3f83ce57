# SPDX-License-Identifier: Apache-2.0
"""The policies of a case: rendered, mutated, applied, read back, taken away and put back."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ztconform.cluster import Cluster
from ztconform.errors import UsageError
from ztconform.model import Manifest, Ref, Step, Topology
from ztconform.placeholders import render
from ztconform.proof.opening import opened

Mutate = Callable[[Manifest], Manifest | None]
Key = tuple[str, str, str, str]


def key(manifest: Manifest) -> Key:
    """Return what identifies an object: API group, kind, namespace, name; Kubernetes and Calico both have a NetworkPolicy."""
    metadata: Mapping[str, Any] = manifest.get("metadata") or {}
    group = str(manifest.get("apiVersion")).rpartition("/")[0]
    return group, str(manifest.get("kind")), str(metadata.get("namespace") or "default"), str(metadata.get("name"))


class Changes:
    """Keep what is in force, so that it can be taken away and put back."""

    def __init__(self, cluster: Cluster, mutate: Mutate | None) -> None:
        self._cluster = cluster
        self._mutate = mutate
        self._force: dict[Key, Manifest] = {}
        self._around = Step()  # the identity provider and the CNI as the last step wants them

    def do(self, step: Step) -> None:
        """Perform a step with its manifests rendered and mutated.

        Raises Rejected for a manifest that the cluster refuses, and UsageError for a placeholder that cannot be filled, or where
        there is no identity provider, or no audit mode, to be put into a state.
        """
        facts = self._cluster.facts()
        disturbed = step.provider != "sound" or bool(step.unregistered)
        if disturbed and (lacking := facts.features.get("spire", f"{facts.stack} says nothing of the feature spire")):
            raise UsageError(f"{step.name or 'a step'} changes what the identity provider issues: {lacking}")
        if step.audited and (
            lacking := facts.features.get("audit-mode", f"{facts.stack} says nothing of the feature audit-mode")
        ):
            raise UsageError(f"{step.name or 'a step'} has policies audited: {lacking}")
        pods, resolver = self._cluster.pods(), facts.resolver
        rendered = [render(m, pods, resolver) for m in step.apply]
        mutated = [m if self._mutate is None else self._mutate(m) for m in rendered]
        apply = tuple(m for m in mutated if m is not None)
        self._cluster.perform(replace(step, apply=apply))
        for manifest in step.delete:
            self._force.pop(key(manifest), None)
        self._force.update((key(m), m) for m in apply)
        self._around = Step(provider=step.provider, unregistered=step.unregistered, audited=step.audited)

    def in_force(self) -> tuple[Manifest, ...]:
        """Return the policies that were applied and not deleted."""
        return tuple(self._force.values())

    def missing(self) -> str:
        """Return which policies the cluster does not report back as they were applied, or ""."""
        reported = {key(m): m.get("spec") for m in self._cluster.policies()}
        wrong = [k for k, m in self._force.items() if reported.get(k, "absent") != m.get("spec")]
        return ", ".join(f"{kind} {namespace}/{name}" for _, kind, namespace, name in wrong)

    def lift(self) -> None:
        """Take every policy away, make the identity provider sound and have the CNI enforce, remembering all."""
        if self._force or self._around != Step():
            self._cluster.perform(Step(delete=self.in_force()))

    def restore(self) -> None:
        """Put back what `lift` took away."""
        if self._force or self._around != Step():
            self._cluster.perform(replace(self._around, apply=self.in_force()))

    def open(self, namespaces: Iterable[str], topology: Topology) -> tuple[Manifest, ...]:
        """Apply allow-all policies to these namespaces and return them; they are none of the case's policies."""
        manifests = opened(self._cluster.facts().dialects, namespaces, topology)
        self._cluster.perform(Step(apply=manifests))
        return manifests

    def close(self, manifests: tuple[Manifest, ...]) -> None:
        """Delete what `open` applied."""
        if manifests:
            self._cluster.perform(Step(delete=manifests))


def ended_by(step: Step) -> frozenset[Ref]:
    """Return the workloads whose pods the step ends or replaces."""
    return frozenset(x.workload for x in step.lifecycle if x.action != "start")


def touched_by(step: Step) -> frozenset[Ref]:
    """Return the workloads whose pods, readiness or membership the step changes on purpose."""
    return frozenset(x.workload for x in step.lifecycle) | frozenset(ref for ref, _ in step.relabel if ref.name)
