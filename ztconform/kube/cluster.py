# SPDX-License-Identifier: Apache-2.0
"""The Cluster protocol on Kubernetes: deploys a case, changes it, sends its probes and asks who saw them.

Objects are left to `deploying` and `policies`, conversations with agents to `links`, and what a round is made of to `rounds`.
"""

import shlex
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from time import monotonic
from typing import Any

from ztconform.cluster import Facts
from ztconform.errors import ClusterError, UsageError
from ztconform.evidence import Cause, Observation, Round, Sighting
from ztconform.kube import kinds, privileged, rounds
from ztconform.kube.accusing import Accusing, Asked
from ztconform.kube.auditing import Auditing
from ztconform.kube.client import Connection
from ztconform.kube.deploying import Deployment
from ztconform.kube.exclusive import Alone
from ztconform.kube.facts import stated
from ztconform.kube.labels import Labels
from ztconform.kube.lease import RunLease
from ztconform.kube.link import LinkError
from ztconform.kube.links import Links
from ztconform.kube.making import Surroundings
from ztconform.kube.meshing import Meshing, sender
from ztconform.kube.names import Names, private
from ztconform.kube.outside import Outside, outside
from ztconform.kube.pods import KubePod
from ztconform.kube.policies import Policies
from ztconform.kube.profile import Profile
from ztconform.kube.reach import Reach
from ztconform.kube.resolver import Dns, find
from ztconform.kube.resources import Resources
from ztconform.kube.settling import follow, recovered
from ztconform.kube.stream import KubeStream
from ztconform.kube.targets import Targets
from ztconform.kube.view import View
from ztconform.model import PRIVILEGED, Attempt, Manifest, Pod, Ref, Step, Topology
from ztconform.settings import Settings
from ztconform.timeouts import KUBERNETES

_ORDERS = {"terminate": "linger", "complete": "exit"}  # to agents whose pods are about to end
_MARGIN = 10.0  # seconds beyond a round's longest probe


