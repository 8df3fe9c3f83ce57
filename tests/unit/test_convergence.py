# SPDX-License-Identifier: Apache-2.0
"""How long rows may take to converge: a cluster that denies nothing is given up early, and one that has begun to deny is not."""

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from ztconform.evidence import Cause, Observation, Verdict
from ztconform.model import Attempt, Probe, Ref, Row
from ztconform.proof import phases
from ztconform.proof.trial import Finding, Trial
from ztconform.timeouts import LAB

CONVERGE, GIVE_UP = 1.0, 0.05  # seconds
DENIED = Verdict(kind="DENIED", why="DROP", layer="l34")
ALLOWED = Verdict(kind="ALLOWED", why="answered")
SILENT = Verdict(kind="INCONCLUSIVE", why="silence")


def finding(row: Row, verdict: Verdict) -> Finding:
    observation = Observation(attempt="a", nonce="n", sent=0, ended=0, signal="answered", stage="done")
    return Finding(Attempt(id="a", row=row.id, probe=row.probe, targets=(), timeout=1), observation, verdict, None)


class Scripted:
    """Answer each row by its own script, the last word of which stays; a patient question has an answer of its own."""

    def __init__(self, patiently: Verdict = SILENT, **scripts: list[Verdict]) -> None:
        self.facts = SimpleNamespace(timeouts=replace(LAB, converge=CONVERGE, spacing=0.01))
        self.give_up = GIVE_UP
        self.rounds = 0
        self._scripts, self._patiently = scripts, patiently

    def round(self, trials: Sequence[Trial], *, opening: bool = False) -> dict[str, tuple[Finding, ...]]:
        at, self.rounds = self.rounds, self.rounds + 1
        said = {t.row.id: self._scripts[t.row.id] for t in trials}
        return {
            t.row.id: (finding(t.row, self._patiently if opening else said[t.row.id][min(at, len(said[t.row.id]) - 1)]),)
            for t in trials
        }


def converged(examiner: Scripted, *names: str, more: float = 0.0) -> dict[str, Any]:
    probe = Probe(source=Ref("t", "client"), target=Ref("t", "server"), port=80)
    trials = [Trial(row=Row(id=name, probe=probe, want="denied", by=frozenset({"l34"})), step=0) for name in names]
    phases.converge(examiner, trials, more=more)  # type: ignore[arg-type]  # as much of an examiner as it asks for
    return {trial.row.id: trial.outcome for trial in trials}


def test_where_nothing_is_denied_nobody_waits_for_the_deadline() -> None:
    examiner = Scripted(a=[ALLOWED], b=[ALLOWED])
    assert {"a": "VIOLATED", "b": "VIOLATED"} == converged(examiner, "a", "b")
    assert examiner.rounds < CONVERGE / 0.01 / 2


def test_a_row_that_takes_longer_is_waited_for_where_another_is_denied_already() -> None:
    assert {"a": None, "b": None} == converged(Scripted(a=[DENIED], b=[*[ALLOWED] * 20, DENIED]), "a", "b")


def test_what_a_cni_delays_on_purpose_is_waited_for_on_top_of_the_deadline() -> None:
    late = [*[ALLOWED] * 150, DENIED]  # 1.5 s at the least, and 0.6 s below
    assert {"a": None, "b": "VIOLATED"} == converged(Scripted(a=[DENIED], b=late), "a", "b")
    assert {"a": None, "b": None} == converged(Scripted(a=[DENIED], b=late), "a", "b", more=20.0)
    alone = [*[ALLOWED] * 60, DENIED]
    assert {"a": "VIOLATED"} == converged(Scripted(a=alone), "a")
    assert {"a": None} == converged(Scripted(a=alone), "a", more=20.0)


def test_a_round_that_proves_nothing_is_no_reason_to_give_up() -> None:
    assert {"a": None} == converged(Scripted(a=[ALLOWED, *[SILENT] * 20, DENIED]), "a")
    assert {"a": "VIOLATED"} == converged(Scripted(a=[SILENT, *[ALLOWED] * 20, DENIED]), "a")


def test_a_row_that_is_undecided_to_the_end_is_asked_once_more_with_patience() -> None:
    assert {"a": "VIOLATED"} == converged(Scripted(patiently=ALLOWED, a=[SILENT]), "a")
    assert {"a": "INCONCLUSIVE"} == converged(Scripted(patiently=SILENT, a=[SILENT]), "a")
    assert {"a": "INCONCLUSIVE"} == converged(Scripted(patiently=DENIED, a=[SILENT]), "a")


NAMED = Cause(nonce="n", layer="l34", policies=("t/no",), explicit=True, direction="ingress", endpoint=None, source="goldmane")


class SlowLog:
    """Deny every row in every round, and tell who did, or who would have, from the `told`-th asking on."""

    def __init__(self, told: int, cause: Cause = NAMED) -> None:
        self.facts = SimpleNamespace(timeouts=replace(LAB, converge=0.5, hold=0.02, hold_rounds=2))
        self.cluster = self
        self.asked = 0
        self._told, self._cause = told, cause

    def round(self, trials: Sequence[Trial]) -> dict[str, tuple[Finding, ...]]:
        self.asked += 1
        verdicts = {"denied": DENIED, "allowed": ALLOWED}
        cause = self._cause if self.asked >= self._told else None
        return {t.row.id: (replace(finding(t.row, verdicts[t.row.want]), cause=cause),) for t in trials}

    def remarks(self, nonces: Sequence[str]) -> dict[str, frozenset[str]]:
        return dict.fromkeys(nonces, frozenset(self._cause.policies)) if self.asked >= self._told else {}


def held(log: SlowLog, row: Row) -> tuple[Any, str]:
    trial = Trial(row=row, step=0)
    phases.hold(log, [trial], since=monotonic())  # type: ignore[arg-type]  # as much of an examiner as it asks for
    return trial.outcome, trial.why


PROBE = Probe(source=Ref("t", "client"), target=Ref("t", "server"), port=80)
DENIAL = Row(id="a", probe=PROBE, want="denied", by=frozenset({"l34"}), named=frozenset({"t/no"}))
PASSAGE = Row(id="a", probe=PROBE, want="allowed", logged=frozenset({"t/no"}))


@pytest.mark.parametrize("row", [DENIAL, PASSAGE], ids=["named", "logged"])
def test_a_row_is_held_until_the_log_that_is_to_tell_of_it_has_told(row: Row) -> None:
    log = SlowLog(told=8)
    assert (None, "") == held(log, row)
    assert log.asked == 8


@pytest.mark.parametrize("row", [DENIAL, PASSAGE], ids=["named", "logged"])
def test_what_no_log_tells_by_the_deadline_is_inconclusive(row: Row) -> None:
    log = SlowLog(told=1_000_000)
    outcome, _ = held(log, row)
    assert (outcome, log.asked > 40) == ("INCONCLUSIVE", True)


@pytest.mark.parametrize("row", [DENIAL, PASSAGE], ids=["named", "logged"])
def test_what_the_log_tells_otherwise_is_a_violation_at_once(row: Row) -> None:
    log = SlowLog(told=1, cause=replace(NAMED, policies=("t/other",)))
    outcome, _ = held(log, row)
    assert (outcome, log.asked < 20) == ("VIOLATED", True)
