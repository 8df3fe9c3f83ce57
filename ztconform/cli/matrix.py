# SPDX-License-Identifier: Apache-2.0
"""A loop of sessions, one a stack, which goes on after a stack that could not be provisioned, and is red if any is.

A session is a `ztconform run` of its own process; what it proves is left to it.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ztconform.errors import EXIT_COULD_NOT_RUN, EXIT_PROVED, EXIT_RED, EXIT_USAGE, UsageError

Say = Callable[[str], None]
INTERRUPTED = 130  # as a shell reports it
_WORDS = {
    EXIT_PROVED: "proved",
    EXIT_RED: "RED: violated or inconclusive",
    EXIT_USAGE: "RED: a mistake in the call, or nothing selected",
    EXIT_COULD_NOT_RUN: "RED: could not be provisioned or run",
    INTERRUPTED: "RED: interrupted",
}
_WORST = (EXIT_RED, EXIT_COULD_NOT_RUN, EXIT_USAGE)  # in this order one beats the others


@dataclass(frozen=True, slots=True)
class _Result:
    stack: str
    code: int
    last: str  # what it said last on stderr


def run(say: Say, stacks: Sequence[str], report: Path | None, extra: Sequence[str]) -> int:
    """Run a session for each stack, one after the other, and return the exit code of the worst.

    Ctrl-C ends the session that runs and begins no other. Raises UsageError for a name that is no stack, before all.
    """
    from ztconform.stacks import find

    names = [find(name).name for name in stacks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"the stack {twice[0]} is named twice")
    results: list[_Result] = []
    for number, name in enumerate(names, start=1):
        say(f"== {name} ({number} of {len(names)})")
        results.append(_session(name, report, extra))
        if results[-1].code == INTERRUPTED:
            break
    _summary(say, names, results)
    return _worst([one.code for one in results])


def _session(name: str, report: Path | None, extra: Sequence[str]) -> _Result:
    where = [f"--report={report / slug(name)}"] if report else []
    # -P: nothing in the working directory can be imported by accident.
    command = [sys.executable, "-P", "-m", "ztconform.cli", "run", f"--stack={name}", *where, *extra]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as session:
        last, interrupted = _attended(session)
    return _Result(name, INTERRUPTED if interrupted or session.returncode < 0 else session.returncode, last)


def _attended(session: "subprocess.Popen[str]") -> tuple[str, bool]:
    """Hand on what a session complains of until it ends; return the last line of that, and whether we were interrupted.

    A signal to us is the session's too, which removes what it made and then ends; the terminal's Ctrl-C it has already.
    """
    interrupted = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        if number == signal.SIGTERM:
            session.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    last = ""
    try:
        for line in session.stderr or ():
            sys.stderr.write(line)
            sys.stderr.flush()
            last = line.strip() or last
        session.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return last, interrupted


def _summary(say: Say, names: Sequence[str], results: Sequence[_Result]) -> None:
    width = max(map(len, names))
    say("== matrix")
    for one in results:
        why = f": {one.last}" if one.code in (EXIT_USAGE, EXIT_COULD_NOT_RUN) and one.last else ""
        say(f"{one.stack:<{width}}  {_WORDS.get(one.code, f'RED: exit code {one.code}')}{why}")
    for name in names[len(results) :]:
        say(f"{name:<{width}}  RED: not begun")


def _worst(codes: Sequence[int]) -> int:
    if INTERRUPTED in codes:
        return INTERRUPTED
    red = [code for code in codes if code != EXIT_PROVED]
    return next((code for code in _WORST if code in red), EXIT_COULD_NOT_RUN if red or not codes else EXIT_PROVED)


def slug(name: str) -> str:
    """Return a stack's name as a folder is called: without characters that shells and archives dislike."""
    return "-".join(name.replace("+", ":").split(":"))
