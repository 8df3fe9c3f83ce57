# SPDX-License-Identifier: Apache-2.0
"""However a run ends, nothing is left of it after three seconds, and a red row stays red."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are watched in /proc")


@pytest.fixture
def waiting(inner):
    inner.env(FAKE_GO_ON=inner.path / "go-on")
    inner.write(inner.requirement("N01", "WAIT a") + inner.requirement("N02", "WAIT a"))
    return inner


def wait_for(state: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not state():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pids(inner, workers: int) -> list[int]:
    """Wait until the stacks are in use; return who holds them and what they hold."""
    inner.logged("waiting", workers or 1)
    return [int(pid) for line in inner.logged("start", workers or 1) for pid in line.split()[1:]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_nothing_is_left_three_seconds_after_a_signal(waiting, gone, workers, number):
    run = waiting.start(f"-n{workers}")
    held = pids(waiting, workers)
    os.kill(run.pid, number)
    assert [] == gone([run.pid, *held])
    assert 0 != run.wait(timeout=30)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("whole_group", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_control_c_end_a_run_in_good_order(waiting, workers, whole_group, number):
    run = waiting.start(f"-n{workers}", "--ztc-report=out")
    pids(waiting, workers)
    (os.killpg if whole_group else os.kill)(run.pid, number)
    assert pytest.ExitCode.INTERRUPTED == run.wait(timeout=30), waiting.output
    assert (workers or 1) == len([line for line in waiting.log if line.startswith("stop")])
    assert (waiting.path / "out/conformance.json").exists()
    assert "Traceback" not in waiting.output


def test_an_interrupt_after_a_red_row_leaves_it_red(inner):
    inner.env(FAKE_GO_ON=inner.path / "go-on")
    inner.write(inner.requirement("N01", "VIOLATED a") + inner.requirement("N02", "WAIT a"))
    run = inner.start()
    inner.logged("waiting")
    os.kill(run.pid, signal.SIGINT)
    assert 1 == run.wait(timeout=30)


def test_a_second_sigterm_says_what_is_still_being_removed(waiting):
    waiting.env(FAKE_SLOW_END=waiting.path / "ended")
    run = waiting.start()
    pids(waiting, 0)
    os.kill(run.pid, signal.SIGTERM)
    waiting.logged("ending")
    os.kill(run.pid, signal.SIGTERM)
    wait_for(lambda: f"\nztconform: still removing stack fake, in process {run.pid}; please wait\n" in waiting.output)
    (waiting.path / "ended").touch()
    assert pytest.ExitCode.INTERRUPTED == run.wait(timeout=30)
    assert "stop" in waiting.log[-1]


def test_a_workers_clean_up_is_not_interrupted_by_what_the_controller_passes_on(waiting):
    waiting.env(FAKE_SLOW_END=waiting.path / "ended")
    run = waiting.start("-n2")
    pids(waiting, 2)
    os.killpg(run.pid, signal.SIGINT)
    wait_for(lambda: waiting.output.count("ztconform: still removing stack fake, in process ") == 2)
    (waiting.path / "ended").touch()
    assert pytest.ExitCode.INTERRUPTED == run.wait(timeout=30)
    assert 2 == len([line for line in waiting.log if line.startswith("stop")])


def test_sigterm_is_left_alone_until_a_stack_starts_and_after_it_ended(inner):
    inner.write(
        "import signal\n"
        "def handler(): return signal.getsignal(signal.SIGTERM)\n"
        "def test_before(): assert handler() is signal.SIG_DFL\n"
        + inner.requirement("N01", "PROVED a", more="assert callable(handler())")
    )
    inner.pytester.makeconftest(
        "import signal\ndef pytest_unconfigure(): print('\\nafter:', signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    result = inner.run_apart("-s")
    assert 0 == result.ret
    result.stdout.fnmatch_lines(["after: True"])


def test_a_worker_whose_controller_is_gone_already_ends_at_once():
    code = "from ztconform.plugin import signals; signals.die_with(1 << 22); print('still here')"
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=30)
    assert (-signal.SIGKILL, "") == (found.returncode, found.stdout)
