# SPDX-License-Identifier: Apache-2.0
"""What a run says beside its outcomes: where the time went, what was left out and why, what the cluster says of itself."""

import json

import pytest


def report(inner) -> dict:
    return json.loads((inner.path / "out/conformance.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_requirement_has_the_seconds_of_its_phases(inner, workers):
    inner.write(inner.requirement("N01", "SLOW a") + inner.requirement("N02", "SLOW a"))
    inner.run_apart(f"-n{workers}", "--ztc-stack=shared", "--ztc-report=out")
    told = report(inner)
    for result in told["requirements"]:
        assert {"workloads", "control", "apply", "release"} == set(result["times"]) - {"canary"}
        assert 0.15 <= result["times"]["release"] < 5  # where the fake is slow
    assert {"cluster", "stack", "canary", "workloads", "control", "apply", "release"} == set(told["times"])


def test_a_rerun_of_prove_adds_to_the_phases(inner):
    inner.write(inner.requirement("N01", "SLOW a", more='ztc_prove(policy=POLICY, rows=[row("SLOW b")])'))
    assert 0 == inner.run("--ztc-report=out").ret
    assert 0.3 <= report(inner)["times"]["release"]


@pytest.mark.parametrize(
    ("args", "shown"), [([], False), (["-v"], True), (["--ztc-stack=shared"], True), (["--ztc-stack=shared", "-n2"], True)]
)
def test_the_line_is_there_for_a_shared_cluster_or_where_more_is_asked_for(inner, args, shown):
    inner.write(inner.requirement("N01", "SLOW a"))
    result = inner.run_apart(*args)
    assert shown is any(line.startswith("Time: ") and "release 0." in line for line in result.outlines)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("feature", "reason"),
    [("flow-log", "the fake logs nothing"), ("pod-ipblock", "fake says nothing of the feature pod-ipblock")],
)
def test_what_needs_a_feature_that_is_not_there_is_noted(inner, workers, feature, reason):
    left_out = f'ztc_prove(policy=POLICY, rows=[row("VIOLATED b")], needs="{feature}")'
    inner.write(inner.requirement("N01", "PROVED a", more=f"{left_out}\n    {left_out}"))
    result = inner.run_apart(f"-n{workers}", "--ztc-report=out")
    assert 0 == result.ret
    result.stdout.fnmatch_lines(["segmentation *N01 PROVED", f"NOTE *N01: without {feature}: {reason}"])
    assert [f"without {feature}: {reason}"] == report(inner)["requirements"][0]["notes"]


def test_a_row_that_needs_a_feature_is_left_out_where_that_is_not_there_and_noted(inner):
    rows = 'row("PROVED a"), row("VIOLATED b", "flow-log"), row("PROVED c", "l34")'
    inner.write(inner.requirement("N01", "PROVED z", more=f"ztc_prove(policy=POLICY, rows=[{rows}])"))
    result = inner.run("--ztc-report=out")
    assert 0 == result.ret
    result.stdout.fnmatch_lines(["segmentation *N01 PROVED", "NOTE *N01: without flow-log: the fake logs nothing"])
    assert ["PROVED z", "PROVED a", "PROVED c"] == [one["id"] for one in report(inner)["requirements"][0]["rows"]]


def test_a_requirement_of_which_nothing_is_left_is_not_supported(inner):
    inner.write(inner.requirement("N01", "PROVED z", more='ztc_prove(policy=POLICY, rows=[row("VIOLATED b", "flow-log")])'))
    result = inner.run()
    assert 0 == result.ret
    result.stdout.fnmatch_lines(["segmentation *N01 NOT_SUPPORTED", "NOT_SUPPORTED *N01: the fake logs nothing"])


def test_what_the_cluster_says_of_itself_is_below_the_matrix(inner):
    inner.env(FAKE_NOTE="kube-proxy is replaced")
    inner.write(inner.requirement("N01", "PROVED a") + inner.requirement("N02", "PROVED a"))
    result = inner.run("--ztc-report=out")
    assert ["Note: kube-proxy is replaced"] == [line for line in result.outlines if line.startswith("Note: ")]
    assert ["kube-proxy is replaced"] == report(inner)["notes"]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_was_recorded_and_not_judged_is_noted_and_stands_in_the_report(inner, workers):
    inner.write(inner.requirement("N01", "PROVED RECORDED a", "PROVED b"))
    result = inner.run_apart(f"-n{workers}", "--ztc-report=out")
    assert 0 == result.ret
    recorded = "PROVED RECORDED a was only looked at"
    result.stdout.fnmatch_lines(["segmentation *N01 PROVED", f"NOTE *N01: recorded, not judged: {recorded}"])
    (told,) = report(inner)["requirements"]
    assert [f"recorded, not judged: {recorded}"] == told["notes"]
    assert [[recorded], []] == [row["recorded"] for row in told["rows"]]


def test_that_clients_ran_on_a_nodes_own_network_is_noted(inner):
    host = "Workload(ref=Ref('ztc-privileged', 'host'), host_network=True)"
    inner.write(
        "import pytest\nfrom ztconform.model import Ref, Topology, Workload\n"
        "@pytest.fixture\ndef ztc_shop():\n"
        f"    class Shop:\n        topology = Topology(namespaces={{}}, workloads=({host},))\n    return Shop()\n"
        "def of(name):\n    from dataclasses import replace\n    one = row(name)\n"
        "    return replace(one, probe=replace(one.probe, source=Ref('ztc-privileged', 'host')))\n"
        '@requirement(id="N01")\ndef test_it(ztc_prove):\n    ztc_prove(policy=POLICY, rows=[of("PROVED a")])\n'
    )
    assert 0 == inner.run("--ztc-report=out").ret
    (note,) = report(inner)["requirements"][0]["notes"]
    assert "clients ran on the nodes' own network, in ztc-privileged (--ztc-privileged)" == note
