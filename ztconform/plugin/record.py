# SPDX-License-Identifier: Apache-2.0
"""What a whole run has told so far, and the exit code that follows; free of pytest, so that no report's outcome can leak in.

How it is shown is left to `reporter`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

import ztconform
from ztconform.errors import EXIT_COULD_NOT_RUN, EXIT_RED, EXIT_USAGE
from ztconform.plugin.subjects import Subject
from ztconform.plugin.wire import Plan, Told
from ztconform.report.results import (
    RED,
    WORST_FIRST,
    Attempt,
    CanaryResult,
    CaseResult,
    RequirementResult,
    Result,
    RunResult,
    added,
)

NEVER_STARTED = Attempt(outcome="NOT_RUN", why="never started: the run ended before it")


@dataclass(slots=True, kw_only=True)
class Record:
    """Collect what is told of a run; every attempt is kept, and the worst counts."""

    stack: str
    shared: bool = False  # one cluster served all processes
    partial: bool  # --ztc-partial
    narrowed: bool  # the command line or a plugin chose among the tests of ours
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    subjects: dict[str, Subject] = field(default_factory=dict)  # by node ID, in the order of collection
    attempts: dict[str, list[Told]] = field(default_factory=dict)  # by node ID
    failed: set[str] = field(default_factory=set)  # node IDs of any test that pytest calls failed
    usage: list[str] = field(default_factory=list)
    could_not_run: list[str] = field(default_factory=list)
    _clock: float = field(default_factory=monotonic)

    def plan(self, plan: Plan) -> None:
        """Take what a process collected; every worker of xdist tells the same."""
        self.subjects.update(plan.subjects)
        self.narrowed = self.narrowed or plan.narrowed

    def tell(self, node: str, told: Told) -> None:
        """Take what one attempt came to."""
        self.attempts.setdefault(node, []).append(told)
        self.stack = told.stack or self.stack
        self.shared = self.shared or told.shared
        messages = {EXIT_USAGE: self.usage, EXIT_COULD_NOT_RUN: self.could_not_run}.get(told.exit_code)
        if messages is not None and told.attempt.why not in messages:
            messages.append(told.attempt.why)

    def lost(self, node: str, why: str) -> None:
        """Take a test whose process died under it."""
        self.tell(node, Told(attempt=Attempt(outcome="NOT_RUN", why=why)))

    def verdict(self) -> int | None:
        """Return the exit code that the results demand, 1 before 3 before 2, or None where pytest's own stands."""
        run = self.run()
        if any(result.outcome in RED for result in (*run.requirements, *run.cases, *run.canary)):
            return EXIT_RED
        code = EXIT_COULD_NOT_RUN if self.could_not_run else EXIT_USAGE if self.usage else None
        others_failed = bool(self.failed - self.subjects.keys())
        return EXIT_RED if code is not None and others_failed else code

    def not_run(self) -> tuple[Result, ...]:
        """Return what was collected and did not run."""
        run = self.run()
        return tuple(result for result in (*run.requirements, *run.cases) if result.outcome == "NOT_RUN")

    def run(self) -> RunResult:
        """Return the run as reports are made from it."""
        told = [one for node in self.subjects for one in self.attempts.get(node, ())]
        by_subject: dict[Subject, list[str]] = {}
        for node, subject in self.subjects.items():
            by_subject.setdefault(subject, []).append(node)
        requirements = [
            RequirementResult(id=subject.id, attempts=self._attempts(nodes))
            for subject, nodes in by_subject.items()
            if subject.kind == "requirement"
        ]
        cases = [
            CaseResult(id=subject.id, file=subject.file, attempts=self._attempts(nodes))
            for subject, nodes in by_subject.items()
            if subject.kind == "case"
        ]
        everything: list[Result] = [*requirements, *cases]
        return RunResult(
            version=ztconform.__version__,
            stack=self.stack,
            versions={name: version for one in told for name, version in one.versions.items()},
            started=self.started,
            seconds=monotonic() - self._clock,
            complete=bool(everything) and not self.narrowed and all(r.outcome != "NOT_RUN" for r in everything),
            requirements=tuple(sorted(requirements, key=lambda result: result.id)),
            cases=tuple(cases),
            canary=_canary(told),
            could_not_run=tuple(self.could_not_run),
            partial=self.partial or self.narrowed,
            notes=tuple(dict.fromkeys(remark for one in told for remark in one.remarks)),
            starting=_longest(one.starting for one in told),
        )

    def _attempts(self, nodes: Iterable[str]) -> tuple[Attempt, ...]:
        items = [[told.attempt for told in self.attempts.get(node, ())] or [NEVER_STARTED] for node in nodes]
        if len(items) == 1:
            return tuple(items[0])
        counting = [Result(id="", attempts=tuple(attempts)).counts for attempts in items]
        others = [a for attempts, counts in zip(items, counting, strict=True) for a in attempts if a is not counts]
        return (_joined(counting), *others)


def _joined(attempts: Iterable[Attempt]) -> Attempt:
    """Return what the parameters of one test prove together: all rows, and the worst that befell any of them."""
    attempts = tuple(attempts)
    ended = [attempt for attempt in attempts if attempt.outcome is not None]
    worst = min(ended, key=lambda a: WORST_FIRST.index(a.judged()[0]), default=Attempt())
    return Attempt(
        rows=tuple(row for a in attempts for row in a.rows),
        outcome=worst.outcome,
        why=worst.why,
        notes=tuple(dict.fromkeys(note for a in attempts for note in a.notes)),
        times=added(a.times for a in attempts),
    )


def _longest(starts: Iterable[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the longest that any process waited for each phase: they start at once, and most only wait for the first."""
    longest: dict[str, float] = {}
    for start in starts:
        for phase, seconds in start.items():
            longest[phase] = max(seconds, longest.get(phase, 0.0))
    return longest


def _canary(told: Iterable[Told]) -> tuple[CanaryResult, ...]:
    found: dict[str, list[Attempt]] = {}
    for one in told:
        for layer, attempt in one.canaries.items():
            attempts = found.setdefault(layer, [])
            if attempt not in attempts:  # processes that share a cluster all tell the same one
                attempts.append(attempt)
    return tuple(CanaryResult(id=layer, attempts=tuple(attempts)) for layer, attempts in sorted(found.items()))
