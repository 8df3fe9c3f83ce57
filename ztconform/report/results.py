# SPDX-License-Identifier: Apache-2.0
"""What a run came to: every attempt at every requirement, case file and canary, of which the worst counts, and the exit code.

How that is shown is left to `document`, `matrix` and `redrow`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ztconform.errors import EXIT_COULD_NOT_RUN, EXIT_PROVED, EXIT_RED, EXIT_USAGE
from ztconform.evidence import RowResult
from ztconform.jsonform import to_json
from ztconform.model import Outcome
from ztconform.report.rows import RowJson

WORST_FIRST: tuple[Outcome, ...] = ("VIOLATED", "INCONCLUSIVE", "NOT_RUN", "NOT_SUPPORTED", "PROVED")
RED: frozenset[Outcome] = frozenset({"VIOLATED", "INCONCLUSIVE"})


def rows_to_json(results: Iterable[RowResult]) -> list[dict[str, Any]]:
    """Return row results in JSON's own types, as they cross from a worker to the controller."""
    return [to_json(result) for result in results]


def worst(outcomes: Iterable[str]) -> Outcome:
    """Return the worst outcome; none at all, and a word that is no outcome, count as INCONCLUSIVE."""
    found = set(outcomes)
    if not found or not found <= set(WORST_FIRST):
        found.add("INCONCLUSIVE")
    return next(outcome for outcome in WORST_FIRST if outcome in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Hold what one execution of a scenario or case file brought.

    `outcome` is for an execution that ended otherwise than by its rows; without it the rows decide. It can only make it worse.
    `why` is its reason, or sums up the red rows that decide.
    """

    rows: tuple[RowJson, ...] = ()
    outcome: Literal["INCONCLUSIVE", "NOT_RUN", "NOT_SUPPORTED"] | None = None
    why: str = ""
    notes: tuple[str, ...] = ()  # what was left out, and why; no outcome follows from it
    times: Mapping[str, float] = field(default_factory=dict)  # seconds by phase of the proof

    def judged(self) -> tuple[Outcome, str]:
        """Return the outcome and its reason in one clause."""
        outcomes = [str(row["outcome"]) for row in self.rows]
        outcome = worst([*outcomes, *([self.outcome] if self.outcome else [])])
        if outcome == self.outcome:
            return outcome, self.why or "no reason was given"
        if not self.rows:
            return outcome, "no rows"
        if outcome == "PROVED":
            return outcome, ""
        if self.why and self.outcome is None:
            return outcome, self.why
        culprits = [row for row in self.rows if worst([row["outcome"]]) == outcome]
        first = culprits[0]
        more = f" (and {len(culprits) - 1} more)" if len(culprits) > 1 else ""
        return outcome, f"{first['row']['id']}: {first['why']}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Hold every attempt at one thing; the worst attempt counts, whatever came after it."""

    id: str
    attempts: tuple[Attempt, ...] = ()

    @property
    def counts(self) -> Attempt:
        """Return the attempt that counts: the first of the worst."""
        never = Attempt(outcome="NOT_RUN", why="never started")
        return min(self.attempts, key=lambda attempt: WORST_FIRST.index(attempt.judged()[0]), default=never)

    @property
    def outcome(self) -> Outcome:
        """Return the outcome of the attempt that counts."""
        return self.counts.judged()[0]

    @property
    def why(self) -> str:
        """Return the reason in one clause, "" for PROVED."""
        why = self.counts.judged()[1]
        if len(self.attempts) > 1 and why:
            return f"attempt {self.attempts.index(self.counts) + 1} of {len(self.attempts)}: {why}"
        return why

    @property
    def rows(self) -> tuple[RowJson, ...]:
        """Return the rows of the attempt that counts."""
        return self.counts.rows

    @property
    def times(self) -> Mapping[str, float]:
        """Return the seconds that all attempts took, by phase."""
        return added(attempt.times for attempt in self.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementResult(Result):
    """Tell how a requirement of the catalogue came out; `id` is its ID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult(Result):
    """Tell how a case file came out; `id` is the case's name."""

    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryResult(Result):
    """Tell whether the cluster enforces a layer at all; `id` is the layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Hold everything that a run is reported from."""

    version: str  # of ztconform
    stack: str
    versions: Mapping[str, str]  # of the stack's components
    started: datetime  # with its time zone
    seconds: float
    complete: bool  # False: something was deselected, cut short or lost
    requirements: tuple[RequirementResult, ...] = ()
    cases: tuple[CaseResult, ...] = ()
    canary: tuple[CanaryResult, ...] = ()
    could_not_run: tuple[str, ...] = ()  # messages of what ended the run, or a part of it
    demanded: frozenset[str] = field(default=frozenset())  # requirement IDs of the profile, if one was given
    partial: bool = False  # what was not run is meant not to have run
    notes: tuple[str, ...] = ()  # of the cluster about itself
    starting: Mapping[str, float] = field(default_factory=dict)  # seconds until the cluster and the stack in it were there

    @property
    def times(self) -> Mapping[str, float]:
        """Return where the time went, in seconds by phase; of proofs that ran side by side the sum."""
        return added([self.starting, *(result.times for result in (*self.requirements, *self.cases))])


def added(times: Iterable[Mapping[str, float]]) -> Mapping[str, float]:
    """Add up seconds by phase."""
    total: dict[str, float] = {}
    for one in times:
        for phase, seconds in one.items():
            total[phase] = total.get(phase, 0.0) + seconds
    return total


def outcomes(results: Sequence[Result]) -> dict[Outcome, int]:
    """Count results by outcome, worst first, leaving out what does not occur."""
    found = [result.outcome for result in results]
    return {outcome: found.count(outcome) for outcome in WORST_FIRST if outcome in found}


def exit_code(run: RunResult) -> int:
    """Return the exit code: 1 beats 3 beats 0, and a run in which nothing was selected is 2."""
    results: Sequence[Result] = (*run.requirements, *run.cases)
    if any(result.outcome in RED for result in (*results, *run.canary)):
        return EXIT_RED
    if run.could_not_run:
        return EXIT_COULD_NOT_RUN
    if not results and not run.demanded:
        return EXIT_USAGE
    if not run.partial and any(result.outcome == "NOT_RUN" for result in (*results, *run.canary)):
        return EXIT_RED
    settled = {"PROVED", "NOT_RUN"} if run.partial else {"PROVED"}
    reached: dict[str, str] = {result.id: result.outcome for result in run.requirements}
    if any(reached.get(name, "NOT_RUN") not in settled for name in run.demanded):
        return EXIT_RED
    return EXIT_PROVED
