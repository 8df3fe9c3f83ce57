# SPDX-License-Identifier: Apache-2.0
"""Whether this kernel can make a link of some type, found out by making one in a network namespace that ends at once.

What that type is needed for is left to whoever asks.
"""

import os
import subprocess
import sys
from typing import NamedTuple

from ztconform.errors import ClusterError
from ztconform.lab import netlink, netns, rtnetlink, sandbox

_WITHIN = 20.0  # seconds; loading a kernel module for the first time takes a while
_REFUSED, _NOT_TRIED = 3, 4  # exit codes of the process that tries


class Tried(NamedTuple):
    """Tell how it went: refused by the kernel, or not tried at all, with the reason; neither where it was made."""

    refused: bool
    why: str


def try_link(kind: str) -> Tried:
    """Return whether a link of a type can be made, tried in a process of its own, for the caller may have threads."""
    command = [sys.executable, "-P", "-m", "ztconform.lab.linktrial", kind]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        return Tried(False, f"making a link took more than {_WITHIN:.0f} s")
    said = (done.stdout.strip() or done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return Tried(done.returncode == _REFUSED, "" if done.returncode == 0 else said)


def trial(kind: str) -> int:
    """Make a link in namespaces that end with this process; return an exit code, and print why it failed."""
    try:
        sandbox.enter()
        here = netns.own()
    except (ClusterError, OSError) as error:
        print(error)
        return _NOT_TRIED
    try:
        with netlink.Netlink(here, netlink.NETLINK_ROUTE) as kernel:
            kernel.batch([rtnetlink.link("trial", kind)])
    except ClusterError as error:
        print(error)
        return _REFUSED
    finally:
        os.close(here)
    return 0


if __name__ == "__main__":
    sys.exit(trial(sys.argv[1]))