class KubeCluster:
    """Prove on a cluster that is there; a context manager whose end removes what it created."""

    def __init__(self, connection: Connection, settings: Settings, profile: Profile) -> None:
        """Look at the cluster, take a Lease and let bystanders stand by.

        Raises ClusterError or UsageError, with nothing left, where that cannot be.
        """
        self._connection, self._settings, self._profile = connection, settings, profile
        self._labels = Labels(settings.pods.label_prefix, settings.run, settings.worker)
        self._resources = Resources(connection)
        self._nodes = recovered(self._resources, settings)
        self._outside: Outside = outside(profile.kind, settings, self._nodes, self._labels)
        self._reach = Reach(connection, self._outside)
        self._links = Links(self._reach.opener)
        self._cases = count()
        self._accusing = Accusing(connection, profile.flows)
        self._sent: dict[str, tuple[Attempt, Observation]] = {}  # of the last round, by nonce
        self._pool = ThreadPoolExecutor(4)
        self._removing: list[Deployment] = []
        self._outsiders: dict[Ref, KubePod] = {}
        self._kinds = kinds.served(connection)
        self._mesh = profile.mesh
        self._around = Surroundings(nodes=self._nodes, labels=self._labels, options=settings.pods, mesh=profile.mesh)
        self._timeouts = replace(KUBERNETES, relabelled=profile.relabelled, captured=profile.patience if profile.mesh else 0.0)
        self._since = monotonic()  # when the last round began
        self._base = self._deployment(private({rounds.BYSTANDERS: {}}, self._suffix()))
        self._case = self._deployment(Names())
        self._policies = Policies(self._resources, Names(), self._labels, self._kinds)
        self._meshing: Meshing | None = None
        self._lease = RunLease(connection, self._labels)
        self._alone = Alone(self._lease)
        self._lease.open()
        try:
            self._base.create(rounds.base_topology())
            beyond: set[int | None] = {None} if profile.features.get("outsider") == "" else set()
            self._stand_by({*range(min(len(self._nodes.used), 2)), *beyond})
            self._dns: Dns = find(self._resources, self._links, self._base.pods[Ref(rounds.BYSTANDERS, "caller-0-0")])
            self._around = replace(self._around, domain=self._dns.domain)
            self._begin(Names())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "KubeCluster":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything that was created, and wait until it is gone; raises ClusterError for what stays.

        A worker of xdist, which has little time, does not wait: the process that started it does, at the end of the run.
        """
        # From the last to the first, each whatever became of the others.
        with ExitStack() as ends:
            ends.callback(self._lease.close)
            ends.callback(self._pool.shutdown, wait=False)
            for deployment in self._removing:
                ends.callback(deployment.remove, wait=not self._settings.worker)
            for deployment in (self._base, self._case):
                ends.callback(deployment.remove, wait=not self._settings.worker)
                ends.callback(deployment.remove, wait=False)
            ends.callback(self._alone.close)
            ends.callback(self._policies.remove)
            ends.callback(self._outside.stop, list(self._outsiders.values()))
            ours = [*self._case.pods, *(pod.ref for pod in self._case.past.values()), *self._base.pods, *self._outsiders]
            ends.callback(self._links.close, ours)
            ends.callback(self._accusing.close)
        self._removing.clear()

    def facts(self) -> Facts:
        """Return what the cluster is."""
        return stated(self._profile, self._nodes, self._timeouts, self._dns.resolver, privileged=self._settings.privileged)

    def deploy(self, topology: Topology, owner: str) -> None:
        """Create a topology and wait until its servers are ready.

        Raises UsageError, with nothing created, for a namespace that exists.
        """
        if self._lease.lost:
            raise ClusterError(self._lease.lost)
        self._accusing.listen()
        meshed = [w.ref for w in topology.workloads if w.meshed]
        if meshed and (why := self._profile.features.get("mtls", "there is none")):
            raise UsageError(f"workload {meshed[0]} is to be meshed: {why}")
        topology = privileged.admitted(topology, permitted=self._settings.privileged)
        self._begin(private(topology.namespaces, self._suffix()) if topology.private else Names())
        # Hosts outside start while the pods do.
        outsiders = self._pool.submit(self._outside.start, topology.outsiders)
        try:
            self._case.create(topology)
        finally:
            started = outsiders.result()
            self._outsiders.update({pod.ref: pod for pod in started})
        follow(self._resources, self._case.places)
        self._stand_by({pod.node for pod in self._case.pods.values()} | ({None} if started else set()))
        self._open([*self._case.pods.values(), *self._case.past.values(), *started])

    def pods(self) -> Sequence[Pod]:
        """Return the pods and outsiders of the case, and the pods of the cluster's resolver."""
        self._case.reap()
        ours = [*self._case.pods.values(), *self._hosts_of_the_case().values()]
        return (*(pod.outline for pod in ours), *self._dns.pods)

    def endpoints(self, service: Ref) -> Sequence[Ref]:
        """Return the pods behind a Service that are ready."""
        if service == self._dns.workload:
            return tuple(pod.ref for pod in self._dns.pods)
        return tuple(sorted(self._view.behind(service)))

    def perform(self, step: Step) -> None:
        """Do a step's changes in the order apply, delete, labels, lifecycle, audit mode."""
        if any(not self._resources.is_namespaced(manifest) for manifest in step.apply):
            self._alone.ask()
        self._accusing.changed()
        self._policies.apply(step.apply)
        self._policies.delete(step.delete)
        for ref, change in step.relabel:
            self._case.relabel(ref, change)
        for event in step.lifecycle:
            ending = {pod.ref: pod for pod in self._case.pods.values() if pod.workload.ref == event.workload}
            self._links.part(ending, order=_ORDERS.get(event.action, ""))
            new = self._case.happened(event)
            self._targets.pins.forget()
            self._stand_by({pod.node for pod in new})
            self._open([*new, *(pod for (ref, _), pod in self._case.past.items() if ref in {pod.ref for pod in new})])
        if step.relabel or step.lifecycle:
            follow(self._resources, self._case.places)
        self._auditing.hold(step.audited, self._case.pods.values())

    def policies(self) -> Sequence[Manifest]:
        """Return the policies of the case that are in force, as read back."""
        return self._policies.read_back()

    def run(self, attempts: Sequence[Attempt]) -> Round:
        """Send every attempt once, side by side, with this round's vitals and bystanders."""
        self._case.reap()
        asked = self._pool.submit(self._view.look, {ref.namespace for ref in self._case.pods})
        patience = min((a.timeout for a in attempts), default=self._timeouts.denied)
        composed = rounds.compose(attempts, self, patience)
        seconds = max((s["timeout"] for s in composed.specs), default=0.0) + _MARGIN
        senders = {ref: self._find(ref) for ref in composed.senders}
        self._since = monotonic()
        answers = self._links.probe(senders, composed.senders, composed.specs, seconds)
        round_ = rounds.read_round(composed, answers, asked.result())
        self._targets.pins.pin(attempts, round_.observations)
        self._sent = {o.nonce: (a, o) for a, o in zip(attempts, round_.observations, strict=True)}
        return round_

    def watch(self, attempts: Sequence[Attempt], every: float) -> KubeStream:
        """Start sending every attempt each `every` seconds, for as long as the stream is open."""
        # Open loop, a probe waits for none before it: rows that share a connection in a round have one each here.
        apart = [replace(a, probe=replace(a.probe, connection=None)) for a in attempts]
        specs = [(self.sender(a), self._targets.spec(a)) for a in apart]
        return KubeStream(self._links.of({ref: self._find(ref) for ref, _ in specs}), attempts, specs, every)

    def seen(self, servers: Collection[Ref]) -> Mapping[Ref, Sequence[Sighting] | None]:
        """Return what each server has recorded, also of pods that have ended since; identities are as the case says them."""
        seen = self._links.seen(servers, {ref: self._find(ref) for ref in servers})
        return seen if self._meshing is None else {ref: self._meshing.said(log) for ref, log in seen.items()}

    def causes(self, nonces: Collection[str]) -> Sequence[Cause] | None:
        """Return what the CNI's flow log and the mesh's proxies say of who refused these; None once the flow log lost events."""
        return self._accusing.causes(self._asked(nonces))

    def remarks(self, nonces: Collection[str]) -> Mapping[str, frozenset[str]] | None:
        """Return what the mesh's proxies, and a CNI that audits or stages, logged of requests that passed."""
        return self._accusing.remarks(self._asked(nonces), audited=bool(self._auditing) or self._policies.staged)

    def _asked(self, nonces: Collection[str]) -> Asked:
        sent = {nonce: self._sent[nonce] for nonce in nonces if nonce in self._sent}
        return Asked(sent=sent, pods=self._case.pods, policies=self._policies, meshing=self._meshing, since=self._since)

    def capture(self, at: Ref, seconds: float) -> bytes:
        """Return what goes over the wire of a pod's node to or from that pod for so many seconds, as pcap.

        Raises UsageError where that is not permitted, and ClusterError where not all of it could be had.
        """
        privileged.demand(f"a capture at {at}", permitted=self._settings.privileged)
        pod = self.pod(at)
        if pod is None:
            raise ClusterError(f"{at} is not there any more")
        around = replace(self._around, make=privileged.looking)
        helpers = Deployment(self._resources, around, private({PRIVILEGED: {}}, self._suffix()))
        self._removing.append(helpers)
        try:
            return privileged.capture(pod, self._nodes, helpers, self._reach.opener, seconds)
        finally:
            helpers.remove(wait=False)

    def render(self, attempt: Attempt) -> str:
        """Return a command that sends the probe again from the same pod, while it is there (`--pdb` keeps it)."""
        pod = self._find(self.sender(attempt))
        if pod is None:
            return ""
        words = self._reach.words(pod, self._targets.spec(attempt))
        return f"{shlex.join(words)}  # while the pods are there: --pdb keeps them"

    def remove(self, owner: str) -> None:
        """Remove the case; namespaces with names of their own go while the next case runs already."""
        case, literal = self._case, self._case.names == Names()
        hosts = self._hosts_of_the_case()
        refs = [*case.pods, *(pod.ref for pod in case.past.values()), *hosts]
        self._links.close(refs)
        self._links.forget(refs)
        self._policies.remove()
        self._alone.close()
        case.remove(wait=False)
        self._outside.stop(hosts.values())
        self._outsiders = {ref: pod for ref, pod in self._outsiders.items() if ref not in hosts}
        self._begin(Names())
        if literal:
            case.remove(wait=True)
        else:
            self._removing.append(case)

    def pod(self, ref: Ref) -> KubePod | None:
        """Return a pod of ours by its own reference or its workload's, if it is there."""
        of_workload = (p for p in (*self._case.pods.values(), *self._outsiders.values()) if p.workload.ref == ref and p.serves)
        return self._find(ref) or next(of_workload, None)

    def spec(self, attempt: Attempt) -> dict[str, Any]:
        """Return what the agent sends for an attempt, but for its nonce."""
        return self._targets.spec(attempt)

    def sender(self, attempt: Attempt) -> Ref:
        """Return whose agent sends an attempt."""
        return sender(attempt, self.pod(attempt.probe.source), self._case.past)

    def _hosts_of_the_case(self) -> dict[Ref, KubePod]:
        return {ref: pod for ref, pod in self._outsiders.items() if ref != rounds.BYSTANDER}

    def _find(self, ref: Ref) -> KubePod | None:
        past = {pod.ref: pod for pod in self._case.past.values()}
        return self._case.pods.get(ref) or self._base.pods.get(ref) or self._outsiders.get(ref) or past.get(ref)

    def _suffix(self) -> str:
        worker = self._settings.worker and f"{self._settings.worker}-"
        return f"{self._settings.run}-{worker}{next(self._cases)}"

    def _deployment(self, names: Names) -> Deployment:
        return Deployment(self._resources, self._around, names)

    def _begin(self, names: Names) -> None:
        self._auditing = Auditing(self._connection, self._profile.audit, self._nodes)
        self._case = self._deployment(names)
        root = self._mesh.root_namespace if self._mesh is not None else ""
        self._policies = Policies(self._resources, names, self._labels, self._kinds, root)
        self._meshing = None if self._mesh is None else Meshing(self._mesh, self._resources, names, self._policies, self._nodes)
        certificates = None if self._meshing is None else self._meshing.certificates
        self._view = View(self._resources, names, self._labels, self._policies)
        dns = self._dns
        by_id = self._mesh is not None and self._mesh.request_id
        seen = (self.pod, self._view.service, self._nodes)
        self._targets = Targets(names, dns.resolver, dns.domain, *seen, certificates, request_id=by_id)

    def _stand_by(self, nodes: Collection[int | None]) -> None:
        """Have bystanders on these nodes."""
        missing = [n for n in nodes if n is not None and Ref(rounds.BYSTANDERS, f"caller-{n}-0") not in self._base.pods]
        new = self._base.start([w for n in missing for w in rounds.bystander_workloads(n)]) if missing else []
        if None in nodes and rounds.BYSTANDER not in self._outsiders:
            outside = self._outside.start([rounds.outside_bystander()])
            self._outsiders.update({pod.ref: pod for pod in outside})
            new += outside
        self._open(new)

    def _open(self, pods: Sequence[KubePod]) -> None:
        self._outside.lead(self._outsiders.values(), [*self._case.pods.values(), *self._base.pods.values()])
        try:
            self._links.open(pods)
        except LinkError as error:
            raise ClusterError(f"an agent cannot be reached by exec: {error}") from None
