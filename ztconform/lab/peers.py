# SPDX-License-Identifier: Apache-2.0
"""Which pods and addresses the peer of a policy stands for, as matches on sets that all rules of a table share.

A policy asks for pods whether they are ready or not; a completed pod has no address and is not in the inventory. Outsiders
are nobody's pods: only an ipBlock, or no peer at all, reaches them.
"""

import ipaddress
from collections.abc import Iterable

from ztconform.errors import InternalError
from ztconform.lab.inventory import Inventory, LabPod
from ztconform.lab.networkpolicy import IPBlock, Peer, PodPeer
from ztconform.lab.ruleset import AddressSet, InSet, Match, Net, Side

Matches = tuple[Match, ...]


class Peers:
    """Resolve peers over one inventory, and collect the address sets that this takes."""

    def __init__(self, inventory: Inventory) -> None:
        self._namespaces = inventory.namespaces
        self._pods = [pod for pod in inventory.pods if pod.node is not None]
        self._selected: dict[tuple[str, PodPeer], tuple[LabPod, ...]] = {}
        self._names: dict[frozenset[str], str] = {}

    def pods(self, namespace: str, peer: Peer | None) -> tuple[LabPod, ...]:
        """Return the pods that a peer of a policy in that namespace stands for; no peer is every pod."""
        if peer is None:
            return tuple(self._pods)
        if isinstance(peer, IPBlock):
            return tuple(pod for pod in self._pods if _holds(peer, pod.v6 if peer.network.version == 6 else pod.v4))
        key = (namespace, peer)
        if key not in self._selected:
            self._selected[key] = tuple(pod for pod in self._pods if self._selects(namespace, peer, pod))
        return self._selected[key]

    def matches(self, side: Side, namespace: str, peer: Peer | None) -> tuple[Matches, ...]:
        """Return what a packet's address is matched against, one alternative each; no peer matches everything."""
        if peer is None:
            return ((),)
        if isinstance(peer, IPBlock):  # by address, whether a pod or an outsider has it
            return ((Net(side, peer.network), *(Net(side, part, negate=True) for part in peer.excluded)),)
        return self.among(side, peer, self.pods(namespace, peer))

    def among(self, side: Side, peer: Peer | None, pods: Iterable[LabPod]) -> tuple[Matches, ...]:
        """Return matches, one a family, on the addresses of some of a peer's pods; an ipBlock has but one family."""
        addresses = frozenset(address for pod in pods for address in (pod.v4, pod.v6) if address)
        name = self._names.setdefault(addresses, f"peers-{len(self._names)}")
        v4: Matches = (InSet(side, f"{name}-v4", 4),)
        v6: Matches = (InSet(side, f"{name}-v6", 6),)
        if isinstance(peer, IPBlock):
            return (v4,) if peer.network.version == 4 else (v6,)
        return v4, v6

    def sets(self) -> tuple[AddressSet, ...]:
        """Return the sets that the matches given out so far refer to."""
        found: list[AddressSet] = []
        for addresses, name in self._names.items():
            v6 = frozenset(address for address in addresses if ":" in address)
            found += [AddressSet(f"{name}-v4", 4, addresses - v6), AddressSet(f"{name}-v6", 6, v6)]
        return tuple(found)

    def _selects(self, namespace: str, peer: PodPeer, pod: LabPod) -> bool:
        if peer.namespaces is None:
            return pod.ref.namespace == namespace and peer.pods.matches(pod.labels)
        if pod.ref.namespace not in self._namespaces:
            raise InternalError(f"the lab has pod {pod.ref} but no namespace {pod.ref.namespace}; please report this")
        return peer.namespaces.matches(self._namespaces[pod.ref.namespace]) and peer.pods.matches(pod.labels)


def _holds(block: IPBlock, address: str) -> bool:
    if not address:
        return False
    parsed = ipaddress.ip_address(address)
    return parsed in block.network and not any(parsed in part for part in block.excluded)
