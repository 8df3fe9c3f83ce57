# SPDX-License-Identifier: Apache-2.0
"""The three ways to poll rounds: until open, until converged, and while it holds; each with a deadline."""

from collections.abc import Mapping, Sequence
from time import monotonic, sleep

from ztconform.proof.examiner import Examiner
from ztconform.proof.trial import Finding, Trial
from ztconform.proof.watching import Watching

_ROUNDS_AT_MOST = 8  # within the hold time


def until_open(examiner: Examiner, trials: Sequence[Trial]) -> list[tuple[Trial, tuple[Finding, ...]]]:
    """Send rows that must pass now until they all do or the converge deadline is over; return what came last."""
    pending = list(trials)
    last: dict[str, tuple[Finding, ...]] = {}
    deadline = monotonic() + examiner.facts.timeouts.converge
    while pending:
        last.update(examiner.round(pending, opening=True))
        pending = [t for t in pending if closed(last[t.row.id])]
        if monotonic() >= deadline:
            break
        if pending:
            sleep(examiner.facts.timeouts.spacing)
    return [(t, last[t.row.id]) for t in trials]


def closed(findings: Sequence[Finding]) -> str:
    """Return why findings are not all ALLOWED, or ""; none at all are not."""
    if not findings:
        return "nothing was sent"
    return next((f.verdict.why for f in findings if f.verdict.kind != "ALLOWED"), "")


def converge(examiner: Examiner, trials: Sequence[Trial], watched: Sequence[Watching] = (), *, more: float = 0.0) -> float:
    """Poll until every row shows its expectation; those that do not within the deadline, sooner if nothing is denied, turn red.

    `more` are seconds on top of the stack's deadline. Returns when the last round started: of the rows that converged, that
    was the first of the rounds in which they hold.
    """
    timeouts = examiner.facts.timeouts
    deadline, rounds = monotonic() + timeouts.converge + more, 0
    give_up = monotonic() + examiner.give_up + more
    denied = [t for t in trials if t.row.want == "denied"]
    started = monotonic()
    against: dict[str, tuple[Finding, ...]] = {}  # by row id: the last round that contradicts it
    while trials:
        started = monotonic()
        findings = examiner.round(trials)
        rounds += 1
        wrong = [t for t in trials if not t.met_by(findings[t.row.id])]
        for trial in trials:
            if trial not in wrong:
                against.pop(trial.row.id, None)
            elif trial.contradicted_by(findings[trial.row.id]):
                against[trial.row.id] = findings[trial.row.id]
        # A cluster that has begun to deny is waited for, and so is one that is too busy to be asked.
        if any(t.met_by(findings[t.row.id]) for t in denied):
            give_up = deadline
        nothing_denied = bool(denied) and all(t.contradicted_by(findings[t.row.id]) for t in denied)
        overdue = monotonic() >= (give_up if nothing_denied else deadline)
        # Two rounds at least: the patience of one allowed probe can be longer than the deadline.
        if not wrong or (overdue and rounds > 1):
            against.update(_asked_patiently(examiner, [t for t in wrong if t.row.id not in against]))
            for trial in trials:
                if trial in wrong:
                    # A last round that proves nothing does not undo one that showed the contrary, with no good one between.
                    trial.blame_round(against.get(trial.row.id, findings[trial.row.id]))
                else:
                    trial.remember(findings[trial.row.id])
                    for stream in watched:
                        stream.converged(findings[trial.row.id])
            break
        sleep(timeouts.spacing)  # a row that is still open answers at once, and would be asked thousands of times
    return started


def _asked_patiently(examiner: Examiner, trials: Sequence[Trial]) -> dict[str, tuple[Finding, ...]]:
    """Ask denied rows once more with an allowed probe's patience; return, by row id, what lets a row pass after all.

    On a machine that is too busy to answer within a denied probe's, a policy without effect would look undecided.
    """
    denied = [t for t in trials if t.row.want == "denied"]
    findings = examiner.round(denied, opening=True) if denied else {}
    return {t.row.id: findings[t.row.id] for t in denied if t.contradicted_by(findings[t.row.id])}


