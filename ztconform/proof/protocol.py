# SPDX-License-Identifier: Apache-2.0
"""The proof protocol: control, apply between markers, converge, hold, witness, release; every phase, for every row.

What an observation means is for `judge` to say, and what a user sees of a result for the plugin.
"""

from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from ztconform.cluster import Cluster
from ztconform.errors import Rejected, UsageError
from ztconform.evidence import RowResult
from ztconform.model import Case, Manifest, Outcome, Probe, Ref, Row, Step, of_manifest
from ztconform.proof import phases, plan, witness
from ztconform.proof.change import Changes, Mutate, ended_by, touched_by
from ztconform.proof.examiner import Examiner
from ztconform.proof.trial import Trial
from ztconform.proof.watching import Watching

Notify = Callable[[str], None]


def prove_case(
    case: Case,
    cluster: Cluster,
    *,
    mutate: Mutate | None = None,
    notify: Notify | None = None,
    keep_policy: bool = False,
    patience: float | None = None,
    give_up: float | None = None,
) -> tuple[RowResult, ...]:
    """Prove every row of a case and return the results in the case's order.

    Never raises for an outcome. `mutate` may change a policy, or drop it (None), before it is applied; `notify` is told each
    phase; `patience` bounds the seconds of each wait for convergence below the stack's own, and `give_up` those for which nothing
    at all may be denied. With `keep_policy` the topology stays, with the last policies in force, until `cluster.remove(case.id)`.
    Raises Rejected for a manifest that the cluster refuses, and any ZtconformError if the cluster could not be used.
    """
    _demand_unique_ids(case)
    rows = [row for step in case.steps for row in step.rows]
    features = cluster.facts().features
    lacking = features.get("outsider", "")
    if lacking:
        case = plan.without_outsiders(case)
    case = plan.with_attackers(plan.with_satellites(case))
    if features.get("waypoint") == "":
        case = plan.with_waypoints(case)
    kept = False
    try:
        cluster.deploy(case.topology, case.id)
        proof = _Proof(case, cluster, mutate, notify or (lambda phase: None), Examiner(cluster, patience, give_up))
        results = proof.run()
        if keep_policy:
            proof.changes.restore()
            kept = True
        return _with_left_out(results, rows, lacking)
    finally:
        if not kept:
            cluster.remove(case.id)


