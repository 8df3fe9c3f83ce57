# SPDX-License-Identifier: Apache-2.0
"""Which namespaces, workloads and outsiders a case file declares; rows and steps are read elsewhere."""

from collections.abc import Iterable

from ztconform.casefile.problems import Place, shown, suggestion
from ztconform.casefile.world import RESOLVER, World, to_ref
from ztconform.model import OUTSIDE, Port, Ref, Workload

METADATA_NAME = "kubernetes.io/metadata.name"


def read_namespaces(root: Place, world: World) -> None:
    """Take the declared namespaces into the world."""
    lines: dict[str, Place] = {}
    for place in root.items("namespaces"):
        name = place.get("name")
        if name is None:
            world.names_sound = False
        elif name in lines:
            place.fault(f"namespace {name} is declared already ({lines[name].seen_from(place)})", "name")
        elif name == str(Ref(OUTSIDE, "")).removesuffix("/"):
            place.fault(f"rows would confuse '{name}' with hosts outside the cluster; take another name", "name")
        else:
            check_metadata_name(place, name, "labels")
            world.namespaces[name] = place.get("labels", {})
            lines[name] = place


def check_metadata_name(place: Place, namespace: str, key: str) -> None:
    """Report a label of a namespace that only the API server sets."""
    labels = place.get(key, {}) if key else place.value
    if isinstance(labels, dict) and labels.get(METADATA_NAME, namespace) != namespace:
        below = (key, METADATA_NAME) if key else (METADATA_NAME,)
        place.fault(f"is set by the API server, to {shown(namespace)}; leave it out", *below)


def read_workloads(root: Place, world: World) -> tuple[Workload, ...]:
    """Take the declared workloads and outsiders into the world, and return the sound workloads."""
    for place in root.items("outsiders"):
        _read_outsider(place, world)
    found = []
    for place in root.items("workloads"):
        if (ref := read_ref(place, world)) is None:
            continue
        if ref in world.running:
            place.fault(f"workload {ref} is declared already", "name")
            continue
        if ref == RESOLVER.ref:
            place.fault(f"{ref} is the cluster's own resolver, and there without being declared", "name")
            continue
        workload = read_workload(place, ref)
        world.start(ref, workload)
        if workload is not None:
            found.append(workload)
    return tuple(found)


def read_ref(place: Place, world: World) -> Ref | None:
    """Return what a workload is called; where that is not sound, lookups by name prove nothing any more."""
    name, namespace = place.get("name"), place.get("namespace")
    if namespace is not None:
        check_namespace(place, namespace, world, "namespace")
    if name is None or namespace is None:
        world.names_sound = False
        return None
    if not place.sound("namespace"):
        world.misplaced.add(name)
    return Ref(namespace, name)


def check_namespace(place: Place, namespace: str, world: World, *below: str) -> None:
    """Report a namespace that the case does not declare."""
    if namespace not in world.namespaces and world.names_sound:
        near = suggestion(namespace, world.namespaces)
        place.fault(f"namespace {shown(namespace)} is not declared under `namespaces`{near}", *below)


def read_workload(place: Place, ref: Ref) -> Workload | None:
    """Return the workload declared here, or None if anything about it is wrong."""
    ports = read_ports(place, in_service=True)
    if not place.sound():
        return None
    return Workload(
        ref=ref,
        ports=ports,
        labels=place.get("labels", {}),
        service_account=place.get("serviceAccount", "default"),
        meshed=place.get("meshed", False),
        replicas=place.get("replicas", 1),
        node=place.get("node"),
    )


def _read_outsider(place: Place, world: World) -> None:
    name = place.get("name")
    if name is None:
        world.names_sound = False
        return
    ref = to_ref(f"outsider/{name}")
    if ref in world.outsiders:
        place.fault(f"{ref} is declared already", "name")
        return
    ports = read_ports(place, in_service=False)
    world.outsiders[ref] = Workload(ref=ref, ports=ports) if place.sound() else None


def read_ports(owner: Place, *, in_service: bool) -> tuple[Port, ...]:
    """Return the sound ports of a workload or outsider, and report those that contradict themselves or each other."""
    places = owner.items("ports")
    ports = [(place, _read_port(place, in_service)) for place in places]
    sound = [(place, port) for place, port in ports if port]
    _report_twice([(place, f"{port.number}/{port.protocol}") for place, port in sound], "number", "is declared already")
    _report_twice([(place, port.name) for place, port in sound if port.name], "name", "is another port's name")
    in_use = [(place, f"{port.service}/{port.protocol}") for place, port in sound if port.service and place.sound("number")]
    _report_twice(in_use, "servicePort", "is in the Service already, so this port needs another servicePort, or null")
    return tuple(port for _, port in sound)


def _read_port(place: Place, in_service: bool) -> Port | None:
    if not place.sound():
        return None
    number, protocol = place.get("number"), place.get("protocol", "TCP")
    # The model has no application for SCTP; tcp is the one that asks least of it.
    default = {"TCP": "http", "UDP": "udp", "SCTP": "tcp"}[protocol]
    app = place.get("app", default)
    if protocol == "SCTP" and place.has("app"):
        place.fault("an SCTP port has no app: no row can use it", "app")
    elif (protocol == "UDP") != (app == "udp"):
        place.fault(f"{app} is not spoken over {protocol}", "app")
    if not in_service and place.get("servicePort") is not None:
        place.fault("a host outside the cluster has no Service", "servicePort")
    return Port(
        number=number,
        name=place.get("name", ""),
        protocol=protocol,
        app=app,
        service=place.get("servicePort", number) if in_service else None,
        listening=place.get("listening", True),
    )


def _report_twice(entries: Iterable[tuple[Place, str]], key: str, problem: str) -> None:
    first: dict[str, Place] = {}
    for place, value in entries:
        if value in first:
            place.fault(f"{value} {problem} ({first[value].seen_from(place)})", key)
        first.setdefault(value, place)
