# SPDX-License-Identifier: Apache-2.0
"""Every outcome has its word, its exit code and its place in the report, and nothing passes by default."""

import json

import pytest


@pytest.mark.parametrize(
    ("rows", "code", "word"),
    [
        (["PROVED a", "PROVED b"], 0, "PROVED"),
        (["PROVED a", "VIOLATED b"], 1, "VIOLATED"),
        (["INCONCLUSIVE a", "PROVED b"], 1, "INCONCLUSIVE"),
        (["INCONCLUSIVE a", "VIOLATED b"], 1, "VIOLATED"),
    ],
)
def test_the_worst_row_is_the_outcome(inner, rows, code, word):
    inner.write(inner.requirement("N01", *rows))
    result = inner.run("-v", "--ztc-report=out")
    assert code == result.ret
    result.stdout.fnmatch_lines([f"test_inner.py::test_n01 {word} *", f"*N01 {word}*"])
    report = json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))
    assert [("N01", word)] == [(r["id"], r["outcome"]) for r in report["requirements"]]
    assert rows == [r["id"] for r in report["requirements"][0]["rows"]]
    assert (code, True, "fake") == (report["exit"], report["complete"], report["stack"])


def test_each_row_is_a_subtest_and_each_red_one_fails(inner):
    inner.write(inner.requirement("N01", "PROVED a", "VIOLATED b", "INCONCLUSIVE c"))
    result = inner.run("-v")
    result.assert_outcomes(failed=3)  # two rows and their test
    result.stdout.fnmatch_lines(["*SUBPASSED?PROVED a?*", "*SUBFAILED?VIOLATED b?*", "*SUBFAILED?INCONCLUSIVE c?*"])
    summary = "SUBFAILED?VIOLATED b? test_inner.py::test_n01 - N01 VIOLATED: expected denied by l34, observed answered *"
    result.stdout.fnmatch_lines(["*short test summary info*", summary])


@pytest.mark.parametrize("style", ["auto", "long", "short", "native", "line", "no"])
@pytest.mark.parametrize("more", [[], ["-x"], ["--full-trace"], ["-l"], ["-n1"]])
def test_no_line_of_ours_is_in_a_red_row(inner, style, more):
    inner.write(inner.requirement("N01", "VIOLATED a", "INCONCLUSIVE b"))
    result = inner.run_apart(f"--tb={style}", *more) if "-n1" in more else inner.run(f"--tb={style}", *more)
    text = result.stdout.str()
    assert 1 == (result.ret if "-n1" not in more or "-x" not in more else 1)
    assert "VIOLATED" in text
    for ours in ("plugin/prove.py", "plugin/runner.py", "RedRow", "ConformanceFailure", "Traceback", "raise "):
        assert ours not in text
    shown = "  expected  denied by l34" in text
    assert shown is (style not in ("line", "no"))


def test_a_red_row_reads_exactly_as_the_report_puts_it(inner):
    from ztconform import catalogue
    from ztconform.report import redrow

    inner.write(inner.requirement("N01", "VIOLATED a"))
    result = inner.run("--ztc-report=out")
    lines = result.stdout.lines
    start = lines.index(next(line for line in lines if "test_n01 [VIOLATED a]" in line)) + 1
    end = lines.index(next(line for line in lines if line.startswith("___") and lines.index(line) > start))
    import fakestack

    from ztconform.jsonform import to_json

    row = to_json(fakestack.result(fakestack.row("VIOLATED a"), "VIOLATED"))
    assert redrow.render(row, catalogue.load()["N01"]).splitlines() == lines[start:end]


def test_a_test_that_proves_nothing_is_inconclusive(inner):
    inner.write('@requirement(id="N01")\ndef test_idle(ztc_prove):\n    pass\n')
    result = inner.run("-v")
    assert 1 == result.ret
    result.stdout.fnmatch_lines(["*test_idle INCONCLUSIVE*", "*N01: proved nothing: the test made no call of prove()*"])


def test_a_test_that_stops_before_its_proof_is_inconclusive(inner):
    inner.write('@requirement(id="N01")\ndef test_stops(ztc_prove):\n    raise OSError("no such luck")\n')
    result = inner.run("-v")
    assert 1 == result.ret
    result.stdout.fnmatch_lines(["*test_stops INCONCLUSIVE*", "*N01: the test stopped: OSError: no such luck*"])


