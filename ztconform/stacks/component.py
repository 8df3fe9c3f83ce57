# SPDX-License-Identifier: Apache-2.0
"""What every component of a stack answers: what it asks of kind, how it is installed and known, and what it can prove.

A stack is a CNI, and what is laid over it: `cni[+part...][:option...]`. Which combinations there are is left to `composition`,
what becomes of the answers to `composed`, and what two components need because of each other to `interplay`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, Union

from ztconform.evidence import Signature
from ztconform.model import Manifest
from ztconform.settings import Settings

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.helm import Chart
    from ztconform.kube.profile import Audit, FlowLog, Mesh
    from ztconform.kube.ready import Goal

Role = Literal["cni", "mesh", "gateway", "identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """Name the components of a stack, the CNI first, and the options that they were given."""

    name: str  # as it is said: "cilium+istio:ambient"
    parts: tuple[str, ...]
    options: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Say what a component must know of the kind cluster that it is installed in."""

    cluster: str  # its name, by which its nodes are called
    pods: tuple[str, ...]  # ranges of the pods' addresses


def always() -> None:
    """Find nothing wrong, with what comes from no file and no network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """Hold manifests that are applied as they are, server-side; for what no chart installs."""

    component: str
    what: str  # for the line that tells of it
    make: Callable[[], Sequence[Manifest]]  # called when their turn has come: a file is read, a key is made
    mark: str = ""  # stands for their content where a kept cluster is compared; never a key
    once: bool = False  # what is there already stays as it is: a key that was made
    check: Callable[[], None] = always  # raises UsageError or ClusterError before anything is created


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Name what a node's kernel must be able to do."""

    what: str  # "WireGuard"
    link: str  # the type of a link that can be made where it is there: "wireguard"
    cure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Tell by what a component is known in a cluster, and the options with which it runs there."""

    evidence: str
    options: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Hold what one component, as it runs in a cluster, says of itself."""

    dialects: tuple[str, ...] = ()  # in order of preference
    # Those that it adds ("") or takes away (why), by the catalogue's names; what one adds, a later one does not take away.
    features: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)  # facts for the report, versions and modes
    signatures: tuple[Signature, ...] = ()
    patience: float = 0.0  # seconds until a meshed client shows a denial, where that is later than without a mesh
    relabelled: float = 0.0  # seconds for which a changed label is not acted on, on purpose
    notes: tuple[str, ...] = ()  # what a reader must know: an audit mode, a PERMISSIVE mesh default
    flows: "Callable[[Connection], FlowLog] | None" = None
    mesh: "Mesh | None" = None
    audit: "Audit | None" = None


Step: TypeAlias = Union["Chart", Objects, "Goal"]


class Component(Protocol):
    """Answer for one part of a stack; pure but for the methods that take a connection."""

    name: str
    role: Role
    summary: str
    memory: int  # MiB that it needs on three nodes, beside the cluster itself

    def kind_needs(self, stack: Composition) -> Mapping[str, Any]:
        """Return what kind's configuration must have."""

    def kernel(self, stack: Composition) -> tuple[Kernel, ...]:
        """Return what the nodes' kernel must be able to do."""

    def steps(self, stack: Composition, settings: Settings, site: Site) -> Sequence[Step]:
        """Return how it is installed, in order; the same again changes nothing."""

    def promises(self, stack: Composition) -> Mapping[str, str]:
        """Return the features that it adds ("") or takes away (why) as it is installed here; `findings` has the last word."""

    def goal(self, stack: Composition) -> "Goal":
        """Return what must be ready before anything is believed of it, in our own cluster and in an existing one."""

    def found(self, connection: "Connection") -> Found | None:
        """Return by what it is known in a cluster, None where it does not run; read only, and by workloads: CRDs outlive it."""

    def demand(self, connection: "Connection") -> None:
        """Raise ClusterError where an existing one is set so that our policies would mean something else."""

    def findings(self, connection: "Connection", settings: Settings, stack: Composition, kind: str) -> Findings:
        """Return what it says of itself; `kind` is the name of the kind cluster, "" for one that is not ours."""

    def status(self, connection: "Connection") -> str:
        """Return its own word on how it is, for the logs of a failed run."""


class Overlay:
    """Ask for nothing below the pods: what is laid over a CNI needs neither kind nor kernel to be other than they are."""

    def kind_needs(self, stack: Composition) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    def kernel(self, stack: Composition) -> tuple[Kernel, ...]:
        """Return nothing that a link can tell."""
        return ()

    def demand(self, connection: "Connection") -> None:
        """Demand nothing of one that is there."""
