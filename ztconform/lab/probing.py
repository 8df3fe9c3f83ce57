# SPDX-License-Identifier: Apache-2.0
"""The process that holds the lab's namespaces, loads its rules, sends every probe, and reads the firewall's log."""

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from ztconform.agent.files import raise_limit
from ztconform.agent.prober import Prober
from ztconform.agent.stream import Streams
from ztconform.lab import control, netns, nfnetlink
from ztconform.lab.drops import Drops
from ztconform.lab.isolation import NFLOG_GROUP
from ztconform.lab.meshing import Meshing
from ztconform.lab.netlink import NETLINK_NETFILTER, open_in
from ztconform.lab.nflog import NfLog
from ztconform.lab.spire import presenting
from ztconform.lab.spire.host import Host
from ztconform.lab.spire.presenting import Presenter
from ztconform.lab.wiring import PodLink, Wiring

if TYPE_CHECKING:
    from ztconform.agent.wire import OnSent

_LOG_SECONDS, _LOG_POLL = 0.05, 0.003  # how long an event of Envoy may take, and between two looks


class Probing:
    """Do what the outside asks, in the one loop of this process."""

    def __init__(self, namespaces: socket.socket, nodes: int) -> None:
        self._namespaces = namespaces
        self._wiring = Wiring(nodes)
        self._outside: set[str] = set()
        self._fds = {f"node-{n}": fd for n, fd in enumerate(self._wiring.nodes)}
        self._devices: dict[str, str] = {}  # device -> pod
        self._firewalls = [open_in(fd, NETLINK_NETFILTER) for fd in self._wiring.nodes]
        self._drops = Drops([NfLog(fd, NFLOG_GROUP) for fd in self._wiring.nodes])
        self._probers: dict[str, Prober] = {}
        self._streams: dict[int, _Stream] = {}
        self._meshed: set[str] = set()  # pods whose TCP goes through Envoy
        self._mesh = Meshing(self._wiring.netns)
        self._spire = Host(self._mesh.scratch, self._wiring.netns)
        self._hand_over("outside", self._wiring.outside)

    def operations(self) -> Mapping[str, control.Operation]:
        """Return what can be asked of this process."""
        return {
            "hello": control.hello,
            "add": self.add,
            "remove": self.remove,
            "load": self.load,
            "round": self.round,
            "causes": self.causes,
            "remarks": self.remarks,
            "mesh-open": self._mesh.open,
            "mesh-capture": self._mesh.capture,
            "mesh-release": self._mesh.release,
            "mesh-tell": self._mesh.tell,
            "mesh-restart": self._mesh.restart,
            "mesh-memory": self._mesh.memory,
            "spire-open": self._spire.open,
            "spire-keep": self._spire.keep,
            "spire-mint": self._spire.mint,
            "mark": self.mark,
            "watch": self.watch,
            "drain": self.drain,
            "halt": self.halt,
            "stop": self.stop,
        }

    def _hand_over(self, key: str, fd: int) -> None:
        """Give the other process a namespace: it cannot open ours by a path everywhere."""
        socket.send_fds(self._namespaces, [json.dumps(key).encode()], [fd])

    async def add(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Connect pods, give the outside host the outsiders' addresses, and return who holds each pod's namespace as what."""
        inside = [p for p in request["pods"] if p["node"] is not None]
        self._wiring.add([PodLink(key=p["device"], node=p["node"], device=p["device"], v4=p["v4"], v6=p["v6"]) for p in inside])
        for pod in inside:
            fd = self._wiring.netns(pod["device"])
            self._fds[pod["key"]] = fd
            self._devices[pod["device"]] = pod["key"]
            if pod["meshed"]:
                self._meshed.add(pod["key"])
            if pod["serves"]:
                self._hand_over(pod["device"], fd)
        for pod in request["pods"]:
            if pod["node"] is None:
                self._fds[pod["key"]] = self._wiring.outside
                if pod["v4"] not in self._outside:
                    self._outside.add(pod["v4"])
                    self._wiring.add_outside(pod["v4"], pod["v6"])
        return {pod["key"]: self._fds[pod["key"]] for pod in request["pods"]}

    async def remove(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Disconnect pods; an outsider's address stays, with nobody behind it."""
        devices = [d for d in request["devices"] if d in self._devices]
        for device in devices:
            key = self._devices.pop(device)
            self._spire.release(device)
            del self._fds[key]
            self._meshed.discard(key)
            prober = self._probers.pop(key, None)
            if prober is not None:
                prober.close()
        self._wiring.remove(devices)
        return {}

    async def load(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Load encoded rulesets, each in one transaction."""
        for node, batch in request["batches"]:
            nfnetlink.load(self._firewalls[node], base64.b64decode(batch))
        return {}

    def _prober(self, pod: str) -> Prober:
        if pod not in self._probers:
            self._probers[pod] = Prober(partial(netns.open_socket, self._fds[pod]), self._on_sent(pod))
        return self._probers[pod]

    def _on_sent(self, pod: str) -> "OnSent":
        captured = pod in self._meshed

        def sent(nonce: str, transport: str, source: str, source_port: int, target: str, target_port: int) -> None:
            self._drops.sent(nonce, transport, source, source_port, target, target_port)
            self._mesh.sent(captured, nonce, transport, source, source_port, target, target_port)

        return sent

    async def round(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send every spec once, side by side, and return the observations in the same order."""
        specs = request["specs"]
        by_pod: dict[str, list[int]] = {}
        for at, spec in enumerate(specs):
            by_pod.setdefault(spec.pop("pod"), []).append(at)
            if "mark" in spec:
                self._mesh.past(spec["nonce"])
        observations: list[Any] = [None] * len(specs)
        came = await asyncio.gather(
            *(
                presenting.send_all(self._prober(pod), [specs[at] for at in places], partial(self._presenter, pod))
                for pod, places in by_pod.items()
            )
        )
        for places, found in zip(by_pod.values(), came, strict=True):
            for at, observation in zip(places, found, strict=True):
                observations[at] = observation
        return {"observations": observations}

    def _presenter(self, pod: str, device: str) -> Presenter:
        return Presenter(self._prober(pod), partial(self._spire.present, device))

    async def causes(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the firewall and the proxies logged of these, and whether a log ever lost an event.

        An event is [nonce, log prefix] of the firewall; a denial the fields of `mesh.accesslog.Denial`, the pod as text; who was
        refused an identity is [nonce, pod].
        """
        wanted = set(request["nonces"])
        deadline = monotonic() + _LOG_SECONDS
        events = dict(self._drops.of(wanted))
        refusals = self._spire.refusals(wanted)
        wanted -= refusals.keys()
        denials = dict(self._mesh.denials(wanted - events.keys()))
        # Envoy writes its log some milliseconds after the fact.
        while self._meshed and len(events) + len(denials) < len(wanted) and monotonic() < deadline:
            await asyncio.sleep(_LOG_POLL)
            events |= self._drops.of(wanted - events.keys() - denials.keys())
            denials |= self._mesh.denials(wanted - events.keys() - denials.keys())
        told = [{**asdict(denial), "pod": str(denial.pod) if denial.pod else None} for denial in denials.values()]
        lost = self._drops.lost or bool(self._mesh.log.damaged)
        unclaimed = self._drops.unclaimed() if self._meshed else []
        refused = [[nonce, self._devices.get(device)] for nonce, device in refusals.items()]
        return {"events": list(events.items()), "denials": told, "unclaimed": unclaimed, "refused": refused, "lost": lost}

    async def remarks(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what Envoy's log says of requests that passed: [dry-run rule that would have denied, in plaintext] by nonce."""
        deadline = monotonic() + _LOG_SECONDS
        remarks = self._mesh.remarks(request["nonces"])
        while len(remarks) < len(request["nonces"]) and monotonic() < deadline:
            await asyncio.sleep(_LOG_POLL)
            remarks = self._mesh.remarks(request["nonces"])
        return {"remarks": remarks, "lost": bool(self._mesh.log.damaged)}

    async def mark(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Return now, on the clock of every prober here."""
        return {"now": monotonic()}

    async def watch(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Start a stream."""
        by_pod: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
        for spec in request["specs"]:
            by_pod.setdefault((spec.pop("pod"), spec.pop(presenting.KEY, None)), []).append(spec)
        stream = _Stream()
        for (pod, device), specs in by_pod.items():
            streams = Streams(self._prober(pod) if device is None else self._presenter(pod, device))
            streams.start("", specs, request["every"], stream.came)
            stream.parts.append(streams)
        self._streams[request["stream"]] = stream
        return {}

    async def drain(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what came since the last time, waiting a while for the first."""
        return {"observations": await self._streams[request["stream"]].take(request["wait"])}

    async def halt(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send no more, from so many seconds on."""
        asyncio.get_running_loop().call_later(request["after"], self._streams[request["stream"]].halt)
        return {}

    async def stop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send no more, and return the rest once the last has come back."""
        stream = self._streams.pop(request["stream"])
        await stream.halt()
        return {"observations": await stream.take(0.0)}


class _Stream:
    """Collect what the parts of one stream, one a pod, bring."""

    def __init__(self) -> None:
        self.parts: list[Streams] = []
        self._came: list[dict[str, Any]] = []
        self._something = asyncio.Event()
        self._halting: asyncio.Future[Any] | None = None

    def came(self, observation: dict[str, Any]) -> None:
        self._came.append(observation)
        self._something.set()

    async def take(self, wait: float) -> list[dict[str, Any]]:
        if not self._came and wait:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._something.wait(), wait)
        self._something.clear()
        taken, self._came = self._came, []
        return taken

    def halt(self) -> "asyncio.Future[Any]":
        if self._halting is None:
            self._halting = asyncio.gather(*(part.stop("") for part in self.parts))
        return self._halting


def run(channel: socket.socket, namespaces: socket.socket, nodes: int) -> None:
    """Serve the channel until it closes."""
    raise_limit()

    async def main() -> None:
        await control.serve(channel, Probing(namespaces, nodes).operations())

    asyncio.run(main())
