# SPDX-License-Identifier: Apache-2.0
"""A matrix goes on after whatever becomes of a stack, says so of each, and is as red as the worst."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ztconform import cli
from ztconform.cli import matrix

# In place of `ztconform run`: it ends as a file says that is called like the stack, having said what it was told.
PROGRAM = """
import pathlib, signal, sys, time
stack = next(one for one in sys.argv if one.startswith("--stack=")).partition("=")[2]
print("session", *sys.argv[1:], flush=True)
how = (pathlib.Path(__file__).parent / stack.replace("+", "-").replace(":", "-")).read_text()
if how == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    print("waiting", flush=True)
    time.sleep(60)
print(f"! Interrupted: could not run: it ended with {how} !" if how == "3" else f"ERROR: it ended with {how}", file=sys.stderr)
print("a warning that says nothing", file=sys.stderr)
sys.exit(int(how))
"""


@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that says how the session of each stack ends."""
    package = tmp_path / "ztconform"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def end(**codes: object) -> None:
        for stack, code in codes.items():
            (package / stack.replace("_", "-")).write_text(str(code), encoding="utf-8")

    return end


def run(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.main(["matrix", *args])
    said = capfd.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ((0, 0, 0), 0),
        ((0, 3, 0), 3),
        ((3, 1, 0), 1),
        ((2, 3, 0), 3),
        ((0, 0, 2), 2),
        ((0, 0, 77), 3),
    ],
)
def test_every_stack_is_run_and_the_worst_counts(
    sessions: Callable[..., None], capfd: pytest.CaptureFixture[str], codes: tuple[int, ...], code: int
) -> None:
    sessions(lab=codes[0], cilium=codes[1], calico_istio=codes[2])
    got, out, err = run(capfd, "lab", "cilium", "calico+istio")
    assert code == got
    assert 3 == out.count("session run --stack=")
    assert 3 == err.count("a warning that says nothing")


def test_the_summary_says_which_stack_could_not_be_provisioned_and_why(
    sessions: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    sessions(lab=0, cilium=3, calico_istio=1)
    _, out, _ = run(capfd, "lab", "cilium", "calico+istio")
    assert [
        "== matrix",
        "lab           proved",
        "cilium        RED: could not be provisioned or run: it ended with 3",
        "calico+istio  RED: violated or inconclusive",
    ] == out.splitlines()[-4:]


def test_each_stack_has_a_report_of_its_own_and_all_get_what_stands_behind_two_dashes(
    sessions: Callable[..., None], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sessions(lab=0, cilium_istio_ambient=0)
    _, out, _ = run(capfd, "--report", str(tmp_path / "out"), "lab", "cilium+istio:ambient", "--", "-k", "N04")
    told = [line for line in out.splitlines() if line.startswith("session")]
    assert [
        f"session run --stack=lab --report={tmp_path}/out/lab -k N04",
        f"session run --stack=cilium+istio:ambient --report={tmp_path}/out/cilium-istio-ambient -k N04",
    ] == told


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("lab", "cilum"), "ztconform: no stack is called 'cilum'"),
        (("lab", "lab"), "ztconform: the stack lab is named twice"),
        (("cilium:kpr:wireguard", "cilium:wireguard:kpr"), "ztconform: the stack cilium:kpr:wireguard is named twice"),
        ((), "Error: Missing argument 'STACK...'."),
    ],
)
def test_a_mistake_is_told_before_anything_is_begun(
    sessions: Callable[..., None], capfd: pytest.CaptureFixture[str], args: tuple[str, ...], line: str
) -> None:
    code, out, err = run(capfd, *args)
    assert (2, "") == (code, out)
    assert err.splitlines()[-1].startswith(line)


def test_a_signal_ends_the_session_that_runs_and_no_other_begins(sessions: Callable[..., None], tmp_path: Path) -> None:
    sessions(lab="wait", cilium=0)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from ztconform import cli; sys.exit(cli.main(['matrix', 'lab', 'cilium']))"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(root)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        while "waiting" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        rest = process.stdout.read()
        assert 130 == process.wait(timeout=30)
        assert 30 > time.monotonic() - began
    assert ["== matrix", "lab     RED: interrupted", "cilium  RED: not begun"] == rest.splitlines()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("...\n! Interrupted: could not run: no WireGuard: load it !\n=== no tests ran in 1 s ===\n", "no WireGuard: load it"),
        ("ERROR: --ztc-nodes a,a: a node is named twice\nwarnings.warn(X)\n", "--ztc-nodes a,a: a node is named twice"),
        ("ztconform: -n many: expected a number\n", "-n many: expected a number"),
        ("1 passed\n", ""),
        ("", ""),
    ],
)
def test_why_a_session_did_not_run_is_read_from_what_it_said(said: str, why: str) -> None:
    assert why == matrix.reason(said)


@pytest.mark.parametrize(("name", "folder"), [("lab", "lab"), ("cilium+istio:ambient", "cilium-istio-ambient")])
def test_a_report_of_a_stack_lies_in_a_folder_that_any_archive_takes(name: str, folder: str) -> None:
    assert folder == matrix.slug(name)