def test_xfail_does_not_turn_a_red_row_green(inner):
    inner.write("import pytest\n@pytest.mark.xfail\n" + inner.requirement("N01", "VIOLATED a"))
    result = inner.run()
    assert 1 == result.ret
    result.stdout.fnmatch_lines(["*N01 VIOLATED*"])


def test_what_the_stack_lacks_is_skipped_with_the_reason(inner):
    inner.write(inner.requirement("U05", "PROVED a"))  # it needs flow-log
    result = inner.run("-v", "-rs")
    assert 0 == result.ret
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*test_u05 SKIPPED (NOT_SUPPORTED: the fake logs nothing)*",
            "NOT_SUPPORTED *U05: the fake logs nothing",
            "SKIPPED ?1? test_inner.py:3: NOT_SUPPORTED: the fake logs nothing",
        ]
    )
    assert not [line for line in inner.log if line.startswith("prove")]


def test_a_skipped_requirement_did_not_run_and_that_is_red(inner):
    inner.write("import pytest\n@pytest.mark.skip(reason='later')\n" + inner.requirement("N01", "PROVED a"))
    result = inner.run()
    assert 1 == result.ret
    result.stdout.fnmatch_lines(["NOT_RUN *N01: skipped: later*", "Exit code 1: N01 did not run; --ztc-partial accepts that."])
    assert 0 == inner.run("--ztc-partial").ret


def test_no_rows_are_a_usage_error(inner):
    inner.write(inner.requirement("N01"))
    result = inner.run()
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stdout.fnmatch_lines(["prove() demands no row, and would prove nothing; *"])
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(("row", "code", "line"), [
    ("REJECT a", 4, "NetworkPolicy shop/deny spec.egress: the fake cannot enforce it"),
    ("LOST a", 3, "the cluster went away; start it again"),
])  # fmt: skip  # one case a line
def test_what_could_not_be_proved_is_one_line_and_no_verdict(inner, row, code, line):
    inner.write(inner.requirement("N01", row) + inner.requirement("N02", "PROVED a"))
    result = inner.run("--ztc-report=out")
    assert code == result.ret
    result.stdout.fnmatch_lines([line, "*N01 NOT_RUN*"])
    result.stdout.no_fnmatch_line("*prove.py*")
    report = json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))
    assert ({4: 2, 3: 3}[code], False) == (report["exit"], report["complete"])


def test_a_violation_beats_what_could_not_run(inner):
    inner.write(inner.requirement("N01", "LOST a") + inner.requirement("N02", "VIOLATED a"))
    assert 1 == inner.run().ret


def test_a_failure_elsewhere_beats_what_could_not_run(inner):
    inner.write(inner.requirement("N01", "LOST a") + "def test_other():\n    assert False\n")
    assert 1 == inner.run().ret


def test_the_report_goes_where_the_ini_says_below_the_root_directory(inner):
    inner.pytester.makeini("[pytest]\nztc_report = reports\nztc_stack = fake\n")
    inner.write(inner.requirement("N01", "PROVED a"))
    assert 0 == inner.run().ret
    assert (inner.path / "reports/conformance.json").exists()


def test_a_report_that_cannot_be_written_is_a_usage_error(inner):
    (inner.path / "out").write_text("a file", encoding="utf-8")
    inner.write(inner.requirement("N01", "PROVED a"))
    result = inner.run("--ztc-report=out")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stdout.fnmatch_lines(["the report cannot be written: *out/conformance.json: *"])


def test_the_terminal_plugin_is_not_needed(inner):
    inner.write(inner.requirement("N01", "VIOLATED a") + inner.requirement("N02", "PROVED a"))
    result = inner.run_apart("-p", "no:terminal", "--ztc-report=out")
    assert 1 == result.ret
    report = json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))
    assert ["VIOLATED", "PROVED"] == [r["outcome"] for r in report["requirements"]]


def test_the_rows_of_later_steps_have_ids_of_their_own(inner):
    inner.write(
        "from ztconform import step\n"
        '@requirement(id="N16")\n'
        "def test_steps(ztc_prove):\n"
        "    found = ztc_prove(policy=POLICY, rows=[row('PROVED a')], steps=[step(rows=[row('PROVED a')])])\n"
        "    assert ['PROVED a', 'PROVED a, step 2'] == [r.row.id for r in found]\n"
    )
    assert 0 == inner.run().ret


