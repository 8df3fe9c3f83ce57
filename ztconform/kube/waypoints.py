# SPDX-License-Identifier: Apache-2.0
"""Waypoints: the proxies of their own by which an ambient mesh judges requests, awaited, and asked whom they refused.

A request that was answered behind a Service with a waypoint is looked for in its log, by the nonce. What it never saw is for the
nodes' proxies to tell.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ztconform.evidence import Cause, Observation
from ztconform.kube.meshcauses import ALLOW, sent_by, would_deny
from ztconform.kube.pods import KubePod, is_ending, lacking
from ztconform.kube.policies import Policies
from ztconform.kube.profile import Journey, Probes
from ztconform.kube.profile import Witness as Beneath
from ztconform.kube.proxylog import Place, ProxyLogs, Sent, Word
from ztconform.kube.resources import Resources
from ztconform.kube.waiting import Found, until
from ztconform.mesh.denial import of_request, policy_of
from ztconform.mesh.logentry import Entry
from ztconform.model import Attempt, Ref
from ztconform.proof.plan import service_of

CONTAINER = "istio-proxy"  # of the template from which Istio makes a waypoint's pods
_OF_GATEWAY = "gateway.networking.k8s.io/gateway-name"  # the label of a gateway's pods
_GATEWAYS = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/gateways"
_POLICY = "AuthorizationPolicy"
_READY = 120.0  # seconds: its image may have to be pulled


def await_ready(resources: Resources, namespace: str, name: str) -> None:
    """Wait until a namespace's waypoint serves; raises ClusterError with what it lacks."""

    def unprogrammed(found: Found) -> str:
        gateway = found.get(name)
        if gateway is None:
            return "not there"
        conditions = {one["type"]: one for one in (gateway.get("status") or {}).get("conditions") or []}
        programmed = conditions.get("Programmed") or {}
        return "" if programmed.get("status") == "True" else f"not programmed ({programmed.get('message') or 'no word of it'})"

    def unready(found: Found) -> str:
        return next(filter(None, map(lacking, found.values())), "") if found else "without a pod"

    what = f"waiting for the waypoint in namespace {namespace}"
    until(resources, f"/api/v1/namespaces/{namespace}/pods", unready, what=what, seconds=_READY, labelSelector=_selector(name))
    until(resources, _GATEWAYS.format(namespace), unprogrammed, what=what, seconds=_READY, fieldSelector=f"metadata.name={name}")


def _selector(name: str) -> str:
    return f"{_OF_GATEWAY}={name}"


class Witness:
    """Speak for the waypoints of one case, and for the proxies beneath them."""

    def __init__(self, logs: ProxyLogs[Entry, Word], policies: Policies, beneath: Beneath) -> None:
        self._logs = logs
        self._policies = policies
        self._beneath = beneath

    def causes(self, sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> tuple[list[Cause], list[Journey]]:
        """Return who refused these, and of those whom their client's own proxy could not send, where it tried to connect."""
        led = through(sent, pods)
        found = []
        for nonce, word in self._words(led, since).items():
            if word.denial is not None:
                found.append(self._cause(led[nonce], nonce, word.denial.rule))
        causes, lost = self._beneath.causes({n: pair for n, pair in sent.items() if n not in led}, pods, since)
        return [*found, *causes], lost

    def remarks(self, sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> Mapping[str, frozenset[str]]:
        """Return what was remarked on requests that passed; one that none knows is left out."""
        led = through(sent, pods)
        words = self._words(led, since)
        told = {n: self._remark(led[n], word.served) for n, word in words.items() if word.served is not None}
        return {**self._beneath.remarks({n: pair for n, pair in sent.items() if n not in led}, pods, since), **told}

    def _words(self, led: Mapping[str, Sent], since: float) -> Mapping[str, Word]:
        return self._logs.words(led.values(), since) if led else {}

    def _cause(self, sent: Sent, nonce: str, rule: str) -> Cause:
        named = (self._name(rule),) if rule else self._bound(sent, dry_run=False)
        return Cause(
            nonce=nonce,
            layer="l7",
            policies=named,
            explicit=bool(rule),
            direction="",
            endpoint=service_of(sent.attempt.probe),
            source="access-log",
        )

    def _remark(self, sent: Sent, entry: Entry) -> frozenset[str]:
        rule = would_deny(entry)
        if rule is None:
            return frozenset()
        return frozenset({self._name(rule)} if rule else self._bound(sent, dry_run=True))

    def _name(self, rule: str) -> str:
        return self._policies.known_as(policy_of(rule))

    def _bound(self, sent: Sent, *, dry_run: bool) -> tuple[str, ...]:
        service = Ref(sent.servers[0].real.namespace, service_of(sent.attempt.probe).name)
        return self._policies.bound_to(service, _POLICY, {"action": ALLOW}, dry_run=dry_run)


def through(sent: Probes, pods: Mapping[Ref, KubePod]) -> dict[str, Sent]:
    """Return those that were answered behind a waypoint, by nonce: what was not answered never was a request to it."""
    found = {nonce: _led(attempt, observation, pods) for nonce, (attempt, observation) in sent.items()}
    return {nonce: one for nonce, one in found.items() if one is not None}


def _led(attempt: Attempt, observation: Observation, pods: Mapping[Ref, KubePod]) -> Sent | None:
    """Return a probe that its client's own proxy took to a waypoint; None for any other."""
    made, probe = sent_by(attempt, observation, pods), attempt.probe
    by_service = probe.via is None and probe.address in ("service", "name")  # no other Service has one
    if made is None or made.client is None or observation.signal != "answered" or not by_service:
        return None
    return made if any(pod.workload.waypoint for pod in made.servers) else None


@dataclass(frozen=True, slots=True)
class Waypoints:
    """Find the logs of the waypoints that lead to pods."""

    resources: Resources
    name: str

    def __call__(self, pods: Collection[KubePod]) -> Mapping[Place, Sequence[KubePod]]:
        """Return the containers that are waypoints of these pods' namespaces, each with one of the pods."""
        found: dict[Place, list[KubePod]] = {}
        for namespace, pod in {pod.real.namespace: pod for pod in pods if pod.workload.waypoint}.items():
            there = self.resources.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=_selector(self.name))
            found.update(
                {Place(namespace, str(one["metadata"]["name"]), CONTAINER): [pod] for one in there if not is_ending(one)}
            )
        return found


def word(sent: Sent, entries: Iterable[Entry]) -> Word:
    """Return what entries of waypoints say of a request; pure."""
    nonce = sent.observation.nonce
    found = [entry for entry in entries if entry.nonce == nonce]
    if len(found) != 1:
        return Word(known=False)
    return Word(known=True, denial=of_request(found[0], nonce), served=found[0])
