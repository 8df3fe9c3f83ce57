# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself at its end: the matrix, whatever else is red, conformance.json, and pytest's exit code.

It lives in the process that the user started, xdist's controller or the only one; how things are put into words is left to
`ztconform.report`.
"""

import signal
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from ztconform import catalogue
from ztconform.errors import EXIT_COULD_NOT_RUN, EXIT_PROVED, EXIT_RED, EXIT_USAGE, UsageError
from ztconform.plugin import launch, options, signals, stack
from ztconform.plugin.marks import CASE_FILE
from ztconform.plugin.record import Record
from ztconform.plugin.wire import NODES, PLAN, RESULT, WORD, load_plan, load_told, property_of
from ztconform.report import document
from ztconform.report.results import RED, Attempt, exit_code

_PHASES = ("setup", "call", "teardown")

# What pytest calls these; all else it may return (an internal error, a plugin's own code) stays what it is.
_TO_PYTEST = {EXIT_USAGE: pytest.ExitCode.USAGE_ERROR, EXIT_COULD_NOT_RUN: pytest.ExitCode.INTERNAL_ERROR}


class Reporter:
    """Read the reports of a run, and report it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        # What -k and its like deselect the runner sees; what --lf leaves out with its whole file, and a node ID, nobody does.
        narrowed = bool(config.getoption("lf", False)) or any("::" in arg for arg in config.args)
        # What a named cluster turns out to be is told with the first test on it.
        name = options.chosen_stack(config) or options.value(config, "ztc_context") or options.DEFAULT_STACK
        self.record = Record(stack=name, partial=options.flag(config, "ztc_partial"), narrowed=narrowed)
        self.workers: list[int] = []
        self.notes: list[str] = []  # lines below the matrix
        self._interrupted = False
        self._sigterm: signals.Interrupts | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what a report carries; its own outcome decides nothing."""
        if plan := property_of(report, PLAN):
            self._plan(plan)
        if result := property_of(report, RESULT):
            self.record.tell(report.nodeid, load_told(result))
        if report.when not in _PHASES:  # xdist's report of a worker that died under a test
            self.record.lost(report.nodeid, str(report.longrepr))
        if report.failed:
            self.record.failed.add(report.nodeid)

    def _plan(self, text: str) -> None:
        plan = load_plan(text)
        self.record.plan(plan)
        if self._sigterm is None and plan.pid:
            self._sigterm = signals.Interrupts(self.config, "the workers' stacks", signal.SIGTERM)
        self.workers += [plan.pid] if plan.pid else []

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Notice that it was not pytest itself that ended the run, and end the workers too."""
        if launch.by_hand(excinfo.value):
            self._interrupted = True
            signals.pass_on(self.workers)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Take a wrong ID or case file, which a worker can only report as a collection error."""
        if report.failed and (hasattr(report, "ztc_usage") or report.nodeid.endswith(CASE_FILE)):
            self.record.usage.append(str(report.longrepr))

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Generator[None, Any, Any]:
        """Call a test by its outcome in -v; what pytest answers to this hook has effects, so it is asked first.

        A skip keeps its word: the short summary takes that of the first skip for all of them.
        """
        status = yield
        word = property_of(report, WORD) if isinstance(report, pytest.TestReport) else None
        if status is None or word is None or report.outcome not in ("passed", "failed") or hasattr(report, "wasxfail"):
            return status
        if word == "NOT_RUN" and report.failed and report.when == "setup":
            return "", "", ""  # the stack cannot be had: the line that ends the run says why
        category, letter, _ = status
        return category, letter, word

    @pytest.hookimpl(wrapper=True, trylast=True)  # innermost: before the terminal's summary, after every plugin's own exit code
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """Remove what the run shared, restore the exit code that the results demand, whatever plugins made, and report."""
        try:
            result = yield  # the workers have ended, or the fixtures of the only process
        finally:
            if self._sigterm is not None:
                self._sigterm.restore()
            self._finish(session)
        if not self.record.subjects and not self.record.usage:
            return result
        demanded = self.record.verdict()
        if demanded is None and session.exitstatus == EXIT_PROVED and exit_code(self.record.run()) == EXIT_RED:
            demanded = EXIT_RED
            idle = ", ".join(result.id for result in self.record.not_run())
            self.notes.append(f"Exit code {EXIT_RED}: {idle} did not run; --ztc-partial accepts that.")
        if demanded is not None:
            session.exitstatus = _TO_PYTEST.get(demanded, demanded)
        if self.record.subjects:
            self._write(session)
        return result

    def _finish(self, session: pytest.Session) -> None:
        broken = session.exitstatus in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERNAL_ERROR)
        failed = self.record.verdict() is not None or (broken and not self._interrupted)
        if problem := stack.finish(self.config, failed=failed):
            self.record.could_not_run.append(problem)

    def _write(self, session: pytest.Session) -> None:
        directory = options.report_directory(self.config)
        if directory is None:
            return
        status = launch.ours(int(session.exitstatus), interrupted=self._interrupted)
        try:
            built = document.build(self.record.run(), catalogue.load(), exit_status=status)
            self.notes.append(f"Report: {document.write(directory, built)}")
        except UsageError as error:
            self.notes.append(str(error))
            if session.exitstatus == EXIT_PROVED:
                session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the matrix, and what is red beside the tests that pytest shows: the canary, and attempts that were rerun."""
        told = [one for node in self.record.subjects for one in self.record.attempts.get(node, ())]
        if all(one.exit_code == EXIT_COULD_NOT_RUN for one in told):
            return
        from ztconform.report import matrix

        run = self.record.run()
        for result in run.canary:
            outcome, why = result.counts.judged()
            if outcome in RED:
                terminalreporter.write_sep("=", f"canary {result.id} {outcome}", red=True)
                untested = result.id == NODES
                more = "what it enforces nobody knows" if untested else "until it passes no denial means anything"
                terminalreporter.write_line(f"{why}; {more}", red=True)
                _show(terminalreporter, result.counts, None, most=0 if untested else 1 if result.counts.why else None)
        for node, attempt in self._superseded():
            terminalreporter.write_sep("=", f"{node}: an attempt that was rerun, and counts", red=True)
            _show(terminalreporter, attempt, catalogue.load().get(self.record.subjects[node].id))
        writer = self.config.get_terminal_writer()
        terminalreporter.write_sep("=", f"ztconform on {run.stack}")
        times = self.record.shared or self.config.get_verbosity() > 0
        text = matrix.render(run, catalogue.load(), width=writer.fullwidth, colour=writer.hasmarkup, times=times)
        for line in (*text.splitlines(), *self.notes):
            terminalreporter.write_line(line)

    def _superseded(self) -> Iterator[tuple[str, Attempt]]:
        for node in self.record.subjects:
            attempts = [told.attempt for told in self.record.attempts.get(node, ())]
            yield from ((node, attempt) for attempt in attempts[:-1] if attempt.judged()[0] in RED)


def _show(
    terminal: pytest.TerminalReporter, attempt: Attempt, requirement: catalogue.Requirement | None, *, most: int | None = None
) -> None:
    """Show the red rows of an attempt; `most` is for rows that are red for one reason, of which the first says enough."""
    from ztconform.report import redrow

    for row in [row for row in attempt.rows if row["outcome"] in RED][:most]:
        terminal.write_line(redrow.render(row, requirement))
