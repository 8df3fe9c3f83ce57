# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can run the lab, found out by doing what the lab does, in a process of its own that ends at once.

What a cluster needs is left to its stack.
"""

import os
import sys

from ztconform.errors import ClusterError

# linux/netfilter/nfnetlink.h, nf_tables.h, nfnetlink_log.h; subsystem and message
NFT_GETGEN = 10 << 8 | 16
NFULNL_CONFIG = 4 << 8 | 1
NFULA_CFG_CMD, NFULNL_CFG_CMD_BIND = 1, 1

_WITHIN = 20.0  # seconds; 30 ms are usual, loading kernel modules for the first time takes longer
_HERE = os.path.dirname(os.path.abspath(__file__))
# The packages' own __init__ may import all of ztconform, which takes longer than the trial: they are replaced by empty ones.
_PROGRAM = f"""
import sys, types
for name, path in (("ztconform", {os.path.dirname(_HERE)!r}), ("ztconform.lab", {_HERE!r})):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from ztconform.lab import preflight
sys.exit(preflight.trial())
"""


def check() -> None:
    """Return if the lab can run here; raise ClusterError saying in one line why not, and what to do."""
    if sys.platform != "linux":
        name = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
        use = "WSL2" if sys.platform == "win32" else "a Linux virtual machine"
        raise ClusterError(f"the lab needs Linux and this is {name}: use {use}, or a real cluster (STACK=, --ztc-stack)")
    import subprocess  # noqa: PLC0415  half as expensive as all of the trial, which imports this module too

    # Never forked from here, for the caller may have threads; isolated and without site, which is most of the start-up.
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_WITHIN, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"trying the lab's namespaces took more than {_WITHIN:.0f} s: is this machine overloaded?") from error
    except OSError as error:
        raise ClusterError(f"cannot start {sys.executable} to try the lab's namespaces: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stdout.strip() or done.stderr.strip() or f"exit code {done.returncode}").splitlines()
        raise ClusterError(f"the lab cannot run here: {said[-1]}")


def trial() -> int:
    """Do in small all that the lab asks of a kernel; return an exit code and print the reason of a failure."""
    from ztconform.lab import sandbox  # noqa: PLC0415  ctypes is loaded in the process that tries, never in the caller's

    try:
        sandbox.enter()
        _exercise()
    except ClusterError as error:
        print(error)
        return 1
    return 0


def _exercise() -> None:
    """Use the parts of the kernel that not every one has; what is missing shows by name, here or when a ruleset is loaded."""
    from ztconform.lab import netlink, netns, rtnetlink  # noqa: PLC0415  as above

    if not os.path.exists("/proc/sys/net/ipv6"):
        raise ClusterError("this kernel has IPv6 switched off: start it without ipv6.disable=1")
    here, there = netns.own(), netns.create()
    netns.sysctl(here, "net.ipv4.ip_forward", 1)
    near, far = rtnetlink.End(here, "a", 10, b"\2\0\0\0\0\1"), rtnetlink.End(there, "b", 11, b"\2\0\0\0\0\2")
    version_0 = bytes(4)  # nfgenmsg
    bind = version_0 + netlink.attribute(NFULA_CFG_CMD, bytes([NFULNL_CFG_CMD_BIND]))
    trials = (
        ("veth", netlink.NETLINK_ROUTE, rtnetlink.veth(near, far)),
        ("nf_tables", netlink.NETLINK_NETFILTER, netlink.Message(NFT_GETGEN, 0, version_0, "nf_tables")),
        ("nfnetlink_log", netlink.NETLINK_NETFILTER, netlink.Message(NFULNL_CONFIG, 0, bind, "a flow log")),
    )
    for module, protocol, message in trials:
        try:
            with netlink.Netlink(here, protocol) as kernel:
                kernel.batch([message])
        except ClusterError as error:
            cure = f"as root run `modprobe {module}`, or use a kernel that has it"
            raise ClusterError(f"this kernel lacks {module} ({error}): {cure}") from error
