# SPDX-License-Identifier: Apache-2.0
"""What becomes of each test of ours in the process that runs it: every attempt ends in one message, whatever happened to it.

Reports are given their texts and outcomes here, never in a display hook; what a message means for the run is left to `record`.
"""

import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import pytest

from ztconform import catalogue, proof
from ztconform.cluster import Cluster, Facts
from ztconform.errors import ConformanceFailure, ZtconformError
from ztconform.model import RowResult
from ztconform.plugin import compat
from ztconform.plugin.record import Record
from ztconform.plugin.stack import controller_of
from ztconform.plugin.subjects import SUBJECT, Subject
from ztconform.plugin.wire import PLAN, RESULT, WORD, Plan, Told, dump
from ztconform.report.results import RED, Attempt, rows_to_json
from ztconform.report.rows import RowJson


@dataclass(slots=True, kw_only=True)
class Underway:
    """Hold what an attempt has come to so far."""

    subject: Subject
    rows: list[RowJson] = field(default_factory=list)
    untested: tuple[Literal["NOT_SUPPORTED", "NOT_RUN"], str] | None = None  # why the plugin itself skips the test
    stack: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    canaries: dict[str, Attempt] = field(default_factory=dict)  # those that ran within this attempt, by layer
    body_ended: bool = False


UNDERWAY = pytest.StashKey[Underway]()


class RedRow(ConformanceFailure):
    """Say that a row is red: a text for a person, a headline for lists, and the line of the test's file that demands it."""

    def __init__(self, text: str, headline: str, line: int | None) -> None:
        super().__init__(text)
        self.headline = headline
        self.line = line


def skip(item: pytest.Item, outcome: Literal["NOT_SUPPORTED", "NOT_RUN"], why: str) -> NoReturn:
    """Skip the test, saying what that makes of its subject."""
    item.stash[UNDERWAY].untested = (outcome, why)
    pytest.skip(f"{outcome}: {why}")


class Canaries:
    """Ask each layer of a cluster once whether it enforces anything at all, when something is first to be proved on it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._asked: dict[str, Attempt] = {}

    def demand(self, item: pytest.Item, layer: proof.CanaryLayer) -> None:
        """Skip the test if the layer's canary does not pass."""
        if layer not in self._asked:
            attempt = canary_attempt(proof.prove_canary(self._cluster, layer))
            self._asked[layer] = item.stash[UNDERWAY].canaries[layer] = attempt
        outcome, why = self._asked[layer].judged()
        if outcome != "PROVED":
            skip(item, "NOT_RUN", f"see canary: {why}")


def prepare(item: pytest.Item, facts: Facts, canaries: Canaries) -> Underway:
    """Return the attempt that is under way, or skip the test for what the cluster cannot prove."""
    underway = item.stash[UNDERWAY]
    underway.stack, underway.versions = facts.stack, dict(facts.versions)
    canaries.demand(item, "l34")
    if underway.subject.kind == "requirement":
        for feature in sorted(catalogue.load()[underway.subject.id].features):
            if lacking := facts.features.get(feature, f"{facts.stack} says nothing of the feature {feature}"):
                skip(item, "NOT_SUPPORTED", lacking)
    return underway


def canary_attempt(results: Iterable[RowResult]) -> Attempt:
    """Return what the canary came to; anything but PROVED is red, a canary without rows too."""
    attempt = Attempt(rows=tuple(rows_to_json(results)))
    outcome, why = attempt.judged()
    if outcome == "PROVED" or outcome in RED:
        return attempt
    return Attempt(rows=attempt.rows, outcome="INCONCLUSIVE", why=why)


