# SPDX-License-Identifier: Apache-2.0
"""Which of a case's pods the CNI only audits, kept as a step wants it; how a CNI is told is for its stack."""

from collections.abc import Collection

from ztconform.kube.client import Connection
from ztconform.kube.nodes import Nodes
from ztconform.kube.pods import KubePod
from ztconform.kube.profile import Audit
from ztconform.kube.resources import Identity
from ztconform.model import Ref


class Auditing:
    """Hold which pods of one case are audited."""

    def __init__(self, connection: Connection, audit: Audit | None, nodes: Nodes) -> None:
        self._connection, self._audit, self._nodes = connection, audit, nodes
        self._audited: set[Identity] = set()

    def __bool__(self) -> bool:
        """Return whether any pod is audited."""
        return bool(self._audited)

    def hold(self, workloads: Collection[Ref], pods: Collection[KubePod]) -> None:
        """Have policies only logged for the pods of these workloads, and enforced for all others that there are.

        Raises ClusterError where the CNI does not take it.
        """
        if self._audit is None:
            return
        wanted = {pod.identity for pod in pods if pod.workload.ref in workloads and pod.identity is not None}
        for on, changed in ((False, self._audited - wanted), (True, wanted - self._audited)):
            placed = {p.real: self._nodes.used[p.node] for p in pods if p.identity in changed and p.node is not None}
            if placed:
                self._audit(self._connection, placed, on)
        self._audited = wanted
