# SPDX-License-Identifier: Apache-2.0
"""Which stack an existing cluster runs, read from what runs there: by components and their images, for CRDs outlive an uninstall.

A CNI that no stack of ours stands for is `custom`, and named. The user may say otherwise by --ztc-stack.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ztconform.settings import Settings
from ztconform.stacks import custom
from ztconform.stacks.component import Found
from ztconform.stacks.composed import components
from ztconform.stacks.composition import PARTS, compose, is_valid
from ztconform.stacks.kubernetes import extras

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.inventory import Rollout

# Name of a DaemonSet -> whose it is.
_KNOWN = {
    "anetd": "GKE Dataplane V2",
    "antrea-agent": "Antrea",
    "aws-node": "Amazon VPC CNI",
    "calico-node": "Calico",
    "canal": "Canal",
    "kindnet": "kindnet",
    "kube-flannel-ds": "Flannel",
    "kube-router": "kube-router",
    "ovnkube-node": "OVN-Kubernetes",
    "weave-net": "Weave Net",
}


@dataclass(frozen=True, slots=True)
class Detected:
    """Name the stack that runs, and by what it was known."""

    stack: str
    evidence: str


def detect(settings: Settings) -> Detected:
    """Return the stack of the cluster of `settings.context`; raises UsageError or ClusterError if it cannot be asked."""
    with extras():
        from ztconform.kube.client import connect  # noqa: PLC0415 - the extra may be missing

        return of(connect(settings.context, settings.kubeconfig))


def of(connection: "Connection") -> Detected:
    """Return the stack of a cluster: of the components that run there, as many as make a stack, the CNI first."""
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    running = {part.name: found for part in components() if (found := part.found(connection))}
    return composed(running, cni_among(inventory.daemon_sets(connection)))


def composed(running: Mapping[str, Found], unknown: str) -> Detected:
    """Return the stack that these components make; `unknown` tells of a CNI that none of them is."""
    parts: list[str] = []
    options: set[str] = set()
    beside: list[str] = []
    for name in PARTS:
        if (found := running.get(name)) is None:
            continue
        if is_valid([*parts, name], frozenset(options | found.options)):
            parts.append(name)
            options |= found.options
        else:
            beside.append(f"beside it {found.evidence}")
    if not parts:
        return Detected(custom.STACK.name, "; ".join([unknown, *beside]))
    return Detected(compose(parts, frozenset(options)).name, "; ".join([*(running[name].evidence for name in parts), *beside]))


def cni_among(daemon_sets: Sequence["Rollout"]) -> str:
    """Return which CNI no stack stands for runs, by its DaemonSet, as far as it is known."""
    for one in daemon_sets:
        if one.name in _KNOWN:
            return f"{_KNOWN[one.name]}: daemonset {one.namespace}/{one.name} ({one.images[0]})"
    return "no daemonset of a known CNI"
