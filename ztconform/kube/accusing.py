# SPDX-License-Identifier: Apache-2.0
"""Who refused the probes of a round, or would have, by the CNI's own log and by the mesh's proxies together.

Reading either is left to its own module; the CNI's log is opened when there is a case, and anew once it has lost something.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ztconform.evidence import Cause
from ztconform.kube.causes import causes
from ztconform.kube.client import Connection
from ztconform.kube.meshing import Meshing
from ztconform.kube.pods import KubePod
from ztconform.kube.policies import Policies
from ztconform.kube.profile import Drop, FlowLog, Journey, Probes
from ztconform.kube.proxylog import address, unlogged
from ztconform.model import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Hold probes of a round, by nonce, and the case that they were sent in."""

    sent: Probes
    pods: Mapping[Ref, KubePod]
    policies: Policies
    meshing: Meshing | None
    since: float  # when the round began

    def journeys(self, *, lost: bool = False) -> Iterator[Journey]:
        """Yield how they went, if `lost` only of those whose packets may have been dropped on their way.

        What proxies answer for never was a packet of the client's own to its server.
        """
        for attempt, observation in self.sent.values():
            if not lost or self.meshing is None or unlogged(observation):
                servers = (self.pods.get(ref) for ref in attempt.targets)
                yield Journey(
                    nonce=observation.nonce,
                    source=self.pods.get(attempt.probe.source),
                    targets=tuple(pod for pod in servers if pod is not None),
                    port=attempt.probe.port,
                    transport=attempt.probe.transport,
                    packet=address(observation.source),
                    since=self.since,
                )


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

    def changed(self) -> None:
        """Take it that policies change from now on."""
        if self._flows is not None:
            self._flows.changed()

    def close(self) -> None:
        """Stop listening."""
        if self._flows is not None:
            self._flows.close()
            self._flows = None

    def remarks(self, asked: Asked, *, audited: bool) -> Mapping[str, frozenset[str]] | None:
        """Return what was logged of requests that passed, by the CNI only where it audits; None once its log has lost events."""
        found = {} if asked.meshing is None else dict(asked.meshing.witness.remarks(asked.sent, asked.pods, asked.since))
        if self._flows is None or not audited:
            return found
        passed = self._flows.audited(list(asked.journeys()))
        if passed is None:
            return None
        for cause in _causes(self._flows, passed, asked):
            found[cause.nonce] = found.get(cause.nonce, frozenset()) | set(cause.policies)
        return found

    def causes(self, asked: Asked) -> Sequence[Cause] | None:
        """Return who refused these; None once the CNI's log has lost events."""
        found, tries = list[Cause](), list[Journey]()
        if asked.meshing is not None:
            found, tries = asked.meshing.witness.causes(asked.sent, asked.pods, asked.since)
        if self._flows is None:
            return found
        drops, tried = self._flows.drops(list(asked.journeys(lost=True))), self._flows.between(tries)
        if drops is None or tried is None:
            return None
        return [*found, *_causes(self._flows, [*drops, *tried], asked)]


def _causes(flows: FlowLog, drops: Sequence[Drop], asked: Asked) -> list[Cause]:
    return causes(drops, asked.pods.values(), asked.policies.selecting, asked.policies.said, source=flows.name)
