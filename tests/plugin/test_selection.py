# SPDX-License-Identifier: Apache-2.0
"""What pytest's own ways to choose tests do to a run of ours, and what a wrong ID or stack does before anything is created."""

import json

import pytest


@pytest.fixture
def three(inner):
    inner.write(
        inner.requirement("N01", "PROVED a")
        + inner.requirement("N02", "VIOLATED a")
        + inner.requirement("N03", "PROVED a")
        + "def test_plain():\n    pass\n"
    )
    return inner


def complete(inner) -> bool:
    return json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))["complete"]


@pytest.mark.parametrize("args", [["--co"], ["--co", "-n2"], ["--help"], ["-k", "nothing"], ["--setup-plan"], ["--fixtures"]])
def test_nothing_is_started_where_nothing_of_ours_runs(three, args):
    result = three.run_apart(*args)
    assert (pytest.ExitCode.NO_TESTS_COLLECTED if "-k" in args else 0) == result.ret
    assert [] == three.log
    result.stdout.no_fnmatch_line("*ztconform on*")


def test_the_plugin_can_be_left_out(inner):
    inner.pytester.makepyfile("def test_plain():\n    pass\n")
    result = inner.pytester.runpytest_subprocess("-p", "no:ztconform", "--help")
    result.stdout.no_fnmatch_line("*--ztc*")
    assert 0 == inner.pytester.runpytest_subprocess("-p", "no:ztconform").ret


@pytest.mark.parametrize(
    ("args", "names", "code", "whole"),
    [
        (["-k", "N01"], ["N01"], 0, False),
        (["-k", "n02 or N03"], ["N02", "N03"], 1, False),
        (["-m", "ztc_requirement"], ["N01", "N02", "N03"], 1, True),
        (["test_inner.py::test_n03"], ["N03"], 0, False),
        (["--deselect", "test_inner.py::test_n02"], ["N01", "N03"], 0, False),
        ([], ["N01", "N02", "N03"], 1, True),
    ],
)
def test_a_partial_run_exits_by_what_ran_and_says_that_it_is_not_complete(three, args, names, code, whole):
    result = three.run(*args, "--ztc-report=out")
    assert code == result.ret
    report = json.loads((three.path / "out/conformance.json").read_text(encoding="utf-8"))
    assert names == [r["id"] for r in report["requirements"]]
    assert whole is complete(three)


def test_the_last_failed_are_the_red_requirements(three):
    assert 1 == three.run().ret
    result = three.run("--lf", "--ztc-report=out")
    assert 1 == result.ret
    assert ["prove N01", "prove N02", "prove N03", "prove N02"] == [line for line in three.log if line.startswith("prove")]
    assert not complete(three)


def test_an_id_can_be_chosen_that_is_nowhere_in_the_tests_name(inner):
    inner.write('@requirement(id="N03")\ndef test_one(): pass\n@requirement(id="N04")\ndef test_two(): pass\n')
    result = inner.run("--co", "-q", "-k", "N04")
    assert ["test_inner.py::test_two"] == [line for line in result.outlines if "::" in line]


def test_what_proves_nothing_is_failed_for_every_reader_of_reports(inner):
    inner.write('@requirement(id="N01")\ndef test_idle(): pass\n@requirement(id="N02")\ndef test_other(): pass\n')
    assert 1 == inner.run_apart("-p", "no:terminal", "-k", "idle").ret
    result = inner.run("--co", "-q", "--lf")
    assert ["test_inner.py::test_idle"] == [line for line in result.outlines if "::" in line]


def test_after_the_first_red_row_the_rest_did_not_run(three):
    result = three.run("-x", "--ztc-report=out")
    assert 1 == result.ret
    result.stdout.fnmatch_lines(["NOT_RUN *N03: never started: the run ended before it"])
    assert not complete(three)


def test_every_row_is_proved_and_released_before_the_first_is_reported(inner):
    inner.write(inner.requirement("N01", "VIOLATED a", "VIOLATED b", "PROVED c"))
    inner.run("-x", "--ztc-report=out")
    report = json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))
    assert ["VIOLATED", "VIOLATED", "PROVED"] == [row["outcome"] for row in report["requirements"][0]["rows"]]
    assert "remove N01" in inner.log


