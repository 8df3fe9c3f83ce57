# SPDX-License-Identifier: Apache-2.0
"""What a run comes to, from what was told of it alone."""

import json
from dataclasses import replace

import pytest

from ztconform.plugin.record import Record
from ztconform.plugin.subjects import Subject
from ztconform.plugin.wire import Plan, Told, dump, load_plan, load_told
from ztconform.report.results import Attempt

ROW = {"row": {"id": "a"}, "outcome": "PROVED", "why": "", "window": None}
PROVED = Attempt(rows=(ROW,))
VIOLATED = Attempt(rows=({**ROW, "outcome": "VIOLATED"},))
NOT_RUN = Attempt(outcome="NOT_RUN", why="lost")


def record(*nodes: str, **settings: bool) -> Record:
    found = Record(stack="fake", **{"partial": False, "narrowed": False, **settings})
    subjects = {node: Subject(kind="requirement", id=node, file="t.py") for node in nodes}
    found.plan(Plan(subjects=subjects, narrowed=False, pid=1))
    return found


@pytest.mark.parametrize(
    ("told", "failed", "verdict"),
    [
        ([Told(attempt=PROVED)], set(), None),
        ([Told(attempt=VIOLATED)], set(), 1),
        ([Told(attempt=VIOLATED), Told(attempt=PROVED)], set(), 1),
        ([Told(attempt=PROVED), Told(attempt=VIOLATED)], set(), 1),
        ([Told(attempt=NOT_RUN, exit_code=3)], {"N01"}, 3),
        ([Told(attempt=NOT_RUN, exit_code=3)], {"N01", "other"}, 1),
        ([Told(attempt=NOT_RUN, exit_code=2)], {"N01"}, 2),
        ([Told(attempt=NOT_RUN, exit_code=2), Told(attempt=NOT_RUN, exit_code=3)], {"N01"}, 3),
        ([Told(attempt=NOT_RUN, exit_code=3), Told(attempt=VIOLATED)], {"N01"}, 1),
        ([Told(attempt=PROVED, canaries={"l34": VIOLATED})], set(), 1),
        ([Told(attempt=PROVED, canaries={"mesh": Attempt()})], set(), 1),
        ([Told(attempt=Attempt())], set(), 1),
        ([], {"other"}, None),
    ],
)
def test_one_beats_three_beats_two(told, failed, verdict):
    found = record("N01")
    for one in told:
        found.tell("N01", one)
    found.failed |= failed
    assert verdict == found.verdict()


def test_what_was_collected_and_never_told_of_did_not_run():
    found = record("N01", "N02")
    found.tell("N01", Told(attempt=PROVED))
    assert ["N02"] == [result.id for result in found.not_run()]
    assert not found.run().complete


@pytest.mark.parametrize("settings", [{"narrowed": True}, {"narrowed": False}])
def test_a_narrowed_run_is_not_complete(settings):
    found = record("N01", **settings)
    found.tell("N01", Told(attempt=PROVED))
    assert (not settings["narrowed"]) is found.run().complete


def test_nothing_collected_is_not_complete():
    assert not record().run().complete


def test_messages_cross_as_json_unchanged():
    attempt = replace(VIOLATED, notes=("without a feature",), times={"hold": 1.5})
    told = Told(
        attempt=attempt,
        exit_code=3,
        stack="lab",
        shared=True,
        versions={"linux": "6"},
        remarks=("slow",),
        starting={"cluster": 71.0},
        canaries={"l34": PROVED},
    )
    plan = Plan(subjects={"a::b": Subject(kind="case", id="x", file="a")}, narrowed=True, pid=7)
    assert (told, plan) == (load_told(dump(told)), load_plan(dump(plan)))
    assert isinstance(json.loads(dump(told)), dict)


def test_one_message_is_told_once_however_many_tests_it_stopped():
    found = record("N01", "N02")
    for node in ("N01", "N02"):
        found.tell(node, Told(attempt=NOT_RUN, exit_code=3))
    assert ("lost",) == found.run().could_not_run


def test_processes_that_wait_for_one_cluster_do_not_add_up_and_proofs_do():
    found = record("N01", "N02")
    for node, cluster in (("N01", 71.0), ("N02", 69.0)):
        attempt = replace(PROVED, times={"hold": 2.0})
        found.tell(node, Told(attempt=attempt, starting={"cluster": cluster}, remarks=("slow",), canaries={"l34": PROVED}))
    run = found.run()
    assert {"cluster": 71.0, "hold": 4.0} == run.times
    assert ("slow",) == run.notes
    assert [1] == [len(canary.attempts) for canary in run.canary]


def test_different_answers_of_a_canary_are_all_kept():
    found = record("N01", "N02")
    for node, canary in (("N01", PROVED), ("N02", VIOLATED)):
        found.tell(node, Told(attempt=PROVED, canaries={"l34": canary}))
    assert [("l34", "VIOLATED")] == [(canary.id, canary.outcome) for canary in found.run().canary]


def test_parameters_of_one_test_have_their_notes_and_times_together():
    found = Record(stack="fake", partial=False, narrowed=False)
    subject = Subject(kind="requirement", id="N01", file="t.py")
    found.plan(Plan(subjects={"a[1]": subject, "a[2]": subject}, narrowed=False, pid=1))
    for node in ("a[1]", "a[2]"):
        found.tell(node, Told(attempt=replace(PROVED, notes=("without x",), times={"hold": 2.0})))
    [result] = found.run().requirements
    assert (("without x",), {"hold": 4.0}) == (result.counts.notes, result.times)
