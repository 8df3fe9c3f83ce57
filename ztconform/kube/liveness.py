# SPDX-License-Identifier: Apache-2.0
"""Whether the process that started something on this machine still lives, told from what it wrote down about itself.

What becomes of the things of a dead one is left to whoever sweeps.
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_PROC = Path("/proc")
_MACHINE = Path("/etc/machine-id")
RUN, PID, START, BOOT, HOST = (f"ztconform.{name}" for name in ("run", "pid", "start", "boot", "host"))


class Life(Enum):
    """Say what can be told of a process."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"  # its number means nothing here


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Name one process so that no other can be taken for it, not even one that is given its number later."""

    pid: int
    start: int  # clock ticks after boot, field 22 of /proc/<pid>/stat
    boot: str  # ID of the kernel's boot
    host: str  # where the number means something: machine and PID namespace; "" is wherever it is read

    def labels(self, run: str) -> Mapping[str, str]:
        """Return this as labels for whatever the process starts in a run."""
        return {RUN: run, PID: str(self.pid), START: str(self.start), BOOT: self.boot, HOST: self.host}


def this_process() -> Process:
    """Return what the process that calls has to write down."""
    return process(os.getpid())


def process(pid: int) -> Process:
    """Return what is to be written down of a process that runs here now."""
    return Process(pid=pid, start=start_of(pid) or 0, boot=this_boot(), host=this_host())


def from_labels(labels: Mapping[str, str]) -> Process | None:
    """Return the process that was written down; None for labels from which it cannot be read."""
    try:
        pid, start = int(labels[PID]), int(labels[START])
    except (KeyError, ValueError):
        return None
    boot = labels.get(BOOT, "")
    return Process(pid=pid, start=start, boot=boot, host=labels.get(HOST, "")) if boot else None


def life(written: Process | None) -> Life:
    """Return whether the process that was written down lives, as seen from here."""
    if written is None:
        return Life.UNKNOWN
    start = start_of(written.pid)
    if start is None and _is_hidden(written.pid):
        return Life.UNKNOWN
    return judge(written, host=this_host(), boot=this_boot(), start=start)


def judge(written: Process, *, host: str, boot: str, start: int | None) -> Life:
    """Return whether a process lives, given where we are and when the process that has its number now was started.

    Where there is no /proc nothing is known: better one thing too many left than one taken from a living run.
    """
    if not boot or (written.host and written.host != host):
        return Life.UNKNOWN
    return Life.ALIVE if (written.boot, written.start) == (boot, start) else Life.DEAD


def start_of(pid: int) -> int | None:
    """Return when a process was started, in clock ticks after boot; None if there is none, or only its remains."""
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def parse_stat(text: str) -> int | None:
    """Return the start time in a /proc/<pid>/stat; None for a zombie, which is dead and only waits to be counted.

    The name in field 2 may hold blanks and parentheses: what counts is the last one.
    """
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def this_boot() -> str:
    """Return the ID of the kernel's boot; "" where there is none to be read."""
    return _text(_PROC / "sys/kernel/random/boot_id")


def this_host() -> str:
    """Return where our process numbers mean something.

    The boot ID is the same in all containers of a machine, which all start from PID 1; and a Docker may be another machine's.
    """
    try:
        namespace = (_PROC / "self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return f"{platform.node()}/{_text(_MACHINE)}/{namespace}"


def _is_hidden(pid: int) -> bool:
    """Return whether another user has a process of this number, which a /proc with hidepid does not show."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
