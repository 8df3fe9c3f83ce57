# SPDX-License-Identifier: Apache-2.0
"""How we run docker, kind and helm: in sessions of their own, so that Ctrl-C reaches only us, each with a deadline.

What is run, and what its output means, is left to the callers.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ztconform.errors import ClusterError

_GRACE = 5.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class Done:
    """Hold how a program ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """Return the line that says what went wrong."""
        return complaint(f"{self.out}\n{self.err}") or f"exit code {self.code}"


def run(
    argv: Sequence[str],
    *,
    within: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
) -> Done:
    """Run a program and return what it said, whatever its exit code; `env` is added to our own environment.

    Raises ClusterError if it cannot be started or takes longer than so many seconds.
    """
    with _started(argv, env, cwd, apart=True) as process:
        try:
            out, err = process.communicate(stdin, timeout=within)
        except subprocess.TimeoutExpired:
            raise _late(argv, within) from None
    return Done(process.returncode, out, err)


def follow(
    argv: Sequence[str],
    *,
    within: float,
    tell: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Done:
    """Run a program as `run` does, and hand on each line of its output as it comes; both outputs are returned as one."""
    said: list[str] = []
    with _started(argv, env, cwd, apart=False) as process:
        reader = threading.Thread(target=_read, args=(process, said, tell), daemon=True)
        reader.start()
        try:
            process.wait(timeout=within)
        except subprocess.TimeoutExpired:
            raise _late(argv, within) from None
        reader.join(_GRACE)  # a grandchild may hold the pipe open for longer
    return Done(process.returncode, "".join(said), "")


def complaint(text: str) -> str:
    """Return the line of an output that says what went wrong: the first that says `error`, else the last one."""
    lines = [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]
    wrong = (line for line in lines if line.lower().startswith(("error:", "error response")))
    return next(wrong, lines[-1] if lines else "")[:600]


@contextmanager
def _started(
    argv: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None, *, apart: bool
) -> Iterator[subprocess.Popen[str]]:
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if apart else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if apart else subprocess.STDOUT,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise ClusterError(f"cannot run {argv[0]}: {error.strerror}") from None
    try:
        yield process
    finally:
        _end(process)


def _read(process: "subprocess.Popen[str]", said: list[str], tell: Callable[[str], None]) -> None:
    for line in process.stdout or ():
        said.append(line)
        if line.strip():
            tell(line.strip())


def _end(process: "subprocess.Popen[str]") -> None:
    """End a program that still runs, with whatever it started: it is here because we were interrupted, or it is late."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            continue


def _late(argv: Sequence[str], within: float) -> ClusterError:
    shown = " ".join([Path(argv[0]).name, *argv[1:3]])
    return ClusterError(f"`{shown} ...` took more than {within:.0f} s and was stopped: is this machine overloaded?")
