# SPDX-License-Identifier: Apache-2.0
"""What each test of ours is about: a requirement of the catalogue, or a case; an ID that is wrong stops the collection.

What became of it is left to `runner`.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pytest

from ztconform import catalogue
from ztconform.errors import UsageError
from ztconform.plugin.marks import NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Name the requirement that a test proves, or the case that it plays."""

    kind: Literal["requirement", "case"]
    id: str
    file: str  # where the test is, relative to the root directory


SUBJECT = pytest.StashKey[Subject]()


def assign(items: Iterable[pytest.Item]) -> None:
    """Put its subject into every item's stash, and its ID among the words that -k matches.

    Raises UsageError that names file and test for an ID which is missing, unknown, or claimed by two tests.
    """
    problems: list[str] = []
    claimed: dict[tuple[str, str], tuple[object, str]] = {}
    for item in items:
        try:
            subject = item.stash.get(SUBJECT, None) or _subject(item)
        except UsageError as error:
            problems.append(f"{item.nodeid}: {error}")
            continue
        # Parameters of one function prove one requirement together; two functions do not.
        what = getattr(item, "function", item) if subject.kind == "requirement" else item
        first, where = claimed.setdefault((subject.kind, subject.id), (what, item.nodeid))
        if first is not what:
            problems.append(f"{item.nodeid}: {subject.kind} {subject.id} is claimed by {where} already; one test proves it")
        item.stash[SUBJECT] = subject
        item.extra_keyword_matches.add(subject.id)
    if problems:
        raise UsageError("\n".join(problems))


def refuse(session: pytest.Session, items: list[pytest.Item], problem: Exception) -> None:
    """Stop the collection with a usage error.

    An exception would make xdist replace its workers until it gives up, with a traceback for each: there it becomes a collection
    error, which the controller shows once.
    """
    if not hasattr(session.config, "workerinput"):
        raise pytest.UsageError(*str(problem).splitlines())
    file = items[0].nodeid.split("::")[0]
    report = pytest.CollectReport(nodeid=file, outcome="failed", longrepr=str(problem), result=[], ztc_usage=True)
    items.clear()
    session.config.hook.pytest_collectreport(report=report)


def _subject(item: pytest.Item) -> Subject:
    file = item.nodeid.split("::")[0]
    mark = item.get_closest_marker(NAME)
    if mark is None:
        return Subject(kind="case", id=item.nodeid, file=file)
    name = mark.kwargs.get("id")
    if mark.args or mark.kwargs.keys() != {"id"} or not isinstance(name, str):
        raise UsageError('a requirement is named by its ID alone, as in requirement(id="N01")')
    known = catalogue.load()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"the catalogue has {min(known)} to {max(known)}"
        raise UsageError(f"no requirement is called {name!r}; {hint}")
    return Subject(kind="requirement", id=name, file=file)
