# SPDX-License-Identifier: Apache-2.0
"""Which stack a session tests, and the process that holds it; what a stack is, is left to `ztconform.stacks`."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from ztconform.plugin import options, signals

if TYPE_CHECKING:
    from ztconform.cluster import Cluster
    from ztconform.stacks import Stack


def find(config: pytest.Config, name: str) -> "Stack":
    """Return the stack of this name, a user's own first; raises UsageError that lists the names there are."""
    answers: list[Sequence[Stack]] = config.hook.pytest_ztconform_stacks(config=config)
    for own in chain.from_iterable(answers):
        if own.name == name:
            return own
    from ztconform import stacks

    return stacks.find(name)


@contextmanager
def started(config: pytest.Config, stack: "Stack") -> "Iterator[Cluster]":
    """Start the stack, and end it however the run ends: Ctrl-C, SIGTERM, or the death of xdist's controller."""
    controller = controller_of(config)
    if controller is not None:
        signals.die_with(controller)
    # Ctrl-C on a terminal reaches a worker twice: by itself, and passed on by the controller as SIGTERM.
    numbers = [signal.SIGTERM] if controller is None else [signal.SIGTERM, signal.SIGINT]
    interrupts = signals.Interrupts(config, f"stack {stack.name}", *numbers)
    try:
        with stack.start(svid_ttl=options.svid_ttl(config)) as cluster:
            yield cluster
    finally:
        interrupts.removed()
        if controller is None:  # a worker still has to report, and no signal should end it there
            interrupts.restore()


def controller_of(config: pytest.Config) -> int | None:
    """Return the process that started this one as its worker on the same machine, or None."""
    controller: int | None = getattr(config, "workerinput", {}).get("ztc_controller")
    return controller
