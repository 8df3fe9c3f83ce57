# SPDX-License-Identifier: Apache-2.0
"""What the proof protocol asks of a cluster, whichever it is; the lab and Kubernetes each answer it."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ztconform.evidence import Cause, Observation, Round, Sighting, Signature
from ztconform.model import Attempt, Manifest, Pod, Ref, Step, Topology
from ztconform.timeouts import Timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """Name the cluster's DNS: the pods that answer, and the port they really listen on."""

    address: str  # what pods have in resolv.conf
    namespace: str
    labels: Mapping[str, str]
    port: int  # target port


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Describe a cluster: what it speaks, what it can prove, and how its denials look."""

    stack: str
    dialects: tuple[str, ...]  # in order of preference
    features: Mapping[str, str]  # name -> "" where it is there, else why not
    versions: Mapping[str, str]
    signatures: tuple[Signature, ...]
    timeouts: Timeouts
    resolver: Resolver
    nodes: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    closed: bool = False  # the mesh denies what no policy allows, and so meshed pods are open to nobody at first
    untested: Mapping[str, str] = field(default_factory=dict)  # nodes that hold workloads and were left out, with the reason


class Stream(AbstractContextManager["Stream"], Protocol):
    """Send attempts open loop, whether or not the last one has come back."""

    spacing: float  # seconds between two probes of one attempt

    def mark(self) -> Mapping[Ref, float]:
        """Return now on the clock of each client pod's agent."""

    def drain(self, wait: float = 0.0) -> Sequence[Observation]:
        """Return what came since the last call; with nothing there, wait up to `wait` seconds for something."""

    def halt(self, after: float = 0.0) -> None:
        """Stop sending after so many seconds; returns at once."""

    def stop(self) -> Sequence[Observation]:
        """Stop sending, wait for what is under way, and return what came since the last drain."""


class Captures(Protocol):
    """Look at what goes over a node's wire; only for a cluster whose facts have the feature packet-capture."""

    def capture(self, at: Ref, seconds: float) -> bytes:
        """Return the packets to and from a pod that its node sends and receives for so many seconds, as pcap, or none at all.

        Raises ClusterError where some are missing: their absence is evidence too.
        """


class Cluster(Protocol):
    """Deploy, change, probe and ask; synchronous, and raising nothing but ZtconformError."""

    def facts(self) -> Facts:
        """Return what the cluster is; constant while it lives."""

    def deploy(self, topology: Topology, owner: str) -> None:
        """Create what the topology declares and wait until every server answers itself."""

    def pods(self) -> Sequence[Pod]:
        """Return the pods and outsiders that exist now."""

    def endpoints(self, service: Ref) -> Sequence[Ref]:
        """Return the pods that stand behind a Service now."""

    def perform(self, step: Step) -> None:
        """Do a step's changes; return when they are accepted and read back.

        Raises Rejected for a manifest that the cluster refuses, with nothing of the step done.
        """

    def policies(self) -> Sequence[Manifest]:
        """Return the policies of ours that are in force, as read back."""

    def run(self, attempts: Sequence[Attempt]) -> Round:
        """Send every attempt once, side by side, with the vitals of their targets and bystanders on their nodes."""

    def watch(self, attempts: Sequence[Attempt], every: float) -> Stream:
        """Start a stream that goes on across perform()."""

    def seen(self, servers: Collection[Ref]) -> Mapping[Ref, Sequence[Sighting] | None]:
        """Return all that each server pod saw since it was deployed; None where it could not be asked or has a gap."""

    def causes(self, nonces: Collection[str]) -> Sequence[Cause] | None:
        """Return what is known of who denied these; None if the flow log lost events."""

    def remarks(self, nonces: Collection[str]) -> Mapping[str, frozenset[str]] | None:
        """Return what was logged of requests that passed: policies that would have denied (dry run, audit), and "plaintext".

        A nonce that no log knows is not in the answer; None if the log lost events.
        """

    def render(self, attempt: Attempt) -> str:
        """Return a shell command that sends the attempt's probe again while the cluster is up."""

    def remove(self, owner: str) -> None:
        """Remove what deploy() and perform() created for this owner; nothing else, and never failing if it is gone."""
