# SPDX-License-Identifier: Apache-2.0
"""What the sidecars' words on a round come to: causes that name the case's policies, and remarks on requests that passed.

Reading the logs is left to `proxylog`, and who dropped packets to the CNI's own log.
"""

from collections.abc import Mapping

from ztconform.evidence import Cause, Observation
from ztconform.kube.pods import KubePod
from ztconform.kube.policies import Policies
from ztconform.kube.profile import Journey, Probes
from ztconform.kube.proxylog import E, ProxyLogs, Sent, W, Word, unlogged
from ztconform.mesh.denial import Denial, policy_of
from ztconform.mesh.logentry import Entry
from ztconform.model import Attempt, Layer, Ref

ALLOW = "ALLOW"


class Witness:
    """Speak for the sidecars of one case."""

    def __init__(self, logs: ProxyLogs[Entry, Word], policies: Policies, root: str) -> None:
        """Take the namespace whose policies are in force in all others as `root`."""
        self._logs = logs
        self._policies = policies
        self._root = root

    def causes(self, sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> tuple[list[Cause], list[Journey]]:
        """Return who refused these, and of those whom their client's own proxy could not send, where it tried to connect."""
        words, lost = refusals(self._logs, sent, pods, since)
        return [self._cause(w.denial, pods) for w in words.values() if w.denial is not None], lost

    def remarks(self, sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> Mapping[str, frozenset[str]]:
        """Return what the servers' proxies remarked on requests that passed; one that none knows is left out."""
        words = passed(self._logs, sent, pods, since)
        return {nonce: self._remark(word, pods) for nonce, word in words.items() if word.served is not None}

    def _cause(self, denial: Denial, pods: Mapping[Ref, KubePod]) -> Cause:
        pod = pods.get(denial.pod) if denial.pod is not None else None
        explicit, named = False, tuple[str, ...]()
        if denial.layer == "l7" and denial.rule:
            explicit, named = True, (self._policies.known_as(policy_of(denial.rule)),)
        elif pod is not None:
            named = demanding(self._policies, pod, denial.layer, self._root)
        return Cause(
            nonce=denial.nonce,
            layer=denial.layer,
            policies=named,
            explicit=explicit,
            direction="",
            endpoint=denial.pod,
            source="access-log",
        )

    def _remark(self, word: Word, pods: Mapping[Ref, KubePod]) -> frozenset[str]:
        entry = word.served
        if entry is None:
            return frozenset()
        found = set() if entry.tls else {"plaintext"}
        rule = would_deny(entry)
        if rule:
            found.add(self._policies.known_as(policy_of(rule)))
        elif rule is not None and entry.pod in pods:
            real, wanted = pods[entry.pod].real, {"action": ALLOW}
            found |= set(self._policies.speaking_of(real, "AuthorizationPolicy", self._root, wanted, dry_run=True))
        return frozenset(found)


def would_deny(entry: Entry) -> str | None:
    """Return the dry-run rule that would have denied, "" where none would have allowed, None where they would have let pass."""
    denying = next((shadow for shadow in reversed(entry.shadows) if shadow.of != "audit" and shadow.denied), None)
    return None if denying is None else denying.rule


def refusals(
    logs: ProxyLogs[E, W], sent: Probes, pods: Mapping[Ref, KubePod], since: float, *, port: int = 0
) -> tuple[Mapping[str, W], list[Journey]]:
    """Return what the logs tell of these by nonce, and where the clients' own proxies tried to connect and could not.

    That was each probe's own port, unless one `port` is given to which all of them go.
    """
    asked = [made for a, o in sent.values() if not unlogged(o) and (made := sent_by(a, o, pods)) is not None]
    words = logs.words(asked, since) if asked else {}
    lost = [one for one in asked if one.client and words[one.observation.nonce].unreached]
    return words, [
        Journey(
            nonce=one.observation.nonce, source=one.client, targets=one.servers, port=port or one.attempt.probe.port, since=since
        )
        for one in lost
    ]


def passed(logs: ProxyLogs[E, W], sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> Mapping[str, W]:
    """Return by nonce what the logs tell of these, which passed."""
    return logs.words([made for a, o in sent.values() if (made := sent_by(a, o, pods)) is not None], since)


def demanding(policies: Policies, pod: KubePod, layer: Layer, root: str) -> tuple[str, ...]:
    """Return which of Istio's policies refuse at this layer what they do not admit to a pod; `root` as `Witness` has it."""
    kind, wanted = ("AuthorizationPolicy", {"action": ALLOW}) if layer == "l7" else ("PeerAuthentication", {})
    return policies.speaking_of(pod.real, kind, root, wanted, dry_run=False)


def sent_by(attempt: Attempt, observation: Observation, pods: Mapping[Ref, KubePod]) -> Sent | None:
    """Return a probe with the pods whose proxies it may have gone through; None where there are none, or it is no TCP."""
    source = pods.get(attempt.probe.source)
    servers = tuple(pod for ref in attempt.targets if (pod := pods.get(ref)) is not None and pod.workload.meshed)
    captured = source is not None and source.workload.meshed and not attempt.probe.past_proxy
    if attempt.probe.transport != "TCP" or not (servers or captured):
        return None
    return Sent(attempt=attempt, observation=observation, client=source if captured else None, servers=servers)