def test_a_row_that_is_demanded_twice_is_a_usage_error(inner):
    inner.write(inner.requirement("N01", "PROVED a", "PROVED a"))
    result = inner.run()
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stdout.fnmatch_lines(["prove() demands the same row twice: PROVED a"])


def test_the_policy_of_a_step_takes_the_place_of_the_one_before_it(inner):
    inner.write(
        "from ztconform import step\n"
        "OTHER = {**POLICY, 'metadata': {'namespace': 'shop', 'name': 'other'}}\n"
        '@requirement(id="N14")\n'
        "def test_steps(ztc_prove):\n"
        "    rows = [row('PROVED a')]\n"
        "    ztc_prove(policy=[POLICY, OTHER], rows=rows, steps=[step(policy='default-deny-all', rows=rows), step(rows=rows)])\n"
    )
    assert 0 == inner.run().ret
    changes = [line for line in inner.log if line.startswith("change")]
    assert "change +shop/deny +shop/other" == changes[0]
    assert changes[1].endswith(" -shop/deny -shop/other")
    assert "change" == changes[2]


def test_a_policy_that_the_dialect_cannot_say_is_not_supported(inner, monkeypatch):
    from ztconform import policies

    monkeypatch.setattr(policies, "load", lambda intent, dialects: policies.Gap(intent, dialects[0], "it knows no names"))
    inner.write('@requirement(id="N01")\ndef test_it(ztc_prove):\n    ztc_prove(policy="names", rows=[row("PROVED a")])\n')
    result = inner.run("-v")
    assert 0 == result.ret
    result.stdout.fnmatch_lines(["*test_it SKIPPED (NOT_SUPPORTED: it knows no names)*", "NOT_SUPPORTED *N01: it knows no names"])


def test_what_goes_beyond_and_cannot_be_said_is_noted_and_the_rest_counts(inner, monkeypatch):
    from ztconform import policies

    monkeypatch.setattr(policies, "load", lambda intent, dialects: policies.Gap(intent, dialects[0], "it knows no names"))
    inner.write(inner.requirement("N01", "PROVED a", more='ztc_prove(policy="names", needs="l34", rows=[row("VIOLATED b")])'))
    result = inner.run()
    assert 0 == result.ret
    result.stdout.fnmatch_lines(["segmentation *N01 PROVED", "NOTE *N01: without names, of l34: it knows no names"])


def test_an_unknown_policy_is_a_usage_error(inner):
    inner.write('@requirement(id="N01")\ndef test_it(ztc_prove):\n    ztc_prove(policy="no-such", rows=[row("PROVED a")])\n')
    result = inner.run()
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stdout.fnmatch_lines(["policy 'no-such': no such intent *"])


def test_parameters_prove_one_requirement_together(inner):
    inner.write(
        "import pytest\n"
        '@requirement(id="N01")\n'
        "@pytest.mark.parametrize('name', ['PROVED a', 'VIOLATED b', 'PROVED c'])\n"
        "def test_each(ztc_prove, name):\n"
        "    ztc_prove(policy=POLICY, rows=[row(name)])\n"
    )
    result = inner.run("--ztc-report=out")
    assert 1 == result.ret
    report = json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))
    (found,) = report["requirements"]
    assert ("VIOLATED", ["PROVED a", "VIOLATED b", "PROVED c"]) == (found["outcome"], [r["id"] for r in found["rows"]])


def test_a_test_without_the_marker_is_a_case(inner):
    inner.write("def test_mine(ztc_prove):\n    ztc_prove(policy=POLICY, rows=[row('PROVED a')])\n")
    result = inner.run("--ztc-report=out")
    assert 0 == result.ret
    report = json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))
    assert [("test_inner.py::test_mine", "PROVED")] == [(c["id"], c["outcome"]) for c in report["cases"]]
    assert "prove test-inner.py-test-mine" in inner.log


@pytest.mark.parametrize("options", [[], ["-n1"], ["-v"]])
def test_a_row_that_a_stack_cannot_play_is_skipped_with_its_reason_and_the_others_count(inner, options):
    inner.write(inner.requirement("N01", "NOT_SUPPORTED a", "PROVED b"))
    result = inner.run_apart(*options, "--ztc-report=out")
    assert 0 == result.ret
    assert "There should always be" not in result.stdout.str()
    report = json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))
    (requirement,) = report["requirements"]
    assert "NOT_SUPPORTED" == requirement["outcome"]
    assert ["NOT_SUPPORTED", "PROVED"] == [row["outcome"] for row in requirement["rows"]]
