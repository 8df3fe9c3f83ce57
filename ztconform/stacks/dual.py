# SPDX-License-Identifier: Apache-2.0
"""What IPv4 and IPv6 side by side ask of kind, and how a cluster is known to have both; a CNI's own part is left to it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ztconform.kube.client import Connection

# kind's own defaults for a cluster of both (pkg/apis/config/defaults), said since ours name the IPv4 range.
NEEDS: Mapping[str, Any] = MappingProxyType({"networking": {"ipFamily": "dual", "podSubnet": "10.244.0.0/16,fd00:10:244::/56"}})
NOT_PROBED = "IPv6 is not probed on real clusters yet"


def is_dual(connection: "Connection") -> bool:
    """Return whether nodes have ranges of pod addresses of both families."""
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    return any(len(node.ranges) > 1 for node in inventory.nodes(connection))
