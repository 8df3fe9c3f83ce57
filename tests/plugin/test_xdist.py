# SPDX-License-Identifier: Apache-2.0
"""Under xdist each worker has a stack of its own, results travel as JSON, and a worker that dies takes no verdict with it."""

import json

import pytest


def report(inner) -> dict:
    return json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))


def without_times(told: object) -> object:
    """Return what was reported without how long it took."""
    if isinstance(told, dict):
        return {key: without_times(value) for key, value in told.items() if key != "times"}
    return [without_times(one) for one in told] if isinstance(told, list) else told


def outcomes(inner) -> dict[str, str]:
    return {r["id"]: r["outcome"] for r in report(inner)["requirements"]}


def test_each_worker_has_a_stack_of_its_own_and_the_controller_has_none(inner):
    inner.env(FAKE_GO_ON=inner.path / "go-on")
    inner.write(inner.requirement("N01", "WAIT a") + inner.requirement("N02", "WAIT a"))
    run = inner.start("-n2")
    inner.logged("waiting", 2)
    (inner.path / "go-on").touch()
    assert 0 == run.wait(timeout=30)
    starters = {line.split()[1] for line in inner.logged("start", 2)}
    assert 2 == len(starters) and str(run.pid) not in starters
    assert starters == {line.split()[1] for line in inner.log if line.startswith("stop")}


@pytest.mark.parametrize("dist", ["load", "loadfile", "loadgroup", "worksteal"])
def test_the_same_is_reported_as_without_xdist(inner, dist):
    inner.write(
        inner.requirement("N01", "PROVED a", "VIOLATED b")
        + inner.requirement("N02", "PROVED a")
        + inner.requirement("U05", "PROVED a")
        + "import pytest\n@pytest.mark.xdist_group('one')\n"
        + inner.requirement("N03", "INCONCLUSIVE a")
    )
    assert 1 == inner.run("--ztc-report=out").ret
    alone = report(inner)
    assert 1 == inner.run_apart("-n2", f"--dist={dist}", "--ztc-report=out").ret
    shared = report(inner)
    for key in ("requirements", "cases", "complete", "exit", "stack", "versions"):
        assert without_times(alone[key]) == without_times(shared[key]), key


def test_a_worker_that_dies_leaves_its_requirement_not_run(inner):
    inner.write(inner.requirement("N01", "DIE a") + inner.requirement("N02", "PROVED a"))
    result = inner.run_apart("-n1", "--ztc-report=out", "--max-worker-restart=1")
    assert 1 == result.ret
    assert {"N01": "NOT_RUN", "N02": "PROVED"} == outcomes(inner)
    result.stdout.fnmatch_lines(["NOT_RUN *N01: worker 'gw0' crashed while running 'test_inner.py::test_n01'"])


def test_what_no_worker_came_to_is_not_run(inner):
    inner.write(inner.requirement("N01", "DIE a") + inner.requirement("N02", "PROVED a"))
    assert 1 == inner.run_apart("-n1", "--ztc-report=out", "--max-worker-restart=0").ret
    assert {"N01": "NOT_RUN", "N02": "NOT_RUN"} == outcomes(inner)
    assert not report(inner)["complete"]


def test_a_worker_that_dies_before_it_reported_anything_is_known_all_the_same(inner):
    dies = "import os, pytest\n@pytest.fixture(scope='session', autouse=True)\ndef dies():\n    os._exit(7)\n"
    inner.write(dies + inner.requirement("N01", "PROVED a"))
    assert 1 == inner.run_apart("-n1", "--ztc-report=out", "--max-worker-restart=0").ret
    assert {"N01": "NOT_RUN"} == outcomes(inner)


def test_what_workers_deselect_makes_the_run_a_partial_one(inner):
    inner.write(inner.requirement("N01", "PROVED a") + inner.requirement("N02", "PROVED a"))
    assert 0 == inner.run_apart("-n2", "-k", "N01", "--ztc-report=out").ret
    assert ({"N01": "PROVED"}, False) == (outcomes(inner), report(inner)["complete"])


def test_a_run_without_tests_of_ours_says_nothing(inner):
    inner.pytester.makepyfile("def test_plain():\n    pass\n")
    result = inner.pytester.runpytest_subprocess("-n2")
    assert 0 == result.ret
    result.stdout.no_fnmatch_line("*ztconform on*")
