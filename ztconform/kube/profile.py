# SPDX-License-Identifier: Apache-2.0
"""What a stack tells of itself to the cluster that it runs on: words, abilities, how its denials look, and who logs them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ztconform.kube.client import Connection
from ztconform.model import Observation, Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Say that a packet of a probe was dropped by policy, at which end and in which direction."""

    nonce: str
    direction: Literal["ingress", "egress"]
    address: str  # of the endpoint whose policy dropped it
    policies: tuple[str, ...] = ()  # "namespace/name" of those that deny explicitly; none for a default deny


class FlowLog(Protocol):
    """Say which probes a CNI dropped; a context of its own that is closed with the cluster."""

    @property
    def lost(self) -> str:
        """Return why it is not complete any more, or ""."""

    def drops(self, observations: Collection[Observation]) -> Sequence[Drop] | None:
        """Return what is known of these; None once events were lost."""

    def close(self) -> None:
        """Stop listening."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Describe what runs on a cluster."""

    stack: str
    dialects: tuple[str, ...]  # in order of preference
    features: Mapping[str, str]  # name -> "" where it is there, else why not
    versions: Mapping[str, str]
    signatures: tuple[Signature, ...]
    patience: float = 0.0  # seconds until a meshed client shows a denial, where that is later than without a mesh
    notes: tuple[str, ...] = ()
    kind: str = ""  # name of the kind cluster that it is, if it is one; its outsiders are containers beside the nodes
    flows: Callable[[Connection], FlowLog] | None = field(default=None)
