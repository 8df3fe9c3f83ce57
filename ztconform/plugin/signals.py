# SPDX-License-Identifier: Apache-2.0
"""What SIGTERM and a killed controller mean to a process that holds a stack; removing the stack is left to the stack.

A cancelled CI job gets SIGTERM, whose default ends Python without any clean-up. After `kill -9` of the controller a worker of
xdist lived for another 17 s (seen), and with it its lab: only the kernel can end it at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType

import pytest

from ztconform.plugin import progress

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


class Interrupts:
    """Treat signals like Ctrl-C; one that comes during clean-up only says what is still being removed.

    Outside the main thread, and where somebody else handles a signal already, nothing changes.
    """

    def __init__(self, config: pytest.Config, what: str, *numbers: signal.Signals, interrupted: bool = False) -> None:
        """Take over the signals; `interrupted` is for clean-up that has begun already."""
        self._config = config
        self._removing = what
        self._interrupted = interrupted
        in_main_thread = threading.current_thread() is threading.main_thread()
        defaults = (signal.SIG_DFL, signal.default_int_handler)
        free = [number for number in numbers if in_main_thread and signal.getsignal(number) in defaults]
        self._before = {number: signal.signal(number, self._handle) for number in free}

    def removed(self) -> None:
        """Have nothing to say any more of what was being removed."""
        self._removing = ""

    def restore(self) -> None:
        """Treat the signals as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._interrupted:
            self._interrupted = True
            raise KeyboardInterrupt(signal.Signals(number).name)
        if self._removing:
            progress.say(self._config, f"still removing {self._removing}, in process {os.getpid()}; please wait")


def pass_on(workers: Iterable[int]) -> None:
    """Interrupt workers, which a signal to the controller alone does not reach."""
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)
