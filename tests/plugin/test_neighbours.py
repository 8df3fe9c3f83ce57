# SPDX-License-Identifier: Apache-2.0
"""Beside other plugins: none of them can turn a red row green, and none is disturbed."""

import json

import pytest


def attempts(inner) -> list[str]:
    (found,) = json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))["requirements"]
    return [found["outcome"], *(other["outcome"] for other in found["other_attempts"])]


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_a_rerun_never_turns_a_red_row_green(inner, workers):
    pytest.importorskip("pytest_rerunfailures")
    inner.write(inner.requirement("N01", "FLAKY a", "PROVED b"))
    result = inner.run_beside("-pno:randomly", *workers, "--reruns=2", "--ztc-report=out")
    assert 1 == result.ret
    assert ["VIOLATED", "PROVED"] == attempts(inner)
    result.stdout.fnmatch_lines(
        [
            "*test_inner.py::test_n01: an attempt that was rerun, and counts*",
            "VIOLATED  N01 *",
            "VIOLATED *N01: attempt 1 of 2: FLAKY a: *",
        ]
    )


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_every_attempt_is_kept(inner, workers):
    pytest.importorskip("pytest_rerunfailures")
    inner.write(inner.requirement("N01", "INCONCLUSIVE a"))
    assert 1 == inner.run_beside(*workers, "--reruns=2", "--ztc-report=out").ret
    assert ["INCONCLUSIVE"] * 3 == attempts(inner)


def test_a_worker_that_dies_and_is_rerun_stays_not_run(inner):
    pytest.importorskip("pytest_rerunfailures")
    inner.write(
        "import os, pathlib\n"
        '@requirement(id="N01")\n'
        "def test_dies_once(ztc_prove):\n"
        "    ztc_prove(policy=POLICY, rows=[row('PROVED a')])\n"
        "    if not pathlib.Path('died').exists():\n"
        "        pathlib.Path('died').touch()\n"
        "        os._exit(7)\n"
    )
    assert 1 == inner.run_beside("-n1", "--reruns=2", "--ztc-report=out").ret
    assert ["NOT_RUN", "PROVED"] == attempts(inner)


def test_the_session_keeps_one_stack_across_reruns(inner):
    pytest.importorskip("pytest_rerunfailures")
    inner.write(inner.requirement("N01", "FLAKY a") + inner.requirement("N02", "PROVED a"))
    inner.run_beside("-pno:randomly", "--reruns=2")
    assert 1 == len([line for line in inner.log if line.startswith("start")])


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_a_random_order_changes_nothing(inner, seed):
    pytest.importorskip("pytest_randomly")
    inner.write(
        "".join(inner.requirement(f"N0{n}", "PROVED a") for n in (1, 2, 3, 4, 6)) + inner.requirement("R09", "VIOLATED a")
    )
    result = inner.run_beside(f"--randomly-seed={seed}")
    assert 1 == result.ret
    result.stdout.fnmatch_lines(["6 requirements: 5 PROVED, 1 VIOLATED"])


def test_a_test_that_times_out_is_inconclusive(inner):
    pytest.importorskip("pytest_timeout")
    inner.env(FAKE_GO_ON=inner.path / "never")
    inner.write(inner.requirement("N01", "WAIT a"))
    result = inner.run_beside("--timeout=1", "--timeout-method=signal", "--ztc-report=out")
    assert 1 == result.ret
    assert ["INCONCLUSIVE"] == attempts(inner)
    assert 1 == len([line for line in inner.log if line.startswith("stop")])


def test_asynchronous_tests_run_beside_ours(inner):
    pytest.importorskip("pytest_asyncio")
    inner.write(
        inner.requirement("N01", "PROVED a")
        + "import asyncio, pytest\n@pytest.mark.asyncio\nasync def test_other():\n    await asyncio.sleep(0)\n"
    )
    result = inner.run_beside()
    assert 0 == result.ret
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_coverage_is_measured_as_ever(inner, workers):
    pytest.importorskip("pytest_cov")
    inner.write(inner.requirement("N01", "PROVED a"))
    result = inner.run_beside(*workers, "--cov=test_inner", "--cov-report=term")
    assert 0 == result.ret
    result.stdout.fnmatch_lines(["*1 PROVED*"])
    assert "TOTAL" in result.stdout.str()


def test_junit_has_the_red_rows_text(inner):
    inner.write(inner.requirement("N01", "VIOLATED a"))
    inner.run("--junit-xml=junit.xml")
    text = (inner.path / "junit.xml").read_text(encoding="utf-8")
    assert 'message="N01 VIOLATED: expected denied by l34' in text
    assert "  observed  answered with status 200" in text
    assert "ztconform.plan" not in text
