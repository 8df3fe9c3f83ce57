# SPDX-License-Identifier: Apache-2.0
"""The preflight tells quickly and without a trace whether the lab can run, and elsewhere than on Linux what to use."""

import subprocess
import sys

import pytest

from tests.lab import kernel_scenes

ELSEWHERE = """
import sys
sys.platform = sys.argv[1]
from ztconform.errors import ClusterError
from ztconform.lab import preflight
try:
    preflight.check()
except ClusterError as error:
    print(error)
print("ctypes" in sys.modules)
"""


@pytest.mark.parametrize("who", ["self", "nobody"])
def test_a_machine_that_can_run_the_lab_passes_quickly_and_nothing_is_left(who: str) -> None:
    seen = kernel_scenes.run(who, "tried")
    assert ([], ["lo"]) == (seen["others"], seen["interfaces"])
    assert seen["seconds"] < 2  # 30 to 40 ms on an idle machine


@pytest.mark.parametrize(
    ("platform", "said"),
    [("darwin", "macOS: use a Linux virtual machine"), ("win32", "Windows: use WSL2"), ("freebsd14", "freebsd14: use")],
)
def test_elsewhere_than_on_linux_one_line_says_what_to_use_and_ctypes_is_not_loaded(platform: str, said: str) -> None:
    command = [sys.executable, "-c", ELSEWHERE, platform]
    environment = {"PYTHONPATH": str(kernel_scenes.ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    line, ctypes = done.stdout.splitlines()
    assert said in line
    assert "STACK=" in line
    assert "False" == ctypes


def test_what_is_lacking_is_said_in_one_line_with_the_cure() -> None:
    line = kernel_scenes.run("self", "refused_trial")
    assert line.startswith("the lab cannot run here: this machine refuses namespaces")
    assert "`sysctl -w user.max_user_namespaces=15000`" in line
    assert "\n" not in line
