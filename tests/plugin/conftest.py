# SPDX-License-Identifier: Apache-2.0
"""Inner pytest runs on the fake stack: `inner` writes test files and runs them, in this process or in one of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# pytester forgets what an inner run in this process imported; a package would then hand out the forgotten copy of a module beside
# the new one. What is imported here stays.
import ztconform.plugin.casefiles
import ztconform.plugin.progress
import ztconform.plugin.prove
import ztconform.plugin.reporter
import ztconform.report.matrix
import ztconform.shop
import ztconform.stacks.detect  # noqa: F401  # as above

HERE = Path(__file__).parent
IMPORTS = "from ztconform import requirement\nfrom fakestack import POLICY, row\n"
# What other plugins do is the subject of test_neighbours.py alone.
NEIGHBOURS = ("randomly", "rerunfailures", "timeout", "asyncio", "pytest_cov", "hypothesispytest", "pytest-kind")
FAKE = ("-p", "fakestack", "--ztc-stack=fake")
ALONE = (*FAKE, *(f"-pno:{name}" for name in NEIGHBOURS))


class Inner:
    """Write and run tests that a user might have."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self._log = pytester.path / "fake.log"
        self._output = pytester.path / "output"
        self._environment = monkeypatch
        self.env(FAKE_LOG=self._log, PYTHONPATH=os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
        pytester.syspathinsert(HERE)
        pytester.makeini("[pytest]\n")  # keeps the outer project's settings out

    def env(self, **variables: object) -> None:
        for name, value in variables.items():
            self._environment.setenv(name, str(value))

    def write(self, body: str, name: str = "test_inner") -> None:
        self.pytester.makepyfile(**{name: IMPORTS + body})

    def requirement(self, name: str, *rows: str, more: str = "") -> str:
        """Return the source of a test of a requirement with these rows."""
        demanded = ", ".join(f"row({r!r})" for r in rows)
        head = f'@requirement(id="{name}")\ndef test_{name.lower()}(ztc_prove):\n'
        return f"{head}    ztc_prove(policy=POLICY, rows=[{demanded}])\n    {more}\n"

    def run(self, *args: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess(*ALONE, *args)

    def run_with_any_stack(self, *args: str) -> pytest.RunResult:
        """Run without a word of which stack it is to be."""
        return self.pytester.runpytest_inprocess(*(arg for arg in ALONE if "ztc-stack" not in arg), *args)

    def run_beside(self, *args: str) -> pytest.RunResult:
        """Run beside every plugin that is installed."""
        return self.pytester.runpytest_subprocess(*FAKE, *args, timeout=60)

    def run_apart(self, *args: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess(*ALONE, *args, timeout=60)

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "pytest", *ALONE, *args]

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        """Start a run in a session of its own, to be sent signals; `output` is what it prints.

        No pipe: reading that would wait for every worker that holds its other end.
        """
        with self._output.open("w", encoding="utf-8") as file:
            return subprocess.Popen(
                self.command(*args), cwd=self.path, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    @property
    def log(self) -> list[str]:
        return self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []

    def logged(self, word: str, times: int = 1) -> list[str]:
        """Wait until a word was logged so many times."""
        deadline = time.monotonic() + 30
        while len(found := [line for line in self.log if line.split()[0] == word]) < times:
            assert time.monotonic() < deadline, f"{word!r} was not logged {times} times: {self.log}"
            time.sleep(0.02)
        return found


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    return Inner(pytester, monkeypatch)


def is_alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pids: list[int], seconds: float = 3.0) -> list[int]:
    """Return those that are still there when the time is up."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@pytest.fixture
def gone():
    """Return what waits for processes to go, and kills what is left at the end of the test."""
    watched: list[int] = []

    def check(pids: list[int], seconds: float = 3.0) -> list[int]:
        watched.extend(pids)
        return wait_until_gone(pids, seconds)

    yield check
    for pid in watched:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
