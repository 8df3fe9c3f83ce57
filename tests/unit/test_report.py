# SPDX-License-Identifier: Apache-2.0
"""What a run is told as: the document by its schema, the matrix within its width, a red row with everything to believe it."""

import importlib.resources
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ztconform import catalogue
from ztconform.errors import UsageError
from ztconform.evidence import Cause, Observation, RowResult, Window
from ztconform.model import Probe, Ref, Row
from ztconform.report import document, matrix, redrow, rows
from ztconform.report.results import Attempt, CanaryResult, CaseResult, RequirementResult, RunResult, rows_to_json

POLICY: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {
        "name": "default-deny",
        "namespace": "shop",
        "uid": "5a0c",
        "resourceVersion": "12",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    },
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    "status": {},
}
OBSERVATION = Observation(
    attempt="checkout -> payment [shop/checkout-0 -> shop/payment-0]",
    nonce="ab12",
    sent=12.0,
    ended=12.0013,
    signal="answered",
    stage="done",
    source="10.0.1.3 41234",
    peer="10.96.0.7 80",
    status=200,
    server="ztc-agent",
    backend="shop/payment-0",
    boot="b1",
)
CAUSE = Cause(
    nonce="ab12",
    layer="l34",
    policies=("shop/default-deny",),
    explicit=False,
    direction="ingress",
    endpoint=Ref("shop", "payment-0"),
    source="nflog",
)
PROBE = Probe(source=Ref("shop", "checkout"), target=Ref("shop", "payment"), port=8080, headers=(("a", "b"),))
ROW = Row(id="checkout -> payment", probe=PROBE, want="denied", by=frozenset({"l34"}), named=frozenset({"shop/default-deny"}))
RESULT = RowResult(
    row=ROW,
    outcome="VIOLATED",
    why="shop/payment-0 answered",
    control="open",
    window=Window(seconds=0.13, spacing=0.01, sent=60),
    observations=(OBSERVATION,),
    cause=CAUSE,
    fate="ab12 was seen by shop/payment-0 as its #12",
    policies=(POLICY,),
    repeat="ztconform-repeat checkout payment 8080",
)


def changed(**changes: Any) -> dict[str, Any]:
    """Return the row in its JSON form, as it comes from a worker, with these parts of the result replaced."""
    fields = {name: getattr(RESULT, name) for name in RESULT.__slots__}
    [row] = rows_to_json([RowResult(**{**fields, **changes})])
    arrived: dict[str, Any] = json.loads(json.dumps(row))
    return arrived


def proved(seconds: float = 0.0) -> Attempt:
    return Attempt(rows=(changed(outcome="PROVED", why="timed out", window=Window(seconds=seconds, spacing=0.01, sent=60)),))


def requirement(name: str, *attempts: Attempt) -> RequirementResult:
    return RequirementResult(id=name, attempts=attempts)


RUN = RunResult(
    version="0.1.0",
    stack="lab",
    versions={"linux": "6.18"},
    started=datetime(2026, 1, 1, 12, tzinfo=UTC),
    seconds=12.3456,
    complete=False,
    canary=(CanaryResult(id="l34", attempts=(proved(),)),),
    requirements=(
        requirement("N02", proved()),
        requirement("N01", proved(0.024), Attempt(rows=(changed(cause=None, window=None, outcome="PROVED"),))),
        requirement("N03", proved(), Attempt(rows=(changed(),))),
        requirement("R09", proved()),
        requirement("A01", Attempt(outcome="NOT_SUPPORTED", why="the lab has no l7-authz")),
        requirement("A02", Attempt(outcome="NOT_SUPPORTED", why="the lab has no l7-authz")),
    ),
    cases=(
        CaseResult(id="payment-only-from-checkout", file="examples/payment-only-from-checkout.ztc.yaml", attempts=(proved(),)),
    ),
    could_not_run=("gw1 crashed",),
)
CATALOGUE = catalogue.load()


