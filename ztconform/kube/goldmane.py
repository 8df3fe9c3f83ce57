# SPDX-License-Identifier: Apache-2.0
"""What Goldmane, Calico's flow aggregator, says of probes that policies denied, or would have but for being staged.

It is asked by the API of Whisker (whisker-backend/pkg/apis/v1 of v3.32.1), which stands beside it. A flow is all that went from
one pod to a port of another, with one action, in 15 s; it knows no source port. So a probe is told by its ends, among flows that
began after the policies were changed last, and is known up to a minute later: nobody waits here, who needs it asks again.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Literal
from urllib.parse import urlencode

from ztconform.errors import ClusterError
from ztconform.kube import forwarded
from ztconform.kube.client import Connection
from ztconform.kube.pods import KubePod, condition, is_ending
from ztconform.kube.profile import Drop, Journey
from ztconform.kube.resources import Resources

SELECTOR = "k8s-app=whisker"
PORT = 3002  # of whisker-backend in the pod (operator v1.42.3, pkg/render/whisker)
_CALL = 10.0  # seconds
_FRESH = 1.0  # seconds that an answer is good for
_END = 1 << 40  # seconds since the epoch: also of intervals that are not over
_DENY, _END_OF_TIER, _AT_SOURCE = "Deny", "EndOfTier", "Src"

Flow = Mapping[str, Any]


class GoldmaneLog:
    """Ask for flows."""

    name: Literal["hubble", "goldmane"] = "goldmane"

    def __init__(self, ask: Callable[[str], bytes]) -> None:
        """Take how Whisker answers to a GET of a path; that raises ClusterError."""
        self._ask = ask
        self._lost = ""
        self.changed()

    @property
    def lost(self) -> str:
        """Return why flows are missing, or ""."""
        return self._lost

    def changed(self) -> None:
        """Take it that policies change from now on: what began before was decided by others."""
        self._changed = monotonic()
        self._flows: Sequence[Flow] = ()
        self._callers: frozenset[str] = frozenset()  # namespaces whose flows these are
        self._asked = float("-inf")

    def drops(self, journeys: Collection[Journey]) -> Sequence[Drop] | None:
        """Return what is known of these by now; None once Whisker could not be asked."""
        return self._told(journeys, "enforced")

    def audited(self, journeys: Collection[Journey]) -> Sequence[Drop] | None:
        """Return which of these staged policies would have denied, as far as known by now; None as above."""
        return self._told(journeys, "pending")

    def between(self, journeys: Collection[Journey]) -> Sequence[Drop] | None:
        """Return what is known of connections that proxies tried to make; they are told by their ends as well."""
        return self._told(journeys, "enforced")

    def close(self) -> None:
        """Nothing is kept open."""

    def _told(self, journeys: Collection[Journey], trace: str) -> Sequence[Drop] | None:
        callers = frozenset(one.source.real.namespace for one in journeys if one.source is not None)
        if not callers:
            return []
        stale = monotonic() - self._asked > _FRESH or not callers <= self._callers
        if stale and not self._lost:
            self._callers |= callers
            try:
                self._flows = self._read(self._callers)
            except (ClusterError, ValueError, KeyError, TypeError) as error:
                self._lost = f"Goldmane's flows cannot be read: {error}"
            self._asked = monotonic()
        return None if self._lost else [drop for one in journeys if (drop := told(self._flows, one, trace)) is not None]

    def _read(self, callers: Collection[str]) -> Sequence[Flow]:
        # Seconds before now by Goldmane's own clock, and an interval that began before the change is left out as a whole.
        since = -max(int(monotonic() - self._changed), 1)
        only = {"source_namespaces": [{"value": namespace, "type": "Exact"} for namespace in sorted(callers)]}
        query = {"startTimeGte": since, "startTimeLt": _END, "filters": json.dumps(only)}
        return list(json.loads(self._ask(f"/flows?{urlencode(query)}")).get("items") or [])


def find(connection: Connection, namespace: str) -> GoldmaneLog:
    """Return the log that Whisker tells of; raises ClusterError where none of its pods is ready."""
    pods = Resources(connection).items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=SELECTOR)
    ready = sorted(pod["metadata"]["name"] for pod in pods if condition(pod, "Ready") and not is_ending(pod))
    if not ready:
        raise ClusterError(f"no pod of Whisker is ready in namespace {namespace}, and so there is no flow log")
    return GoldmaneLog(lambda path: forwarded.get(connection, (namespace, ready[0]), PORT, path, _CALL))


def told(flows: Iterable[Flow], journey: Journey, trace: str) -> Drop | None:
    """Return which denial flows tell of a journey, by the policies in force ("enforced") or by those staged ("pending"); pure."""
    if journey.source is None:
        return None  # hosts outside are all of one name
    for flow in flows:
        target = next((pod for pod in journey.targets if _is_between(flow, journey.source, pod, journey)), None)
        hit = _denial((flow.get("policies") or {}).get(trace) or ()) if target is not None else None
        if target is None or hit is None:
            continue
        egress = flow.get("reporter") == _AT_SOURCE
        default = hit.get("kind") == _END_OF_TIER
        named = (_name(hit.get("trigger") or {} if default else hit),)
        return Drop(
            nonce=journey.nonce,
            direction="egress" if egress else "ingress",
            address=(journey.source if egress else target).addresses[0],
            policies=() if default else named,
            default_of=named if default else (),
        )
    return None


def _is_between(flow: Flow, source: KubePod, target: KubePod, journey: Journey) -> bool:
    ends = (
        (flow.get("source_namespace"), flow.get("source_name")),
        (flow.get("dest_namespace"), flow.get("dest_name")),
        flow.get("dest_port"),
        str(flow.get("protocol")).upper(),
    )
    real = ((pod.real.namespace, pod.real.name) for pod in (source, target))
    return ends == (*real, journey.port, journey.transport)


def _denial(hits: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the hit that decided, if it denied: the last of those that policies were tried in the order of."""
    last = max(hits, key=lambda hit: int(hit.get("policy_index") or 0), default=None)
    return last if last is not None and last.get("action") == _DENY else None


def _name(hit: Mapping[str, Any]) -> str:
    return "/".join(filter(None, (str(hit.get("namespace") or ""), str(hit.get("name") or ""))))