class _Proof:
    def __init__(self, case: Case, cluster: Cluster, mutate: Mutate | None, notify: Notify, examiner: Examiner) -> None:
        self.case = case
        self.cluster = cluster
        self.notify = notify
        self.examiner = examiner
        self.timeouts = examiner.facts.timeouts
        self.changes = Changes(cluster, mutate)
        self.trials = [Trial(row=r, step=i) for i, s in enumerate(case.steps) for r in s.rows]
        self.opened: tuple[Manifest, ...] = ()

    def run(self) -> tuple[RowResult, ...]:
        refusals = [self._refuse(m) for m in self.case.refuse]
        self._control()
        for index, step in enumerate(self.case.steps):
            ending = [t for t in self.trials if t.step < index and _touches(t, ended_by(step))]
            self._release([t for t in ending if not t.released], then=[t for t in self.trials if t.step == index - 1])
            self._step(index, step)
        self._release([t for t in self.trials if not t.released])
        return (*refusals, *(t.result() for t in self.trials))

    def _refuse(self, manifest: Manifest) -> RowResult:
        self.notify("refuse")
        name = of_manifest(manifest)
        probe = Probe(source=Ref("", "ztconform"), target=Ref("", name), port=0, kind="api")
        row = Row(id=f"refuse {name}", probe=probe, want="denied", by=frozenset({"api"}))
        outcome: Outcome = "VIOLATED"
        why = f"{name} was accepted"
        try:
            self.cluster.perform(Step(apply=(manifest,)))
        except Rejected as refusal:
            outcome, why = "PROVED", str(refusal)
        else:
            self.cluster.perform(Step(delete=(manifest,)))
        return RowResult(row=row, outcome=outcome, why=why, control="none", window=None, observations=(), cause=None)

    def _aim(self, trials: Iterable[Trial]) -> list[Trial]:
        """Work out from where to where each row is sent now; return those that can be sent."""
        pods = self.cluster.pods()
        mute = {pod.ref for pod in pods if not pod.witnesses}
        for trial in trials:
            attempts, why = plan.attempts(trial.row, pods, self.cluster.endpoints, self.timeouts)
            trial.aim(attempts, mute)
            trial.control_why = why or trial.control_why
        return [t for t in trials if t.attempts]

    def _control(self) -> None:
        self.notify("control")
        trials = self._aim([t for t in self.trials if t.wants_controls])
        # Where the mesh itself lets nobody in, nothing is to be gained by waiting for that.
        closed = {w.ref for w in self.case.topology.workloads if w.meshed} if self.examiner.facts.closed else set[Ref]()
        self._open_up([t for t in trials if t.row.control == "open" and t.row.probe.target not in closed], "open")
        still_closed = [t for t in trials if not t.control]
        if still_closed:
            # The baseline denies by itself, or the row says that it does: a policy of ours opens it, and is then replaced.
            self._open(still_closed)
            self._open_up(still_closed, "opened")

    def _open_up(self, trials: Sequence[Trial], kind: str) -> None:
        for trial, findings in phases.until_open(self.examiner, trials):
            trial.control_why = phases.closed(findings)
            if not trial.control_why:
                trial.control = kind

    def _open(self, trials: Sequence[Trial]) -> None:
        ends = {ref.namespace for t in trials for ref in (t.row.probe.source, t.row.probe.target)}
        self.opened = self.changes.open(ends & set(self.case.topology.namespaces), self.case.topology)

    def _close(self) -> None:
        self.changes.close(self.opened)
        self.opened = ()

    def _step(self, index: int, step: Step) -> None:
        trials = [t for t in self.trials if t.step == index]
        moved = touched_by(step)
        early = [t for t in self._aim(trials) if t.row.want == "denied" and not _touches(t, ended_by(step))]
        self.examiner.forget(moved)
        self.notify("apply")
        with Watching(self.cluster, early, self.timeouts) as watching:
            watching.await_first()
            watching.mark()
            self._close()
            self.changes.do(step)
            missing = self.changes.missing()
            ready = self._aim(trials)
            # Rows whose pods the step has only just made have no time before it: they are watched from here on.
            known = {t.row.id for t in early}
            late = [t for t in ready if t.row.want == "denied" and (t.row.id not in known or _touches(t, moved))]
            with Watching(self.cluster, late, self.timeouts) as newcomers:
                newcomers.mark()
                self.notify("converge")
                more = self.timeouts.relabelled if step.relabel else 0.0
                since = phases.converge(self.examiner, ready, (watching, newcomers), more=more)
                self.notify("hold")
                for stream in (watching, newcomers):
                    stream.halt(max(0.0, since + self.timeouts.hold - monotonic()))
                phases.hold(self.examiner, ready, since)
                self.notify("witness")
                log = witness.read(self.cluster, ready)
                seen = witness.nonces(log)
                newcomers.finish(late, seen)
                watching.finish([t for t in early if t not in late], seen)
        for trial in trials:
            trial.policies = self.changes.in_force()
            # Now, since a later step may end the pods: the command of the attempt that decided, or of the first.
            deciding = [f.attempt for f in trial.deciding] or list(trial.attempts)
            trial.repeat = self.cluster.render(deciding[0]) if deciding else ""
            if not trial.attempts:
                _without_attempts(trial)
            elif missing:
                trial.blame("INCONCLUSIVE", f"not in force as applied: {missing}")
            else:
                witness.testify(trial, log)

    def _release(self, trials: Sequence[Trial], *, then: Sequence[Trial] | None = None) -> None:
        """Lift every policy and demand that what was denied passes again; read the servers' logs once more.

        With `then` the policies are put back, until these rows, which say how things stand now, come out as before: those
        released may be of an earlier step, and want what labels have changed since.
        """
        released = self._aim([t for t in trials if t.wants_controls and not t.red])
        if then is not None and not released:
            return
        self.notify("release")
        self.changes.lift()
        baseline_denies = [t for t in released if t.control == "opened"]
        if baseline_denies:
            self._open(baseline_denies)
        for trial, findings in phases.until_open(self.examiner, released):
            why = phases.closed(findings)
            trial.released = not why
            if why:
                trial.blame("INCONCLUSIVE", f"not reachable again after the policy's removal: {why}", findings)
            elif not trial.control:
                trial.control = "open, after removal only (it did not exist before the policy)"
        # By now every denied probe has long given up: what arrived late keeps its phase.
        late = [t for t in trials if t.silent and not t.red]
        log = witness.read(self.cluster, late)
        for trial in late:
            witness.testify(trial, log)
        self._close()
        if then is not None:
            self.changes.restore()
            phases.converge(self.examiner, self._aim([t for t in then if not t.red]))


def _with_left_out(results: Sequence[RowResult], rows: Sequence[Row], why: str) -> tuple[RowResult, ...]:
    """Return the results with one for each row that was left out, NOT_SUPPORTED for that reason, in the case's order."""
    wanted = {row.id for row in rows}
    found = {result.row.id: result for result in results}
    others = tuple(result for result in results if result.row.id not in wanted)
    return (*others, *(found.get(row.id) or _unsupported(row, why) for row in rows))


def _unsupported(row: Row, why: str) -> RowResult:
    return RowResult(row=row, outcome="NOT_SUPPORTED", why=why, control="none", window=None, observations=(), cause=None)


def _demand_unique_ids(case: Case) -> None:
    ids = [r.id for s in case.steps for r in s.rows]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise UsageError(f"case {case.id}: row {twice[0]!r} stands there more than once; evidence is joined by row id")


def _touches(trial: Trial, workloads: Iterable[Ref]) -> bool:
    return bool({trial.row.probe.source, trial.row.probe.target} & set(workloads))


def _without_attempts(trial: Trial) -> None:
    if trial.row.want == "inconclusive":
        trial.held = True
    else:
        trial.blame("INCONCLUSIVE", trial.control_why)
