# SPDX-License-Identifier: Apache-2.0
"""A case file as a test: one item with the fixtures, subtests, --lf and xdist of any other; reading it is left to `casefile`."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ztconform import casefile
from ztconform.errors import ZtconformError
from ztconform.plugin.subjects import SUBJECT, Subject

if TYPE_CHECKING:
    from ztconform.plugin.prove import Prove


class CaseFileCollector(pytest.File):
    """Collect the one case that a file holds."""

    def collect(self) -> Iterator["CaseItem"]:
        """Yield the case; a file that is wrong is one collection error, which names file, line and field."""
        try:
            found = casefile.load(self.path)
        except ZtconformError as error:
            raise self.CollectError(str(error)) from error
        item: CaseItem = CaseItem.from_parent(self, name=found.case.id, callobj=_play)
        item.found = found
        item.stash[SUBJECT] = Subject(kind="case", id=found.case.id, file=self.nodeid)
        yield item

    def repr_failure(  # type: ignore[override]  # as in pytest's own Collector: nobody gives it a style
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> Any:
        """Return the error's text alone, also with --full-trace."""
        if isinstance(excinfo.value, self.CollectError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class CaseItem(pytest.Function):
    """Play a case."""

    found: casefile.CaseFile

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Return the case file as the place of the test, and not the function that plays it."""
        return self.path, 0, self.name


def _play(request: pytest.FixtureRequest, ztc_prove: "Prove") -> None:
    __tracebackhide__ = True
    found: casefile.CaseFile = request.node.found
    ztc_prove.case(found.case, lines=found.lines)
