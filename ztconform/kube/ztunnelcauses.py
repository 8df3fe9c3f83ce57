# SPDX-License-Identifier: Apache-2.0
"""What the ztunnels of the nodes say of a round: who refused a probe, who was not reached, and who came in plaintext.

They know connections alone. A client's own is known by the port that it left from. In the tunnel to the server's ztunnel it
shares another: there the policy is found among those that refused this client at this port, and named only if they agree.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ztconform.evidence import Cause
from ztconform.kube.meshcauses import demanding, passed, refusals
from ztconform.kube.pods import KubePod, is_ending
from ztconform.kube.policies import Policies
from ztconform.kube.profile import Journey, Probes
from ztconform.kube.proxylog import Place, ProxyLogs, Sent, address
from ztconform.kube.resources import Resources
from ztconform.mesh.logentry import Address
from ztconform.mesh.ztunnellog import Line, Rejection
from ztconform.model import Ref

CONTAINER = "istio-proxy"  # of manifests/charts/ztunnel
HBONE = 15008  # where a tunnel goes, whatever its client asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Hold what the logs say of one probe."""

    known: bool  # whether its whole way was found
    denial: tuple[Ref, Rejection] | None = None  # the pod whose ztunnel refused it, and why
    served: Line | None = None
    unreached: bool = False  # the client's own ztunnel could not connect


class Witness:
    """Speak for the ztunnels in one case."""

    def __init__(self, logs: ProxyLogs[Line, Word], policies: Policies, root: str) -> None:
        """Take the namespace whose policies are in force in all others as `root`."""
        self._logs = logs
        self._policies = policies
        self._root = root

    def causes(self, sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> tuple[list[Cause], list[Journey]]:
        """Return who refused these, and of those whom their client's own ztunnel could not send, where it tried to connect."""
        words, lost = refusals(self._logs, sent, pods, since, port=HBONE)
        return [self._cause(nonce, *word.denial, pods) for nonce, word in words.items() if word.denial is not None], lost

    def remarks(self, sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> Mapping[str, frozenset[str]]:
        """Return what the ztunnels remarked on connections that passed; one that none knows is left out."""
        words = passed(self._logs, sent, pods, since)
        return {n: frozenset({"plaintext"} if word.served.plaintext else ()) for n, word in words.items() if word.served}

    def _cause(self, nonce: str, endpoint: Ref, rejection: Rejection, pods: Mapping[Ref, KubePod]) -> Cause:
        pod, named = pods.get(endpoint), tuple[str, ...]()
        if rejection.policy is not None:
            named = (self._policies.known_as(rejection.policy),)
        elif pod is not None:
            named = demanding(self._policies, pod, rejection.layer, self._root)
        return Cause(
            nonce=nonce,
            layer=rejection.layer,
            policies=named,
            explicit=rejection.policy is not None,
            direction="",
            endpoint=endpoint,
            source="access-log",
        )


@dataclass(frozen=True, slots=True)
class Ztunnels:
    """Find the log of each pod's ztunnel, which is its node's."""

    resources: Resources
    nodes: Sequence[str]  # those that are used, as pods count them
    selector: str

    def __call__(self, pods: Collection[KubePod]) -> Mapping[Place, Sequence[KubePod]]:
        """Return these pods by where their log is; a pod whose node has no ztunnel is left out."""
        there = {
            item["spec"].get("nodeName"): Place(item["metadata"]["namespace"], item["metadata"]["name"], CONTAINER)
            for item in self.resources.items("/api/v1/pods", labelSelector=self.selector)
            if not is_ending(item)
        }
        found: dict[Place, list[KubePod]] = {}
        for pod in pods:
            place = there.get(self.nodes[pod.node]) if pod.node is not None else None
            if place is not None:
                found.setdefault(place, []).append(pod)
        return found


def word(sent: Sent, lines: Sequence[Line]) -> Word:
    """Return what lines say of a probe; pure."""
    servers, port = {pod.ref for pod in sent.servers}, sent.attempt.probe.port
    source = address(sent.observation.source)
    came = [line for line in lines if line.inward and line.pod in servers and line.server is not None and line.server[1] == port]
    if sent.client is None:
        line = _one(line for line in came if line.client == source)
        if line is None:
            return Word(known=False)
        return Word(known=True, denial=_denial(line), served=None if line.error else line)
    line = _one(line for line in lines if not line.inward and line.pod == sent.client.ref and line.client == source)
    if line is None:
        return Word(known=False)
    if line.unreached:
        return Word(known=True, unreached=True)
    if line.refused:
        return _refused(sent.client, [one for one in came if not one.plaintext])
    return Word(known=True, served=None if line.error else line)


def _refused(client: KubePod, came: Iterable[Line]) -> Word:
    """Return who refused what a client's ztunnel heard to be refused: not known where two policies, or pods, may have."""
    found = {denial for line in came if _host(line.client) in client.addresses and (denial := _denial(line)) is not None}
    return Word(known=True, denial=found.pop()) if len(found) == 1 else Word(known=False)


def _denial(line: Line) -> tuple[Ref, Rejection] | None:
    return None if line.rejection is None else (line.pod, line.rejection)


def _host(address: Address | None) -> str:
    return address[0] if address is not None else ""


def _one(lines: Iterable[Line]) -> Line | None:
    """Return the only line there is: two connections of one port could be either."""
    found = list(lines)
    return found[0] if len(found) == 1 else None
