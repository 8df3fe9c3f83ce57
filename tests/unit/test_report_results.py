# SPDX-License-Identifier: Apache-2.0
"""The worst counts, nothing passes by default, and 1 beats 3 beats 0."""

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.evidence import RowResult
from ztconform.model import Probe, Ref, Row
from ztconform.report import results
from ztconform.report.results import Attempt, CanaryResult, CaseResult, RequirementResult, RunResult, exit_code, worst

OUTCOMES = ("VIOLATED", "INCONCLUSIVE", "NOT_RUN", "NOT_SUPPORTED", "PROVED")  # worst first
GREEN = "PROVED"


def row(outcome: Any, name: str = "a -> b", why: str = "timed out") -> dict[str, Any]:
    probe = Probe(source=Ref("shop", "a"), target=Ref("shop", "b"), port=80)
    wanted = Row(id=name, probe=probe, want="denied", by=frozenset({"l34"}))
    result = RowResult(row=wanted, outcome=outcome, why=why, control="open", window=None, observations=(), cause=None)
    return results.rows_to_json([result])[0]


def attempt(*outcomes: str) -> Attempt:
    return Attempt(rows=tuple(row(outcome) for outcome in outcomes))


def requirement(name: str, *attempts: Attempt) -> RequirementResult:
    return RequirementResult(id=name, attempts=attempts)


def run(*requirements: RequirementResult, **more: Any) -> RunResult:
    fields: dict[str, Any] = {
        "version": "0.1.0",
        "stack": "lab",
        "versions": {},
        "started": datetime(2026, 1, 1, tzinfo=UTC),
        "seconds": 1.0,
        "complete": True,
        "requirements": requirements,
    }
    return RunResult(**{**fields, **more})


@given(st.lists(st.sampled_from(OUTCOMES), min_size=1))
def test_the_worst_row_is_the_outcome(outcomes: list[str]) -> None:
    assert min(outcomes, key=OUTCOMES.index) == requirement("N01", attempt(*outcomes)).outcome


@given(st.lists(st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=3), min_size=1, max_size=4))
def test_the_worst_attempt_counts_wherever_it_stands(attempts: list[list[str]]) -> None:
    wanted = min(itertools.chain(*attempts), key=OUTCOMES.index)
    assert wanted == requirement("N01", *(attempt(*outcomes) for outcomes in attempts)).outcome


def test_zero_rows_are_inconclusive() -> None:
    result = requirement("N01", Attempt())
    assert ("INCONCLUSIVE", "no rows") == (result.outcome, result.why)


def test_what_was_never_attempted_was_not_run() -> None:
    result = requirement("N01")
    assert ("NOT_RUN", "never started", ()) == (result.outcome, result.why, result.rows)


@pytest.mark.parametrize("outcomes", [[], ["PASSED"], ["PROVED", ""], ["proved"]])
def test_no_outcome_and_an_unknown_one_are_inconclusive(outcomes: list[str]) -> None:
    assert "INCONCLUSIVE" == worst(outcomes)


def test_an_ending_of_its_own_can_only_make_an_attempt_worse() -> None:
    broken = Attempt(rows=(row(GREEN),), outcome="INCONCLUSIVE", why="the scenario itself failed: KeyError")
    assert ("INCONCLUSIVE", "the scenario itself failed: KeyError") == broken.judged()
    assert ("VIOLATED", "a -> b: timed out") == Attempt(rows=(row("VIOLATED"),), outcome="NOT_SUPPORTED", why="none").judged()


def test_the_reason_names_the_first_culprit_and_counts_the_others() -> None:
    rows = (row(GREEN, "fine"), row("VIOLATED", "open", "answered"), row("INCONCLUSIVE", "odd"), row("VIOLATED", "open too"))
    assert "open: answered (and 1 more)" == requirement("N01", Attempt(rows=rows)).why


def test_the_reason_names_the_attempt_that_counts() -> None:
    result = requirement("N01", attempt(GREEN), attempt("VIOLATED"), attempt(GREEN))
    assert "attempt 2 of 3: a -> b: timed out" == result.why
    assert "VIOLATED" == result.rows[0]["outcome"]


