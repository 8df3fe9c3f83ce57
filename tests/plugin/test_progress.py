# SPDX-License-Identifier: Apache-2.0
"""The phase of a proof is shown on a terminal while it runs, and nowhere else."""

import os
import pty
import subprocess

import pytest


def on_a_terminal(inner, *args: str) -> str:
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        inner.command(*args), cwd=inner.path, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 65536):
            output += chunk
    except OSError:  # Linux says EIO where the other end is closed
        pass
    finally:
        os.close(ours)
    assert 0 == run.wait(timeout=30)
    return output.decode()


@pytest.mark.parametrize("capture", ["fd", "sys", "no"])
@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_each_phase_is_shown_and_erased_on_a_terminal(inner, monkeypatch, capture, verbose):
    monkeypatch.setenv("TERM", "xterm-256color")
    inner.write(inner.requirement("N01", "PROVED a"))
    output = on_a_terminal(inner, f"--capture={capture}", *verbose)
    shown = [output.index(f"\x1b7\x1b[K N01: {phase}\x1b8") for phase in ("control", "apply", "release")]
    assert shown == sorted(shown)
    assert output.index("\x1b7\x1b[K\x1b8") > shown[-1]


def test_nothing_is_shown_on_a_terminal_that_knows_no_cursor(inner, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    inner.write(inner.requirement("N01", "PROVED a"))
    assert "\x1b" not in on_a_terminal(inner)


def test_nothing_is_shown_where_there_is_no_terminal(inner):
    inner.write(inner.requirement("N01", "PROVED a"))
    for result in (inner.run_apart(), inner.run_apart("--color=yes"), inner.run_apart("-n1")):
        assert "N01: control" not in result.stdout.str()
        assert "\x1b7" not in result.stdout.str()
