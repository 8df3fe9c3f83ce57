# SPDX-License-Identifier: Apache-2.0
"""What SIGTERM and a killed controller mean to a process that holds a stack; removing the stack is left to the stack.

A cancelled CI job gets SIGTERM, whose default ends Python without any clean-up. After `kill -9` of the controller a worker of
xdist lived for another 17 s (seen), and with it its lab: only the kernel can end it at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType

import pytest

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the process `parent`, which started it, ends.

    Linux only, and a no-op elsewhere. The signal comes when the parent's *thread* that started this process ends; xdist starts
    its workers from the main thread.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def sigterm_interrupts(config: pytest.Config, what: str, forward_to: Iterable[int] = ()) -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C; a second one, which comes during clean-up, says what is still being removed.

    The first is forwarded to children: unlike Ctrl-C on a terminal, SIGTERM reaches one process alone. Outside the main thread,
    and where somebody else handles SIGTERM already, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            _say(config, f"ztconform: still removing {what}, in process {os.getpid()}; please wait")
            return
        interrupted = True
        for child in forward_to:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _say(config: pytest.Config, text: str) -> None:
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print(f"\n{text}", file=sys.stderr, flush=True)  # pytest is in the middle of a line
