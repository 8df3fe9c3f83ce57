# SPDX-License-Identifier: Apache-2.0
"""Which rows a case file demands, each checked against what runs at its step; whether they hold is for the proof."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast, get_args

from ztconform.casefile.problems import Place, listed, shown, suggestion
from ztconform.casefile.world import RESOLVER, World
from ztconform.model import OUTSIDE, Address, Kind, Layer, Port, Probe, Ref, Row, Workload

_REQUESTS: frozenset[Kind] = frozenset({"http", "http2", "grpc"})
_METHOD: dict[Kind, str] = {"grpc": "POST"}  # GET for the others
_REQUEST_FIELDS = ("method", "path", "headers", "host")
_NO_SCTP = "the lab sends no SCTP; rows may use TCP or UDP"
_ITSELF = "kube-dns.kube-system.svc.cluster.local"  # the resolver's own Service


@dataclass(slots=True)
class Ids:
    """Give each row of a case an id of its own; the written ones come first, and the others avoid them."""

    lines: dict[str, int] = field(default_factory=dict)

    def reserve(self, rows: Iterable[Place]) -> None:
        """Take every written id, and report those that are written twice."""
        for row in rows:
            written = row.get("id")
            if written in self.lines:
                row.fault(f"{shown(written)} is the id of the row in line {self.lines[written]} already", "id")
            elif written is not None:
                self.lines[written] = row.line

    def make(self, row: Place, text: str) -> str:
        """Return the row's written id, or one made from what it says."""
        written = row.get("id")
        if written is not None:
            return str(written)
        unique, repeat = text, 1
        while unique in self.lines:
            repeat += 1
            unique = f"{text} #{repeat}"
        self.lines[unique] = row.line
        return unique


@dataclass(frozen=True, slots=True)
class _Way:
    """How a row's probe gets from its source to a port."""

    source: Workload
    target: Workload
    port: Port
    kind: Kind


def read_rows(places: Sequence[Place], world: World, ids: Ids) -> tuple[Row, ...]:
    """Return the sound rows of one step; twins are looked for among them."""
    rows = [(place, _read_row(place, world, ids)) for place in places]
    wants = {row.id: row.want for _, row in rows if row}
    for place, row in rows:
        if row is None or row.twin is None:
            continue
        if row.twin in wants and wants[row.twin] != "allowed":
            place.fault(f"the row {shown(row.twin)} is not an allowed one", "twin")
        elif row.twin not in wants and all(other for _, other in rows):
            place.fault(f"no row of this step has the id {shown(row.twin)}{suggestion(row.twin, wants)}", "twin")
    return tuple(row for _, row in rows if row)


def _read_row(place: Place, world: World, ids: Ids) -> Row | None:
    _check_verdict(place)
    source, target = (world.find(place.at(end), text) if (text := place.get(end)) else None for end in ("from", "to"))
    port = _find_port(place, target)
    if source == RESOLVER:
        place.fault("the cluster's resolver sends no rows", "from")
    if source is None or target is None:
        return None
    if source.ref.namespace == OUTSIDE and target.ref.namespace == OUTSIDE:
        place.fault("both ends are outside the cluster, where no policy of it applies", "to")
    if port is None:
        return None
    way = _Way(source, target, port, "dns" if target == RESOLVER else port.app)
    _check_fields(place, way)
    probe = _probe(place, way, world)
    if not place.sound():
        return None
    # Whoever names no layer wants the request refused, by whichever.
    layers = place.get("layer", list(get_args(Layer)) if place.get("verdict") == "denied" else [])
    twin = place.get("twin")
    return Row(
        id=ids.make(place, _describe(probe, _default_address(way, probe.via, world))),
        probe=probe,
        want=place.get("verdict"),
        by=frozenset(cast(list[Layer], [layers] if isinstance(layers, str) else layers)),
        identity=_spiffe(place.get("identity")),
        control="twin" if twin else "open",
        twin=twin,
    )


def _check_verdict(place: Place) -> None:
    verdict = place.get("verdict")
    for key, only in (("layer", "denied"), ("twin", "denied"), ("identity", "allowed")):
        if place.has(key) and verdict is not None and verdict != only:
            article = "an" if only == "allowed" else "a"
            place.fault(f"only {article} {only} row has this field, and this row's verdict is {verdict}", key)


def _find_port(place: Place, target: Workload | None) -> Port | None:
    number, protocol = place.get("port"), place.get("protocol")
    if protocol == "SCTP":
        place.fault(_NO_SCTP, "protocol")
        return None
    if target is None or number is None or not place.sound("port", "protocol"):
        return None
    same_number = [port for port in target.ports if port.number == number]
    found = [port for port in same_number if protocol in (None, port.protocol)]
    if not same_number:
        declared = listed([f"{port.number}/{port.protocol}" for port in target.ports])
        place.fault(f"{number} is not a declared port of {target.ref} (declared: {declared})", "port")
    elif not found:
        protocols = listed([port.protocol for port in same_number])
        place.fault(f"port {number} of {target.ref} is {protocols}, not {protocol}", "protocol")
    elif len(found) > 1:
        protocols = " and ".join(port.protocol for port in found)
        place.fault(f"is missing, and port {number} of {target.ref} is declared for {protocols}", "protocol")
    elif found[0].protocol == "SCTP":
        place.fault(_NO_SCTP, "port")
    else:
        return found[0]
    return None


