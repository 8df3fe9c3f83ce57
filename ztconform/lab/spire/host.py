# SPDX-License-Identifier: Apache-2.0
"""SPIRE inside the lab's child process: keeps its servers, its agent and its registrations as the outside wants them.

What is wanted is said from outside (`issuer`), always whole: who is registered as whom, and in what state SPIRE is.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from time import monotonic
from typing import Any

from ztconform.errors import ClusterError
from ztconform.lab.mesh.scratch import Scratch
from ztconform.lab.spire import agentlog, config
from ztconform.lab.spire.agentlog import AgentLog
from ztconform.lab.spire.daemon import Daemon
from ztconform.lab.spire.server import Server
from ztconform.lab.spire.workloads import Answer, Workloads

_PORT, _PARTNER_PORT = 8081, 8082
_ISSUE_SECONDS = 60.0  # for what the server was told to reach a workload; a second is usual, and up to five after an outage
_POLL = 0.05
_KEPT = 200_000  # refusals remembered; more than belong to anything under way
_MASKED = (
    "SPIRE's agent knows a workload by its /proc, and this container shows other processes there than the lab's: start it with "
    "--security-opt systempaths=unconfined, or with --privileged"
)
_SERVER_GONE, _AGENT_GONE = ("server-down", "down"), ("banned", "down")


class Host:
    """Hold SPIRE; nothing is started before `open`."""

    def __init__(self, scratch: Callable[[], Scratch], namespace_of: Callable[[str], int]) -> None:
        """Take what returns the lab's own file system, once there is one, and a pod's network namespace by its device."""
        self._scratch = scratch
        self._namespace_of = namespace_of
        self._refused: dict[str, str] = {}  # nonce -> pod's device: refused, and the agent's own log says so
        self._registered: dict[str, tuple[str, frozenset[str]]] = {}  # device -> SPIFFE ID, trust domains it federates with
        self._federated: frozenset[str] = frozenset()
        self._token = ""
        self._banned = False
        self._server: Server | None = None
        self._partner: Server | None = None

    async def open(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Start the server and the agent; asked again, do nothing."""
        if self._server is not None:
            return {}
        if os.readlink("/proc/self") != str(os.getpid()):
            raise ClusterError(_MASKED)
        self._binaries, self._ttl = (request["server"], request["agent"]), request["ttl"]
        self._place = self._scratch().path / "spire"
        self._place.mkdir(mode=0o700)
        self._server = Server(self._binaries[0], self._place / "server", request["trust_domain"], _PORT, self._ttl)
        directory = self._place / "agent"
        command = [self._binaries[1], "run", "-config", str(directory / "agent.json")]
        self._log = AgentLog(self._place / "agent.log")
        self._agent = Daemon("SPIRE's agent", command, directory / "api.sock", self._log.path)
        self._workloads = Workloads(self._scratch(), self._agent.socket, self._log, self._namespace_of)
        await self._server.daemon.start()
        await self._join()
        return {}

    async def keep(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Make SPIRE what is wanted; return what the Workload API now tells the pods that are due, and which roots it gives out.

        Where the agent is to be gone, the pods that are due get what they get before that, and without one nothing.
        """
        server, provider = self._open_server(), request["provider"]
        federated = frozenset({config.PARTNER} if provider == "federated" else ())
        await self._mend(server, provider)
        changed = federated != self._federated
        if server.daemon.alive:
            await self._register(server, request["entries"], federated)
        due = list(request["entries"] if changed else request["due"])
        svids: dict[str, Mapping[str, Any]] = {}
        if self._agent.alive and not self._banned and server.daemon.alive:
            trusted = {server.trust_domain, *federated}
            told = await asyncio.gather(*(self._issued(device, request["entries"][device], trusted) for device in due))
            svids = dict(zip(due, told, strict=True))
        await self._break(server, provider)
        return {"svids": svids}

    async def mint(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return an SVID that a server, ours or the partner's, signs without an agent; if need be once it has expired."""
        server = self._open_server()
        if request["partner"]:
            server = await self._partner_server()
        chain, key = await server.mint(request["id"], request["ttl"])
        if request["expired"]:
            await asyncio.sleep(request["ttl"] + 1)  # a certificate's end has whole seconds
        return {"chain": chain, "key": key}

    async def present(self, device: str, nonce: str) -> Answer:
        """Return what the Workload API tells a pod as a probe is sent; a refusal that the agent logged is remembered."""
        self._open_server()
        answer = await self._workloads.ask(device)
        if answer.refusal and self._caused(answer):
            if len(self._refused) > _KEPT:
                self._refused.clear()
            self._refused[nonce] = device
        return answer

    def refusals(self, nonces: Iterable[str]) -> dict[str, str]:
        """Return by nonce the devices of those to whom the agent refused an identity, in its own words."""
        return {nonce: self._refused[nonce] for nonce in nonces if nonce in self._refused}

    def release(self, device: str) -> None:
        """Forget a pod that is going."""
        if self._server is not None:
            self._workloads.release(device)

    def _caused(self, answer: Answer) -> bool:
        if agentlog.refused(answer.logged, answer.pid):
            return True
        gone = self._banned and not self._agent.alive and answer.told["refused"] == "UNAVAILABLE"
        return gone and agentlog.banned(self._log.since(self._joined))

    def _open_server(self) -> Server:
        if self._server is None:
            raise ClusterError("the lab's SPIRE was not opened; please report")
        return self._server

    async def _partner_server(self) -> Server:
        if self._partner is None:
            partner = Server(self._binaries[0], self._place / "partner", config.PARTNER, _PARTNER_PORT, self._ttl)
            await partner.daemon.start()
            self._partner = partner
        return self._partner

    async def _join(self) -> None:
        """Start an agent that nobody has seen before."""
        server, directory = self._open_server(), self._agent.socket.parent
        self._token = await server.token()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        (directory / "bundle.pem").write_text(await server.bundle("pem"))
        (directory / "agent.json").write_text(config.agent(str(directory), server.trust_domain, server.port, self._token))
        self._joined = self._log.end()
        await self._agent.start()

    async def _mend(self, server: Server, provider: str) -> None:
        """Start again what was broken on purpose and is not to be so any more; what ended by itself is an error."""
        server.daemon.demand()
        if not server.daemon.alive and provider not in _SERVER_GONE:
            await server.daemon.start()
        if self._banned and provider != "banned":
            await self._agent.ended(_ISSUE_SECONDS)
            await server.evict(config.agent_id(server.trust_domain, self._token))
            self._banned = False
            await self._join()
        elif not self._banned:
            self._agent.demand()
            if not self._agent.alive and provider not in _AGENT_GONE:
                await self._agent.start()

    async def _break(self, server: Server, provider: str) -> None:
        if provider == "banned" and not self._banned:
            await server.ban(config.agent_id(server.trust_domain, self._token))
            self._banned = True
        if provider in _SERVER_GONE:
            server.daemon.stop()
        if provider == "down":
            self._agent.stop()

    async def _register(self, server: Server, ids: Mapping[str, str], federated: frozenset[str]) -> None:
        """Have the server know exactly these, and read back that it does."""
        if federated - self._federated:
            partner = await self._partner_server()
            await server.federate(config.PARTNER, await partner.bundle("spiffe"))
        wanted = {device: (spiffe_id, federated) for device, spiffe_id in ids.items()}
        gone = self._registered.keys() - wanted.keys()
        new = wanted.keys() - self._registered.keys()
        other = {device for device in wanted.keys() & self._registered.keys() if wanted[device] != self._registered[device]}
        if gone:
            await server.delete(gone)
        for names, act in ((new, server.create), (other, server.update)):
            if names:
                await act({name: ids[name] for name in names}, {name: self._workloads.path(name) for name in names}, federated)
        if self._federated - federated:
            await server.unfederate(config.PARTNER)
        self._registered, self._federated = wanted, federated
        if gone or new:
            await _demand(server, wanted.keys(), gone)

    async def _issued(self, device: str, spiffe_id: str, trust_domains: Collection[str]) -> Mapping[str, Any]:
        """Return what the Workload API tells a pod once that is what was registered."""
        deadline = monotonic() + _ISSUE_SECONDS
        while True:
            answer = await self._workloads.ask(device)
            if answer.told.get("id") == spiffe_id and set(answer.told["roots"]) == set(trust_domains):
                return answer.told
            if monotonic() > deadline:
                said = answer.refusal or f"{answer.told['id']}, trusting {', '.join(sorted(answer.told['roots']))}"
                raise ClusterError(f"SPIRE did not issue {spiffe_id} to pod {device} in {_ISSUE_SECONDS:.0f} s, but said: {said}")
            await asyncio.sleep(_POLL)


async def _demand(server: Server, there: Collection[str], gone: Collection[str]) -> None:
    found = await server.registered()
    if set(there) - found or set(gone) & found:
        raise ClusterError(f"{server.daemon.name} does not report its registrations back as they were made; please report")
