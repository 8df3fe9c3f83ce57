# SPDX-License-Identifier: Apache-2.0
"""The one door through which a test proves something: policy, rows and steps become a case, and each row a subtest.

The proof itself is left to `ztconform.proof`, and the test's outcome to `runner`.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import FrameType, TracebackType
from typing import NoReturn

import pytest

from ztconform import catalogue, policies, proof, scenario
from ztconform.cluster import Cluster
from ztconform.evidence import RowResult
from ztconform.model import PRIVILEGED, Case, Row, Topology
from ztconform.plugin.canaries import Canaries
from ztconform.plugin.runner import RedRow
from ztconform.plugin.underway import Underway, skip
from ztconform.report import redrow
from ztconform.report import rows as words
from ztconform.report.results import RED, rows_to_json
from ztconform.report.rows import RowJson
from ztconform.rows import Change
from ztconform.scenario import Policy


class Prove:
    """Prove what a test demands; the fixture `ztc_prove`."""

    def __init__(
        self,
        *,
        item: pytest.Item,
        underway: Underway,
        cluster: Cluster,
        canaries: Canaries,
        topology: Topology,
        subtests: pytest.Subtests,
        notify: Callable[[str], None],
        keep_policy: bool,
    ) -> None:
        self._item = item
        self._underway = underway
        self._cluster = cluster
        self._canaries = canaries
        self._topology = topology
        self._subtests = subtests
        self._notify = notify
        self._keep_policy = keep_policy
        self._owners: list[str] = []

    def __call__(
        self, *, policy: Policy, rows: Sequence[Row], steps: Sequence[Change] = (), needs: str = ""
    ) -> tuple[RowResult, ...]:
        """Prove every row under the policy, and then under each step, whose policy takes the place of the one before it.

        With `needs`, a feature beyond what the requirement asks for, nothing is proved and returned on a stack that lacks it, or
        has no words for the policy, and the report has a note of that.

        A policy is an intent's name, a manifest, or several of them. Returns the results in the order of the rows; each is a
        subtest that fails if it is red. Raises UsageError for a row that cannot be meant, and any ZtconformError if the cluster
        could not be used. Skips the test where the stack has no words for a policy.
        """
        __tracebackhide__ = True
        facts = self._cluster.facts()
        if needs and (lacking := facts.features.get(needs, f"{facts.stack} says nothing of the feature {needs}")):
            self._underway.note(f"without {needs}: {lacking}")
            return ()
        rows, steps = self._within(rows, steps, facts.features)
        name = re.sub(r"[^A-Za-z0-9.]+", "-", self._underway.subject.id).strip("-")
        count = len(self._owners) + 1
        case = scenario.case(
            name if count == 1 else f"{name}-{count}",
            self._topology,
            facts.dialects,
            policy=policy,
            rows=rows,
            steps=steps,
            mesh=bool(scenario.MESH_FEATURES & {needs, *self._features()}),
        )
        if isinstance(case, policies.Gap):
            if not needs:
                skip(self._item, "NOT_SUPPORTED", case.reason)
            self._underway.note(f"without {case.intent}, of {needs}: {case.reason}")
            return ()
        return self.case(case, frame=sys._getframe(1))

    def _within(
        self, rows: Sequence[Row], steps: Sequence[Change], features: Mapping[str, str]
    ) -> tuple[Sequence[Row], Sequence[Change]]:
        """Return what the stack can play of it, and note the rest; skip the test where nothing is left to be denied."""
        tables = [scenario.within(table, features) for table in (rows, *(change.rows for change in steps))]
        lacking = {name: why for _, without in tables for name, why in without.items()}
        for name, why in lacking.items():
            self._underway.note(f"without {name}: {why}")
        (first, _), *others = tables
        if lacking and not (first and any(row.want == "denied" for kept, _ in tables for row in kept)):
            skip(self._item, "NOT_SUPPORTED", next(iter(lacking.values())))
        return first, [replace(change, rows=kept) for change, (kept, _) in zip(steps, others, strict=True) if kept]

    def _features(self) -> frozenset[str]:
        known = catalogue.load().get(self._underway.subject.id)
        return known.features if known is not None else scenario.MESH_FEATURES  # a user's own test has the topology as it is

    def case(
        self, case: Case, *, lines: Mapping[str, int] | None = None, frame: FrameType | None = None
    ) -> tuple[RowResult, ...]:
        """Prove a case; `lines` say where its rows are written, and `frame` is where a debugger stops for a red one."""
        __tracebackhide__ = True
        if any(workload.meshed for workload in case.topology.workloads):
            self._canaries.demand(self._item, "mesh")
        self.clean_up()  # what an earlier call in the same test kept would be in this one's way
        self._owners.append(case.id)
        self._tell("workloads")
        try:
            results = proof.prove_case(case, self._cluster, notify=self._tell, keep_policy=self._keep_policy)
        finally:
            self._tell("")
        self._note(case, results)
        told = rows_to_json(results)
        self._underway.rows.extend(told)
        for result, row in zip(results, told, strict=True):
            with self._subtests.test(result.row.id):
                line = (lines or {}).get(result.row.id) or (frame and frame.f_lineno)
                self._report(result, row, line, frame)
        return results

    def _note(self, case: Case, results: Sequence[RowResult]) -> None:
        if any(workload.host_network for workload in case.topology.workloads):
            self._underway.note(f"clients ran on the nodes' own network, in {PRIVILEGED} (--ztc-privileged)")
        for met in dict.fromkeys(met for result in results for met in result.recorded):
            self._underway.note(f"recorded, not judged: {met}")

    def _tell(self, phase: str) -> None:
        self._underway.watch.begin(phase)
        self._notify(phase)

    def clean_up(self) -> None:
        """Remove what was kept for the debugger."""
        if self._keep_policy:
            for owner in self._owners:
                self._cluster.remove(owner)

    def _report(self, result: RowResult, row: RowJson, line: int | None, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if result.outcome in RED:
            raise red_row(row, self._underway.subject.id, line).with_traceback(_traceback(frame))
        if result.outcome != "PROVED":
            _skip_row(f"{result.outcome}: {result.why}")


def _skip_row(why: str) -> NoReturn:
    """Skip a subtest, with the item's place.

    This frame is not hidden, as our others are: pytest 9.2 fails where a skip has no frame that it may show.
    """
    raise pytest.skip.Exception(why, _use_item_location=True)


def red_row(row: RowJson, subject: str, line: int | None) -> RedRow:
    """Return the failure that a red row is reported by."""
    observed = words.observed(row["observations"][-1]) if row["observations"] else "nothing"
    # What a narrow terminal cuts off comes last: pytest puts the row's ID before it anyway.
    headline = f"{subject} {row['outcome']}: expected {words.expected(row)}, observed {observed}: {row['row']['id']}"
    return RedRow(redrow.render(row, catalogue.load().get(subject)), headline, line)


def _traceback(frame: FrameType | None) -> TracebackType | None:
    """Return a traceback that ends in the test, where --pdb then stops, and not in this module."""
    return TracebackType(None, frame, frame.f_lasti, frame.f_lineno) if frame else None
