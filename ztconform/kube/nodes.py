# SPDX-License-Identifier: Apache-2.0
"""Which nodes of a cluster our pods may stand on, and which were left out and why; pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ztconform.errors import ClusterError, UsageError
from ztconform.settings import PodOptions

_TAINTED = "tainted "
_FOR_NOW = ("not Ready", "not fit for pods now")  # what may pass by itself
# Put on a node, and taken away again, by the cluster itself, while pods of others run there: by the node controller
# (https://kubernetes.io/docs/reference/labels-annotations-taints/), or by Cilium's operator until the node's agent is ready.
_PASSING = ("node.kubernetes.io/", "node.cilium.io/agent-not-ready")


@dataclass(frozen=True, slots=True)
class Nodes:
    """Hold the nodes that are used, in the order of their names, and the others with the reason."""

    used: tuple[str, ...]
    left_out: Mapping[str, str]
    addresses: Mapping[str, str]  # of every node: its internal address
    pod_networks: Mapping[str, tuple[str, ...]]  # of every node, as far as the cluster says

    def missing(self) -> Mapping[str, str]:
        """Return the nodes that hold pods of others and were not tested, with the reason; tainted ones hold none by default."""
        return {name: why for name, why in self.left_out.items() if not why.startswith(_TAINTED)}


def choose(listed: Sequence[Mapping[str, Any]], wanted: Collection[str], options: PodOptions) -> Nodes:
    """Return the nodes to use: those named, or every one on which our pods can be scheduled.

    Raises UsageError for a name that there is not, and ClusterError where no node is left.
    """
    by_name = {node["metadata"]["name"]: node for node in listed}
    unknown = sorted(set(wanted) - set(by_name))
    if unknown:
        raise UsageError(f"--ztc-nodes: the cluster has no node {unknown[0]}; it has {', '.join(sorted(by_name)) or 'none'}")
    left_out = _left_out(by_name, wanted, options)
    used = tuple(sorted(set(by_name) - set(left_out)))
    if not used:
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(left_out.items()))
        raise ClusterError(f"the cluster has no node for our pods ({reasons or 'it has none at all'})")
    return Nodes(
        used=used,
        left_out=left_out,
        addresses={name: _address(node) for name, node in by_name.items()},
        pod_networks={name: tuple(node["spec"].get("podCIDRs") or ()) for name, node in by_name.items()},
    )


def recovering(listed: Sequence[Mapping[str, Any]], wanted: Collection[str], options: PodOptions) -> str:
    """Return which node is left out for a reason that may pass by itself, and which; "" if there is none."""
    left_out = _left_out({node["metadata"]["name"]: node for node in listed}, wanted, options)
    return next((f"node {name} is {why}" for name, why in left_out.items() if why.startswith(_FOR_NOW)), "")


def _left_out(by_name: Mapping[str, Mapping[str, Any]], wanted: Collection[str], options: PodOptions) -> dict[str, str]:
    reasons = {
        name: _unusable(node, options) if not wanted or name in wanted else "not named by --ztc-nodes"
        for name, node in by_name.items()
    }
    return {name: why for name, why in reasons.items() if why}


def _unusable(node: Mapping[str, Any], options: PodOptions) -> str:
    spec, labels = node.get("spec") or {}, node["metadata"].get("labels") or {}
    if spec.get("unschedulable"):
        return f"{_TAINTED}by kubectl cordon"
    taints = [
        taint
        for taint in spec.get("taints") or []
        if taint["effect"] in ("NoSchedule", "NoExecute") and not any(_tolerates(t, taint) for t in options.tolerations)
    ]
    for taint in taints:
        if not taint["key"].startswith(_PASSING):
            return f"{_TAINTED}{taint['key']}:{taint['effect']}, which --ztc-toleration tolerates"
    if any(labels.get(key) != value for key, value in options.node_selector.items()):
        return "not selected by --ztc-node-selector"
    conditions = (node.get("status") or {}).get("conditions") or []
    if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
        return "not Ready"
    return f"not fit for pods now ({taints[0]['key']})" if taints else ""


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return bool(toleration.get("key") == taint["key"]) and toleration.get("value", "") == taint.get("value", "")


def _address(node: Mapping[str, Any]) -> str:
    found = (node.get("status") or {}).get("addresses") or []
    return next((a["address"] for a in found if a["type"] == "InternalIP"), "")
