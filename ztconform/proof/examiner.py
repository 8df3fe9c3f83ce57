# SPDX-License-Identifier: Apache-2.0
"""Rounds of probes, judged: sends attempts, asks for causes, and keeps the baseline that later rounds are held against."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ztconform.cluster import Cluster, Facts
from ztconform.evidence import Cause, Round, Verdict, Vital
from ztconform.judge import judge
from ztconform.model import Attempt, Ref
from ztconform.proof.plan import as_opening
from ztconform.proof.trial import Finding, Trial

# Signals behind which a denial may stand, so that a cause is worth asking for; beside them an answer that is nobody's of ours.
_SILENT = frozenset({"timeout", "silence", "icmp", "closed", "tls-alert", "no-identity"})


class Examiner:
    """Run and judge rounds on one cluster."""

    def __init__(self, cluster: Cluster, patience: float | None = None, give_up: float | None = None) -> None:
        """Look at a cluster; `patience` bounds the seconds of each wait for convergence below the stack's own.

        After `give_up` seconds without any denial there is nothing to wait for.
        """
        facts = cluster.facts()
        converge = min(facts.timeouts.converge, patience or facts.timeouts.converge)
        self.cluster = cluster
        self.give_up = converge if give_up is None else min(give_up, converge)
        relabelled = facts.timeouts.relabelled if patience is None else 0.0
        self.facts: Facts = replace(facts, timeouts=replace(facts.timeouts, converge=converge, relabelled=relabelled))
        self.baseline: dict[Ref, Vital] = {}
        self._foreign: frozenset[str] | None = None

    def forget(self, workloads: Iterable[Ref]) -> None:
        """Drop the baseline of pods that a step is about to change; the next round makes a new one."""
        changed = set(workloads)
        for pod in self.cluster.pods():
            if pod.workload in changed or pod.ref in changed:
                self.baseline.pop(pod.ref, None)

    def round(self, trials: Sequence[Trial], *, opening: bool = False) -> dict[str, tuple[Finding, ...]]:
        """Send every trial's attempts side by side; return the findings by row id, without those that are recorded alone.

        `opening`: the probes must pass now (control, release), so denied rows get an allowed probe's patience.
        """
        attempts = [a for t in trials for a in (*t.attempts, *t.beside)]
        if opening:
            attempts = [as_opening(a, self.facts.timeouts) for a in attempts]
        round_ = self.cluster.run(attempts)
        for vital in round_.vitals:
            self.baseline.setdefault(vital.server, vital)
        if self._foreign is None:
            self._foreign = round_.foreign
        causes, lost = self._causes(round_)
        by_row: dict[str, list[Finding]] = {t.row.id: [] for t in trials}
        trial_of = {t.row.id: t for t in trials}
        for attempt, observation in zip(attempts, round_.observations, strict=True):
            cause = causes.get(observation.nonce)
            verdict = judge(attempt, observation, round_, signatures=self.facts.signatures, cause=cause, baseline=self.baseline)
            verdict = self._doubted(verdict, round_, lost)
            finding = Finding(attempt, observation, verdict, cause)
            if attempt.judged:
                by_row[attempt.row].append(finding)
            elif not opening:
                trial_of[attempt.row].record(finding)
        return {row: tuple(findings) for row, findings in by_row.items()}

    def _causes(self, round_: Round) -> tuple[Mapping[str, Cause], bool]:
        silent = [o.nonce for o in round_.observations if o.signal in _SILENT or (o.signal == "answered" and not o.backend)]
        if not silent:
            return {}, False
        causes = self.cluster.causes(silent)
        return {c.nonce: c for c in causes or ()}, causes is None

    def _doubted(self, verdict: Verdict, round_: Round, lost: bool) -> Verdict:
        if verdict.kind == "ALLOWED":
            return verdict
        if round_.foreign != self._foreign:
            changed = ", ".join(sorted(round_.foreign ^ (self._foreign or frozenset())))
            return Verdict(kind="INCONCLUSIVE", why=f"policies that are not ours have changed: {changed}")
        if lost and verdict.kind == "INCONCLUSIVE":
            return replace(verdict, why=f"{verdict.why}; the flow log lost events")
        return verdict


def attempts_of(trials: Iterable[Trial]) -> list[Attempt]:
    """Return the attempts of all trials, in order."""
    return [a for t in trials for a in t.attempts]
