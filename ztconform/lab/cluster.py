# SPDX-License-Identifier: Apache-2.0
"""The Cluster protocol on this Linux machine: keeps the declared state and the kernel's the same.

How states follow each other is in `state`, rules are made by the compilers, and rounds by `rounds`.
"""

import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

from ztconform.cluster import Facts, Resolver
from ztconform.lab import isolation, nfnetlink, servicenat, zone
from ztconform.lab.inventory import LabPod
from ztconform.lab.process import LabProcess
from ztconform.lab.rounds import BYSTANDERS, DNS, base_topology, compose, read_round
from ztconform.lab.ruleset import Table
from ztconform.lab.servicenat import Vip
from ztconform.lab.services import endpoints
from ztconform.lab.state import NODES, State
from ztconform.lab.stream import LabStream
from ztconform.lab.targets import Targets, command
from ztconform.model import (
    OUTSIDE,
    Attempt,
    Cause,
    Manifest,
    Pod,
    Ref,
    Round,
    Sighting,
    Signature,
    Stage,
    Step,
    Topology,
)
from ztconform.timeouts import LAB

_OWNER = "lab"  # of what every lab has: DNS and bystanders
_NO_MESH = "the lab has no mesh yet"
_ANY_STAGE: frozenset[Stage] = frozenset({"connect", "request"})
SIGNATURES = (
    Signature(
        name="DROP",
        layer="l34",
        kinds=frozenset({"tcp", "http"}),
        signal="timeout",
        stages=frozenset[Stage]({"connect"}),
        caused=True,
    ),
    Signature(name="DROP", layer="l34", kinds=frozenset({"udp", "dns"}), signal="silence", stages=_ANY_STAGE, caused=True),
    # Administratively prohibited, and nothing else: a dead address is answered with other codes (evidence from IP_RECVERR).
    Signature(
        name="ICMP",
        layer="l34",
        kinds=frozenset({"tcp", "http", "udp", "dns"}),
        signal="icmp",
        stages=_ANY_STAGE,
        detail=r"3/(9|10|13)|1/1",
    ),
)


