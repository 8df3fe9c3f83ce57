# SPDX-License-Identifier: Apache-2.0
"""A topology made real: namespaces, accounts, Services and pods are created side by side and awaited, and removed by identity.

What is sent between the pods is left to `cluster`; hosts outside are `outside`'s.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic
from typing import Any

from kubernetes.client.exceptions import ApiException

from ztconform.errors import ClusterError, Rejected, UsageError
from ztconform.kube import meshpods, objects, pods, waypoints
from ztconform.kube.client import is_conflict, translated
from ztconform.kube.making import Maker, Planned, Surroundings, past
from ztconform.kube.names import Names
from ztconform.kube.pods import KubePod
from ztconform.kube.resources import Identity, Resources
from ztconform.kube.waiting import Found, until
from ztconform.model import Lifecycle, Ref, Topology, Workload

_SIDE_BY_SIDE = 8  # requests to the API server at once
_READY = 180.0  # seconds for pods to be ready: an image may have to be pulled
_GONE = 90.0  # seconds for a namespace to be gone


class Deployment:
    """Hold what one owner has in the cluster."""

    def __init__(self, resources: Resources, around: Surroundings, names: Names) -> None:
        self.names = names
        self._maker = Maker(around, names)
        self._nodes, self._labels, self._options = around.nodes, around.labels, around.options
        self._mesh = around.mesh
        self.past: dict[tuple[Ref, str], KubePod] = {}  # by pod and account ("" for its own): who sends past a pod's own proxy
        self.workloads: dict[Ref, Workload] = {}
        self.pods: dict[Ref, KubePod] = {}
        self.ended: set[Ref] = set()  # workloads that have had pods before
        self._resources = resources
        self._placed = 0
        self._ending: dict[Ref, float] = {}  # terminating workload -> when its grace is over
        self.namespaces: list[Identity] = []

    def create(self, topology: Topology) -> None:
        """Create everything that a topology declares inside the cluster, and wait until its servers are ready.

        Raises UsageError, with nothing created, for a namespace that exists; ClusterError for what cannot be created.
        """
        for workload in topology.workloads:
            if workload.ref.namespace not in topology.namespaces:
                raise UsageError(
                    f"workload {workload.ref}: namespace {workload.ref.namespace} is not declared; nothing was created"
                )
        for name in topology.namespaces:
            self._demand_free(name)
        beside = self._maker.beside(topology)
        for name, declared in topology.namespaces.items():
            self._create_namespace(name, self._maker.namespace(name, declared, topology))
        self._copy_pull_secret(topology.namespaces)
        self._apply(beside)
        self.start(topology.workloads)
        if self._mesh is not None and self._mesh.waypoint is not None:
            for name in sorted(meshpods.waypointed(topology.workloads)):
                waypoints.await_ready(self._resources, self.names.to_real(name), self._mesh.waypoint.name)

    @property
    def places(self) -> frozenset[str]:
        """Return the namespaces that hold pods, as they are called in the cluster."""
        return frozenset(pod.real.namespace for pod in self.pods.values())

    def _demand_free(self, name: str) -> None:
        with translated(f"reading namespace {self.names.to_real(name)}"):
            try:
                self._resources.get(f"/api/v1/namespaces/{self.names.to_real(name)}")
            except ApiException as error:
                if error.status == 404:
                    return
                raise
        raise UsageError(f"namespace {self.names.to_real(name)} exists already and is not ours: nothing was created")

    def _create_namespace(self, name: str, manifest: objects.Object) -> None:
        real = self.names.to_real(name)
        with translated(f"namespace {real} cannot be created"):
            try:
                self.namespaces.append(self._resources.create("/api/v1/namespaces", manifest))
            except ApiException as error:
                if is_conflict(error):
                    raise UsageError(f"namespace {real} exists already and is not ours") from None
                raise

    def _copy_pull_secret(self, namespaces: Iterable[str]) -> None:
        if not self._options.pull_secret:
            return
        namespace, _, name = self._options.pull_secret.partition("/")
        with translated(f"--ztc-pull-secret {self._options.pull_secret}"):
            found = self._resources.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        copies: list[objects.Object] = [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": self.names.to_real(n), "labels": dict(self._labels.ours())},
                "type": found["type"],
                "data": found.get("data") or {},
            }
            for n in namespaces
        ]
        self._apply(copies)

    def start(self, workloads: Iterable[Workload], at: Mapping[Ref, int] | None = None) -> list[KubePod]:
        """Create the pods and Services of workloads and return the new pods once they are ready; raises ClusterError.

        `at` says on which node those of a workload start that were somewhere before.
        """
        workloads = list(workloads)
        services = [s for w in workloads for s in self._maker.services(w)]
        planned = [made for w in workloads for made in self._plan(w, (at or {}).get(w.ref))]
        thieves = {(pod.ref, account): made for pod, _ in planned for account, made in self._maker.thieves(pod)}
        # Pods take the longest, and start while their Services are made.
        self._apply([*(manifest for _, manifest in (*planned, *thieves.values())), *services])
        self.workloads.update({w.ref: w for w in workloads})
        ready = self._await([pod for pod, _ in (*planned, *thieves.values())])
        new = [ready[pod.ref] for pod, _ in planned]
        self.pods.update({pod.ref: pod for pod in new})
        self.past.update({(pod.ref, ""): past(pod) for pod in new if pod.workload.past_proxy})
        self.past.update({key: past(ready[pod.ref]) for key, (pod, _) in thieves.items()})
        return new

    def _plan(self, workload: Workload, at: int | None) -> list[Planned]:
        places = min(len(self._nodes.used), 2)
        first = workload.node if workload.node is not None else at if at is not None else self._placed % places
        self._placed += 1
        return self._maker.pods(workload, first, f"-{self._placed}" if workload.ref in self.ended else "")

    def _apply(self, manifests: Sequence[objects.Object]) -> None:
        def one(manifest: objects.Object) -> None:
            try:
                self._resources.apply(manifest)
            except Rejected as refusal:
                raise ClusterError(
                    f"the API server or its admission refuses an object of ours: {refusal}; "
                    "--ztc-namespace-label may exempt our namespaces"
                ) from None

        side_by_side(one, manifests)

    def _await(self, planned: Sequence[KubePod]) -> dict[Ref, KubePod]:
        ready: dict[Ref, KubePod] = {}
        for namespace in sorted({pod.real.namespace for pod in planned}):
            mine = {pod.real.name: pod for pod in planned if pod.real.namespace == namespace}

            def lacking(found: Found, mine: Mapping[str, KubePod] = mine) -> str:
                missing = sorted(set(mine) - set(found))
                if missing:
                    return f"pod {missing[0]} is not there"
                for name, pod in mine.items():
                    meshpods.demand_injection(found[name], pod.workload, self._mesh)
                return next(filter(None, (self._unready(found[name], pod) for name, pod in mine.items())), "")

            path = f"/api/v1/namespaces/{namespace}/pods"
            what = f"waiting for the pods in namespace {namespace}"
            found = until(self._resources, path, lacking, what=what, seconds=_READY, labelSelector=self._labels.selector())
            for name, pod in mine.items():
                identity = Identity(f"{path}/{name}", found[name]["metadata"]["uid"], f"pod {pod.real}")
                ready[pod.ref] = replace(pod, addresses=pods.addresses(found[name]), identity=identity)
        return ready

    def _unready(self, found: Mapping[str, Any], pod: KubePod) -> str:
        return pods.lacking(found) or meshpods.not_captured(found, pod.workload, self._mesh)

    def pods_of(self, workload: Ref) -> list[KubePod]:
        """Return a workload's pods; raises UsageError if it has none."""
        found = [pod for pod in self.pods.values() if pod.workload.ref == workload]
        if not found:
            raise UsageError(f"workload {workload} is not there")
        return found

    def relabel(self, ref: Ref, change: Mapping[str, str | None]) -> None:
        """Change the labels of a workload's pods, or of a namespace; raises ClusterError."""
        body = {"metadata": {"labels": dict(change)}}
        if not ref.name:
            self._resources.patch(f"/api/v1/namespaces/{self.names.to_real(ref.namespace)}", body)
            return
        paths = [f"/api/v1/namespaces/{pod.real.namespace}/pods/{pod.real.name}" for pod in self.pods_of(ref)]
        side_by_side(lambda path: self._resources.patch(path, body), paths)

    def end(self, workload: Ref) -> None:
        """End a workload's pods, and wait until they are gone; raises ClusterError."""
        ending = self.pods_of(workload)
        whose, own = {pod.ref for pod in ending}, {pod.real for pod in ending}
        thieves = [pod for (ref, _), pod in self.past.items() if ref in whose and pod.real not in own]
        for pod in (*ending, *thieves):
            if pod.identity is not None:
                self._resources.delete(pod.identity)
        for pod in (*ending, *thieves):
            self._gone(f"/api/v1/namespaces/{pod.real.namespace}/pods", pod.identity, metadata=pod.real.name)
        self._forget(workload)

    def _forget(self, workload: Ref) -> None:
        self.ended.add(workload)
        self.pods = {ref: pod for ref, pod in self.pods.items() if pod.workload.ref != workload}
        self.past = {key: pod for key, pod in self.past.items() if key[0] in self.pods}

    def happened(self, event: Lifecycle) -> list[KubePod]:
        """Let a workload start, restart or end, and return the pods that are new; raises UsageError or ClusterError."""
        if event.action == "start":
            if event.spec is None or event.reuse is not None:
                lacks = "start needs its description" if event.spec is None else "a pod's address cannot be chosen on Kubernetes"
                raise UsageError(f"workload {event.workload}: {lacks}")
            if event.spec.host_network:
                raise UsageError(f"workload {event.workload}: clients on their node's own network start with the topology alone")
            return self.start([event.spec])
        if event.action == "restart":
            workload = self.workloads[event.workload]
            node = next((pod.node for pod in self.pods_of(event.workload) if pod.serves), None)
            self.end(event.workload)
            return self.start([workload], at={} if node is None else {event.workload: node})
        if event.action == "terminate":
            self._terminate(event.workload, event.grace)
        else:
            self.end(event.workload)
        return []

    def _terminate(self, workload: Ref, grace: float) -> None:
        for pod in self.pods_of(workload):
            if pod.identity is not None:
                # A grace of 0 would have the API server forget the pod while it still runs.
                self._resources.delete(pod.identity, grace=max(grace, 1.0))
        self._ending[workload] = monotonic() + grace

    def reap(self) -> None:
        """Forget pods whose grace is over."""
        for workload in [ref for ref, end in self._ending.items() if end <= monotonic()]:
            del self._ending[workload]
            self._forget(workload)

    def remove(self, *, wait: bool) -> None:
        """Delete the namespaces, and with them all that is in them; with `wait` until they are gone. Raises ClusterError."""
        for identity in self.namespaces:
            self._resources.delete(identity)
        for identity in self.namespaces if wait else ():
            self._gone("/api/v1/namespaces", identity, metadata=identity.path.rpartition("/")[2])

    def _gone(self, path: str, identity: Identity | None, *, metadata: str) -> None:
        if identity is None:
            return

        def lacking(found: Found) -> str:
            there = found.get(metadata)
            return f"{identity.what} is there" if there is not None and there["metadata"]["uid"] == identity.uid else ""

        what = f"waiting for the end of {identity.what}"
        until(self._resources, path, lacking, what=what, seconds=_GONE, fieldSelector=f"metadata.name={metadata}")


def side_by_side(one: Callable[[Any], None], many: Sequence[Any]) -> None:
    """Do something to many at once; raises the first error once all are done."""
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        for done in [pool.submit(one, each) for each in many]:
            done.result()
