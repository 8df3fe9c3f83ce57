# SPDX-License-Identifier: Apache-2.0
"""What dead runs left in a cluster, known by our labels and by the silence of their Leases, and how it is removed.

What they left on this machine is left to `containers` and `kind`.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from ztconform.errors import ClusterError
from ztconform.kube import calls, kinds, lease, waiting
from ztconform.kube.client import Connection, is_missing, translated
from ztconform.kube.labels import Labels
from ztconform.kube.resources import Resources

GONE_WITHIN = 120.0  # seconds for namespaces to go
_NAMESPACES = "/api/v1/namespaces"
_FORBIDDEN = 403
_PATIENCE = 5.0  # seconds for a kind of policy, which may be served by a program of its own that is down
# Conditions of a namespace that does not go, the most telling first.
_OBSTACLES = (
    "NamespaceFinalizersRemaining",
    "NamespaceDeletionDiscoveryFailure",
    "NamespaceDeletionContentFailure",
    "NamespaceContentRemaining",
)
Object = Mapping[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """Name one object that a run left, and no other that has its name."""

    kind: str
    name: str
    namespace: str  # "" for what belongs to none
    run: str
    uid: str
    path: str
    created: datetime  # by the API server's clock

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}{'/' if self.namespace else ''}{self.name} of the run {self.run}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Tell of one run what it has in the cluster, and whether it still lives."""

    id: str
    things: tuple[Thing, ...]  # its namespaces, and what it has outside them
    leases: tuple[Object, ...]
    silent: float  # seconds since a Lease was renewed; without one, since its latest thing was made

    @property
    def dead(self) -> bool:
        """Return whether nothing was heard of the run for as long as its Leases say, or for a minute if it has none."""
        return self.silent >= max((lease.duration(held) for held in self.leases), default=lease.DURATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """Hold the runs that have something in a cluster, and where nothing could be looked for."""

    dead: tuple[Run, ...]
    living: tuple[Run, ...]
    unseen: tuple[str, ...]  # kinds that these credentials may not list, or that nobody serves now


def leftovers(connection: Connection, prefix: str) -> Leftovers:
    """Return all runs that have something with the labels of this prefix, the dead apart from the living.

    Raises ClusterError.
    """
    api, labels, clock = connection.api(), Labels(prefix, ""), lease.ServerClock()
    unseen: list[str] = []
    with translated(f"context {connection.context}: what runs have left"):
        things = [_thing("namespace", _NAMESPACES, item, labels) for item in _listed(api, _NAMESPACES, labels, clock)]
        ours = {thing.name for thing in things}
        for kind in kinds.served(connection):
            try:
                items = _listed(api, kind.path, labels, clock, deadline=_PATIENCE)
            except ApiException as error:
                if error.status != _FORBIDDEN and not calls.is_passing(error):
                    raise
                unseen.append(f"{kind.resource}.{kind.group}")
            else:
                found = (_thing(kind.name, kind.path, item, labels) for item in items)
                things += [thing for thing in found if thing.namespace not in ours]
        leases = _listed(api, lease.LEASES, labels, clock)
    runs = group(things, leases, labels, clock.now())
    dead = tuple(run for run in runs if run.dead)
    return Leftovers(dead=dead, living=tuple(run for run in runs if not run.dead), unseen=tuple(unseen))


def group(things: Sequence[Thing], leases: Sequence[Object], labels: Labels, now: datetime) -> list[Run]:
    """Return whose these things and Leases are, run by run; `now` is the API server's."""
    owned: dict[str, list[Thing]] = defaultdict(list)
    held: dict[str, list[Object]] = defaultdict(list)
    for thing in things:
        owned[thing.run].append(thing)
    for one in leases:
        held[one["metadata"]["labels"][labels.run_key]].append(one)
    runs = []
    for name in sorted(owned.keys() | held.keys()):
        heard = [lease.silence(one, now) for one in held[name]] or [(now - one.created).total_seconds() for one in owned[name]]
        runs.append(Run(id=name, things=tuple(owned[name]), leases=tuple(held[name]), silent=min(heard)))
    return runs


def listed(connection: Connection, found: Leftovers) -> list[str]:
    """Return in words what `remove` would remove.

    Raises ClusterError.
    """
    words = [f"{thing} (silent for {run.silent:.0f} s)" for run in found.dead for thing in run.things]
    words += [_lease(run, held) for run in found.dead for held in run.leases]
    dying = {held["metadata"]["uid"] for run in found.dead for held in run.leases}
    with translated(f"reading the namespace {lease.NAMESPACE}"):
        if lease.unused_namespace(connection.api(), besides=dying):
            words.append(f"namespace {lease.NAMESPACE}")
    return words


def remove(connection: Connection, runs: Sequence[Run], prefix: str, say: Say, *, seconds: float = GONE_WITHIN) -> None:
    """Remove what dead runs left, say of each thing that it is gone, and wait for namespaces until they are.

    A run that turns out to live is left alone. Raises ClusterError, after everything was tried, for what could not be removed.
    """
    api, labels = connection.api(), Labels(prefix, "")
    failed: list[str] = []
    going: list[Thing] = []
    for run in runs:
        with translated(f"the Leases of the run {run.id}"):
            if not _claimed(api, run, labels, say):
                say(f"the run {run.id} lives after all: left alone")
                continue
        # Policies first: what is in force for others ends before what only takes room.
        for thing in sorted(run.things, key=lambda thing: thing.path.startswith(_NAMESPACES)):
            try:
                with translated(f"removing {thing}"):
                    calls.delete(api, thing.path, uid=thing.uid)
            except ClusterError as error:
                failed.append(str(error))
            else:
                going.append(thing)
    try:
        _wait(connection, going, labels, say, seconds)
    except ClusterError as error:
        failed.append(str(error))
    with translated(f"removing the namespace {lease.NAMESPACE}"):
        if lease.remove_namespace(api):
            say(f"removed namespace {lease.NAMESPACE}")
    if failed:
        raise ClusterError("; ".join(failed))


def _claimed(api: client.ApiClient, run: Run, labels: Labels, say: Say) -> bool:
    """Return whether the run is ours to remove: its Leases were deleted as they were when it was found dead, and no other came.

    A run that was only suspended and renews now is safe if it was faster, and finds that its Lease is gone if we were.
    """
    for held in run.leases:
        metadata = held["metadata"]
        path, version = f"{lease.LEASES}/{metadata['name']}", metadata["resourceVersion"]
        if calls.delete(api, path, uid=metadata["uid"], version=version):
            say(f"removed {_lease(run, held)}")
    left = _listed(api, lease.LEASES, labels, lease.ServerClock())
    return all(one["metadata"]["labels"][labels.run_key] != run.id for one in left)


def _lease(run: Run, held: Object) -> str:
    return f"Lease {held['metadata']['name']} of the run {run.id}"


def _wait(connection: Connection, going: Sequence[Thing], labels: Labels, say: Say, seconds: float) -> None:
    left = {thing.uid: thing for thing in going}

    def lacking(found: waiting.Found) -> str:
        there = {namespace["metadata"]["uid"]: namespace for namespace in found.values()}
        for uid in left.keys() - there.keys():
            say(f"removed {left.pop(uid)}")
        return "; ".join(f"{thing} is there: {obstacle(there[uid])}" for uid, thing in left.items())

    if left:
        what = "removing what dead runs left"
        waiting.until(Resources(connection), _NAMESPACES, lacking, what=what, seconds=seconds, labelSelector=labels.selector())


def obstacle(namespace: Object) -> str:
    """Return why a namespace does not go."""
    name, status = namespace["metadata"]["name"], namespace.get("status") or {}
    told = {known["type"]: known["message"] for known in status.get("conditions") or () if known["status"] == "True"}
    why = next((told[kind] for kind in _OBSTACLES if kind in told), f"it is {status.get('phase')}")
    return f"{why} (kubectl get namespace {name} -o yaml)"


def _listed(
    api: client.ApiClient, path: str, labels: Labels, clock: lease.ServerClock, deadline: float = calls.PATIENCE
) -> list[Object]:
    """Return what has our labels below a path, and take the time; nothing where the path is not served."""
    query = {"labelSelector": labels.selector()}
    try:
        answer = calls.safely(lambda: calls.ask(api, "GET", path, query=query), deadline=deadline)
    except ApiException as error:
        if is_missing(error):
            return []
        raise
    return list(clock.hear(answer).body.get("items") or ())


def _thing(kind: str, collection: str, item: Object, labels: Labels) -> Thing:
    metadata = item["metadata"]
    namespace = metadata.get("namespace", "")
    base, _, resource = collection.rpartition("/")
    within = f"/namespaces/{namespace}" if namespace else ""
    return Thing(
        kind=kind,
        name=metadata["name"],
        namespace=namespace,
        run=metadata["labels"][labels.run_key],
        uid=metadata["uid"],
        path=f"{base}{within}/{resource}/{metadata['name']}",
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
    )
