# SPDX-License-Identifier: Apache-2.0
"""One SPIRE server with its registrations, spoken to by its own command line; the process is a `daemon`."""

import asyncio
import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ztconform.errors import ClusterError
from ztconform.lab.spire import config
from ztconform.lab.spire.daemon import Daemon

_SECONDS = 30.0  # of one command; 0.2 s are usual


class Server:
    """Run a server in a directory of its own; every method raises ClusterError in the server's words where it fails."""

    def __init__(self, binary: str, directory: Path, trust_domain: str, port: int, svid_ttl: float) -> None:
        directory.mkdir(mode=0o700)
        self.trust_domain = trust_domain
        self.port = port
        self._binary = binary
        self._directory = directory
        file = directory / "server.json"
        file.write_text(config.server(str(directory), trust_domain, port, svid_ttl))
        command = [binary, "run", "-config", str(file)]
        self.daemon = Daemon(f"SPIRE's server for {trust_domain}", command, directory / "api.sock", directory / "server.log")

    async def create(self, ids: Mapping[str, str], paths: Mapping[str, str], federated: Iterable[str]) -> None:
        """Register workloads: name -> SPIFFE ID, and name -> path of the program."""
        await self._ask("entry", "create", "-data", "-", stdin=config.entries(self.trust_domain, ids, paths, federated))

    async def update(self, ids: Mapping[str, str], paths: Mapping[str, str], federated: Iterable[str]) -> None:
        """Replace registrations of the same names."""
        await self._ask("entry", "update", "-data", "-", stdin=config.entries(self.trust_domain, ids, paths, federated))

    async def delete(self, names: Collection[str]) -> None:
        """Delete registrations."""
        await self._ask("entry", "delete", "-file", "-", stdin=json.dumps({"ids": sorted(names)}))

    async def registered(self) -> frozenset[str]:
        """Return the names of the registrations that there are, those of agents among them."""
        answer = json.loads(await self._ask("entry", "show", "-output", "json"))
        return frozenset(entry["id"] for entry in answer["entries"])

    async def token(self) -> str:
        """Return a token by which one agent may join, once."""
        told = await self._ask("token", "generate", "-spiffeID", f"spiffe://{self.trust_domain}/{config.NODE}", "-output", "json")
        return str(json.loads(told)["value"])

    async def ban(self, agent: str) -> None:
        """Ban an agent, by its ID."""
        await self._ask("agent", "ban", "-spiffeID", agent)

    async def evict(self, agent: str) -> None:
        """Forget an agent, and that it was banned."""
        await self._ask("agent", "evict", "-spiffeID", agent)

    async def bundle(self, form: str) -> str:
        """Return the trust domain's own bundle, as "pem" or as "spiffe" has it."""
        return await self._ask("bundle", "show", "-format", form)

    async def federate(self, trust_domain: str, bundle: str) -> None:
        """Take another trust domain's bundle, in the SPIFFE form."""
        await self._ask("bundle", "set", "-id", f"spiffe://{trust_domain}", "-format", "spiffe", stdin=bundle)

    async def unfederate(self, trust_domain: str) -> None:
        """Forget another trust domain's bundle; no entry may federate with it any more."""
        await self._ask("bundle", "delete", "-id", f"spiffe://{trust_domain}")

    async def mint(self, spiffe_id: str, ttl: int) -> tuple[str, str]:
        """Return the chain and the key, as PEM, of an SVID that lives so many seconds."""
        place = self._directory / "minted"
        place.mkdir(mode=0o700)
        try:
            await self._ask("x509", "mint", "-spiffeID", spiffe_id, "-ttl", f"{ttl}s", "-write", str(place))
            return (place / "svid.pem").read_text(), (place / "key.pem").read_text()
        finally:
            shutil.rmtree(place)

    async def _ask(self, *words: str, stdin: str = "") -> str:
        command = [self._binary, *words[:2], "-socketPath", str(self.daemon.socket), *words[2:]]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin.encode()), _SECONDS)
        except TimeoutError as error:
            process.kill()
            raise ClusterError(f"{self.daemon.name} did not answer `{' '.join(words[:2])}` in {_SECONDS:.0f} s") from error
        if process.returncode != 0:
            said = " ".join((err + out).decode(errors="replace").split())[:600]
            raise ClusterError(f"{self.daemon.name} refused `{' '.join(words[:2])}`: {said or 'it said nothing'}")
        return out.decode()
