# SPDX-License-Identifier: Apache-2.0
"""Whether a process lives, decided from what was written down of it: no later process and no other place is taken for it."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.kube import liveness
from ztconform.kube.liveness import Life, Process

WRITTEN = Process(pid=7, start=1000, boot="boot-1", host="vm/1")
HERE = {"host": "vm/1", "boot": "boot-1", "start": 1000}


@pytest.mark.parametrize(
    ("written", "seen", "life"),
    [
        ({}, {}, Life.ALIVE),
        ({}, {"start": None}, Life.DEAD),
        ({}, {"start": 1001}, Life.DEAD),  # its number was given to another
        ({}, {"boot": "boot-2"}, Life.DEAD),  # and start times are the same by chance
        ({}, {"host": "vm/2"}, Life.UNKNOWN),  # in another container
        ({}, {"host": "vm/2", "start": None}, Life.UNKNOWN),
        ({}, {"host": "vm/2", "boot": "boot-2"}, Life.UNKNOWN),  # on another machine
        ({"host": ""}, {}, Life.ALIVE),
        ({"host": ""}, {"start": None}, Life.DEAD),
        ({}, {"boot": "", "start": None}, Life.UNKNOWN),  # no /proc
    ],
)
def test_a_process_is_dead_only_where_its_number_means_something(
    written: dict[str, str], seen: dict[str, object], life: Life
) -> None:
    assert life is liveness.judge(replace(WRITTEN, **written), **{**HERE, **seen})


def test_what_a_process_writes_down_can_be_read_again() -> None:
    labels = WRITTEN.labels("run-1")
    assert "run-1" == labels[liveness.RUN]
    assert WRITTEN == liveness.from_labels(labels)


@pytest.mark.parametrize("broken", [liveness.PID, liveness.START, liveness.BOOT])
@pytest.mark.parametrize("value", [None, "", "no number"])
def test_of_labels_that_cannot_be_read_nothing_is_concluded(broken: str, value: str | None) -> None:
    labels = {key: kept for key, kept in {**WRITTEN.labels("r"), broken: value}.items() if kept is not None}
    if (broken, value) == (liveness.BOOT, "no number"):
        return  # a boot ID is any text
    assert Life.UNKNOWN is liveness.life(liveness.from_labels(labels))


@given(st.text(max_size=15).filter(lambda name: "\n" not in name), st.sampled_from("RSDTtI"), st.integers(0, 2**63))
def test_the_start_time_is_found_behind_any_name(name: str, state: str, start: int) -> None:
    rest = " ".join(["1"] * 18 + [str(start), "99", "98"])
    assert start == liveness.parse_stat(f"7 ({name}) {state} {rest}\n")


@pytest.mark.parametrize("state", ["Z", "X"])
def test_the_remains_of_a_process_are_dead(state: str) -> None:
    assert None is liveness.parse_stat(f"7 (x) {state} " + " ".join(["1"] * 30))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_process_lives_until_it_is_killed_also_before_it_is_counted() -> None:
    assert Life.ALIVE is liveness.life(liveness.this_process())
    with subprocess.Popen(["sleep", "60"]) as child:
        start = liveness.start_of(child.pid)
        assert start is not None
        written = replace(liveness.this_process(), pid=child.pid, start=start)
        assert Life.ALIVE is liveness.life(written)
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Life.DEAD is liveness.life(written)
    assert Life.DEAD is liveness.life(written)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_process_that_a_proc_with_hidepid_hides_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(liveness, "start_of", lambda pid: None)
    assert Life.UNKNOWN is liveness.life(replace(liveness.this_process(), pid=4_000_000))