class Runner:
    """Watch the tests of ours in the process that runs them: a worker of xdist, or the only one."""

    def __init__(self, config: pytest.Config, record: Record | None) -> None:
        self.config = config
        self.record = record  # None in a worker: what it knows travels with its first report
        self.narrowed = False
        self.plan: Plan | None = None

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Notice that something of ours was deselected, by whatever plugin."""
        self.narrowed = self.narrowed or any(SUBJECT in item.stash for item in items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take down what is going to run."""
        subjects = {item.nodeid: item.stash[SUBJECT] for item in session.items if SUBJECT in item.stash}
        self.plan = Plan(subjects=subjects, narrowed=self.narrowed, pid=os.getpid() if controller_of(self.config) else 0)
        if self.record is not None:
            self.record.plan(self.plan)
            self.plan = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Tell the controller, before a worker's first test, what was collected: a worker that dies cannot tell it later.

        It travels on one more report of a setup that passed, of which no reporter takes notice.
        """
        if self.plan is not None:
            report = pytest.TestReport(
                item.nodeid, item.location, {}, "passed", None, "setup", user_properties=[(PLAN, dump(self.plan))]
            )
            self.plan = None
            item.ihook.pytest_runtest_logreport(report=report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin an attempt; a rerun begins another."""
        if SUBJECT in item.stash:
            item.stash[UNDERWAY] = Underway(subject=item.stash[SUBJECT])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Notice the end of the test's body: what is reported of a call before that is a subtest."""
        try:
            return (yield)
        finally:
            if UNDERWAY in item.stash:
                item.stash[UNDERWAY].body_ended = True

    @pytest.hookimpl(wrapper=True, trylast=True)  # innermost: whoever wraps it too, reruns for one, sees the final report
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give a report its text, without a line of our code, and the one that ends an attempt its message."""
        report = yield
        underway = item.stash.get(UNDERWAY, None)
        if underway is None:
            return report
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, RedRow):
            report.longrepr = _failure(item, str(error), error.headline, error.line)
        elif isinstance(error, (ConformanceFailure, ZtconformError)):
            report.longrepr = _failure(item, str(error), str(error).partition("\n")[0])
        if underway.body_ended if call.when == "call" else call.when == "setup" and error is not None:
            _end(item, report, underway, error)
        return report


def _end(item: pytest.Item, report: pytest.TestReport, underway: Underway, error: BaseException | None) -> None:
    attempt = _attempt(underway, error)
    outcome, why = attempt.judged()
    code = error.exit_code if isinstance(error, ZtconformError) else 0
    told = Told(attempt=attempt, exit_code=code, stack=underway.stack, versions=underway.versions, canaries=underway.canaries)
    report.user_properties += [(RESULT, dump(told)), (WORD, outcome)]
    if underway.untested is not None:
        path, line, _ = item.location
        report.longrepr = (path, (line or 0) + 1, f"{underway.untested[0]}: {why}")
    elif outcome in RED and report.passed:
        # The display of subtests would call it failed as well, but not without a terminal, and too late for --lf.
        report.outcome = "failed"
        text = f"{underway.subject.id} {outcome}: {why}"
        report.longrepr = _failure(item, text, text)
    if code and report.when == "setup":
        # The stack cannot be had; every further test of ours would only say so again.
        item.session.shouldstop = f"could not run: {error}"


def _attempt(underway: Underway, error: BaseException | None) -> Attempt:
    rows = tuple(underway.rows)
    if underway.untested is not None:
        outcome, why = underway.untested
        return Attempt(rows=rows, outcome=outcome, why=why)
    if isinstance(error, pytest.skip.Exception):
        return Attempt(rows=rows, outcome="NOT_RUN", why=f"skipped: {error.msg}")
    if isinstance(error, ZtconformError):
        return Attempt(rows=rows, outcome="NOT_RUN", why=str(error))
    if error is not None and not isinstance(error, ConformanceFailure):
        first = (str(error).splitlines() or [""])[0]
        return Attempt(rows=rows, outcome="INCONCLUSIVE", why=f"the test stopped: {type(error).__name__}: {first}")
    if not rows:
        return Attempt(outcome="INCONCLUSIVE", why="proved nothing: the test made no call of prove()")
    return Attempt(rows=rows)


def _failure(item: pytest.Item, text: str, headline: str, line: int | None = None) -> Any:
    shown = "" if item.config.getoption("tbstyle", "auto") == "line" else text  # pytest itself then prints the headline
    return compat.failure(shown, headline=headline, path=item.path, line=line or (item.location[1] or 0) + 1)
