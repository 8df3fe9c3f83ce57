# SPDX-License-Identifier: Apache-2.0
"""What Hubble, Cilium's flow log, says of probes that policies denied, or would have but for audit mode, and at whose end.

`hubble observe` runs in every agent of Cilium for as long as the log is open. Hubble names no policy for a default deny: whose
policies select the endpoint is left to the caller.
"""

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import takewhile
from time import monotonic
from typing import Any, Literal

from ztconform.errors import ClusterError
from ztconform.kube.client import Connection
from ztconform.kube.pipes import ExecPipe
from ztconform.kube.profile import Drop, Journey
from ztconform.kube.resources import Resources

_SOCKET = "unix:///var/run/cilium/hubble.sock"
_OBSERVE = (
    "hubble",
    "observe",
    "--server",
    _SOCKET,
    "--follow",
    "--verdict",
    "DROPPED",
    "--verdict",
    "AUDIT",
    "--output",
    "jsonpb",
)
# pkg/monitor/api/drop.go: by a policy's default deny, and by a rule that denies.
_BY_RULE = "POLICY_DENY"
_BY_POLICY = frozenset({"POLICY_DENIED", _BY_RULE})
_CONTAINER = "cilium-agent"
_KEPT = 20_000  # events
# Seconds by which an event may come after the probe's own end: milliseconds on an idle machine, more than 0.3 s on a busy one
# (seen). Nobody waits where all events have come.
_LATE = 2.0

_Key = tuple[str, int]  # source address and port: a Service's address is no longer the target's when a policy sees the packet


class HubbleLog:
    """Listen to every agent of Cilium."""

    name: Literal["hubble", "goldmane"] = "hubble"

    def __init__(self, connection: Connection, *, namespace: str) -> None:
        """Begin to listen; raises ClusterError where Cilium's agents cannot be found."""
        pods = Resources(connection).items(f"/api/v1/namespaces/{namespace}/pods", labelSelector="k8s-app=cilium")
        if not pods:
            raise ClusterError(f"no agent of Cilium runs in namespace {namespace}, and so there is no flow log")
        self._events: OrderedDict[_Key, Mapping[str, Any]] = OrderedDict()
        self._recent: deque[tuple[float, Mapping[str, Any]]] = deque(maxlen=_KEPT)
        self._audits: OrderedDict[_Key, Mapping[str, Any]] = OrderedDict()
        self._came = threading.Condition()
        self._lost = ""
        self._closing = False
        self._rests: dict[str, bytes] = {}
        self._pipes = [self._listen(connection, namespace, pod["metadata"]["name"]) for pod in pods]

    def _listen(self, connection: Connection, namespace: str, pod: str) -> ExecPipe:
        self._rests[pod] = b""
        return ExecPipe(
            connection,
            (namespace, pod),
            _CONTAINER,
            _OBSERVE,
            on_data=lambda data: self._take(pod, data),
            on_end=lambda why: self._end(f"{pod}: {why}"),
        )

    @property
    def lost(self) -> str:
        """Return why events are missing, or ""."""
        return self._lost

    def changed(self) -> None:
        """Nothing: an event is of one packet, and knows which policies it met."""

    def drops(self, journeys: Collection[Journey]) -> Sequence[Drop] | None:
        """Return what is known of these, waiting a moment for what is on its way; None once events were lost."""
        wanted = {one.packet: one.nonce for one in journeys if one.packet is not None}
        with self._came:
            if not self._await(lambda: all(is_told(self._events.get(key)) for key in wanted)):
                return None
            return [_drop(nonce, self._events[key]) for key, nonce in wanted.items() if key in self._events]

    def audited(self, journeys: Collection[Journey]) -> Sequence[Drop] | None:
        """Return which of these would have been dropped but for audit mode, waiting a moment; None once events were lost."""
        wanted = {one.packet: one.nonce for one in journeys if one.packet is not None}
        with self._came:
            if not self._await(lambda: all(key in self._audits for key in wanted)):
                return None
            return [_drop(nonce, self._audits[key]) for key, nonce in wanted.items() if key in self._audits]

    def between(self, journeys: Collection[Journey]) -> Sequence[Drop] | None:
        """Return what is known of connections that proxies tried to make, waiting a moment; None once events were lost.

        Every connection between the same ends meets the same rules, whoever of them it was that a proxy tried.
        """
        with self._came:
            if not self._await(lambda: all(tried(self._recent, one) for one in journeys)):
                return None
            return [_drop(one.nonce, flow) for one in journeys if (flow := tried(self._recent, one)) is not None]

    def _await(self, come: Callable[[], bool]) -> bool:
        """Wait a moment for what is on its way, the condition held; return whether the log is complete."""
        self._came.wait_for(lambda: come() or bool(self._lost), _LATE)
        return not self._lost

    def close(self) -> None:
        """Stop listening."""
        self._closing = True
        for pipe in self._pipes:
            pipe.close()

    def _take(self, pod: str, data: bytes) -> None:
        *lines, self._rests[pod] = (self._rests[pod] + data).split(b"\n")
        for line in filter(None, lines):
            try:
                message = json.loads(line)
            except ValueError:
                self._end(f"{pod}: garbled: {line[:60]!r}")
                return
            if "lost_events" in message:
                self._end(f"{pod}: it lost events")
            flow = message.get("flow")
            key = _of_flow(flow) if flow else None
            if key is not None and flow.get("verdict") == "AUDIT":
                self._keep(self._audits, key, flow)
            elif key is not None and flow.get("drop_reason_desc") in _BY_POLICY:
                self._keep(self._events, key, telling(self._events.get(key), flow), recent=flow)

    def _keep(
        self,
        events: OrderedDict[_Key, Mapping[str, Any]],
        key: _Key,
        flow: Mapping[str, Any],
        recent: Mapping[str, Any] | None = None,
    ) -> None:
        with self._came:
            events[key] = flow
            events.move_to_end(key)
            if recent is not None:
                self._recent.append((monotonic(), recent))
            while len(events) > _KEPT:
                events.popitem(last=False)
            self._came.notify_all()

    def _end(self, why: str) -> None:
        if self._closing:
            return
        with self._came:
            self._lost = self._lost or why
            self._came.notify_all()


