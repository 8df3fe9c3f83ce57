# SPDX-License-Identifier: Apache-2.0
"""Who refused the probes of a round, or would have, by the CNI's own log and by the mesh's proxies together.

Reading either is left to its own module; the CNI's log is opened when there is a case, and anew once it has lost something.
"""

from collections.abc import Callable, Mapping, Sequence

from ztconform.evidence import Cause, Observation
from ztconform.kube.causes import causes
from ztconform.kube.client import Connection
from ztconform.kube.meshing import Meshing
from ztconform.kube.pods import KubePod
from ztconform.kube.policies import Policies
from ztconform.kube.profile import Flight, FlowLog
from ztconform.kube.proxylog import unlogged
from ztconform.model import Attempt, Ref


class Accusing:
    """Hold the CNI's log."""

    def __init__(self, connection: Connection, flows: Callable[[Connection], FlowLog] | None) -> None:
        self._connection = connection
        self._begin = flows
        self._flows: FlowLog | None = None

    def listen(self) -> None:
        """Listen from now on, so that the first denial of a case is heard; what was lost before was another case's."""
        if self._flows is not None and self._flows.lost:
            self.close()
        if self._flows is None and self._begin is not None:
            self._flows = self._begin(self._connection)

    def close(self) -> None:
        """Stop listening."""
        if self._flows is not None:
            self._flows.close()
            self._flows = None

    def remarks(
        self,
        sent: Mapping[str, tuple[Attempt, Observation]],
        pods: Mapping[Ref, KubePod],
        policies: Policies,
        meshing: Meshing | None,
        since: float,
        *,
        audited: bool,
    ) -> Mapping[str, frozenset[str]] | None:
        """Return what was logged of requests that passed, by the CNI only where it audits; None once its log has lost events."""
        found = {} if meshing is None else dict(meshing.witness.remarks(sent, pods, since))
        if self._flows is None or not audited:
            return found
        passed = self._flows.audited([o for _, o in sent.values()])
        if passed is None:
            return None
        for cause in causes(passed, pods.values(), policies.selecting, policies.said):
            found[cause.nonce] = found.get(cause.nonce, frozenset()) | set(cause.policies)
        return found

    def causes(
        self,
        sent: Mapping[str, tuple[Attempt, Observation]],
        pods: Mapping[Ref, KubePod],
        policies: Policies,
        meshing: Meshing | None,
        since: float,
    ) -> Sequence[Cause] | None:
        """Return who refused these, sent since an instant; None once the CNI's log has lost events."""
        found, flights = list[Cause](), list[Flight]()
        if meshing is not None:
            found, flights = meshing.witness.causes(sent, pods, since)
        if self._flows is None:
            return found
        # What proxies answer for never was a packet of the client's own to its server.
        lost = [o for _, o in sent.values() if meshing is None or unlogged(o)]
        drops, tried = self._flows.drops(lost), self._flows.between(flights)
        if drops is None or tried is None:
            return None
        return [*found, *causes([*drops, *tried], pods.values(), policies.selecting, policies.said)]
