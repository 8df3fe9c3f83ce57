# SPDX-License-Identifier: Apache-2.0
"""The stacks that can be tested, by name; each is a module of its own that is imported only when it is chosen."""

from contextlib import AbstractContextManager
from difflib import get_close_matches
from importlib import import_module
from typing import Protocol

from ztconform.cluster import Cluster
from ztconform.errors import UsageError
from ztconform.settings import Settings

_MODULES = {
    "cilium": "ztconform.stacks.cilium",
    "custom": "ztconform.stacks.custom",
    "lab": "ztconform.stacks.lab",
    "lab+spire": "ztconform.stacks.labspire",
}


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
    """Return the names that `find` knows."""
    return tuple(sorted(_MODULES))


def find(name: str) -> Stack:
    """Return a stack by name, or raise UsageError with the names that there are."""
    if name not in _MODULES:
        close = get_close_matches(name, _MODULES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"no stack is called {name!r}; there is: {', '.join(names())}{hint}")
    stack: Stack = import_module(_MODULES[name]).STACK
    return stack
