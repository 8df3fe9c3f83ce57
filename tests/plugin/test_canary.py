# SPDX-License-Identifier: Apache-2.0
"""A cluster that enforces nothing is reported once, and nothing else is believed."""

import json

import pytest


@pytest.mark.parametrize("workers", [[], ["-n2"]])
@pytest.mark.parametrize("outcome", ["VIOLATED", "INCONCLUSIVE", "NOT_SUPPORTED", "EMPTY"])
def test_a_failed_canary_is_red_once_and_no_requirement_runs(inner, outcome, workers):
    inner.env(FAKE_CANARY=outcome)
    inner.write(inner.requirement("N01", "PROVED a") + inner.requirement("N02", "PROVED a"))
    result = inner.run_apart(*workers, "--ztc-partial", "--ztc-report=out")
    assert 1 == result.ret
    word = outcome if outcome == "VIOLATED" else "INCONCLUSIVE"
    result.stdout.fnmatch_lines(
        [f"*canary l34 {word}*", "*; until it passes no denial means anything", "*NOT_RUN *N01 N02: see canary: *"]
    )
    assert 1 == result.stdout.str().count("until it passes")
    assert not [line for line in inner.log if line.startswith("prove")]
    report = json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))
    assert ([word], False) == ([c["outcome"] for c in report["canary"]], report["complete"])
    assert ["NOT_RUN", "NOT_RUN"] == [r["outcome"] for r in report["requirements"]]


def test_the_canary_runs_once_before_the_first_proof(inner):
    inner.write(inner.requirement("N01", "PROVED a") + inner.requirement("N02", "PROVED a"))
    assert 0 == inner.run().ret
    assert ["canary", "prove N01", "prove N02"] == [line for line in inner.log if line.split()[0] in ("canary", "prove")]