def telling(before: Mapping[str, Any] | None, flow: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return which of two events of one client's port to keep: the later one, but for one that names less.

    Seen with 1.19.6: of a denied packet there is the policy's verdict (type 5), which names the rule, and then the drop (type 1),
    which does not.
    """
    return before if before is not None and _rules(before) and not _rules(flow) else flow


def is_told(flow: Mapping[str, Any] | None) -> bool:
    """Return whether an event has come that says all; the drop by a rule that denies, alone, does not."""
    return flow is not None and (bool(_rules(flow)) or flow.get("drop_reason_desc") != _BY_RULE)


def tried(recent: Sequence[tuple[float, Mapping[str, Any]]], journey: Journey) -> Mapping[str, Any] | None:
    """Return the latest flow between the ends of a journey, of flows with the instant when each came, the oldest first."""
    fresh = takewhile(lambda each: each[0] >= journey.since, reversed(recent))
    return next((flow for _, flow in fresh if _is_between(flow, journey)), None)


def _is_between(flow: Mapping[str, Any], journey: Journey) -> bool:
    ends, port = flow.get("IP") or {}, ((flow.get("l4") or {}).get("TCP") or {}).get("destination_port")
    sources = journey.source.addresses if journey.source is not None else ()
    targets = {address for pod in journey.targets for address in pod.addresses}
    return bool(ends.get("source") in sources and ends.get("destination") in targets and port == journey.port)


def _of_flow(flow: Mapping[str, Any]) -> _Key | None:
    transport = (flow.get("l4") or {}).get("TCP") or (flow.get("l4") or {}).get("UDP")
    source = (flow.get("IP") or {}).get("source")
    if not transport or not source:
        return None
    return str(source), int(transport.get("source_port", 0))


def _rules(flow: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the policies that denied by a rule of theirs; none for a default deny."""
    return flow.get("egress_denied_by" if flow.get("traffic_direction") == "EGRESS" else "ingress_denied_by") or ()


def _drop(nonce: str, flow: Mapping[str, Any]) -> Drop:
    egress = flow.get("traffic_direction") == "EGRESS"
    named = tuple(sorted({f"{p['namespace']}/{p['name']}" if p.get("namespace") else str(p["name"]) for p in _rules(flow)}))
    address = flow["IP"]["source" if egress else "destination"]
    return Drop(nonce=nonce, direction="egress" if egress else "ingress", address=str(address), policies=named)
