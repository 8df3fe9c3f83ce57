# SPDX-License-Identifier: Apache-2.0
"""Nothing of a lab outlives its owner: no process, no namespace, no file, whichever way the owner ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

OWNER = """
import os, sys
from ztconform.lab.cluster import LabCluster
with LabCluster() as lab:
    print("up", lab._process._child.pid, lab._process.inner_pid, flush=True)
    sys.stdin.readline()
"""
WITHIN = 3.0  # seconds


def namespaces_of(pids: set[int]) -> set[str]:
    """Return the network namespaces that processes are in or hold open."""
    links = [link for pid in pids for pattern in ("ns/net", "fd/*") for link in Path(f"/proc/{pid}").glob(pattern)]
    found = set()
    for link in links:
        try:
            found.add(os.readlink(link))
        except OSError:
            continue
    return {name for name in found if name.startswith("net:")}


def mounts() -> set[str]:
    return set(Path("/proc/self/mounts").read_text().splitlines())


def everybody() -> set[int]:
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def children_of(pid: int) -> set[int]:
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | children_of(child)
    return found


def start() -> tuple[subprocess.Popen[str], set[int]]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline().startswith("up")
    lab = children_of(owner.pid)
    assert 3 <= len(lab), "the outer process, the prober and the servers"
    return owner, lab


def gone(pids: set[int]) -> set[int]:
    """Return which of these still run when the time is over."""
    deadline = time.monotonic() + WITHIN
    while (left := {p for p in pids if Path(f"/proc/{p}/stat").exists() and not zombie(p)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None], ids=str)
def test_the_lab_ends_with_its_owner(end):
    owner, lab = start()
    held = namespaces_of(lab) - namespaces_of({os.getpid()})
    assert 5 <= len(held), "the lab's own, its nodes and its pods"
    before = everybody()
    if end is None:
        owner.communicate("\n", timeout=10)
    else:
        owner.send_signal(end)
        owner.wait(timeout=10)
    assert set() == gone(lab)
    # Who came later may have been given the number of a namespace that is gone: a Docker runs beside us on some machines.
    assert set() == held & namespaces_of(before & everybody())
    assert set() == {line for line in mounts() if line.startswith("nsfs") and "/docker/" not in line}
    owner.stdin.close()
    owner.stdout.close()


@pytest.mark.parametrize("victim", ["outer", "prober", "servers"])
def test_the_lab_ends_whole_when_any_of_its_processes_is_killed_and_the_owner_closes(victim):
    owner, lab = start()
    order = sorted(lab)
    os.kill(order[{"outer": 0, "prober": 1, "servers": 2}[victim]], signal.SIGKILL)
    owner.communicate("\n", timeout=10)
    assert set() == gone(lab)


def test_a_lab_writes_no_file(tmp_path):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert owner.stdout.readline().startswith("up")
    owner.communicate("\n", timeout=10)
    assert [] == list(tmp_path.rglob("*"))
