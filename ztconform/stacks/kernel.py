# SPDX-License-Identifier: Apache-2.0
"""Whether the kernel that kind's nodes run on can do what a stack asks of it, found out by doing it where nothing is touched.

What a stack asks for is left to its components.
"""

import platform
import sys
from typing import TYPE_CHECKING

from ztconform.errors import ClusterError
from ztconform.stacks.component import Kernel

if TYPE_CHECKING:
    from ztconform.kube.docker import Docker

_CURE = "as root run `modprobe {0}`, or use a kernel that has it"
VXLAN = Kernel(what="VXLAN", link="vxlan", cure=_CURE.format("vxlan"))
# https://www.wireguard.com/install/: part of Linux since 5.6, where it was not left out.
WIREGUARD = Kernel(
    what="WireGuard",
    link="wireguard",
    cure=f"{_CURE.format('wireguard')} (Linux 5.6 or newer with CONFIG_WIREGUARD), or name the stack without :wireguard",
)


def demand(need: Kernel, daemon: "Docker") -> str:
    """Return what was seen, also where nothing can be; raises ClusterError, with the cure, where the kernel cannot do it."""
    if sys.platform != "linux" or daemon.kernel != platform.release():
        return f"not known: Docker runs on another kernel ({daemon.kernel})"
    from ztconform.lab import linktrial  # noqa: PLC0415 - needs Linux

    tried = linktrial.try_link(need.link)
    if tried.refused:
        raise ClusterError(f"this machine's kernel ({daemon.kernel}) has no {need.what} ({tried.why}): {need.cure}")
    return f"not known: {tried.why}" if tried.why else f"a link of the type {need.link} can be made"
