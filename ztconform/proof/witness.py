# SPDX-License-Identifier: Apache-2.0
"""What the servers' own logs say of every nonce that was sent: each allowed one seen, no denied one seen."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ztconform.cluster import Cluster
from ztconform.evidence import Sighting
from ztconform.model import Ref
from ztconform.proof.trial import Trial

Log = Mapping[Ref, Sequence[Sighting] | None]


def read(cluster: Cluster, trials: Collection[Trial]) -> Log:
    """Return the log of every server that a row of these could have reached."""
    return cluster.seen({server for trial in trials for server in trial.servers})


def written(log: list[Sighting] | None, entries: Iterable[Sequence[Any]]) -> list[Sighting] | None:
    """Return a server's log with what it has recorded since; a gap in its sequence, or another boot, loses the whole log."""
    for nonce, boot, sequence, identity in entries:
        if log is None or sequence != len(log) + 1 or (log and log[-1].boot != boot):
            return None
        log.append(Sighting(nonce=nonce, boot=boot, sequence=sequence, identity=identity))
    return log


def nonces(log: Log) -> frozenset[str]:
    """Return every nonce in a log."""
    return frozenset(s.nonce for sightings in log.values() for s in sightings or ())


def _fate(nonce: str, seen: Mapping[str, tuple[Ref, Sighting]]) -> str:
    if nonce not in seen:
        return f"{nonce} was seen by no server"
    server, sighting = seen[nonce]
    return f"{nonce} was seen by {server} as its #{sighting.sequence}"


def testify(trial: Trial, log: Log) -> None:
    """Hold a row's findings against the servers' log; a contradiction, a gap or a missing log turns it red."""
    servers = trial.servers
    mute = sorted(str(s) for s in servers if log.get(s) is None)
    if mute:
        trial.blame("INCONCLUSIVE", f"the log of {', '.join(mute)} could not be read, or has a gap")
        return
    seen = {s.nonce: (server, s) for server in servers for s in log[server] or ()}
    if trial.red:
        trial.fate = "; ".join(_fate(f.observation.nonce, seen) for f in trial.deciding) or "none was sent"
        return
    for nonce, finding in trial.silent.items():
        if nonce in seen:
            server, sighting = seen[nonce]
            trial.fate = f"{nonce} was seen by {server} as its #{sighting.sequence}, although the client heard nothing"
            trial.blame("VIOLATED", f"{server} saw a request that its client believed denied", [finding])
            return
    for nonce, finding in trial.answered.items() if trial.witnessed else ():
        if nonce not in seen:
            trial.fate = f"{nonce} was answered, but is in no server's log"
            trial.blame("INCONCLUSIVE", "the server's own log does not know a request that was answered", [finding])
            return
        server, sighting = seen[nonce]
        if finding.observation.boot and sighting.boot != finding.observation.boot:
            trial.blame("INCONCLUSIVE", f"{server} has restarted between answering and being asked", [finding])
            return
        if trial.row.identity is not None and sighting.identity != trial.row.identity:
            trial.fate = f"{nonce} was seen by {server} as {sighting.identity or 'nobody'}"
            trial.blame("VIOLATED", f"{server} saw {sighting.identity or 'no identity'}, not {trial.row.identity}", [finding])
            return
    names = ", ".join(sorted(str(s) for s in servers))
    if not trial.witnessed:
        trial.fate = "the cluster's own server keeps no log for us; its answers are the evidence"
    elif trial.silent:
        trial.fate = f"none of {len(trial.silent)} nonces was seen by {names}"
    elif trial.answered:
        trial.fate = f"all {len(trial.answered)} nonces were seen by {names}"
    else:
        trial.fate = f"no nonce could have reached {names}"
