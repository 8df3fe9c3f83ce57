# SPDX-License-Identifier: Apache-2.0
"""At which addresses headless names were reached while nothing was denied: later phases dial those, and depend on no DNS."""

from collections.abc import Sequence

from ztconform.evidence import Observation
from ztconform.model import Attempt, Probe, Ref
from ztconform.proof.plan import service_of


class Pins:
    """Remember an address for each client, Service and family."""

    def __init__(self) -> None:
        self._addresses: dict[tuple[Ref, Ref, int], str] = {}

    def forget(self) -> None:
        """Drop every pin: pods have gone, and with them their addresses."""
        self._addresses.clear()

    def pin(self, attempts: Sequence[Attempt], observations: Sequence[Observation]) -> None:
        """Keep the address at which a headless name was reached."""
        for attempt, observation in zip(attempts, observations, strict=True):
            if attempt.probe.address == "headless" and observation.backend:
                self._addresses[_key(attempt.probe)] = observation.peer.split()[0]

    def of(self, probe: Probe) -> str | None:
        """Return the address that a probe is to dial, or None where its name has not been reached yet."""
        return self._addresses.get(_key(probe))


def search(namespace: str, domain: str) -> list[str]:
    """Return the search list that a pod of a namespace has in its resolv.conf (kubelet, dnsPolicy ClusterFirst)."""
    own = [f"{namespace}.svc.{domain}"] if namespace else []
    return [*own, f"svc.{domain}", domain]


def _key(probe: Probe) -> tuple[Ref, Ref, int]:
    return probe.source, service_of(probe), probe.family
