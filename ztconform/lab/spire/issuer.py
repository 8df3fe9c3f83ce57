# SPDX-License-Identifier: Apache-2.0
"""The identities of meshed pods as SPIRE issues them; SPIRE itself runs in the lab's child process (`host`)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from ztconform.errors import UsageError
from ztconform.lab.mesh.issuing import TTL
from ztconform.lab.process import Channel
from ztconform.lab.spire.config import PARTNER
from ztconform.mesh.svid import Authority, Svid, domain_of
from ztconform.model import Provider

BACKDATE = timedelta(seconds=10)  # by which SPIRE dates NotBefore back (NotBeforeCushion of pkg/server/credtemplate)
_MINTED = 3600  # seconds that what an attacker shows lives
_SECONDS = 180.0  # for an answer; a start takes two on an idle machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """Name SPIRE's two programs, and their version as they say it."""

    server: Path
    agent: Path
    version: str


class SpireIssuer:
    """Have a real SPIRE issue identities, by the Workload API; it starts when the first is asked for."""

    live = True

    def __init__(self, prober: Channel, binaries: Binaries, ttl: float = TTL) -> None:
        self._prober = prober
        self._binaries = binaries
        self._ttl = ttl
        self._trust_domain = ""
        self._provider: Provider = "sound"
        self._roots: Mapping[str, str] = {}

    def issue(self, trust_domain: str, pods: Mapping[str, str], due: Collection[str]) -> Mapping[str, Svid]:
        """Register exactly these pods, put SPIRE into the state it was turned to, and return what those that are due were issued.

        Raises UsageError for another trust domain than the first: a SPIRE has one for good.
        """
        if self._trust_domain not in ("", trust_domain):
            raise UsageError(f"mesh.trustDomain is {trust_domain}, and this lab's SPIRE has {self._trust_domain} for good")
        if not self._trust_domain:
            server, agent = str(self._binaries.server), str(self._binaries.agent)
            self._prober.ask("spire-open", seconds=_SECONDS, server=server, agent=agent, trust_domain=trust_domain, ttl=self._ttl)
            self._trust_domain = trust_domain
        wanted = {"entries": dict(pods), "due": list(due), "provider": self._provider}
        answer = self._prober.ask("spire-keep", seconds=_SECONDS, **wanted)
        told: Mapping[str, Mapping[str, Any]] = answer["svids"]
        for each in told.values():
            self._roots = each["roots"]
        return {device: _svid(each["id"], each["chain"], each["key"]) for device, each in told.items() if device in due}

    def trusted(self) -> Mapping[str, str]:
        """Return the roots that the Workload API gave out last."""
        return self._roots

    def shown(self, cert: str, spiffe_id: str) -> Svid:
        """Return an SVID that a server signed for this ID, or a forgery; raises UsageError for one that SPIRE does not sign.

        What is expired has lived a second. "foreign-ca" is a root of our own, which says that it is SPIRE's.
        """
        if cert == "foreign-ca":
            return Authority(self._trust_domain).issue(spiffe_id)
        if cert == "foreign-domain":
            raise UsageError("SPIRE signs for no trust domain but its own: show the certificate `partner`")
        partner = cert == "partner"
        asked = spiffe_id.replace(f"spiffe://{domain_of(spiffe_id)}/", f"spiffe://{PARTNER}/", 1) if partner else spiffe_id
        expired = cert == "expired"
        answer = self._prober.ask("spire-mint", id=asked, partner=partner, ttl=1 if expired else _MINTED, expired=expired)
        return _svid(asked, answer["chain"], answer["key"])

    def turn(self, provider: Provider) -> None:
        """Put SPIRE into a state, from the next `issue` on."""
        self._provider = provider


def _svid(spiffe_id: str, chain: str, key: str) -> Svid:
    leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    serial = leaf.serial_number
    return Svid(
        spiffe_id=spiffe_id,
        chain_pem=chain,
        key_pem=key,
        serial=serial.to_bytes((serial.bit_length() + 7) // 8, "big").hex(),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        issued=leaf.not_valid_before_utc + BACKDATE,
    )