def test_what_is_proved_needs_no_reason() -> None:
    assert "" == requirement("N01", attempt(GREEN), attempt(GREEN)).why


CANARY_DOWN = (CanaryResult(id="l34", attempts=(attempt("VIOLATED"),)),)
NOT_SUPPORTED = Attempt(outcome="NOT_SUPPORTED", why="no proxies")
NOT_RUN = Attempt(outcome="NOT_RUN", why="see canary")


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (0, run(requirement("N01", attempt(GREEN)))),
        (0, run(cases=(CaseResult(id="c", file="c.ztc.yaml", attempts=(attempt(GREEN),)),))),
        (0, run(requirement("N01", attempt(GREEN)), requirement("A01", NOT_SUPPORTED))),
        (0, run(requirement("N01", attempt(GREEN)), complete=False)),
        (0, run(requirement("N01", attempt(GREEN)), demanded=frozenset({"N01"}))),
        (0, run(requirement("N01", attempt(GREEN)), demanded=frozenset({"N01", "N02"}), partial=True)),
        (0, run(requirement("N01", attempt(GREEN)), requirement("N02", NOT_RUN), partial=True)),
        (1, run(requirement("N01", attempt(GREEN)), requirement("N02", attempt(GREEN, "VIOLATED")))),
        (1, run(requirement("N01", attempt("INCONCLUSIVE")))),
        (1, run(requirement("N01", Attempt()))),
        (1, run(requirement("N01", attempt("VIOLATED"), attempt(GREEN)))),
        (1, run(requirement("N01", attempt(GREEN), attempt("INCONCLUSIVE")))),
        (1, run(cases=(CaseResult(id="c", file="c.ztc.yaml", attempts=(attempt("VIOLATED"),)),))),
        (1, run(requirement("N01", NOT_RUN), canary=CANARY_DOWN)),
        (1, run(requirement("N01", NOT_RUN), canary=CANARY_DOWN, partial=True)),
        (1, run(requirement("N01", attempt("VIOLATED")), could_not_run=("gw0 crashed",))),
        (1, run(requirement("N01", attempt(GREEN)), requirement("N02", NOT_RUN))),
        (1, run(requirement("N01", attempt(GREEN)), requirement("N02"))),
        (1, run(requirement("N01", attempt(GREEN)), canary=(CanaryResult(id="l34"),))),
        (1, run(requirement("N01", attempt(GREEN)), demanded=frozenset({"N01", "N02"}))),
        (1, run(requirement("A01", NOT_SUPPORTED), demanded=frozenset({"A01"}))),
        (1, run(requirement("A01", NOT_SUPPORTED), demanded=frozenset({"A01"}), partial=True)),
        (2, run()),
        (2, run(canary=(CanaryResult(id="l34", attempts=(attempt(GREEN),)),))),
        (3, run(could_not_run=("no user namespaces",))),
        (3, run(requirement("N01", attempt(GREEN)), could_not_run=("gw0 crashed",))),
        (3, run(requirement("N01", NOT_RUN), could_not_run=("no user namespaces",))),
    ],
)
def test_one_beats_three_beats_nought(code: int, what: RunResult) -> None:
    assert code == exit_code(what)


@given(st.lists(st.lists(st.sampled_from(OUTCOMES), max_size=3), min_size=1, max_size=5), st.booleans())
def test_a_red_row_in_any_attempt_is_never_a_success(attempts: list[list[str]], partial: bool) -> None:
    what = run(requirement("N01", *(attempt(*outcomes) for outcomes in attempts)), partial=partial)
    rows = list(itertools.chain(*attempts))
    red = not all(attempts) or "VIOLATED" in rows or "INCONCLUSIVE" in rows
    assert red <= (exit_code(what) == 1)


def test_results_are_counted_worst_first() -> None:
    counted = [requirement("N01", attempt(GREEN)), requirement("N02", attempt("VIOLATED")), requirement("N03", attempt(GREEN))]
    assert [("VIOLATED", 1), ("PROVED", 2)] == list(results.outcomes(counted).items())
