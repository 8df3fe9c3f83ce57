# SPDX-License-Identifier: Apache-2.0
"""What this machine can do, and what runs may have left on it."""

import platform
import sys
from collections.abc import Callable

from ztconform.errors import EXIT_COULD_NOT_RUN, EXIT_PROVED, ZtconformError

Say = Callable[[str], None]


def doctor(say: Say) -> int:
    """Say of each stack whether it can run here, and the cure where it cannot; the exit code is 3 if any cannot."""
    from ztconform import stacks

    say(f"Python {platform.python_version()} ({sys.executable}) on {platform.system()} {platform.release()}")
    code = EXIT_PROVED
    for name in stacks.names():
        try:
            stacks.find(name).preflight()
        except ZtconformError as error:
            say(f"{name}: cannot run here: {error}")
            code = EXIT_COULD_NOT_RUN
        else:
            say(f"{name}: can run here")
    return code


def stacks(say: Say) -> int:
    """List the stacks, each with what it is."""
    from ztconform import stacks as known

    names = known.names()
    width = max(map(len, names))
    for name in names:
        say(f"{name:<{width}}  {known.find(name).summary}")
    return EXIT_PROVED


def sweep(say: Say) -> int:
    """Say why there is nothing to sweep: the lab cannot outlive the run that started it."""
    say("nothing to sweep: the lab's namespaces, addresses and rules belong to a process that ends with the run that started it")
    return EXIT_PROVED