def _check_fields(place: Place, way: _Way) -> None:
    for key in _REQUEST_FIELDS:
        if place.has(key) and way.kind not in _REQUESTS:
            place.fault(f"is for http, http2 and grpc ports, and {way.port.number} of {way.target.ref} is {way.kind}", key)
    if place.has("name") and way.kind != "dns":
        place.fault(f"is for rows to {RESOLVER.ref}, which ask it for a name", "name")
    if way.kind == "grpc" and place.get("method", "POST") != "POST":
        place.fault("a gRPC request is always a POST", "method")
    for name, _ in place.fields("headers"):
        if name.lower() == "host":
            place.fault("is a field of its own: write host beside headers", "headers", name)


def _probe(place: Place, way: _Way, world: World) -> Probe:
    via = _find_service(place, way, world)
    return Probe(
        source=way.source.ref,
        target=way.target.ref,
        port=way.port.number,
        address=_address(place, way, via, world),
        via=via,
        kind=way.kind,
        family=place.get("family", 4),
        method=place.get("method", _METHOD.get(way.kind, "GET")),
        path=place.get("name", _name_to_ask(way.source, world)) if way.kind == "dns" else place.get("path", "/"),
        headers=_headers(place),
        host=place.get("host"),
        past_proxy=place.get("plaintext", False),
    )


def _spiffe(identity: str | None) -> str | None:
    """Return an identity as servers report it; policies name it without the scheme."""
    return identity if identity is None or "://" in identity else f"spiffe://{identity}"


def _headers(place: Place) -> tuple[tuple[str, str], ...]:
    found = place.get("headers", {})
    return tuple((name, one) for name, value in found.items() for one in ([value] if isinstance(value, str) else value))


def _find_service(place: Place, way: _Way, world: World) -> Ref | None:
    text = place.get("via")
    if text is None:
        return None
    namespace, _, name = text.rpartition("/")
    service = Ref(namespace or way.target.ref.namespace, name)
    if OUTSIDE in (way.source.ref.namespace, way.target.ref.namespace):
        place.fault("a host outside the cluster neither has nor reaches a Service", "via")
    elif way.target == RESOLVER:
        place.fault("the resolver is asked at its own address", "via")
    elif service not in world.services and world.names_sound and world.objects_sound:
        near = suggestion(str(service), [str(one) for one in world.services])
        place.fault(f"no Service '{service}'{near}", "via")
    return service


def _address(place: Place, way: _Way, via: Ref | None, world: World) -> Address:
    default = _default_address(way, via, world)
    address: Address = place.get("address", default)
    outside = OUTSIDE in (way.source.ref.namespace, way.target.ref.namespace)
    wrong = ""
    if address == "pod":
        wrong = "contradicts via, which names a Service" if via else ""
    elif outside:
        wrong = "a host outside the cluster neither has nor reaches a Service; use pod"
    elif way.target == RESOLVER:
        wrong = "" if address == "service" else "the resolver is asked at its own address; use service or pod"
    elif via is None and way.port.service is None:
        wrong = f"port {way.port.number} of {way.target.ref} is in no Service (servicePort: null); use pod or via"
    elif via is None and way.target.ref in world.terminating:
        wrong = f"{way.target.ref} is terminating and stands behind no Service any more; use pod"
    elif address != "name" and (address == "headless") != (default == "headless"):
        wrong = f"the Service {via or way.target.ref} is {'' if default == 'headless' else 'not '}headless"
    if wrong and place.has("address"):
        place.fault(wrong, "address")
    return address


def _default_address(way: _Way, via: Ref | None, world: World) -> Address:
    if via is not None:
        return "headless" if world.services.get(via) else "service"
    outside = OUTSIDE in (way.source.ref.namespace, way.target.ref.namespace)
    alone = way.source.ref == way.target.ref or way.port.service is None or way.target.ref in world.terminating
    return "pod" if outside or alone else "service"


def _name_to_ask(source: Workload, world: World) -> str:
    """Return the name of a Service of the case, another's than the source's and in its namespace where there is one."""
    served = [one for one in world.running.values() if one and any(port.service is not None for port in one.ports)]
    served.sort(key=lambda one: (one.ref == source.ref, one.ref.namespace != source.ref.namespace))
    return f"{served[0].ref.name}.{served[0].ref.namespace}.svc.cluster.local" if served else _ITSELF


def _describe(probe: Probe, default: Address) -> str:
    text = f"{probe.source}->{probe.target}:{probe.port}/{probe.transport}"
    if probe.kind == "dns":
        text += f" {probe.path}"
    elif probe.kind in _REQUESTS and (probe.method, probe.path) != (_METHOD.get(probe.kind, "GET"), "/"):
        text += f" {probe.method} {probe.path}"
    if probe.via:
        text += f" via {probe.via}"
    if probe.address != default:
        text += f" by {probe.address}"
    if probe.past_proxy:
        text += " in plaintext"
    return text + (" over IPv6" if probe.family == 6 else "")
