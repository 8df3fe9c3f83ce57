# SPDX-License-Identifier: Apache-2.0
"""What comes of a case: what probes and servers report, what denied them, what that means, and how a row came out.

Instants and JSON as in `model`.
"""

from dataclasses import dataclass
from typing import Literal

from ztconform.model import Kind, Layer, Manifest, Outcome, Ref, Row, Signal, Stage, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Report what one probe met; what could not be sent is signal "not-run", never an exception."""

    attempt: str
    nonce: str  # secrets.token_hex, one per attempt sent
    sent: float
    ended: float
    signal: Signal
    stage: Stage
    detail: str = ""  # errno, ICMP type/code, rcode
    source: str = ""  # "address port" the probe left from
    peer: str = ""  # "address port" it was sent to
    status: int | None = None
    server: str = ""  # the Server header
    body: str = ""  # at most 512 characters
    backend: str = ""  # "namespace/pod" by the agent's own mark in the answer; "" for an answer that is not an agent's
    boot: str = ""  # boot ID by the same mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Vital:
    """Report one server port in one round: evidence that silence towards it is not its own."""

    server: Ref
    port: int
    transport: Transport
    boot: str
    answers_itself: bool
    ready: bool
    in_endpoints: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bystander:
    """Report one pair that no policy selects, between the nodes (None: outside) that the rows use."""

    nodes: tuple[int | None, int | None]
    transport: Transport
    through: bool | None  # None: could not be asked
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Hold what one round of probes brought, with the controls of that same round."""

    observations: tuple[Observation, ...]  # same order and length as the attempts
    vitals: tuple[Vital, ...]
    bystanders: tuple[Bystander, ...]
    foreign: frozenset[str] = frozenset()  # policies that are not ours and select our pods
    doubt: str = ""  # why silence in this round proves nothing, whoever is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """Report one nonce that a server saw; sequence has no gaps within one boot."""

    nonce: str
    boot: str
    sequence: int
    identity: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Name what denied a probe."""

    nonce: str
    layer: Layer
    policies: tuple[str, ...]  # "namespace/name"; for an implicit denial those that select the endpoint
    explicit: bool  # False: "default deny" of the endpoint, no rule names the denial
    direction: Literal["ingress", "egress", ""]
    endpoint: Ref | None
    source: Literal["nflog", "access-log", "hubble", "goldmane", "metric", "spire"]

    def __str__(self) -> str:
        names = ", ".join(self.policies) or "no policy"
        if self.explicit:
            return names
        if self.layer == "identity":
            return f"{self.source}, which issues nothing to {self.endpoint}"
        if self.layer == "mtls":
            return f"mutual TLS of {self.endpoint}, demanded by {names}"
        return f"{f'default deny {self.direction}'.rstrip()} of {self.endpoint}, selected by {names}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Describe how a denial of one layer looks on one stack."""

    name: str  # a code of the catalogue: DROP, ICMP ...
    layer: Layer
    kinds: frozenset[Kind]
    signal: Signal
    stages: frozenset[Stage]
    detail: str = ""  # a regular expression that the whole detail must match; "" matches anything
    status: int | None = None  # of a denial that is an answer
    body: str = ""  # a regular expression that is searched for in the answer's body; "" matches anything
    caused: bool = False  # True: the stack logs every such denial, so that one without a cause is INCONCLUSIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Say what one attempt means."""

    kind: Literal["ALLOWED", "DENIED", "INCONCLUSIVE"]
    why: str  # one clause for a human
    layer: Layer | None = None
    signature: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Measure, on the client's clock, how long a denied row went on being answered after apply began."""

    seconds: float  # last answered probe's sending after the marker before apply; 0: none was answered
    spacing: float  # seconds between two probes: what the figure is worth
    sent: int  # probes sent after the marker

    def __str__(self) -> str:
        every = f"{self.spacing * 1e3:.0f} ms"
        return f"< {every}" if self.seconds < self.spacing else f"{self.seconds * 1e3:.0f} ms (every {every})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """Tell how a row came out, and everything needed to believe it."""

    row: Row
    outcome: Outcome
    why: str
    control: str  # the control that held: open, opened, twin, or why none did
    window: Window | None
    observations: tuple[Observation, ...]  # the ones that decided, at most a few
    cause: Cause | None
    fate: str = ""  # what the servers say of the deciding nonces
    recorded: tuple[str, ...] = ()  # what attempts met that no verdict follows from
    policies: tuple[Manifest, ...] = ()  # in force when it was decided
    repeat: str = ""  # a command that sends the probe again