def schema() -> dict[str, Any]:
    text = importlib.resources.files("ztconform.report").joinpath("schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def validated(report: Any) -> Any:
    arrived = json.loads(json.dumps(report))
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.Draft202012Validator(schema(), format_checker=jsonschema.FormatChecker()).validate(arrived)
    return arrived


def test_the_document_is_valid_by_its_schema() -> None:
    report = validated(document.build(RUN, CATALOGUE))
    assert "ztconform.io/report/v1" == report["schema"]
    assert ("lab", "2026-01-01T12:00:00+00:00", 12.346, False, 1) == tuple(
        report[key] for key in ("stack", "started", "seconds", "complete", "exit")
    )


def test_an_empty_run_is_a_valid_document_too() -> None:
    empty = RunResult(version="0", stack="lab", versions={}, started=RUN.started, seconds=0, complete=True)
    assert 2 == validated(document.build(empty, CATALOGUE))["exit"]


@pytest.mark.parametrize(
    "path", ["stack", "requirements/0/outcome", "requirements/0/rows/0/from", "requirements/2/rows/0/window/sent"]
)
def test_the_schema_demands_every_field_and_knows_no_other(path: str) -> None:
    *above, last = path.split("/")
    for spoil in (lambda holder: holder.pop(last), lambda holder: holder.update(more=1)):
        report = json.loads(json.dumps(document.build(RUN, CATALOGUE)))
        holder = report
        for key in above:
            holder = holder[int(key) if key.isdecimal() else key]
        spoil(holder)
        with pytest.raises(jsonschema.ValidationError):
            validated(report)


def test_a_row_of_the_document_says_what_was_demanded_and_observed() -> None:
    n03 = document.build(RUN, CATALOGUE)["requirements"][2]
    assert ("N03", "VIOLATED") == (n03["id"], n03["outcome"])
    assert CATALOGUE["N03"].sentence == n03["sentence"]
    [row] = n03["rows"]
    assert ("shop/checkout", "shop/payment", 8080) == (row["from"], row["to"], row["probe"]["port"])
    demanded = {"want": "denied", "by": ["l34"], "identity": None, "named": ["shop/default-deny"], "logged": None}
    assert demanded == row["expected"]
    assert ("ab12", "10.0.1.3 41234") == (row["observed"][0]["nonce"], row["observed"][0]["source"])
    assert [{"row": "checkout -> payment", "seconds": 0.13, "spacing": 0.01, "sent": 60}] == n03["windows"]


def test_every_attempt_is_kept() -> None:
    n03 = document.build(RUN, CATALOGUE)["requirements"][2]
    assert ["PROVED"] == [other["outcome"] for other in n03["other_attempts"]]


def test_the_exit_code_is_the_real_one_where_it_is_not_by_the_results() -> None:
    assert 130 == document.build(RUN, CATALOGUE, exit_status=130)["exit"]


def test_the_document_replaces_an_older_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "on the way"
    path = document.write(folder, {"stack": "lab"})
    with path.open(encoding="utf-8") as reader:
        assert path == document.write(folder, {"stack": "kindnet"})
        assert {"stack": "lab"} == json.load(reader)  # who reads the old one reads all of it
    assert {"stack": "kindnet"} == json.loads(path.read_text(encoding="utf-8"))
    assert ["conformance.json"] == os.listdir(folder)


def test_a_document_that_cannot_be_written_is_the_user_s_to_move(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"the report cannot be written: .*conformance.json: .*; name another directory"):
        document.write(tmp_path / "file", {})
    (tmp_path / "conformance.json").mkdir()
    with pytest.raises(UsageError, match="the report cannot be written"):
        document.write(tmp_path, {})
    assert {"conformance.json", "file"} == set(os.listdir(tmp_path))


def test_the_matrix_reads_by_area_with_the_worst_window_and_ends_in_totals() -> None:
    assert """\
canary          l34 PROVED < 10 ms
segmentation    N01 PROVED 24 ms     N02 PROVED < 10 ms   N03 VIOLATED 130 ms
authorization   A01 NOT_SUPPORTED    A02 NOT_SUPPORTED
resilience      R09 PROVED < 10 ms
cases           payment-only-from-checkout PROVED < 10 ms

VIOLATED        N03: attempt 2 of 2: checkout -> payment: shop/payment-0 answered
NOT_SUPPORTED   A01 A02: the lab has no l7-authz

Times: the longest that a denied row was still answered after apply; probed every 10 ms.
Could not run: gw1 crashed
Not complete: something was deselected, cut short or lost.
6 requirements: 3 PROVED, 2 NOT_SUPPORTED, 1 VIOLATED; 1 case: 1 PROVED""" == matrix.render(RUN, CATALOGUE)


@pytest.mark.parametrize("width", [40, 60, 79, 100, 200])
def test_the_matrix_keeps_within_the_width_and_loses_nothing(width: int) -> None:
    text = matrix.render(RUN, CATALOGUE, width=width)
    assert width >= max(map(len, text.splitlines()))
    folded = re.sub(r"\s", "", text)
    for word in ("N01PROVED24ms", "N03VIOLATED130ms", "A02NOT_SUPPORTED", "1VIOLATED"):
        assert word in folded


def with_more(**more: Any) -> RunResult:
    return RunResult(**{**{name: getattr(RUN, name) for name in RUN.__slots__}, **more})


TIMED = with_more(
    starting={"cluster": 71.4, "stack": 60.0},
    requirements=(
        requirement("N01", Attempt(rows=proved().rows, times={"workloads": 4.0, "control": 0.004, "odd": 2.0, "release": 9.96})),
        requirement("N02", Attempt(rows=proved().rows, times={"workloads": 5.04}), Attempt(times={"workloads": 1.0})),
    ),
)


def test_where_the_time_went_is_one_line_where_that_is_asked_for() -> None:
    line = "Time: cluster 71 s, stack 60 s, workloads 10 s, release 10 s, odd 2.0 s"
    assert line in matrix.render(TIMED, CATALOGUE, times=True).splitlines()
    assert "Time: " not in matrix.render(TIMED, CATALOGUE)
    assert "Time: " not in matrix.render(RUN, CATALOGUE, times=True)


def test_the_document_has_the_seconds_of_each_phase_over_all_attempts() -> None:
    report = validated(document.build(TIMED, CATALOGUE))
    assert {"cluster": 71.4, "stack": 60.0, "workloads": 10.04, "control": 0.004, "odd": 2.0, "release": 9.96} == report["times"]
    assert [4.0, 6.04] == [r["times"]["workloads"] for r in report["requirements"]]
    assert [{"workloads": 5.04}] == [other["times"] for other in report["requirements"][1]["other_attempts"]]


def test_what_was_left_out_and_what_the_cluster_says_of_itself_is_noted() -> None:
    noted = Attempt(rows=proved().rows, notes=("without pod-ipblock: pods have identities",))
    run = with_more(requirements=(requirement("N13", noted), requirement("N14", noted)), notes=("kube-proxy is replaced",))
    text = matrix.render(run, CATALOGUE).splitlines()
    assert "segmentation    N13 PROVED < 10 ms   N14 PROVED < 10 ms" in text
    assert "NOTE            N13 N14: without pod-ipblock: pods have identities" in text
    assert "Note: kube-proxy is replaced" in text
    report = validated(document.build(run, CATALOGUE))
    assert ["kube-proxy is replaced"] == report["notes"]
    assert [["without pod-ipblock: pods have identities"]] * 2 == [r["notes"] for r in report["requirements"]]


def test_a_document_from_before_notes_and_times_is_valid_still() -> None:
    report = json.loads(json.dumps(document.build(TIMED, CATALOGUE)))
    for holder in (report, *report["canary"], *report["requirements"], *report["cases"]):
        del holder["notes"], holder["times"]
        for other in holder.get("other_attempts", ()):
            del other["notes"], other["times"]
    validated(report)


def test_colour_adds_nothing_but_colour() -> None:
    coloured = matrix.render(RUN, CATALOGUE, colour=True)
    assert "\x1b[" in coloured
    assert "\x1b[" not in matrix.render(RUN, CATALOGUE)
    assert matrix.render(RUN, CATALOGUE).split() == re.sub(r"\x1b\[[\d;]*m", "", coloured).split()


def test_a_reason_is_text_and_no_markup() -> None:
    odd = requirement("N01", Attempt(outcome="INCONCLUSIVE", why="[bold]:smile: [/nope]"))
    run = RunResult(version="0", stack="lab", versions={}, started=RUN.started, seconds=0, complete=True, requirements=(odd,))
    assert "INCONCLUSIVE    N01: [bold]:smile: [/nope]" in matrix.render(run, CATALOGUE)


def test_different_spacings_are_told_as_a_range() -> None:
    coarse = Attempt(rows=(changed(outcome="PROVED", window=Window(seconds=0, spacing=0.1, sent=60)),))
    fields = {name: getattr(RUN, name) for name in RUN.__slots__}
    text = matrix.render(RunResult(**{**fields, "requirements": (*RUN.requirements, requirement("N04", coarse))}), CATALOGUE)
    assert "; probed every 10 to 100 ms." in text


def test_a_run_of_nothing_says_so() -> None:
    empty = RunResult(version="0", stack="lab", versions={}, started=RUN.started, seconds=0, complete=True)
    assert "0 requirements: nothing was proved" == matrix.render(empty, CATALOGUE).strip()


def test_a_run_of_case_files_counts_cases_alone() -> None:
    run = RunResult(version="0", stack="lab", versions={}, started=RUN.started, seconds=0, complete=True, cases=RUN.cases)
    assert "1 case: 1 PROVED" == matrix.render(run, CATALOGUE).splitlines()[-1]


def test_a_red_row_says_everything_that_is_needed_to_believe_it() -> None:
    assert """\
VIOLATED  N03 Only the declared peer and port pass, port ranges and named ports included
  row       checkout -> payment: shop/checkout -> shop/payment port 8080 by service, http GET /
  expected  denied by l34, attributed to shop/default-deny
  observed  answered with status 200 by shop/payment-0, 10.0.1.3 port 41234 -> 10.96.0.7 port 80, after 1.3 ms  \
[shop/checkout-0 -> shop/payment-0]
  why       shop/payment-0 answered
  nonce     ab12 was seen by shop/payment-0 as its #12
  control   open
  cause     default deny ingress of shop/payment-0, selected by shop/default-deny (layer l34, from nflog)
  window    130 ms (every 10 ms), 60 probes
  policy    apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata:
              name: default-deny
              namespace: shop
            spec:
              podSelector: {}
              policyTypes:
              - Ingress
  repeat    ztconform-repeat checkout payment 8080""" == redrow.render(changed(), CATALOGUE["N03"])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"observations": ()}, "observed  nothing: no probe of this row came back"),
        ({"observations": (), "fate": ""}, "nonce     none was sent"),
        ({"fate": ""}, "nonce     ab12: what the servers saw of it was not asked"),
        ({"control": ""}, "control   none held"),
        ({"cause": None}, "cause     none known"),
        ({"window": None}, "window    not measured"),
        ({"policies": ()}, "policy    none in force"),
        ({"repeat": ""}, "repeat    no command is known"),
        ({"why": ""}, "why       no reason was given"),
        ({"window": Window(seconds=0, spacing=0.01, sent=9)}, "window    < 10 ms, 9 probes"),
        ({"observations": (OBSERVATION,) * 6}, "and 2 more"),
        ({"policies": (POLICY, POLICY)}, "            ---"),
    ],
)
def test_what_is_missing_is_named_and_never_left_out(changes: dict[str, Any], line: str) -> None:
    assert line in redrow.render(changed(**changes), CATALOGUE["N03"])


