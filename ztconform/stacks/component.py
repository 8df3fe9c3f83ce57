# SPDX-License-Identifier: Apache-2.0
"""What every component of a stack answers: what it asks of kind, how it is installed and known, and what it can prove.

A stack is a CNI, and what is laid over it: `cni[+mesh...][:option...]`. Which combinations there are is left to `composition`, and
what becomes of the answers to `composed`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ztconform.model import Signature
from ztconform.settings import Settings

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.helm import Chart
    from ztconform.kube.profile import FlowLog, Mesh
    from ztconform.kube.ready import Goal

Role = Literal["cni", "mesh", "gateway", "identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """Name the components of a stack, the CNI first, and the options that they were given."""

    name: str  # as it is said: "cilium+istio:ambient"
    parts: tuple[str, ...]
    options: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """Hold manifests that are applied as they are, server-side; for what no chart installs."""

    component: str
    what: str  # for the line that tells of it
    manifests: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Name what a node's kernel must be able to do."""

    what: str  # "WireGuard"
    kind: str  # of the link that can be made where it is there: "wireguard"
    option: str  # of the stack that asks for it: ":wireguard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Hold what one component, as it runs in a cluster, says of itself."""

    dialects: tuple[str, ...] = ()  # in order of preference
    features: Mapping[str, str] = field(
        default_factory=dict
    )  # those that it adds ("") or takes away (why), by the catalogue's names
    versions: Mapping[str, str] = field(default_factory=dict)  # facts for the report, versions and modes
    signatures: tuple[Signature, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader must know: an audit mode, a PERMISSIVE mesh default
    flows: "Callable[[Connection], FlowLog] | None" = None
    mesh: "Mesh | None" = None


class Component(Protocol):
    """Answer for one part of a stack; pure but for the methods that take a connection."""

    name: str
    role: Role
    summary: str
    memory: int  # MiB that it needs on three nodes, beside the cluster itself
    options: Mapping[str, str]  # that a stack may give it, each with what it does

    def kind_needs(self, stack: Composition) -> Mapping[str, Any]:
        """Return what kind's configuration must have."""

    def kernel(self, stack: Composition) -> tuple[Kernel, ...]:
        """Return what the nodes' kernel must be able to do."""

    def steps(self, stack: Composition, settings: Settings) -> "Sequence[Chart | Objects | Goal]":
        """Return how it is installed, in order; the same again changes nothing."""

    def goal(self, stack: Composition) -> "Goal":
        """Return what must be ready before anything is believed of it."""

    def images(self, stack: Composition) -> tuple[str, ...]:
        """Return every image that its pinned charts pull, for an air gap."""

    def evidence(self, connection: "Connection") -> str:
        """Return by what it is known in a cluster, "" where it does not run; read only, and not by CRDs alone, which outlive it."""

    def demand(self, connection: "Connection") -> None:
        """Raise ClusterError where an existing one is set so that our policies would mean something else."""

    def findings(self, connection: "Connection", settings: Settings, stack: Composition, kind: str) -> Findings:
        """Return what it says of itself; `kind` is the name of the kind cluster, "" for one that is not ours."""

    def status(self, connection: "Connection") -> str:
        """Return its own word on how it is, for the logs of a failed run."""
