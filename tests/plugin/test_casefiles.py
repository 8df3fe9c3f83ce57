# SPDX-License-Identifier: Apache-2.0
"""A case file is a test where it was asked for, and nowhere else; one that is wrong is one error that names line and field."""

import json

import pytest

CASE = """\
apiVersion: ztconform.io/v1alpha1
kind: Case
metadata: {name: NAME}
namespaces: [{name: shop}]
workloads:
- {name: payment, namespace: shop, ports: [{number: 8080}]}
- {name: checkout, namespace: shop, ports: []}
expect:
- {from: shop/checkout, to: shop/payment, port: 8080, verdict: allowed, id: PROVED a}
- {from: shop/checkout, to: shop/payment, port: 8080, verdict: allowed, id: ROW}
"""


@pytest.fixture
def case(inner):
    def write(row: str = "PROVED b", name: str = "payment", file: str = "a.ztc.yaml") -> None:
        (inner.path / file).write_text(CASE.replace("ROW", row).replace("NAME", name), encoding="utf-8")

    return write


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_a_file_that_is_named_is_a_test(inner, case, workers):
    case("VIOLATED b")
    result = inner.run_apart(*workers, "-v", "a.ztc.yaml", "--ztc-report=out")
    assert 1 == result.ret
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*a.ztc.yaml::payment*VIOLATED*" if not workers else "*VIOLATED*a.ztc.yaml::payment*",
            "VIOLATED  Case file",
            "cases *payment VIOLATED*",
        ]
    )
    (told,) = json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))["cases"]
    assert ("payment", "a.ztc.yaml", "VIOLATED") == (told["id"], told["file"], told["outcome"])


def test_a_red_row_is_placed_at_its_line_in_the_file(inner, case):
    case("VIOLATED b")
    result = inner.run("a.ztc.yaml", "--tb=line")
    result.stdout.fnmatch_lines([f"{inner.path}/a.ztc.yaml:10: payment VIOLATED: expected *"])
    result.stdout.no_fnmatch_line("*plugin/*")


def test_a_file_that_is_not_named_is_left_alone(inner, case):
    case()
    assert pytest.ExitCode.NO_TESTS_COLLECTED == inner.run().ret
    assert pytest.ExitCode.NO_TESTS_COLLECTED == inner.run(".").ret
    assert [] == inner.log


@pytest.mark.parametrize("where", ["option", "ini"])
def test_every_file_is_collected_where_that_is_asked_for(inner, case, where):
    case()
    if where == "ini":
        inner.pytester.makeini("[pytest]\nztc_casefiles = true\n")
    assert 0 == inner.run(*(["--ztc-casefiles"] if where == "option" else [])).ret
    assert "prove payment" in inner.log


def test_a_case_can_be_chosen_by_name_and_by_last_failure(inner, case):
    case("VIOLATED b", "one")
    case("PROVED b", "two", "b.ztc.yaml")
    assert 1 == inner.run("--ztc-casefiles").ret
    assert 0 == inner.run("--ztc-casefiles", "-k", "two").ret
    assert 1 == inner.run("--ztc-casefiles", "--lf").ret
    assert ["prove one", "prove two", "prove two", "prove one"] == [line for line in inner.log if line.startswith("prove")]


@pytest.mark.parametrize("more", [[], ["--full-trace"], ["-n1"]])
def test_a_wrong_file_is_one_error_with_line_and_field(inner, case, more):
    case()
    path = inner.path / "a.ztc.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("port: 8080, verdict: allowed, id: PROVED b", "port: 8080, verdikt: allowed")
    )
    result = inner.run_apart("a.ztc.yaml", *more)
    assert (pytest.ExitCode.USAGE_ERROR if "-n1" in more else pytest.ExitCode.INTERRUPTED) == result.ret
    result.stdout.fnmatch_lines(["*ERROR collecting a.ztc.yaml*", "*a.ztc.yaml:10: *verdikt*"])
    for ours in ("casefiles.py", "Traceback", "UsageError"):
        result.stdout.no_fnmatch_line(f"*{ours}*")
    assert [] == [line for line in inner.log if line != "preflight"]


def test_two_files_with_one_name_are_refused(inner, case):
    case()
    case(file="b.ztc.yaml")
    result = inner.run_apart("--ztc-casefiles")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["ERROR: b.ztc.yaml::payment: case payment is claimed by a.ztc.yaml::payment already; *"])


def test_collecting_only_starts_nothing(inner, case):
    case()
    result = inner.run("--co", "-q", "a.ztc.yaml")
    result.stdout.fnmatch_lines(["a.ztc.yaml::payment"])
    assert [] == inner.log