def test_a_row_of_a_case_file_has_no_requirement() -> None:
    assert redrow.render(changed(), None).startswith("VIOLATED  Case file\n")


def observation(**changes: Any) -> dict[str, Any]:
    fields = {name: getattr(OBSERVATION, name) for name in OBSERVATION.__slots__}
    return changed(observations=(Observation(**{**fields, **changes}),))["observations"][0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backend": "", "server": "envoy"}, "answered with status 200 by something that is no agent of ours (envoy), "),
        ({"backend": "", "server": ""}, "by something that is no agent of ours (no Server header), "),
        ({"signal": "timeout", "stage": "connect", "status": None, "backend": ""}, "timeout at stage connect, "),
        (
            {"signal": "icmp", "stage": "connect", "status": None, "backend": "", "detail": "3/13"},
            "icmp at stage connect (3/13), ",
        ),
        (
            {"signal": "not-run", "stage": "exec", "status": None, "backend": "", "source": "", "peer": ""},
            "not-run at stage exec, after",
        ),
        ({"peer": ""}, "10.0.1.3 port 41234 -> ?, after 1.3 ms"),
    ],
)
def test_what_was_observed_is_told_by_signal_and_stage_and_place(changes: dict[str, Any], words: str) -> None:
    assert words in rows.observed(observation(**changes))


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"address": "pod"}, "by pod IP, http GET /"),
        ({"address": "name", "family": 6}, "by name, http GET / over IPv6"),
        ({"via": Ref("shop", "front")}, "by Service shop/front, "),
        ({"via": Ref("shop", "front"), "address": "node"}, "by its node's port of Service shop/front, "),
        ({"address": "other-node"}, "by another node's port, "),
        ({"kind": "udp"}, "by service, udp"),
        ({"kind": "dns", "path": "payment.shop"}, "dns payment.shop"),
        ({"source": Ref("", "world")}, "outsider/world -> shop/payment port 8080"),
        ({"port": 0, "kind": "api", "target": Ref("", "Pod shop/x")}, "sent to the cluster's API"),
    ],
)
def test_what_was_sent_is_told_by_its_path(probe: dict[str, Any], words: str) -> None:
    fields = {name: getattr(PROBE, name) for name in PROBE.__slots__}
    row = Row(id="r", probe=Probe(**{**fields, **probe}), want="denied", by=frozenset({"l34"}))
    assert words in rows.sent(changed(row=row))


def test_an_outsider_stays_one_in_a_cause() -> None:
    fields = {name: getattr(CAUSE, name) for name in CAUSE.__slots__}
    outside = Cause(**{**fields, "endpoint": Ref("", "world"), "explicit": False})
    assert rows.cause(changed(cause=outside)).startswith("default deny ingress of outsider/world, ")


def test_the_longest_window_counts_and_of_equal_ones_the_coarsest() -> None:
    windows = [Window(seconds=s, spacing=p, sent=1) for s, p in ((0.0, 0.01), (0.2, 0.01), (0.2, 0.1))]
    assert windows[2] == rows.worst_window(changed(window=w) for w in windows)
    assert rows.worst_window([changed(window=None)]) is None
