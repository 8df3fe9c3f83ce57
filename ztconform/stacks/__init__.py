# SPDX-License-Identifier: Apache-2.0
"""The stacks that can be tested, by name; each is a module of its own that is imported only when it is chosen."""

from contextlib import AbstractContextManager
from difflib import get_close_matches
from importlib import import_module
from typing import Protocol

from ztconform.cluster import Cluster
from ztconform.errors import UsageError

_MODULES = {"lab": "ztconform.stacks.lab"}


class Stack(Protocol):
    """Check the machine for a stack, and start it."""

    name: str
    summary: str

    def preflight(self) -> None:
        """Raise ClusterError, in one line with the cure, if the stack cannot run here; create nothing."""

    def start(self, *, svid_ttl: float | None = None) -> AbstractContextManager[Cluster]:
        """Return the running cluster; leaving the context removes all of it.

        `svid_ttl` is for how many seconds the stack's own identities are to live, where it issues any.
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
