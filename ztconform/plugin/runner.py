# SPDX-License-Identifier: Apache-2.0
"""What becomes of each test of ours in the process that runs it: every attempt ends in one message, whatever happened to it.

Reports are given their texts and outcomes here, never in a display hook; what a message means for the run is left to `record`.
"""

import os
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ztconform import catalogue
from ztconform.cluster import Facts
from ztconform.errors import ConformanceFailure, ZtconformError
from ztconform.plugin import compat, settings, sharing, stack
from ztconform.plugin.canaries import Canaries
from ztconform.plugin.record import Record
from ztconform.plugin.subjects import SUBJECT
from ztconform.plugin.underway import UNDERWAY, Underway, skip
from ztconform.plugin.wire import PLAN, RESULT, WORD, Plan, Told, dump
from ztconform.report.results import RED, Attempt


class RedRow(ConformanceFailure):
    """Say that a row is red: a text for a person, a headline for lists, and the line of the test's file that demands it."""

    def __init__(self, text: str, headline: str, line: int | None) -> None:
        super().__init__(text)
        self.headline = headline
        self.line = line


def prepare(item: pytest.Item, facts: Facts, canaries: Canaries) -> Underway:
    """Return the attempt that is under way, or skip the test for what the cluster cannot prove."""
    underway = item.stash[UNDERWAY]
    underway.stack, underway.versions, underway.remarks = facts.stack, dict(facts.versions), facts.notes
    underway.shared, underway.starting = stack.chosen(item.config).shared, stack.starting(item.config)
    own = settings.of(item.config)
    if own.context and not own.allow_disruptive and sharing.is_disruptive(item):
        skip(item, "NOT_SUPPORTED", "disturbs more of an existing cluster than our namespaces; --ztc-allow-disruptive permits it")
    canaries.demand(item, "l34")
    if underway.subject.kind == "requirement":
        for feature in sorted(catalogue.load()[underway.subject.id].features):
            if lacking := facts.features.get(feature, f"{facts.stack} says nothing of the feature {feature}"):
                skip(item, "NOT_SUPPORTED", lacking)
    return underway


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
        self.plan = Plan(subjects=subjects, narrowed=self.narrowed, pid=os.getpid() if stack.controller_of(self.config) else 0)
        if self.record is not None:
            self.record.plan(self.plan)
            self.plan = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: no plugin's timeout should count the time that a test waits
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Tell the controller, before a worker's first test, what was collected: a worker that dies cannot tell it later.

        It travels on one more report of a setup that passed, of which no reporter takes notice. Then the test waits for its part
        of a shared cluster.
        """
        if self.plan is not None:
            report = pytest.TestReport(
                item.nodeid, item.location, {}, "passed", None, "setup", user_properties=[(PLAN, dump(self.plan))]
            )
            self.plan = None
            item.ihook.pytest_runtest_logreport(report=report)
        with sharing.part_of(item):
            return (yield)

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
    attempt = replace(_attempt(underway, error), notes=tuple(underway.notes), times=dict(underway.watch.seconds))
    outcome, why = attempt.judged()
    code = error.exit_code if isinstance(error, ZtconformError) else 0
    told = Told(
        attempt=attempt,
        exit_code=code,
        stack=underway.stack,
        shared=underway.shared,
        versions=underway.versions,
        remarks=underway.remarks,
        starting=underway.starting,
        canaries=underway.canaries,
    )
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