class LabCluster:
    """Run a lab of two nodes; a context manager whose end removes everything."""

    def __init__(self, *, baseline: Sequence[Manifest] = ()) -> None:
        """Start the lab.

        `baseline` are policies that every deployed namespace gets by itself, as on clusters that generate a default deny.
        Raises ClusterError, with the cure, where this machine cannot run it.
        """
        self._baseline = tuple(baseline)
        self._state = State()
        self._vips: dict[Ref, Vip] = {}
        self._loaded: dict[tuple[int, str], Table] = {}
        self._logs: dict[Ref, list[Sighting] | None] = {}
        self._owner = _OWNER
        self._namespaces: dict[str, int] = {}  # pod -> the child's descriptor of its namespace
        self._ends: dict[Ref, float] = {}  # terminating workload -> when its grace is over
        self._targets = Targets()
        self._process = LabProcess(NODES)
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
        resolver = self._state.pods[DNS.pod]
        return Facts(
            stack="lab",
            dialects=("kubernetes",),
            features={"l34": "", "outsider": "", "dual-stack": "", "flow-log": "", "mtls": _NO_MESH, "l7-authz": _NO_MESH},
            versions={"linux": platform.release(), "python": ".".join(map(str, sys.version_info[:3]))},
            signatures=SIGNATURES,
            timeouts=LAB,
            resolver=Resolver(
                address=self._vips[DNS.workload].v4,
                namespace=DNS.workload.namespace,
                labels=resolver.labels,
                port=DNS.port,
            ),
            nodes=tuple(f"node-{n}" for n in range(NODES)),
        )

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
        """Do a step's changes in the order apply and delete, labels, lifecycle."""
        self._reap()
        state = self._state.perform(step, self._owner)
        now = monotonic()
        for event in step.lifecycle:
            if event.action == "terminate":
                self._ends[event.workload] = now + event.grace
        self._commit(state)

    def policies(self) -> Sequence[Manifest]:
        """Return the policies of the current owner that are loaded."""
        return tuple(a.manifest for a in self._state.policies.values() if a.owner == self._owner)

    def run(self, attempts: Sequence[Attempt]) -> Round:
        """Send every attempt once, side by side, with this round's vitals and bystanders."""
        self._reap()
        composed = compose(attempts, self._state, self._targets.over(self._state, self._vips))
        seconds = max((s["timeout"] for s in composed.specs), default=0.0) + 30.0
        answers = self._process.prober.ask("round", specs=composed.specs, seconds=seconds)["observations"]
        round_ = read_round(composed, answers, self._state)
        self._targets.pin(attempts, round_.observations)
        return replace(round_, foreign=self._foreign())

    def watch(self, attempts: Sequence[Attempt], every: float) -> LabStream:
        """Start sending every attempt each `every` seconds, for as long as the stream is open."""
        targets = self._targets.over(self._state, self._vips)
        return LabStream(self._process.prober, attempts, [targets.spec(a) for a in attempts], every)

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
        policies = [a.policy for a in self._state.policies.values()]
        found = []
        for nonce, prefix in answer["events"]:
            parsed = isolation.parse_prefix(prefix)
            if parsed is not None:
                direction, pod = parsed
                names = isolation.selecting(self._state.inventory, policies, pod, direction)
                found.append(
                    Cause(
                        nonce=nonce,
                        layer="l34",
                        policies=names,
                        explicit=False,
                        direction=direction,
                        endpoint=pod,
                        source="nflog",
                    )
                )
        return found

    def render(self, attempt: Attempt) -> str:
        """Return a command that sends the probe again from the same pod, while the lab is up (`--pdb` keeps it)."""
        spec = self._targets.over(self._state, self._vips).spec(attempt)
        return command(self._process.inner_pid, self._namespaces[spec["pod"]], spec)

    def remove(self, owner: str) -> None:
        """Remove what is this owner's."""
        self._commit(self._state.remove(owner))
        self._ends.clear()
        self._owner = _OWNER
        self._logs = {r: log for r, log in self._logs.items() if r in self._state.pods}

    def _foreign(self) -> frozenset[str]:
        mine = {n for n, o in self._state.owners.items() if o == self._owner}
        return frozenset(str(r) for r, a in self._state.policies.items() if a.owner != self._owner and r.namespace in mine)

    def _reap(self) -> None:
        """End terminating workloads whose grace is over."""
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
        if gone:
            since = {str(p.ref): len(self._logs.get(p.ref) or ()) for p in gone if p.serves}
            self._note(self._process.servers.ask("unserve", since=since))
        self._load(state, vips)
        if gone:
            self._process.prober.ask("remove", devices=[p.device for p in gone])
            self._targets.forget()
        if added:
            self._namespaces |= self._process.prober.ask("add", pods=[_link(p) for p in added])
            for pod in added:
                self._logs[pod.ref] = []
            self._process.servers.ask("serve", pods=[_serving(p) for p in added if p.serves])
        self._process.servers.ask("zone", zone=zone.zone(list(state.services.values()), vips, state.inventory))
        self._state, self._vips = state, vips

    def _load(self, state: State, vips: Mapping[Ref, Vip]) -> None:
        inventory = state.inventory
        policies = [a.policy for a in state.policies.values()]
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
            log = self._logs[ref]
            for nonce, boot, sequence, identity in entries:
                if log is None:
                    break
                if sequence != len(log) + 1 or (log and log[-1].boot != boot):
                    log = self._logs[ref] = None
                    break
                log.append(Sighting(nonce=nonce, boot=boot, sequence=sequence, identity=identity))


def _pod(pod: LabPod) -> Pod:
    return Pod(ref=pod.ref, workload=pod.workload, node=pod.node, addresses=(pod.v4, pod.v6), serves=pod.serves)


def _link(pod: LabPod) -> dict[str, Any]:
    return {"key": str(pod.ref), "device": pod.device, "node": pod.node, "v4": pod.v4, "v6": pod.v6, "serves": pod.serves}


def _serving(pod: LabPod) -> dict[str, Any]:
    ports = [
        {"number": p.number, "protocol": p.protocol, "app": p.app} for p in pod.ports if p.listening and p.protocol != "SCTP"
    ]
    bind = [pod.v4, pod.v6] if pod.ref.namespace == OUTSIDE else None
    netns = pod.device if pod.node is not None else "outside"
    return {"key": str(pod.ref), "netns": netns, "ports": ports, "bind": bind, "dns": pod.workload == DNS.workload}
