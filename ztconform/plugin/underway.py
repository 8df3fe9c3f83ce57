# SPDX-License-Identifier: Apache-2.0
"""What an attempt at a test of ours has come to while it runs; what becomes of it at its end is left to `runner`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NoReturn

import pytest

from ztconform.plugin.stopwatch import Stopwatch
from ztconform.plugin.subjects import Subject
from ztconform.report.results import Attempt
from ztconform.report.rows import RowJson


@dataclass(slots=True, kw_only=True)
class Underway:
    """Hold what an attempt has come to so far."""

    subject: Subject
    rows: list[RowJson] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out, and why
    watch: Stopwatch = field(default_factory=Stopwatch)
    untested: tuple[Literal["NOT_SUPPORTED", "NOT_RUN"], str] | None = None  # why the plugin itself skips the test
    stack: str = ""
    shared: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()  # of the cluster about itself
    starting: Mapping[str, float] = field(default_factory=dict)  # the stack's start in seconds, where it came before this
    canaries: dict[str, Attempt] = field(default_factory=dict)  # those that were asked for within this attempt, by layer
    body_ended: bool = False

    def note(self, text: str) -> None:
        """Take down what the report has to say beside the outcome; the same thing once."""
        if text not in self.notes:
            self.notes.append(text)


UNDERWAY = pytest.StashKey[Underway]()


def skip(item: pytest.Item, outcome: Literal["NOT_SUPPORTED", "NOT_RUN"], why: str) -> NoReturn:
    """Skip the test, saying what that makes of its subject."""
    item.stash[UNDERWAY].untested = (outcome, why)
    pytest.skip(f"{outcome}: {why}")