def hold(examiner: Examiner, trials: Sequence[Trial], since: float) -> None:
    """Demand consecutive good rounds for the hold time, the one that started at `since` being the first.

    A round that contradicts a row turns it red at once; one that merely proves nothing starts the count anew, until
    the converge deadline has passed a second time. Until then it is also held while a log that is to tell of a row
    has not: some tell of what went on in an interval, and only after its end.
    """
    timeouts = examiner.facts.timeouts
    deadline = monotonic() + timeouts.hold + timeouts.converge
    holding, rounds = [t for t in trials if not t.red], 1
    remarks: Mapping[str, frozenset[str]] = {}
    while holding:
        held = rounds >= timeouts.hold_rounds and monotonic() - since >= timeouts.hold
        if held:
            remarks = _remarks(examiner, holding)
            if monotonic() >= deadline or not any(_is_awaited(t, remarks) for t in holding):
                break
        findings = examiner.round(holding)
        rounds += 1
        overdue = monotonic() >= deadline
        again = False
        for trial in holding:
            mine = findings[trial.row.id]
            trial.remember(mine)
            if trial.contradicted_by(mine) or (overdue and not trial.met_by(mine)):
                trial.blame_round(mine)
            elif not trial.met_by(mine):
                again = True
            elif trial.row.twin is not None:
                _compare(trial, findings.get(trial.row.twin, ()))
        if again:
            since, rounds = monotonic(), 0
        # Where denials are answered at once, rounds would follow each other without a pause, and the stream watches anyway.
        sleep(timeouts.hold / _ROUNDS_AT_MOST)
        holding = [t for t in holding if not t.red]
    for trial in holding:
        trial.held = True
        _attribute(trial)
        _look_up_remarks(trial, remarks)


def _compare(trial: Trial, twin: Sequence[Finding]) -> None:
    why = closed(twin)
    if why:
        trial.blame("INCONCLUSIVE", f"its twin {trial.row.twin} did not pass in the same round: {why}")
    elif trial.row.control == "twin":
        trial.control = "twin"


def _remarks(examiner: Examiner, trials: Sequence[Trial]) -> Mapping[str, frozenset[str]]:
    """Return by nonce what was logged of the last requests of rows that ask for it; nothing once events were lost."""
    nonces = [f.observation.nonce for t in trials if t.row.logged is not None for f in t.deciding]
    return (examiner.cluster.remarks(nonces) or {}) if nonces else {}


def _is_awaited(trial: Trial, remarks: Mapping[str, frozenset[str]]) -> bool:
    """Return whether a log has yet to tell what denied a row's last requests, or what would have."""
    if trial.row.named:
        return any(f.cause is None for f in trial.deciding)
    return trial.row.logged is not None and any(f.observation.nonce not in remarks for f in trial.deciding)


def _look_up_remarks(trial: Trial, remarks: Mapping[str, frozenset[str]]) -> None:
    """Demand that of a request which passed exactly what the row says was logged."""
    wanted = trial.row.logged
    if wanted is None:
        return
    for finding in trial.deciding:
        found = remarks.get(finding.observation.nonce)
        if found is None:
            trial.blame("INCONCLUSIVE", "no log knows the request, or events were lost", [finding])
        elif found != wanted:
            said = ", ".join(sorted(found)) or "nothing"
            trial.blame("VIOLATED", f"what was logged of it is {said}, not {', '.join(sorted(wanted)) or 'nothing'}", [finding])


def _attribute(trial: Trial) -> None:
    """Demand that the denial is attributed to exactly the policies that the row names."""
    if not trial.row.named:
        return
    for finding in trial.deciding:
        if finding.cause is None:
            trial.blame("INCONCLUSIVE", "nothing tells what denied it", [finding])
        elif frozenset(finding.cause.policies) != trial.row.named:
            wanted = ", ".join(sorted(trial.row.named))
            trial.blame("VIOLATED", f"attributed to {finding.cause}, not to {wanted}", [finding])
