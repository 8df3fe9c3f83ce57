# SPDX-License-Identifier: Apache-2.0
"""The stacks that can be tested, by name: two of their own, and what `composition` makes of components.

What is in them is imported only when it is chosen.
"""

from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from typing import Protocol

from ztconform.cluster import Cluster
from ztconform.settings import Settings
from ztconform.stacks import composition

_MODULES = {"lab": "ztconform.stacks.lab", "lab+spire": "ztconform.stacks.labspire", "custom": "ztconform.stacks.custom"}


class Stack(Protocol):
    """Check the machine for a stack, start it, and remove it."""

    name: str
    summary: str
    shared: bool  # one cluster serves all processes of a run; otherwise each starts its own

    def preflight(self, settings: Settings) -> None:
        """Raise UsageError or ClusterError, in one line with the cure, if the stack cannot run; create nothing."""

    def start(self, settings: Settings) -> AbstractContextManager[Cluster]:
        """Return the running cluster; leaving the context removes what this process created in it.

        Of a shared stack the first process creates the cluster, and the others find it.
        """

    def finish(self, settings: Settings, *, failed: bool) -> None:
        """Remove a shared cluster, unless it is to be kept; called once, when no process uses it any more.

        If the run failed, the cluster's logs are saved beside the report first.
        """


def names() -> tuple[str, ...]:
    """Return the names of the stacks that are listed; `find` takes more, every valid combination."""
    return (*(name for name in _MODULES if name != "custom"), *composition.LISTED, "custom")


@cache
def find(name: str) -> Stack:
    """Return a stack by name, or raise UsageError with all that is valid."""
    if name in _MODULES:
        stack: Stack = import_module(_MODULES[name]).STACK
        return stack
    from ztconform.stacks.composed import ComposedStack  # noqa: PLC0415 - it imports what only a cluster needs

    return ComposedStack(composition.parse(name))
