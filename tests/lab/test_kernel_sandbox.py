# SPDX-License-Identifier: Apache-2.0
"""The lab's process is alone in its namespaces, needs no privilege, and leaves nothing when it goes, however it goes."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import kernel_scenes
from ztconform.lab import sandbox

WHO = pytest.mark.parametrize("who", ["self", "nobody"])


@WHO
def test_inside_one_user_is_root_over_nothing_but_the_sandbox(who: str) -> None:
    uid = os.getuid() if who == "self" else kernel_scenes.NOBODY
    assert {
        "pid": 1,
        "uid": 0,
        "uid_map": ["0", str(uid), "1"],
        "setgroups": "deny",
        "all capabilities": True,
        "interfaces": ["lo"],
        "others": [],
    } == kernel_scenes.run(who, "identity")


@pytest.mark.parametrize("code", [0, 1, 7])
def test_the_outer_process_exits_with_the_code_of_the_inner_one(code: int) -> None:
    with kernel_scenes.start("self", "exits", str(code)) as process:
        process.communicate(timeout=30)
    assert code == process.returncode


@WHO
@pytest.mark.parametrize(
    ("how", "code"),
    [
        (str(int(signal.SIGKILL)), -signal.SIGKILL),
        (str(int(signal.SIGTERM)), 128 + signal.SIGTERM),
        (str(int(signal.SIGINT)), 128 + signal.SIGINT),
        ("end of file", 0),
    ],
)
def test_whatever_ends_the_outer_process_leaves_no_process_and_no_interface(who: str, how: str, code: int) -> None:
    seen = kernel_scenes.run(who, "killed", how)
    assert {"pids": 2, "before": ["leash", "lo"], "left": 0, "after": ["lo"], "code": code} == seen


def test_without_user_namespaces_root_goes_without_and_others_are_told_the_sysctl() -> None:
    seen = kernel_scenes.run("self", "without_user_namespaces")
    assert (1, ["lo"]) == (seen["root"]["pid"], seen["root"]["interfaces"])
    assert re.search(r"ClusterError: this machine refuses namespaces .*`sysctl -w user.max_user_namespaces=15000`", seen["plain"])


ORPHANED = """
import sys
from ztconform.lab import netns, sandbox
really = netns.checked
def after_the_outer_process_died(name, *arguments):
    if name == "prctl":
        print("forked", flush=True)
        sys.stdin.readline()
    really(name, *arguments)
netns.checked = after_the_outer_process_died
sandbox.enter()
print("went on", flush=True)
"""


def test_a_child_whose_outer_process_died_before_it_could_ask_to_die_with_it_ends_itself() -> None:
    environment = {**os.environ, "PYTHONPATH": str(kernel_scenes.ROOT)}
    command = [sys.executable, "-c", ORPHANED]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        assert "forked\n" == outer.stdout.readline()
        outer.kill()
        outer.wait(timeout=10)
        assert "" == outer.communicate("go on\n", timeout=10)[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: has no power to lose")
def test_root_whose_files_another_user_hides_goes_without_a_user_namespace(tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(kernel_scenes.ROOT / "ztconform", home / "ztconform", ignore=shutil.ignore_patterns("__pycache__"))
    os.chown(home, kernel_scenes.NOBODY, kernel_scenes.NOBODY)
    home.chmod(0o700)
    program = "import sys; from ztconform.lab import sandbox; sandbox.enter(); import ztconform.lab.wiring; " + (
        "print(open('/proc/self/uid_map').read().split()[2], sys.modules['ztconform.lab.wiring'].__file__)"
    )
    command = [sys.executable, "-P", "-B", "-c", program]
    done = subprocess.run(command, env={"PYTHONPATH": str(home)}, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    users, wiring = done.stdout.split()
    assert int(users) > 1
    assert str(home / "ztconform/lab/wiring.py") == wiring


@pytest.mark.parametrize(
    ("number", "files", "cure"),
    [
        (errno.ENOSPC, {"sys/user/max_user_namespaces": "0"}, "sysctl -w user.max_user_namespaces=15000"),
        (errno.EPERM, {"sys/kernel/unprivileged_userns_clone": "0"}, "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            errno.EPERM,
            {"sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (errno.EPERM, {"self/status": "Seccomp:\t2\nThreads:\t1\n"}, "--security-opt seccomp=unconfined"),
        (errno.EINVAL, {"self/status": "Seccomp:\t0\nThreads:\t3\n"}, "started a thread"),
        (errno.ENOSPC, {"sys/user/max_user_namespaces": "5000"}, "no namespaces left"),
        (errno.EPERM, {"sys/kernel/apparmor_restrict_unprivileged_userns": "0"}, "run ztconform as root"),
        (errno.EINVAL, {"self/ns/user": None}, "CONFIG_USER_NS"),
    ],
)
def test_what_blocks_namespaces_is_named_with_its_cure(
    tmp_path: Path, number: int, files: dict[str, str | None], cure: str
) -> None:
    kernel = {**dict.fromkeys(("self/ns/user", "self/ns/net", "self/ns/pid", "self/ns/mnt"), ""), **files}
    for name, content in kernel.items():
        if content is not None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
    said = sandbox.cure(OSError(number, os.strerror(number)), str(tmp_path))
    assert cure in said
    assert "\n" not in said
