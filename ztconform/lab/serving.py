# SPDX-License-Identifier: Apache-2.0
"""The process in which everything that listens in the lab lives: one agent server per pod, and the DNS server."""

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

from ztconform.agent.files import raise_limit
from ztconform.agent.nameserver import Nameserver
from ztconform.agent.server import Server
from ztconform.lab import control, netns

_LONGEST_NAME = 4096


class Servers:
    """Start, ask and stop servers in namespaces that the prober process makes and hands over."""

    def __init__(self, namespaces: socket.socket) -> None:
        self._namespaces = namespaces
        self._fds: dict[str, int] = {}  # handed over, and not yet served in
        self._held: dict[str, int] = {}  # server -> the descriptor of its pod's namespace
        self._running: dict[str, Server | Nameserver] = {}
        self._zone: Mapping[str, list[str]] = {}

    def operations(self) -> Mapping[str, control.Operation]:
        """Return what can be asked of this process."""
        return {
            "hello": control.hello,
            "serve": self.serve,
            "unserve": self.unserve,
            "seen": self.seen,
            "zone": self.zone,
        }

    async def serve(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Start servers."""
        for pod in request["pods"]:
            self._start(pod)
        return {}

    def _start(self, pod: Mapping[str, Any]) -> None:
        name = pod["key"]
        fd = self._namespace(pod["netns"])
        opener = partial(netns.open_socket, fd)
        server: Server | Nameserver
        if pod["dns"]:
            server = Nameserver(name, opener, zone=self._zone)
        elif pod["bind"]:
            server = Server(name, opener, pod["ports"], addresses=pod["bind"])
        else:
            server = Server(name, opener, pod["ports"])
        server.start()
        self._running[name] = server
        if not pod["bind"]:  # outsiders share one namespace, which stays
            self._held[name] = self._fds.pop(pod["netns"])

    def _namespace(self, key: str) -> int:
        """Return a namespace's descriptor; it may still be under way from the other process."""
        while key not in self._fds:
            name, fds, _, _ = socket.recv_fds(self._namespaces, _LONGEST_NAME, 1)
            if not name:
                raise asyncio.IncompleteReadError(b"", 1)
            self._fds[json.loads(name)] = fds[0]
        return self._fds[key]

    async def unserve(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Stop servers, and return what they saw since the given sequences."""
        seen = await self.seen(request)
        for name in request["since"]:
            server = self._running.pop(name, None)
            if server is not None:
                server.stop()
            if name in self._held:
                os.close(self._held.pop(name))
        return seen

    async def seen(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return each named server's sightings above a sequence; a server that is not running is not in the answer."""
        running = {n: since for n, since in request["since"].items() if n in self._running}
        return {name: self._running[name].sightings(since) for name, since in running.items()}

    async def zone(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Replace what DNS knows."""
        self._zone = request["zone"]
        for server in self._running.values():
            if isinstance(server, Nameserver):
                server.replace(self._zone)
        return {}


def run(channel: socket.socket, namespaces: socket.socket) -> None:
    """Serve the channel until it closes."""
    raise_limit()

    async def main() -> None:
        await control.serve(channel, Servers(namespaces).operations())

    asyncio.run(main())
