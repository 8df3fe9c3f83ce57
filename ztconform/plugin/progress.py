# SPDX-License-Identifier: Apache-2.0
"""What goes on while pytest is in the middle of a line: a proof's phase at its end, on a terminal only, and lines of their own.

The cursor is saved and put back around a phase, so that pytest's next character lands where it would have anyway.
"""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest

_SAVE, _RESTORE, _ERASE = "\x1b7", "\x1b8", "\x1b[K"


def progress(config: pytest.Config, subject: str) -> Callable[[str], None]:
    """Return what takes a phase's name, and "" for the end."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or not terminal.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return _silent
    capture = config.pluginmanager.get_plugin("capturemanager")
    writer = config.get_terminal_writer()

    def show(phase: str) -> None:
        room = writer.fullwidth - writer.width_of_current_line - 1
        text = f" {subject}: {phase}"[: max(room, 0)] if phase else ""
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            sys.stdout.write(f"{_SAVE}{_ERASE}{text}{_RESTORE}")
            sys.stdout.flush()

    return show


def say(config: pytest.Config, line: str, *, first: bool = True) -> None:
    """Write a line to standard error, from a worker of xdist too; before the first, pytest is in the middle of one of its own."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print(f"{chr(10) if first else ''}ztconform: {line}", file=sys.stderr, flush=True)


def saying(config: pytest.Config) -> Callable[[str], None]:
    """Return what takes lines that follow each other."""
    said: list[str] = []

    def tell(line: str) -> None:
        say(config, line, first=not said)
        said[:] = [line]

    return tell


def _silent(phase: str) -> None:
    """Show nothing: this is no terminal."""
