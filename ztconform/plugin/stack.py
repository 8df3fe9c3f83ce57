# SPDX-License-Identifier: Apache-2.0
"""Which stack a session tests, and the processes that hold it; what a stack is, is left to `ztconform.stacks`."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

from ztconform.errors import UsageError, ZtconformError
from ztconform.plugin import options, run, settings, signals
from ztconform.plugin.stopwatch import Stopwatch

if TYPE_CHECKING:
    from ztconform.cluster import Cluster
    from ztconform.settings import Settings
    from ztconform.stacks import Stack

_CHOSEN = pytest.StashKey["Stack"]()
_STARTING = pytest.StashKey[Mapping[str, float]]()  # seconds until the stack was there, by phase
_PREFLIGHT = "preflight"  # in the run's folder, when one of its processes has been through that
_ASKED = "ztc_preflight"  # in a worker's input, where the controller has

# A stack tells what takes long in lines. Up to the first that begins so, it is the bare cluster that takes the time.
_CLUSTER, _STACK = "cluster", "stack"
_INSTALLS = ("installing ", "running ")


def find(config: pytest.Config, name: str) -> "Stack":
    """Return the stack of this name, a user's own first; raises UsageError that lists the names there are."""
    answers: list[Sequence[Stack]] = config.hook.pytest_ztconform_stacks(config=config)
    for own in chain.from_iterable(answers):
        if own.name == name:
            return own
    from ztconform import stacks

    return stacks.find(name)


def chosen(config: pytest.Config) -> "Stack":
    """Return the stack that the user named, or that a named cluster turns out to be; raises any ZtconformError."""
    known = config.stash.get(_CHOSEN, None)
    if known is None:
        found = _choose(config)
        _demand_fit(config, found)
        known = config.stash[_CHOSEN] = found
    return known


def check(config: pytest.Config, *, preflight: bool) -> None:
    """Check what the user said before anything is created; raises any ZtconformError.

    With `preflight` the stack itself is asked too, for all processes of the run.
    """
    settings.of(config)
    if (name := options.chosen_stack(config)) is not None:
        _demand_fit(config, find(config, name))
    if preflight:
        stack = chosen(config)
        stack.preflight(settings.of(config))


def ready(config: pytest.Config) -> "Stack":
    """Return the stack, having asked it whether it can run here; a shared one once a run, before any process has started it."""
    stack = chosen(config)
    if not stack.shared:
        stack.preflight(settings.of(config))
    elif not _input(config).get(_ASKED):
        run.once(config, _PREFLIGHT, lambda: _asked(config, stack))
    return stack


def tell(config: pytest.Config, workerinput: dict[str, Any]) -> None:
    """Put into a worker's input what the controller, which has asked it already, knows of the stack."""
    run.tell(config, workerinput)
    if (known := config.stash.get(_CHOSEN, None)) is not None:
        workerinput |= {"ztc_stack": known.name, _ASKED: True}


@contextmanager
def started(config: pytest.Config, stack: "Stack") -> "Iterator[Cluster]":
    """Start the stack, and end it however the run ends: Ctrl-C, SIGTERM, or the death of xdist's controller.

    A shared one stays until `finish`.
    """
    controller = controller_of(config)
    if controller is not None:
        signals.die_with(controller)
    # Ctrl-C on a terminal reaches a worker twice: by itself, and passed on by the controller as SIGTERM.
    numbers = [signal.SIGTERM] if controller is None else [signal.SIGTERM, signal.SIGINT]
    what = f"what this process made on stack {stack.name}" if stack.shared else f"stack {stack.name}"
    interrupts = signals.Interrupts(config, what, *numbers)
    watch = Stopwatch()
    if stack.shared:
        run.begin(config, stack.name)
    try:
        watch.begin(_CLUSTER)
        with stack.start(replace(settings.of(config), notify=_telling(settings.of(config), watch))) as cluster:
            watch.begin("")
            config.stash[_STARTING] = watch.seconds
            yield cluster
    finally:
        interrupts.removed()
        if controller is None:  # a worker still has to report, and no signal should end it there
            interrupts.restore()


def starting(config: pytest.Config) -> Mapping[str, float]:
    """Return, once, how many seconds each phase of this process's start took."""
    told = config.stash.get(_STARTING, {})
    config.stash[_STARTING] = {}
    return told


def finish(config: pytest.Config, *, failed: bool) -> str:
    """Remove the shared cluster that any process of the run has started, when none uses it any more; return what went wrong.

    Only for the process that the user started. A signal does not end it, and only says what is still being removed.
    """
    name = run.begun(config)
    try:
        if name:
            what = f"the shared cluster of stack {name} (after a kill `ztconform sweep` does it; run {run.of(config).id})"
            interrupts = signals.Interrupts(config, what, signal.SIGTERM, signal.SIGINT, interrupted=True)
            try:
                stack = config.stash.get(_CHOSEN, None) or find(config, name)
                stack.finish(settings.of(config), failed=failed)
            finally:
                interrupts.restore()
    except ZtconformError as error:
        return str(error)
    finally:
        run.end(config)
    return ""


def controller_of(config: pytest.Config) -> int | None:
    """Return the process that started this one as its worker on the same machine, or None."""
    controller: int | None = _input(config).get("ztc_controller")
    return controller


def _input(config: pytest.Config) -> dict[str, Any]:
    told: dict[str, Any] = getattr(config, "workerinput", {})
    return told


def _asked(config: pytest.Config, stack: "Stack") -> str:
    stack.preflight(settings.of(config))
    return stack.name


def _choose(config: pytest.Config) -> "Stack":
    own = settings.of(config)
    name = _input(config).get("ztc_stack") or options.chosen_stack(config)
    if name is None and own.context:
        from ztconform.stacks.detect import detect

        found = detect(own)
        own.notify(f"context {own.context} runs the stack {found.stack} ({found.evidence})")
        name = found.stack
    return find(config, name or options.DEFAULT_STACK)


def _demand_fit(config: pytest.Config, stack: "Stack") -> None:
    """Raise UsageError for a stack that cannot be what the user's options are about."""
    own = settings.of(config)
    if own.context and not stack.shared:
        raise UsageError(f"--ztc-context {own.context}: the stack {stack.name} is made by each run and is no existing cluster")
    if stack.shared and own.folder is None:
        raise UsageError(f"the stack {stack.name} is shared by all workers: let xdist start them on this machine only")
    if stack.shared and own.worker and sys.platform == "win32":
        raise UsageError(f"the stack {stack.name} is shared, and Windows has no locks for its workers: leave out -n")


def _telling(own: "Settings", watch: Stopwatch) -> Callable[[str], None]:
    def notify(line: str) -> None:
        if line.startswith(_INSTALLS):
            watch.begin(_STACK)
        own.notify(line)

    return notify
