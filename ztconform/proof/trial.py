# SPDX-License-Identifier: Apache-2.0
"""What has been found about one row so far; it turns red at most once, and is PROVED only with every piece of evidence."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ztconform.evidence import Cause, Observation, RowResult, Verdict, Window
from ztconform.judge import contradicts, meets
from ztconform.model import Attempt, Manifest, Outcome, Ref, Row

DECIDING = 4  # observations kept in a result: the two variants of the last rounds


@dataclass(frozen=True, slots=True)
class Finding:
    """Join an attempt, what it met, what that means, and what caused it."""

    attempt: Attempt
    observation: Observation
    verdict: Verdict
    cause: Cause | None


@dataclass(slots=True)
class Trial:
    """Collect the evidence for one row through the phases of a proof."""

    row: Row
    step: int
    attempts: tuple[Attempt, ...] = ()
    beside: tuple[Attempt, ...] = ()  # sent with them, and recorded alone
    recorded: dict[str, str] = field(default_factory=dict)  # what those last met under the policy, by attempt
    control: str = ""  # the kind of control that held; "" while none has
    control_why: str = ""
    servers: set[Ref] = field(default_factory=set)  # pods that any of its probes could have reached, and that keep a log
    witnessed: bool = True  # False: a server that is the cluster's own could be reached too, and keeps none
    released: bool = False
    held: bool = False
    window: Window | None = None
    outcome: Outcome | None = None  # set once the row is red
    why: str = ""
    deciding: tuple[Finding, ...] = ()
    silent: dict[str, Finding] = field(default_factory=dict)  # nonce -> a finding in which nothing may have reached a server
    answered: dict[str, Finding] = field(default_factory=dict)  # nonce -> a finding that a server must have seen
    fate: str = ""
    policies: tuple[Manifest, ...] = ()
    repeat: str = ""

    @property
    def red(self) -> bool:
        """Return whether the row has failed already."""
        return self.outcome is not None

    @property
    def wants_controls(self) -> bool:
        """Return whether the row is a denial that must have been open before and be open again."""
        return self.row.want == "denied" and self.row.control != "twin"

    def aim(self, attempts: tuple[Attempt, ...], mute: Collection[Ref] = ()) -> None:
        """Take the attempts of the coming rounds, and remember the servers that they may reach; those in `mute` keep no log."""
        self.attempts = tuple(a for a in attempts if a.judged)
        self.beside = tuple(a for a in attempts if not a.judged)
        self.servers |= {t for a in attempts for t in a.targets} - set(mute)
        self.witnessed = self.witnessed and not any(t in mute for a in attempts for t in a.targets)

    def met_by(self, findings: Sequence[Finding]) -> bool:
        """Return whether every finding is what the row wants; no finding at all is not."""
        return bool(findings) and all(meets(self.row, f.verdict) for f in findings)

    def contradicted_by(self, findings: Sequence[Finding]) -> bool:
        """Return whether any finding is evidence against the row."""
        return any(contradicts(self.row, f.verdict) for f in findings)

    def record(self, finding: Finding) -> None:
        """Keep what an attempt met from which no verdict of the row follows."""
        probe, verdict = finding.attempt.probe, finding.verdict
        met = f"{probe.source} -> {probe.target} port {probe.port} on its own node: {verdict.kind}, {verdict.why}"
        self.recorded[finding.attempt.id] = met

    def remember(self, findings: Sequence[Finding]) -> None:
        """Keep the nonces of a round in which the row should hold, for the servers' logs."""
        for finding in findings:
            if meets(self.row, finding.verdict) and finding.verdict.kind == "DENIED":
                self.silent[finding.observation.nonce] = finding
            elif meets(self.row, finding.verdict) and finding.verdict.kind == "ALLOWED":
                self.answered[finding.observation.nonce] = finding
        if not self.red:
            self.deciding = tuple(findings)[:DECIDING]

    def blame_round(self, findings: Sequence[Finding]) -> None:
        """Turn the row red by a round that does not show what it wants."""
        against = [f for f in findings if contradicts(self.row, f.verdict)]
        if against:
            self.blame("VIOLATED", against[0].verdict.why, against)
            return
        unclear = [f for f in findings if not meets(self.row, f.verdict)]
        self.blame("INCONCLUSIVE", unclear[0].verdict.why if unclear else "nothing was sent", unclear)

    def blame(self, outcome: Outcome, why: str, findings: Sequence[Finding] = ()) -> None:
        """Turn the row red, for the first reason found; VIOLATED overrules INCONCLUSIVE."""
        if self.outcome == "VIOLATED" or (self.outcome is not None and outcome != "VIOLATED"):
            return
        self.outcome, self.why = outcome, why
        self.deciding = tuple(findings)[:DECIDING] or self.deciding

    def result(self) -> RowResult:
        """Return the row's result; a piece of evidence that is missing makes it INCONCLUSIVE."""
        if not self.red:
            missing = self._missing()
            if missing:
                self.blame("INCONCLUSIVE", missing)
        causes = [f.cause for f in self.deciding if f.cause is not None]
        return RowResult(
            row=self.row,
            outcome=self.outcome or "PROVED",
            why=self.why if self.red else "; ".join(sorted({f.verdict.why for f in self.deciding})),
            control=self.control or self.control_why or "none",
            window=self.window,
            observations=tuple(f.observation for f in self.deciding),
            cause=causes[0] if causes else None,
            fate=self.fate,
            policies=self.policies,
            repeat=self.repeat,
            recorded=tuple(self.recorded.values()),
        )

    def _missing(self) -> str:
        if not self.held:
            return "it was not shown to hold"
        if self.row.want == "inconclusive":
            return ""
        if not self.fate:
            return "the servers' own logs were not asked"
        if self.row.want == "denied" and not self.control:
            return f"no control passed: {self.control_why or 'none was run'}"
        if self.wants_controls and not self.released:
            return "it was not shown to be reachable again after the policy's removal"
        if self.row.want == "denied" and self.window is None:
            return "no window could be measured"
        return ""