@pytest.mark.parametrize("workers", [[], ["-n2"]])
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('@requirement(id="N99")\ndef test_a(): pass\n', "test_inner.py::test_a: no requirement is called 'N99'; did you mean *"),
        ('@requirement("N01")\ndef test_a(): pass\n', "test_inner.py::test_a: a requirement is named by its ID alone, *"),
        ("@requirement()\ndef test_a(): pass\n", "test_inner.py::test_a: a requirement is named by its ID alone, *"),
        (
            '@requirement(id="N01")\ndef test_a(): pass\n@requirement(id="N01")\ndef test_b(): pass\n',
            "test_inner.py::test_b: requirement N01 is claimed by test_inner.py::test_a already; one test proves it",
        ),
    ],
)
def test_a_wrong_id_is_a_usage_error_that_names_file_and_test(inner, body, problem, workers):
    inner.write(body)
    result = inner.run_apart(*workers)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    (result.stdout if workers else result.stderr).fnmatch_lines([f"*{problem}"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert [] == [line for line in inner.log if line != "preflight"]


@pytest.mark.parametrize("where", ["option", "ini"])
def test_an_unknown_stack_is_refused_before_anything_else(inner, where):
    inner.write("raise RuntimeError('collected')\n")
    if where == "ini":
        inner.pytester.makeini("[pytest]\nztc_stack = lob\n")
    result = inner.pytester.runpytest_subprocess("-p", "fakestack", *(["--ztc-stack=lob"] if where == "option" else []))
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["ERROR: no stack is called 'lob': *; a stack is lab, *"])
    result.stdout.no_fnmatch_line("*collected*")


@pytest.mark.parametrize("seconds", ["soon", "1", "-3", "1e9"])
def test_identities_that_live_for_no_sensible_time_are_refused_before_anything_else(inner, seconds):
    inner.write("raise RuntimeError('collected')\n")
    result = inner.pytester.runpytest_subprocess("-p", "fakestack", f"--ztc-svid-ttl={seconds}")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([f"ERROR: --ztc-svid-ttl {seconds}: give a number of seconds from 2 to 86400"])
    result.stdout.no_fnmatch_line("*collected*")


@pytest.mark.parametrize("workers", [[], ["-n2"]])
def test_a_stack_that_cannot_run_is_one_line_and_exit_code_3(three, workers):
    three.env(FAKE_PREFLIGHT="no user namespaces; set user.max_user_namespaces")
    result = three.run_apart(*workers)
    assert 3 == result.ret
    text = result.stdout.str() + result.stderr.str()
    assert 1 == text.count("could not run: no user namespaces; set user.max_user_namespaces")
    assert "Traceback" not in text
    assert ["preflight"] == three.log


@pytest.mark.parametrize("workers", [[], ["-n2"]])
def test_a_stack_that_does_not_start_is_one_line_and_exit_code_3(three, workers):
    three.env(FAKE_START="nft is missing; install nftables")
    result = three.run_apart(*workers, "--ztc-report=out")
    assert 3 == result.ret
    text = result.stdout.str() + result.stderr.str()
    assert 1 == text.count("nft is missing; install nftables")
    assert 1 == text.count("could not run: nft is missing")
    assert "Traceback" not in text
    report = json.loads((three.path / "out/conformance.json").read_text(encoding="utf-8"))
    assert (3, False, ["nft is missing; install nftables"]) == (report["exit"], report["complete"], report["could_not_run"])


def test_options_are_in_the_help_with_their_ini_names(inner):
    result = inner.run("--help")
    result.stdout.fnmatch_lines(["zero-trust conformance:", "*--ztc-stack=NAME*"])
    for name in ("ztc_stack", "ztc_report", "ztc_partial", "ztc_casefiles"):
        result.stdout.fnmatch_lines([f"  {name} (*"])
