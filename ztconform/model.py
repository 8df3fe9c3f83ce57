# SPDX-License-Identifier: Apache-2.0
"""The nouns of a proof, frozen and free of I/O: what is deployed, what is sent, what came back, what it means.

Seconds are float; an instant is of its agent's monotonic clock, never subtracted from another's. JSON is left to `jsonform`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Layer = Literal["l34", "mtls", "l7", "dns", "identity", "api"]  # who refused
Want = Literal["allowed", "denied", "inconclusive"]  # inconclusive: in case files only, never in a scenario
Outcome = Literal["PROVED", "VIOLATED", "INCONCLUSIVE", "NOT_SUPPORTED", "NOT_RUN"]
Transport = Literal["TCP", "UDP", "SCTP"]
App = Literal["http", "http2", "grpc", "tcp", "udp"]
Kind = Literal["tcp", "udp", "http", "http2", "grpc", "websocket", "tls", "dns", "api"]  # api: a manifest that must be refused
Address = Literal["pod", "service", "headless", "name", "node", "other-node"]  # the last: node ports, with the target or without
ControlKind = Literal["open", "opened", "twin"]
Signal = Literal["answered", "timeout", "icmp", "refused", "closed", "tls-alert", "dns", "silence", "no-identity", "not-run"]
Stage = Literal["exec", "identity", "dns", "connect", "tls", "request", "done"]  # identity: its SVID is fetched
Provider = Literal["sound", "federated", "banned", "server-down", "down"]  # of identities; "federated" with the partner
Manifest = Mapping[str, Any]  # parsed and rendered: no placeholder is left in it

OUTSIDE = ""  # the namespace of a host outside the cluster network
TEST_HOST = "test-host"  # the outsider that is the machine which the tests run on
PRIVILEGED = "ztc-privileged"  # the namespace of pods on their node's own network, and of nothing else


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Name a workload, a pod, a Service, or (with an empty name) a namespace; namespace "" is an outsider."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace or 'outsider'}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """Declare a port of a workload: its own number, and the number that its Service gives it."""

    number: int
    name: str = ""
    protocol: Transport = "TCP"
    app: App = "http"
    service: int | None = None  # None: not in the workload's Service
    listening: bool = True  # False: declared, but nobody serves it


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Declare pods of one kind: their ports, labels, account and placement."""

    ref: Ref
    ports: tuple[Port, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str = "default"
    svid_account: str = ""  # the account whose SVID its pods really hold, where that is not their own: an impostor
    meshed: bool = False
    replicas: int = 1
    node: int | None = None  # 0, 1 ... of the nodes there are; None: the cluster's choice
    host_network: bool = False  # a client on its node's own network, in the namespace PRIVILEGED
    # A prober with the same labels and account on the node where the workload is not, never ready and so never an endpoint:
    # with it every denial is probed from the same node and across nodes.
    satellite: bool = False
    # Its Service is called through a waypoint: a mesh whose nodes' proxies know connections alone has one for requests.
    waypoint: bool = False
    past_proxy: tuple[str, ...] = ()  # the certificates that its probes show past its own proxy, as in `Probe.cert`; "": none
    fixed_address: str = ""  # an outsider's IPv4 address where it stands in for a well-known one (cloud metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Declare everything that must run before a policy is applied."""

    namespaces: Mapping[str, Mapping[str, str]]
    workloads: tuple[Workload, ...]
    services: tuple[Manifest, ...] = ()  # beside each workload's own
    private: bool = False  # the names of the namespaces are nobody's own: a cluster that others use too may choose others
    outsiders: tuple[Workload, ...] = ()
    mesh: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """Tell where a pod (or an outsider) really is."""

    ref: Ref
    workload: Ref
    node: int | None  # None: outside the cluster
    addresses: tuple[str, ...]  # IPv4 first, then IPv6 where there is one
    serves: bool = True  # False: a satellite
    host_network: bool = False
    witnesses: bool = True  # False: the cluster's own, such as its resolver, which keeps no log for us
    captured: bool = False  # a mesh's proxy connects in its place


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Say what to send, from where, to where."""

    source: Ref
    target: Ref
    port: int  # always the workload's own number, also through a Service
    address: Address = "service"
    via: Ref | None = None  # another Service than the workload's own
    kind: Kind = "http"
    family: Literal[4, 6] = 4
    method: str = "GET"
    path: str = "/"  # raw, latin-1; the queried name for kind "dns"
    headers: tuple[tuple[str, str], ...] = ()
    host: str | None = None
    raw: str | None = None  # the whole request, latin-1, with {nonce} where the nonce belongs
    past_proxy: bool = False  # leave the client's own proxy out, as an attacker in the pod could
    # The client certificate of a probe that speaks TLS itself: "own", "none", "expired", "foreign-ca", "partner" (of
    # its account, by another trust domain's identity provider), or "ns/account" of another
    cert: str | None = None
    connection: str | None = None  # rows of one name share a connection, in row order

    @property
    def transport(self) -> Transport:
        """Return the transport protocol; a DNS probe asks by UDP."""
        return "UDP" if self.kind in ("udp", "dns") else "TCP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Demand one verdict of one probe."""

    id: str  # stable: evidence, mutants and the diff of two nights join on it
    probe: Probe
    want: Want
    by: frozenset[Layer] = frozenset()  # layers that may refuse; empty unless want is "denied"
    identity: str | None = None  # principal that the server must report
    control: ControlKind = "open"
    twin: str | None = None  # id of the allowed row that differs in the tested attribute alone
    named: frozenset[str] = frozenset()  # policies ("namespace/name") that the denial must be attributed to
    # What a proxy must have remarked on a request that passed: policies whose dry run would have denied it, "plaintext"
    logged: frozenset[str] | None = None
    needs: frozenset[str] = frozenset()  # features beyond what the requirement asks for: without one there is no such row
    unless: str = ""  # a feature with which there is no such row: one that needs it says what is then demanded instead


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Say one way to send a row's probe: from one pod, and by pod address to one pod."""

    id: str  # the row's id and its variant
    row: str
    probe: Probe  # source is a pod; target is a pod where the address is "pod"
    targets: tuple[Ref, ...]  # pods that may answer
    timeout: float
    judged: bool = True  # False: what it meets is recorded alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """Start, restart or end a workload's pods."""

    action: Literal["start", "restart", "terminate", "complete", "remove"]
    workload: Ref
    spec: Workload | None = None  # for "start"
    reuse: Ref | None = None  # for "start": take over the addresses of this workload, which has ended
    grace: float = 0.0  # for "terminate": seconds for which it goes on serving, no endpoint any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Change the cluster, then demand rows."""

    name: str = ""
    apply: tuple[Manifest, ...] = ()
    delete: tuple[Manifest, ...] = ()
    relabel: tuple[tuple[Ref, Mapping[str, str | None]], ...] = ()  # a namespace is a Ref with an empty name
    lifecycle: tuple[Lifecycle, ...] = ()
    provider: Provider = "sound"  # while this step lasts, and no longer; likewise:
    unregistered: frozenset[Ref] = frozenset()  # workloads that the identity provider has no entry for
    audited: frozenset[Ref] = frozenset()  # workloads for which the CNI only logs what policies would deny
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What prove(), a case file and a mutant become; nothing else can be proved."""

    id: str
    topology: Topology
    steps: tuple[Step, ...]
    refuse: tuple[Manifest, ...] = ()  # manifests that must be refused


def of_manifest(manifest: Manifest) -> str:
    """Return "Kind namespace/name" for messages, whatever is missing from the manifest."""
    metadata = found if isinstance(found := manifest.get("metadata"), Mapping) else {}
    kind = manifest.get("kind", "object")
    return f"{kind} {metadata.get('namespace', 'default')}/{metadata.get('name', '?')}"
