# SPDX-License-Identifier: Apache-2.0
"""Which of the stacks this machine can run, and what cures what it cannot; looking is left to the stacks."""

import platform
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ztconform.errors import EXIT_COULD_NOT_RUN, EXIT_PROVED, ZtconformError
from ztconform.settings import Settings

if TYPE_CHECKING:
    from ztconform.stacks import Stack
    from ztconform.stacks.examination import Check, Here

Say = Callable[[str], None]
_NEEDED = "lab"  # runs wherever ztconform does


def doctor(say: Say, settings: Settings) -> int:
    """Say of each listed stack whether it can run here, and the cure where it cannot; charts are not looked for.

    The exit code is 3 if the lab cannot.
    """
    from ztconform import stacks
    from ztconform.stacks import examination

    _greet(say)
    code = EXIT_PROVED
    here = examination.Here(settings)
    for name in stacks.names():
        if problem := _problem(stacks.find(name), settings, here):
            say(f"{name}: cannot run here: {problem}")
            code = EXIT_COULD_NOT_RUN if name == _NEEDED else code
        else:
            say(f"{name}: can run here")
    say("charts were not looked for: `ztconform doctor --stack NAME` does that")
    return code


def examine(say: Say, name: str, settings: Settings) -> int:
    """Say of everything that one stack needs whether it is there, in one line each, with the cure where it is not.

    The exit code is 3 if anything is not. Raises UsageError for a name that is no stack.
    """
    from ztconform import stacks
    from ztconform.stacks import examination
    from ztconform.stacks.kubernetes import KubernetesStack, extras

    stack = stacks.find(name)
    _greet(say)
    if not isinstance(stack, KubernetesStack):
        problem = _problem(stack, settings, examination.Here(settings))
        say(f"{name}: cannot run here: {problem}" if problem else f"{name}: can run here")
        return EXIT_COULD_NOT_RUN if problem else EXIT_PROVED
    failed: set[str] = set()
    for check in examination.of(stack, settings):
        if check.after in failed:
            failed.add(check.name)
            say(f"{check.name}: not looked at, for want of {check.after}")
            continue
        try:
            with extras():
                seen = check.look()
        except ZtconformError as error:
            failed.add(check.name)
            say(f"{check.name}: CANNOT RUN: {error}")
            continue
        say(f"{check.name}: {seen.text}")
        for warning in seen.warnings:
            say(f"{check.name}: warning: {warning}")
    say(f"{stack.name}: cannot run here" if failed else f"{stack.name}: can run here")
    return EXIT_COULD_NOT_RUN if failed else EXIT_PROVED


def permissions(say: Say, context: str, kubeconfig: Path | None) -> int:
    """Say what runs in an existing cluster, and what these credentials may not do there, with the role that permits it.

    The exit code is 3 if anything is missing. Raises ZtconformError where the cluster cannot be asked.
    """
    from ztconform.kube import access
    from ztconform.kube.client import connect
    from ztconform.stacks.detect import detect

    connection = connect(context, kubeconfig)
    told = access.report(connection)
    say(told.rstrip("\n"))
    found = detect(Settings(context=context, kubeconfig=kubeconfig))
    say(f"# it runs the stack {found.stack} ({found.evidence})")
    return EXIT_COULD_NOT_RUN if "not permitted" in told.splitlines()[0] else EXIT_PROVED


def _problem(stack: "Stack", settings: Settings, here: "Here") -> str:
    """Return why a stack cannot run here, with the cure, or ""."""
    from ztconform.stacks import examination
    from ztconform.stacks.kubernetes import KubernetesStack, extras

    try:
        if isinstance(stack, KubernetesStack):
            with extras():
                _look(examination.of(stack, settings, here, charts=False))
        else:
            stack.preflight(settings)
    except ZtconformError as error:
        return str(error)
    return ""


def _look(checks: "Iterable[Check]") -> None:
    for check in checks:
        check.look()


def _greet(say: Say) -> None:
    say(f"Python {platform.python_version()} ({sys.executable}) on {platform.system()} {platform.release()}")
