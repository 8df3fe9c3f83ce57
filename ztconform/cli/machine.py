# SPDX-License-Identifier: Apache-2.0
"""Which stacks there are, and which of them this machine can run; asking is left to the stacks."""

import platform
import sys
from collections.abc import Callable
from pathlib import Path

from ztconform.errors import EXIT_COULD_NOT_RUN, EXIT_PROVED, ZtconformError
from ztconform.settings import Settings

Say = Callable[[str], None]
_NEEDED = "lab"  # runs wherever ztconform does


def doctor(say: Say, chosen: str | None = None) -> int:
    """Say of each stack whether it can run here, and the cure where it cannot.

    The exit code is 3 if the chosen one cannot, or the lab. Raises UsageError for a choice that is no stack.
    """
    from ztconform import stacks

    if chosen is not None:
        stacks.find(chosen)
    say(f"Python {platform.python_version()} ({sys.executable}) on {platform.system()} {platform.release()}")
    code = EXIT_PROVED
    for name in stacks.names():
        if problem := _problem(name):
            say(f"{name}: cannot run here: {problem}")
            code = EXIT_COULD_NOT_RUN if name in (chosen, _NEEDED) else code
        else:
            say(f"{name}: can run here")
    return code


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


def _problem(name: str) -> str:
    """Return why a stack cannot run here, with the cure, or ""."""
    from ztconform import stacks

    try:
        stacks.find(name).preflight(Settings())
    except ZtconformError as error:
        return str(error)
    return ""


def stacks(say: Say) -> int:
    """List the stacks, each with what it is."""
    from ztconform import stacks as known

    names = known.names()
    width = max(map(len, names))
    for name in names:
        say(f"{name:<{width}}  {known.find(name).summary}")
    return EXIT_PROVED
