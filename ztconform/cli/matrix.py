# SPDX-License-Identifier: Apache-2.0
"""A loop of sessions, one a stack, which goes on after a stack that could not be provisioned, and is red if any is.

A session is a `ztconform run` of its own process; what it proves is left to it.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from ztconform.errors import EXIT_COULD_NOT_RUN, EXIT_PROVED, EXIT_RED, EXIT_USAGE, UsageError

Say = Callable[[str], None]
_GRACE = 5.0  # seconds
INTERRUPTED = 130  # as a shell reports it
_WORDS = {
    EXIT_PROVED: "proved",
    EXIT_RED: "RED: violated or inconclusive",
    EXIT_USAGE: "RED: a mistake in the call, or nothing selected",
    EXIT_COULD_NOT_RUN: "RED: could not be provisioned or run",
    INTERRUPTED: "RED: interrupted",
}
_WORST = (EXIT_RED, EXIT_COULD_NOT_RUN, EXIT_USAGE)  # in this order one beats the others


# The lines by which a session says why it did not run: pytest's own summary of it, or an error of the command line.
_REASON = re.compile(r"could not run: (?P<why>.+?)[ !]*$|^(?:ERROR|Error|ztconform): (?P<error>.+)$")


@dataclass(frozen=True, slots=True)
class _Result:
    stack: str
    code: int
    why: str  # it did not run; "" where it did not say


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
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as session:
        said, interrupted = _attended(session)
    return _Result(name, INTERRUPTED if interrupted or session.returncode < 0 else session.returncode, reason(said))


def reason(said: str) -> str:
    """Return why a session did not run, by what it said; "" if it does not say."""
    found = [match for line in said.splitlines() if (match := _REASON.search(line.strip()))]
    return (found[-1]["why"] or found[-1]["error"]).strip() if found else ""


def _attended(session: "subprocess.Popen[bytes]") -> tuple[str, bool]:
    """Hand on what a session says until it ends; return all of that, and whether we were interrupted.

    A signal to us is the session's too, which removes what it made and then ends; the terminal's Ctrl-C it has already.
    """
    interrupted = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        if number == signal.SIGTERM:
            session.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    sys.stdout.flush()
    said: dict[int, list[bytes]] = {1: [], 2: []}
    streams = {1: session.stdout, 2: session.stderr}
    readers = [threading.Thread(target=_hand_on, args=(stream, to, said[to]), daemon=True) for to, stream in streams.items()]
    try:
        for reader in readers:
            reader.start()
        session.wait()
        for reader in readers:
            reader.join(_GRACE)  # a grandchild may hold a pipe open for longer
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return b"\n".join(b"".join(part) for part in said.values()).decode("utf-8", "replace"), interrupted


def _hand_on(stream: IO[bytes], to: int, said: list[bytes]) -> None:
    """Write what comes to a descriptor of ours as it comes, for dots of progress end no line."""
    while chunk := os.read(stream.fileno(), 65536):
        said.append(chunk)
        os.write(to, chunk)


def _summary(say: Say, names: Sequence[str], results: Sequence[_Result]) -> None:
    width = max(map(len, names))
    say("== matrix")
    for one in results:
        why = f": {one.why}" if one.code in (EXIT_USAGE, EXIT_COULD_NOT_RUN) and one.why else ""
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
