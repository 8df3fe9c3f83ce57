# SPDX-License-Identifier: Apache-2.0
"""What the process that runs a test tells the one that reports: JSON strings among the properties of pytest's own reports.

They are put onto a single report and not onto the item: an item's properties are copied into each of its later reports, those of
subtests and of a rerun included (seen), and anything but JSON's own types ends an xdist worker (seen).
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ztconform.plugin.subjects import Subject
from ztconform.report.results import Attempt

RESULT = "ztconform"  # on the one report that ends an attempt
PLAN = "ztconform.plan"  # once from every worker, before its first test
NODES = "nodes"  # among the canaries: nodes that were left out, red but no reason not to believe the others
WORD = "ztconform.outcome"  # on the reports of a test and its rows: how -v calls them


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Hold what one attempt at one test came to."""

    attempt: Attempt
    exit_code: int = 0  # of a ZtconformError that kept the attempt from running
    stack: str = ""
    shared: bool = False  # one cluster for all processes of the run
    versions: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()  # of the cluster about itself
    starting: Mapping[str, float] = field(default_factory=dict)  # seconds by phase until the stack was there, once a process
    canaries: Mapping[str, Attempt] = field(default_factory=dict)  # by layer; with the first attempt that asked, once a process


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Hold what a process has collected."""

    subjects: Mapping[str, Subject]  # by node ID
    narrowed: bool  # something of ours was deselected
    pid: int  # of a worker that the controller may signal; 0 for any other


def property_of(report: pytest.TestReport, key: str) -> str | None:
    """Return a property of a report, or None where it has none of this name."""
    return next((str(value) for name, value in report.user_properties if name == key), None)


def dump(message: Told | Plan) -> str:
    """Return the message as one JSON string."""
    return json.dumps(dataclasses.asdict(message))


def load_told(text: str) -> Told:
    """Return the message that `dump` wrote."""
    fields = json.loads(text)
    attempt, canaries, remarks = _attempt(fields.pop("attempt")), fields.pop("canaries"), tuple(fields.pop("remarks"))
    by_layer = {layer: _attempt(canary) for layer, canary in canaries.items()}
    return Told(attempt=attempt, canaries=by_layer, remarks=remarks, **fields)


def dump_attempt(attempt: Attempt) -> str:
    """Return an attempt as one JSON string."""
    return json.dumps(dataclasses.asdict(attempt))


def load_attempt(text: str) -> Attempt:
    """Return the attempt that `dump_attempt` wrote."""
    return _attempt(json.loads(text))


def load_plan(text: str) -> Plan:
    """Return the message that `dump` wrote."""
    fields = json.loads(text)
    subjects = {node: Subject(**subject) for node, subject in fields.pop("subjects").items()}
    return Plan(subjects=subjects, **fields)


def _attempt(fields: Mapping[str, Any]) -> Attempt:
    return Attempt(**{**fields, "rows": tuple(fields["rows"]), "notes": tuple(fields["notes"])})
