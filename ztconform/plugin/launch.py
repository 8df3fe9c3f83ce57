# SPDX-License-Identifier: Apache-2.0
"""Run pytest for the command line, on its arguments alone, and say in ztconform's exit codes what pytest's mean.

Which arguments those are is left to the CLI.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from ztconform.errors import EXIT_COULD_NOT_RUN, EXIT_PROVED, EXIT_RED, EXIT_USAGE

_ADDOPTS = "PYTEST_ADDOPTS"


def main(args: Sequence[str]) -> int:
    """Run pytest with these arguments, whatever PYTEST_ADDOPTS says, and return ztconform's exit code."""
    watch = _Interrupts()
    with _without(_ADDOPTS):
        status = int(pytest.main(list(args), plugins=[watch]))
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        sys.stderr.write("nothing was selected, so nothing is proved\n")
    return ours(status, interrupted=watch.interrupted)


def ours(status: int, *, interrupted: bool) -> int:
    """Return ztconform's exit code for pytest's; what is not known here can never be a pass."""
    match status:
        case pytest.ExitCode.OK:
            return EXIT_PROVED
        case pytest.ExitCode.TESTS_FAILED:
            return EXIT_RED
        case pytest.ExitCode.INTERRUPTED:  # by Ctrl-C, or by a file that cannot be collected
            return EXIT_COULD_NOT_RUN if interrupted else EXIT_USAGE
        case pytest.ExitCode.USAGE_ERROR | pytest.ExitCode.NO_TESTS_COLLECTED:
            return EXIT_USAGE
        case _:
            return EXIT_COULD_NOT_RUN


def by_hand(error: BaseException) -> bool:
    """Return whether a person or a signal ended the run, and not pytest itself, whose own exceptions are subclasses."""
    return type(error) is KeyboardInterrupt


class _Interrupts:
    interrupted = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.interrupted = self.interrupted or by_hand(excinfo.value)


@contextmanager
def _without(variable: str) -> Iterator[None]:
    value = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[variable] = value
