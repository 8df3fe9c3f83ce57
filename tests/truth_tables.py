# SPDX-License-Identifier: Apache-2.0
"""The published truth tables as cases: who reaches whom under which policies, read from unit/data/e2e/*.yaml.

A file describes pods once and then many cases; what a case does not say it takes from the head of its file. Connections are
written as ordered lines "deny FROM -> TO" and "allow FROM -> TO", over a start in which everything is allowed; FROM and TO are
NAMESPACE/POD, NAMESPACE/* or * (everybody, outsiders too). A pod's connection to itself is in no table.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import yaml

from ztconform.lab.inventory import Inventory, LabPod
from ztconform.model import OUTSIDE, Case, Kind, Port, Probe, Ref, Row, Step, Topology, Transport, Workload

DATA = Path(__file__).parent / "unit" / "data" / "e2e"
NODES = 2

_PLACEHOLDER = re.compile(r"\$\{(?:host|net:(\d+)):([^}]+)\}")
_LINE = re.compile(r"(deny|allow) (\S+) -> (\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reachability:
    """Say who is denied on one port; everybody else gets through."""

    port: int
    protocol: Transport
    denied: frozenset[tuple[Ref, Ref]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthTable:
    """Hold one case: what runs, what changes step by step, and what is then expected."""

    name: str
    topology: Topology
    steps: tuple[tuple[Step, tuple[Reachability, ...]], ...]  # manifests in a step may hold ${host:ns/pod} and ${net:N:ns/pod}

    @property
    def families(self) -> tuple[int, ...]:
        """Return the families that the table speaks of: IPv4 alone where a manifest names an address."""
        texts = yaml.safe_dump([[dict(manifest) for manifest in step.apply] for step, _ in self.steps])
        return (4,) if "cidr" in texts else (4, 6)

    def pairs(self) -> Iterator[tuple[Ref, Ref]]:
        """Yield every pair with a pod at one end at least."""
        yield from _pairs([each.ref for each in (*self.topology.workloads, *self.topology.outsiders)])

    def case(self, render: Callable[[Any], Any]) -> Case:
        """Return the table as a case to be proved; `render` fills the placeholders of a manifest. SCTP rows are left out."""
        steps = []
        for number, (step, expected) in enumerate(self.steps):
            rows = [row for each in expected if each.protocol != "SCTP" for row in self._rows(number, each)]
            apply = tuple(render(manifest) for manifest in step.apply)
            steps.append(Step(name=step.name, apply=apply, delete=step.delete, relabel=step.relabel, rows=tuple(rows)))
        return Case(id=self.name, topology=self.topology, steps=tuple(steps))

    def _rows(self, number: int, expected: Reachability) -> Iterator[Row]:
        kind: Kind = "udp" if expected.protocol == "UDP" else "tcp"
        for source, target in self.pairs():
            is_denied = (source, target) in expected.denied
            yield Row(
                id=f"{number}-{source}-{target}-{expected.protocol}-{expected.port}",
                probe=Probe(source=source, target=target, port=expected.port, address="pod", kind=kind),
                want="denied" if is_denied else "allowed",
                by=frozenset(("l34",)) if is_denied else frozenset(),
            )


def load(path: Path) -> list[TruthTable]:
    """Return the cases of one file, in their order."""
    head = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [_table({**head, **case}) for case in head["cases"]]


def load_all() -> list[TruthTable]:
    """Return the cases of every file."""
    return [table for path in sorted(DATA.glob("*.yaml")) for table in load(path)]


def render(value: Any, inventory: Inventory) -> Any:
    """Return a manifest with ${host:ns/pod} and ${net:N:ns/pod} replaced by IPv4 networks of the inventory."""
    if isinstance(value, Mapping):
        return {key: render(item, inventory) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [render(item, inventory) for item in value]
    if not isinstance(value, str):
        return value
    addresses = {str(pod.ref): pod.v4 for pod in inventory.pods}
    return _PLACEHOLDER.sub(lambda found: str(ip_network(f"{addresses[found[2]]}/{found[1] or 32}", strict=False)), value)


def inventory_of(topology: Topology) -> Inventory:
    """Return an inventory as the lab would have it: one pod a workload, alternating between nodes where none is given."""
    pods = []
    for number, workload in enumerate((*topology.workloads, *topology.outsiders), start=1):
        outside = workload.ref.namespace == OUTSIDE
        node = None if outside else number % NODES if workload.node is None else workload.node
        pods.append(
            LabPod(
                ref=workload.ref,
                workload=workload.ref,
                node=node,
                device=f"ve{number}",
                v4=f"192.0.2.{number}" if outside else f"10.244.{node}.{number}",
                v6=f"2001:db8::{number:x}" if outside else f"fd00:10:244:{node}::{number:x}",
                labels=workload.labels,
                ports=workload.ports,
                serves=not workload.satellite,
                ready=not workload.satellite,
            )
        )
    namespaces = {name: {"kubernetes.io/metadata.name": name, **labels} for name, labels in topology.namespaces.items()}
    return Inventory(pods=tuple(pods), namespaces=namespaces)


def _table(case: Mapping[str, Any]) -> TruthTable:
    protocols = cast(list[Transport], case["protocols"])
    names = case.get("portNames", {})
    ports = tuple(
        Port(
            number=number,
            name=names.get(number, f"serve-{number}-{protocol.lower()}"),
            protocol=protocol,
            app="udp" if protocol == "UDP" else "tcp",
            listening=protocol != "SCTP",
        )
        for number in case["ports"]
        for protocol in protocols
    )
    topology = Topology(
        namespaces=case["namespaces"],
        workloads=tuple(Workload(ref=_ref(name), labels=labels, ports=ports) for name, labels in case["pods"].items()),
        outsiders=tuple(Workload(ref=Ref(OUTSIDE, name), ports=ports) for name in case.get("outsiders", [])),
    )
    everybody = [each.ref for each in (*topology.workloads, *topology.outsiders)]
    steps = tuple(
        (_step(step), tuple(_reachability(each, everybody, protocols) for each in step["expect"])) for step in case["steps"]
    )
    return TruthTable(name=case["name"], topology=topology, steps=steps)


def _step(step: Mapping[str, Any]) -> Step:
    relabel = [(_ref(name), labels) for name, labels in step.get("relabelPods", {}).items()]
    relabel += [(Ref(name, ""), labels) for name, labels in step.get("relabelNamespaces", {}).items()]
    apply = tuple(_manifest(policy) for policy in step.get("apply", []))
    return Step(apply=apply, delete=tuple(_manifest({"in": name}) for name in step.get("delete", [])), relabel=tuple(relabel))


def _manifest(policy: Mapping[str, Any]) -> dict[str, Any]:
    namespace, name = policy["in"].split("/")
    manifest: dict[str, Any] = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}}
    manifest["metadata"]["namespace"] = namespace
    return {**manifest, "spec": policy["spec"]} if "spec" in policy else manifest


def _reachability(expected: Mapping[str, Any], everybody: list[Ref], protocols: list[Transport]) -> Reachability:
    denied: set[tuple[Ref, Ref]] = set()
    for line in expected.get("cells", []):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"not a line of a truth table: {line}")
        ends = {(a, b) for a, b in _pairs(everybody) if _covers(found[2], a) and _covers(found[3], b)}
        if not ends:
            raise ValueError(f"a line that speaks of nobody: {line}")
        denied = denied | ends if found[1] == "deny" else denied - ends
    return Reachability(port=expected["port"], protocol=expected.get("protocol", protocols[0]), denied=frozenset(denied))


def _pairs(everybody: list[Ref]) -> Iterator[tuple[Ref, Ref]]:
    for source, target in itertools.permutations(everybody, 2):
        if source.namespace != OUTSIDE or target.namespace != OUTSIDE:
            yield source, target


def _covers(pattern: str, ref: Ref) -> bool:
    return pattern in ("*", str(ref)) or (pattern.endswith("/*") and str(ref).startswith(pattern[:-1]))


def _ref(text: str) -> Ref:
    namespace, name = text.split("/")
    return Ref(namespace, name)
