# SPDX-License-Identifier: Apache-2.0
"""Who issues identities to meshed pods: what the mesh asks of an identity provider, and the lab's own, which is in memory.

How SPIRE answers the same is in `ztconform.lab.spire`.
"""

from collections.abc import Collection, Mapping
from typing import Protocol, get_args

from ztconform.errors import UsageError
from ztconform.mesh.svid import Authority, Forgery, Svid, domain_of
from ztconform.model import Provider

FORGERIES: frozenset[str] = frozenset(get_args(Forgery))
TTL = 3600.0  # seconds for which an SVID lives, where no other is asked for


class Issuer(Protocol):
    """Issue identities; a pod is named by its device."""

    live: bool  # a pod's own SVID is fetched anew for each probe that shows it

    def issue(self, trust_domain: str, pods: Mapping[str, str], due: Collection[str]) -> Mapping[str, Svid]:
        """Return new SVIDs for those that are due, of all meshed pods with their SPIFFE IDs; who may have none is left out."""

    def trusted(self) -> Mapping[str, str]:
        """Return the roots that pods believe, as PEM by trust domain."""

    def shown(self, cert: str, spiffe_id: str) -> Svid:
        """Return what an attacker shows: the ID's own SVID, or a forgery of it by name."""

    def turn(self, provider: Provider) -> None:
        """Put the identity provider into a state; it is there after the next `issue`."""


class OwnIssuer:
    """Issue by authorities in memory, one a trust domain."""

    live = False

    def __init__(self, ttl: float = TTL) -> None:
        self._ttl = ttl
        self._authorities: dict[str, Authority] = {}
        self._trust_domain = ""

    def issue(self, trust_domain: str, pods: Mapping[str, str], due: Collection[str]) -> Mapping[str, Svid]:
        """Return new SVIDs for all that are due."""
        self._trust_domain = trust_domain
        return {device: self._authority(trust_domain).issue(pods[device], self._ttl) for device in due}

    def trusted(self) -> Mapping[str, str]:
        """Return the one root of the trust domain that was issued for last."""
        return {self._trust_domain: self._authority(self._trust_domain).bundle_pem}

    def shown(self, cert: str, spiffe_id: str) -> Svid:
        """Return an SVID or a forgery; raises UsageError where there is no partner to have one from."""
        if cert == "partner":
            raise UsageError("a certificate of a partner's trust domain is issued on stacks with SPIRE alone, such as lab+spire")
        authority = self._authority(domain_of(spiffe_id))
        if cert in FORGERIES:
            return authority.forge(cert, spiffe_id)  # type: ignore[arg-type]  # it is one of them
        return authority.issue(spiffe_id)

    def turn(self, provider: Provider) -> None:
        """Stay as it is; the proof asks for no other state of a provider that is not SPIRE."""

    def _authority(self, trust_domain: str) -> Authority:
        if trust_domain not in self._authorities:
            self._authorities[trust_domain] = Authority(trust_domain)
        return self._authorities[trust_domain]
