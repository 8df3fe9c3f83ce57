# SPDX-License-Identifier: Apache-2.0
"""The Cluster protocol on this Linux machine: keeps the declared state and the kernel's the same.

How states follow each other is in `state`, rules are made by the compilers, and rounds by `rounds`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any

from ztconform.cluster import Facts, Resolver
from ztconform.errors import ZtconformError
from ztconform.evidence import Cause, Round, Sighting
from ztconform.lab import isolation, nfnetlink, servicenat, zone
from ztconform.lab.causes import Flight, flights, of_denial, of_drop, of_refusal, of_remark
from ztconform.lab.facts import stated
from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.control import MeshControl
from ztconform.lab.mesh.issuing import TTL, OwnIssuer
from ztconform.lab.networkpolicy import NetworkPolicy
from ztconform.lab.process import LabProcess
from ztconform.lab.rounds import BYSTANDERS, DNS, base_topology, compose, read_round
from ztconform.lab.ruleset import Table
from ztconform.lab.servicenat import Vip
from ztconform.lab.services import endpoints
from ztconform.lab.spire.issuer import Binaries, SpireIssuer
from ztconform.lab.state import NODES, State
from ztconform.lab.stream import LabStream
from ztconform.lab.targets import Aim, command
from ztconform.model import OUTSIDE, Attempt, Manifest, Pod, Ref, Step, Topology
from ztconform.proof import witness
from ztconform.proof.pins import Pins

_OWNER = "lab"  # of what every lab has: DNS and bystanders


class LabCluster:
    """Run a lab of two nodes; a context manager whose end removes everything."""

    def __init__(
        self, *, baseline: Sequence[Manifest] = (), svid_ttl: float | None = None, spire: Binaries | None = None
    ) -> None:
        """Start the lab; identities live `svid_ttl` seconds, an hour where it is not given.

        `baseline` are policies that every deployed namespace gets by itself, as on clusters that generate a default deny. With
        `spire` a SPIRE of the lab's own issues the identities of meshed pods.
        Raises ClusterError, with the cure, where this machine cannot run it.
        """
        self._baseline = tuple(baseline)
        self._state = State()
        self._vips: dict[Ref, Vip] = {}
        self._loaded: dict[tuple[int, str], Table] = {}
        self._logs: dict[Ref, list[Sighting] | None] = {}
        self._owner = _OWNER
        self._flights: dict[str, Flight] = {}  # of the last round, by nonce
        self._namespaces: dict[str, int] = {}  # pod -> the child's descriptor of its namespace
        self._ends: dict[Ref, float] = {}  # terminating workload -> when its grace is over
        self._pins = Pins()
        self._process = LabProcess(NODES)
        self._spire = spire
        prober, ttl = self._process.prober, svid_ttl or TTL
        issuer = OwnIssuer(ttl) if spire is None else SpireIssuer(prober, spire, ttl)
        self.mesh = MeshControl(prober, issuer, [] if spire is None else [str(spire.server), str(spire.agent)])
        try:
            self._commit(self._state.deploy(base_topology(), _OWNER))
        except BaseException:
            self._process.close()
            raise

    def __enter__(self) -> "LabCluster":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the lab's processes, and with them every namespace, interface and rule."""
        self._process.close()

    def facts(self) -> Facts:
        """Return what the lab is."""
        resolver = Resolver(
            address=self._vips[DNS.workload].v4,
            namespace=DNS.workload.namespace,
            labels=self._state.pods[DNS.pod].labels,
            port=DNS.port,
        )
        return stated(resolver, NODES, "" if self._spire is None else self._spire.version)

    def deploy(self, topology: Topology, owner: str) -> None:
        """Create a topology; raises UsageError, with nothing created, if one of its namespaces exists."""
        state = self._state.deploy(topology, owner)
        for namespace in topology.namespaces:
            for manifest in self._baseline:
                metadata = {**manifest["metadata"], "namespace": namespace}
                state = state.perform(Step(apply=({**manifest, "metadata": metadata},)), "")
        self._owner = owner
        self._commit(state)

    def pods(self) -> Sequence[Pod]:
        """Return the pods and outsiders of the topologies deployed, without the lab's own bystanders."""
        self._reap()
        return tuple(_pod(p) for p in self._state.pods.values() if p.ref.namespace != BYSTANDERS)

    def endpoints(self, service: Ref) -> Sequence[Ref]:
        """Return the pods behind a Service; none if there is no such Service."""
        found = self._state.services.get(service)
        return () if found is None else tuple(p.ref for p in endpoints(found, self._state.inventory))

    def perform(self, step: Step) -> None:
        """Do a step's changes in the order apply and delete, labels, lifecycle, identity provider."""
        self._reap()
        state = self._state.perform(step, self._owner)
        now = monotonic()
        for event in step.lifecycle:
            if event.action == "terminate":
                self._ends[event.workload] = now + event.grace
        self.mesh.hold(step.provider, step.unregistered)
        self._commit(state)

    def policies(self) -> Sequence[Manifest]:
        """Return the policies of the current owner that are loaded."""
        return tuple(a.manifest for a in self._state.policies.values() if a.owner == self._owner)

    def run(self, attempts: Sequence[Attempt]) -> Round:
        """Send every attempt once, side by side, with this round's vitals and bystanders."""
        self._reap()
        composed = compose(attempts, self._state, self._aim())
        seconds = max((s["timeout"] for s in composed.specs), default=0.0) + 30.0
        answers = self._process.prober.ask("round", specs=composed.specs, seconds=seconds)["observations"]
        round_ = read_round(composed, answers, self._state)
        self._pins.pin(attempts, round_.observations)
        self._flights = flights(attempts, round_.observations, self._state)
        return replace(round_, foreign=self._foreign())

    def watch(self, attempts: Sequence[Attempt], every: float) -> LabStream:
        """Start sending every attempt each `every` seconds, for as long as the stream is open."""
        aim = self._aim()
        # Open loop, a probe waits for none before it: rows that share a connection in a round have one each here.
        apart = [replace(a, probe=replace(a.probe, connection=None)) for a in attempts]
        return LabStream(self._process.prober, attempts, [aim.spec(a) for a in apart], every)

    def seen(self, servers: Collection[Ref]) -> Mapping[Ref, Sequence[Sighting] | None]:
        """Return what each server has recorded, also of pods that have ended since."""
        running = [s for s in servers if s in self._state.pods and self._logs.get(s, []) is not None]
        since = {str(s): len(self._logs.get(s) or ()) for s in running}
        self._note(self._process.servers.ask("seen", since=since))
        return {s: self._logs.get(s) for s in servers}

    def causes(self, nonces: Collection[str]) -> Sequence[Cause] | None:
        """Return the firewall's own word on who dropped these; None once its log has lost an event."""
        answer = self._process.prober.ask("causes", nonces=list(nonces))
        if answer["lost"]:
            return None
        found = [of_drop(self._state, nonce, prefix) for nonce, prefix in answer["events"]]
        found += [of_denial(self._state, denial) for denial in answer["denials"]]
        found += [of_refusal(nonce, self._pod(pod)) for nonce, pod in answer["refused"]]
        known = {cause.nonce for cause in found if cause is not None}
        found += [
            of_drop(self._state, nonce, prefix)
            for nonce, flight in self._flights.items()
            if nonce in nonces and nonce not in known and (prefix := flight.dropped(answer["unclaimed"]))
        ]
        return [cause for cause in found if cause is not None]

    def remarks(self, nonces: Collection[str]) -> Mapping[str, frozenset[str]] | None:
        """Return what Envoy logged of requests that passed."""
        answer = self._process.prober.ask("remarks", nonces=list(nonces))
        if answer["lost"]:
            return None
        return {nonce: of_remark(self._state, *remark) for nonce, remark in answer["remarks"].items()}

    def render(self, attempt: Attempt) -> str:
        """Return a command that sends the probe again from the same pod, while the lab is up (`--pdb` keeps it)."""
        spec = self._aim().spec(attempt)
        held = self.mesh.holding(self._state.pods[attempt.probe.source])
        if spec.pop("svid", None) and held is not None:
            spec["tls"] |= {"chain": held.chain_pem, "key": held.key_pem}
        return command(self._process.inner_pid, self._namespaces[spec["pod"]], spec)

    def remove(self, owner: str) -> None:
        """Remove what is this owner's, and leave the identity provider sound."""
        self.mesh.hold("sound", frozenset())
        self._commit(self._state.remove(owner))
        self._ends.clear()
        self._owner = _OWNER
        self._logs = {r: log for r, log in self._logs.items() if r in self._state.pods}

    def rotate(self, workloads: Iterable[Ref]) -> Mapping[Ref, str]:
        """Give the pods of these workloads new SVIDs and return their serial numbers once they are in force."""
        wanted = set(workloads)
        pods = [p for p in self._state.pods.values() if p.workload in wanted and p.meshed]
        return {ref: svid.serial for ref, svid in self.mesh.rotate(self._state, pods).items()}

    def _pod(self, name: str | None) -> Ref | None:
        return next((ref for ref in self._state.pods if str(ref) == name), None)

    def _aim(self) -> Aim:
        return Aim(self._state, self._vips, self._pins, self.mesh)

    def _foreign(self) -> frozenset[str]:
        mine = {n for n, o in self._state.owners.items() if o == self._owner}
        return frozenset(str(r) for (_, r), a in self._state.policies.items() if a.owner != self._owner and r.namespace in mine)

    def _reap(self) -> None:
        """Do what time demands: renew identities at half of their life, and end terminating workloads whose grace is over."""
        due = self.mesh.due(self._state)
        if due:
            self.mesh.rotate(self._state, due)
        over = [w for w, end in self._ends.items() if end <= monotonic()]
        for workload in over:
            del self._ends[workload]
            if workload in self._state.workloads:
                self._commit(self._state.end(workload))

    def _commit(self, state: State) -> None:
        """Make the kernel what the state says; rules come before the pods that they judge."""
        old = {p.device: p for p in self._state.pods.values()}
        new = {p.device: p for p in state.pods.values()}
        gone = [p for d, p in old.items() if d not in new]
        added = [p for d, p in new.items() if d not in old]
        vips = servicenat.allocate(state.services.values(), self._vips)
        self._unserve(gone)
        self._load(state, vips)
        if gone:
            self._disconnect(gone)
            self._pins.forget()
        if added:
            self._namespaces |= self._process.prober.ask("add", pods=[_link(p) for p in added])
            for pod in added:
                self._logs[pod.ref] = []
            self._process.servers.ask("serve", pods=[_serving(p) for p in added if p.serves])
        try:
            self.mesh.capture([p for p in added if p.meshed])
            self.mesh.tell(state, vips)
        except ZtconformError:
            # No state knows of them, and they would be in the way of the next case's.
            with suppress(ZtconformError):
                self._unserve(added)
                self._disconnect(added)
            raise
        self._process.servers.ask("zone", zone=zone.zone(list(state.services.values()), vips, state.inventory))
        self._state, self._vips = state, vips

    def _unserve(self, pods: Sequence[LabPod]) -> None:
        if pods:
            since = {str(p.ref): len(self._logs.get(p.ref) or ()) for p in pods if p.serves}
            self._note(self._process.servers.ask("unserve", since=since))

    def _disconnect(self, pods: Sequence[LabPod]) -> None:
        self.mesh.release(pods)
        self._process.prober.ask("remove", devices=[p.device for p in pods])

    def _load(self, state: State, vips: Mapping[Ref, Vip]) -> None:
        inventory = state.inventory
        policies = [a.policy for a in state.policies.values() if isinstance(a.policy, NetworkPolicy)]
        services = servicenat.compile_services(list(state.services.values()), vips, inventory)
        batches: dict[int, list[bytes]] = {}
        fresh: dict[tuple[int, str], Table] = {}
        for node in range(NODES):
            for table in (isolation.compile_node(node, inventory, policies), services):
                if self._loaded.get((node, table.name)) != table:
                    batches.setdefault(node, []).append(nfnetlink.encode(table))
                    fresh[node, table.name] = table
        if batches:
            self._process.load(batches)
            self._loaded.update(fresh)

    def _note(self, logs: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Append what servers have recorded; a gap in a sequence loses the whole log."""
        by_name = {str(ref): ref for ref in self._logs}
        for name, entries in logs.items():
            ref = by_name[name]
            self._logs[ref] = witness.written(self._logs[ref], entries)


def _pod(pod: LabPod) -> Pod:
    addresses = (pod.v4, pod.v6)
    return Pod(ref=pod.ref, workload=pod.workload, node=pod.node, addresses=addresses, serves=pod.serves, captured=pod.meshed)


def _link(pod: LabPod) -> dict[str, Any]:
    return {
        "key": str(pod.ref),
        "device": pod.device,
        "node": pod.node,
        "v4": pod.v4,
        "v6": pod.v6,
        "serves": pod.serves,
        "meshed": pod.meshed,
    }


def _serving(pod: LabPod) -> dict[str, Any]:
    ports = [
        {"number": p.number, "protocol": p.protocol, "app": p.app} for p in pod.ports if p.listening and p.protocol != "SCTP"
    ]
    bind = [pod.v4, pod.v6] if pod.ref.namespace == OUTSIDE else None
    netns = pod.device if pod.node is not None else "outside"
    return {"key": str(pod.ref), "netns": netns, "ports": ports, "bind": bind, "dns": pod.workload == DNS.workload}
