# SPDX-License-Identifier: Apache-2.0
"""How long rows may take to converge: a cluster that denies nothing is given up early, and one that has begun to deny is not."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from ztconform.evidence import Observation, Verdict
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


def converged(examiner: Scripted, *names: str) -> dict[str, Any]:
    probe = Probe(source=Ref("t", "client"), target=Ref("t", "server"), port=80)
    trials = [Trial(row=Row(id=name, probe=probe, want="denied", by=frozenset({"l34"})), step=0) for name in names]
    phases.converge(examiner, trials)  # type: ignore[arg-type]  # as much of an examiner as it asks for
    return {trial.row.id: trial.outcome for trial in trials}


def test_where_nothing_is_denied_nobody_waits_for_the_deadline() -> None:
    examiner = Scripted(a=[ALLOWED], b=[ALLOWED])
    assert {"a": "VIOLATED", "b": "VIOLATED"} == converged(examiner, "a", "b")
    assert examiner.rounds < CONVERGE / 0.01 / 2


def test_a_row_that_takes_longer_is_waited_for_where_another_is_denied_already() -> None:
    assert {"a": None, "b": None} == converged(Scripted(a=[DENIED], b=[*[ALLOWED] * 20, DENIED]), "a", "b")


def test_a_round_that_proves_nothing_is_no_reason_to_give_up() -> None:
    assert {"a": None} == converged(Scripted(a=[ALLOWED, *[SILENT] * 20, DENIED]), "a")
    assert {"a": "VIOLATED"} == converged(Scripted(a=[SILENT, *[ALLOWED] * 20, DENIED]), "a")


def test_a_row_that_is_undecided_to_the_end_is_asked_once_more_with_patience() -> None:
    assert {"a": "VIOLATED"} == converged(Scripted(patiently=ALLOWED, a=[SILENT]), "a")
    assert {"a": "INCONCLUSIVE"} == converged(Scripted(patiently=SILENT, a=[SILENT]), "a")
    assert {"a": "INCONCLUSIVE"} == converged(Scripted(patiently=DENIED, a=[SILENT]), "a")
