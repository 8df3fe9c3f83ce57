# SPDX-License-Identifier: Apache-2.0
"""The command line's way into pytest: its arguments and nothing else count, and its exit codes are ztconform's."""

import os
import signal
import sys

import pytest

from ztconform.plugin import launch


@pytest.mark.parametrize(
    ("status", "interrupted", "code"),
    [
        (pytest.ExitCode.OK, False, 0),
        (pytest.ExitCode.TESTS_FAILED, False, 1),
        (pytest.ExitCode.INTERRUPTED, True, 3),
        (pytest.ExitCode.INTERRUPTED, False, 2),
        (pytest.ExitCode.INTERNAL_ERROR, False, 3),
        (pytest.ExitCode.USAGE_ERROR, False, 2),
        (pytest.ExitCode.NO_TESTS_COLLECTED, False, 2),
        (7, False, 3),
        (-15, False, 3),
    ],
)
def test_pytests_codes_are_put_into_ztconforms(status, interrupted, code):
    assert code == launch.ours(int(status), interrupted=interrupted)


LAUNCH = "import sys; from ztconform.plugin.launch import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def launched(inner):
    def run(*args: str):
        arguments = [arg for arg in inner.command() if arg != "pytest"][2:]
        return inner.pytester.run(sys.executable, "-c", LAUNCH, *arguments, *args)

    return run


@pytest.mark.parametrize(("row", "code"), [("PROVED a", 0), ("VIOLATED a", 1), ("REJECT a", 2), ("LOST a", 3)])
def test_the_result_is_the_exit_code(inner, launched, row, code):
    inner.write(inner.requirement("N01", row))
    assert code == launched().ret


@pytest.mark.parametrize("args", [["--no-such-option"], ["-k", "nothing"], ["no_such_file.py"], ["--ztc-stack=lob"]])
def test_a_mistake_on_the_command_line_is_2(inner, launched, args):
    inner.write(inner.requirement("N01", "PROVED a"))
    assert 2 == launched(*args).ret


def test_a_file_that_cannot_be_collected_is_2(inner, launched):
    inner.write("import no_such_module\n")
    assert 2 == launched().ret


def test_nothing_selected_is_said_in_a_line(inner, launched):
    inner.write(inner.requirement("N01", "PROVED a"))
    launched("-k", "nothing").stderr.fnmatch_lines(["nothing was selected, so nothing is proved"])


def test_the_environments_options_do_not_count(inner, launched):
    inner.write(inner.requirement("N01", "VIOLATED a"))
    inner.env(PYTEST_ADDOPTS="-k nothing")
    assert 1 == launched().ret


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing")
    monkeypatch.setattr(pytest, "main", lambda args, plugins: int("PYTEST_ADDOPTS" in os.environ))
    assert 0 == launch.main([])
    assert "-k nothing" == os.environ["PYTEST_ADDOPTS"]


def test_an_interrupted_run_could_not_run(inner, launched):
    inner.write(inner.requirement("N01", "PROVED a", more="import os, signal; os.kill(os.getpid(), signal.SIGINT)"))
    assert signal.SIGINT  # the inner test sends it to itself
    assert 3 == launched().ret
