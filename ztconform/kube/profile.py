# SPDX-License-Identifier: Apache-2.0
"""What a stack tells of itself to the cluster that it runs on: words, abilities, how its denials look, and who logs them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ztconform.evidence import Cause, Observation, Signature
from ztconform.kube.client import Connection
from ztconform.kube.pods import KubePod
from ztconform.kube.policies import Policies
from ztconform.kube.resources import Resources
from ztconform.model import Attempt, Manifest, Ref, Transport
from ztconform.settings import PodOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Say that a packet of a probe was dropped by policy, or would have been, at which end and in which direction."""

    nonce: str
    direction: Literal["ingress", "egress"]
    address: str  # of the endpoint whose policy dropped it
    policies: tuple[str, ...] = ()  # "namespace/name" of those that deny explicitly; none for a default deny
    default_of: tuple[str, ...] = ()  # of a default deny: policies by which the log says that it came to be in force


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """Say between which pods a probe went, or a captured client's proxy tried to connect for it."""

    nonce: str
    source: KubePod | None  # None: no pod of the case
    targets: tuple[KubePod, ...]  # that may have been reached
    port: int
    transport: Transport = "TCP"
    packet: tuple[str, int] | None = None  # the address and port that it left from; None: of a proxy's, nobody knows
    since: float = 0.0  # on this machine's monotonic clock: what was dropped before was another probe's


class FlowLog(Protocol):
    """Say which probes a CNI dropped; a context of its own that is closed with the cluster."""

    name: Literal["hubble", "goldmane"]

    @property
    def lost(self) -> str:
        """Return why it is not complete any more, or ""."""

    def changed(self) -> None:
        """Take it that policies change from now on."""

    def drops(self, journeys: Collection[Journey]) -> Sequence[Drop] | None:
        """Return what is known of these; None once events were lost."""

    def audited(self, journeys: Collection[Journey]) -> Sequence[Drop] | None:
        """Return which of these would have been dropped but for an audit mode, or staging; None once events were lost."""

    def between(self, journeys: Collection[Journey]) -> Sequence[Drop] | None:
        """Return what is known of connections that proxies tried to make for probes; None once events were lost."""

    def close(self) -> None:
        """Stop listening."""


# Have policies only logged for these pods, each with the name of its node, or enforced again.
Audit = Callable[[Connection, Mapping[Ref, str], bool], None]


Probes = Mapping[str, tuple[Attempt, Observation]]  # of a round, by nonce


class Witness(Protocol):
    """Speak for a mesh's proxies in one case."""

    def causes(self, sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> tuple[list[Cause], list[Journey]]:
        """Return who refused these, and of those whom their client's own proxy could not send, where it tried to connect."""

    def remarks(self, sent: Probes, pods: Mapping[Ref, KubePod], since: float) -> Mapping[str, frozenset[str]]:
        """Return what the servers' proxies remarked on requests that passed; one that none knows is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Name a namespace that holds meshed pods, as it is in the cluster."""

    namespace: str
    domain: str  # of the cluster: "cluster.local"
    # Service -> the SPIFFE ID that its clients are told to expect, whoever answers there.
    pinned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waypoint:
    """Say how a namespace gets a proxy that judges requests, where the nodes' know connections alone."""

    name: str  # of the Gateway, which those who make its pods label them with
    objects: Callable[[str, PodOptions], tuple[Manifest, ...]]  # of ours in a namespace of this name
    service_labels: Mapping[str, str]  # of Services that are called through it


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Say how pods become part of a mesh, how an attacker passes its own proxy, and what the proxies tell."""

    name: str  # "Istio"
    trust_domain: str
    root_namespace: str  # whose policies are in force in all others
    namespace_labels: Mapping[str, str]  # of namespaces that hold meshed pods
    meshed_labels: Mapping[str, str]
    bare_labels: Mapping[str, str]  # of every other pod, in whatever namespace
    annotations: Mapping[str, str]  # of meshed pods
    # The annotations in place of these, by which a pod's proxy keeps its SVID in files of `SVID_FOLDER`; the SVID lives so many
    # seconds, 0 being the mesh's own choice.
    svid_annotations: Callable[[int], Mapping[str, str]]
    proxy: str  # name of the container that injection adds; "" where a node's proxy captures pods, and none is added
    proxy_uid: int  # what this user sends is not captured: by that an attacker passes its own proxy
    pod_security: str  # level that a namespace needs for what injection adds; our own containers are `restricted` anyway
    objects: Callable[[Area], tuple[Manifest, ...]]  # of ours in each such namespace
    # Who speaks for the proxies in one case; the names are those of the nodes that are used, as pods count them.
    witness: Callable[[Resources, Policies, Sequence[str]], Witness]
    redirected: tuple[str, str] = ("", "")  # the annotation of pods that a node's proxy captures
    waypoint: Waypoint | None = None
    app_protocols: Mapping[str, str] = field(  # what our ports speak, as a Service's appProtocol says it to the mesh
        default_factory=lambda: {"http": "http", "http2": "http2", "grpc": "grpc", "tcp": "tcp"}
    )
    identity_header: str = ""  # in which a proxy tells the application who called, where it is not x-forwarded-client-cert
    spiffe: Callable[[str], str] = str  # an identity as the mesh says it, as a SPIFFE ID
    closed: bool = False  # what no policy allows is denied, as no case has applied any yet
    request_id: bool = False  # the log knows a request by its x-request-id, and not by our nonce
    unlogged: str = ""  # why the proxies' logs cannot tell what they denied; "" where they can


SVID_VOLUME, SVID_FOLDER = "ztc-svid", "/var/run/ztconform/svid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Describe what runs on a cluster."""

    stack: str
    dialects: tuple[str, ...]  # in order of preference
    features: Mapping[str, str]  # name -> "" where it is there, else why not
    versions: Mapping[str, str]
    signatures: tuple[Signature, ...]
    patience: float = 0.0  # seconds until a meshed client shows a denial, where that is later than without a mesh
    relabelled: float = 0.0  # seconds for which a changed label is not acted on, on purpose
    notes: tuple[str, ...] = ()
    kind: str = ""  # name of the kind cluster that it is, if it is one; its outsiders are containers beside the nodes
    flows: Callable[[Connection], FlowLog] | None = field(default=None)
    mesh: Mesh | None = None
    audit: Audit | None = None
