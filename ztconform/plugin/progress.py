# SPDX-License-Identifier: Apache-2.0
"""Which phase a proof is in, at the end of pytest's own line while it runs, on a terminal only.

The cursor is saved and put back around every text, so that pytest's next character lands where it would have anyway.
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


def _silent(phase: str) -> None:
    """Show nothing: this is no terminal."""
