# SPDX-License-Identifier: Apache-2.0
"""What the lab's own logs say of who denied a probe, as causes that name policies; reading the logs is the child process's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ztconform.evidence import Cause, Observation
from ztconform.lab import isolation
from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh import attribution
from ztconform.lab.mesh.authorizationpolicy import AuthorizationPolicy
from ztconform.lab.mesh.peerauthentication import PeerAuthentication
from ztconform.lab.mesh.rbac import applying
from ztconform.lab.mesh.upstreams import CONNECT_TIMEOUT
from ztconform.lab.networkpolicy import NetworkPolicy
from ztconform.lab.state import State
from ztconform.mesh.denial import policy_of
from ztconform.model import Attempt, Ref

_READ_LATE = 0.05  # seconds by which an event of the firewall's log may be read after the probe has ended


@dataclass(frozen=True, slots=True)
class Flight:
    """Say between which addresses a captured client's proxy tried to connect for a probe, and when."""

    sent: float
    ended: float
    sources: frozenset[str]
    targets: frozenset[str]
    port: int

    def dropped(self, unclaimed: Iterable[tuple[float, str, str, int, str]]) -> str:
        """Return the log prefix of a drop between these addresses in that time, or "".

        The proxy's own source port is nowhere to be had when its connection fails (Envoy logs none), so that the drop is joined
        by its ends: every connection between them meets the same rules. It may be older than the probe, which then waited for
        a connection that the proxy had begun for another request, and failed with it.
        """
        for at, source, target, port, prefix in unclaimed:
            if (
                self.sent - CONNECT_TIMEOUT - _READ_LATE <= at <= self.ended + _READ_LATE
                and source in self.sources
                and target in self.targets
                and port == self.port
            ):
                return prefix
        return ""


def flights(attempts: Sequence[Attempt], observations: Sequence[Observation], state: State) -> dict[str, Flight]:
    """Return the flights of a round's probes that went through their client's own proxy, by nonce."""
    found = {}
    for attempt, observation in zip(attempts, observations, strict=True):
        source = state.pods[attempt.probe.source]
        if source.meshed and not attempt.probe.past_proxy and not observation.backend:
            targets = [state.pods[t] for t in attempt.targets if t in state.pods]
            found[observation.nonce] = Flight(
                observation.sent,
                observation.ended,
                frozenset((source.v4, source.v6)),
                frozenset(address for pod in targets for address in (pod.v4, pod.v6)),
                attempt.probe.port,
            )
    return found


def of_drop(state: State, nonce: str, prefix: str) -> Cause | None:
    """Return the cause that a prefix of the firewall's log tells of."""
    parsed = isolation.parse_prefix(prefix)
    if parsed is None:
        return None
    direction, pod = parsed
    policies = [a.policy for a in state.policies.values() if isinstance(a.policy, NetworkPolicy)]
    return Cause(
        nonce=nonce,
        layer="l34",
        policies=isolation.selecting(state.inventory, policies, pod, direction),
        explicit=False,
        direction=direction,
        endpoint=pod,
        source="nflog",
    )


def of_denial(state: State, denial: Mapping[str, Any]) -> Cause | None:
    """Return the cause that a proxy's denial tells of."""
    pod = next((p for p in state.pods.values() if str(p.ref) == denial["pod"]), None)
    explicit, policies = False, tuple[Ref, ...]()
    if denial["layer"] == "l7" and pod is not None:
        judges = [a.policy for a in state.policies.values() if isinstance(a.policy, AuthorizationPolicy)]
        told = attribution.denial(denial["details"], pod, judges, state.mesh)
        if told is not None:
            explicit, policies = told.explicit, told.policies
    elif pod is not None:
        policies = _strict(state, pod)
    return Cause(
        nonce=denial["nonce"],
        layer=denial["layer"],
        policies=tuple(str(p) for p in policies),
        explicit=explicit,
        direction="",
        endpoint=None if pod is None else pod.ref,
        source="access-log",
    )


def of_refusal(nonce: str, pod: Ref | None) -> Cause:
    """Return the cause that the identity provider's own log tells of."""
    return Cause(nonce=nonce, layer="identity", policies=(), explicit=False, direction="", endpoint=pod, source="spire")


def of_remark(state: State, pod: str, rule: str | None, plaintext: bool) -> frozenset[str]:
    """Return what a proxy remarked on a request that passed: policies whose dry run would have denied it, and "plaintext".

    `rule` is the dry-run rule; "" where none would have admitted the request, which is owed to all that select the pod.
    """
    found = {"plaintext"} if plaintext else set()
    if rule:
        found.add(str(policy_of(rule)))
    elif rule is not None:
        judges = [a.policy for a in state.policies.values() if isinstance(a.policy, AuthorizationPolicy)]
        server = next(p for p in state.pods.values() if str(p.ref) == pod)
        found |= {str(p.ref) for p in applying(server, judges, state.mesh) if p.dry_run and p.action == "ALLOW"}
    return frozenset(found)


def _strict(state: State, pod: LabPod) -> tuple[Ref, ...]:
    """Return the PeerAuthentications that speak of a pod: its own, its namespace's, the mesh's."""
    root = state.mesh.root_namespace
    return tuple(
        policy.ref
        for applied in state.policies.values()
        if isinstance(policy := applied.policy, PeerAuthentication)
        and policy.ref.namespace in (root, pod.ref.namespace)
        and policy.selector.matches(pod.labels)
    )
