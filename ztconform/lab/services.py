# SPDX-License-Identifier: Apache-2.0
"""What a Service says, and which pods stand behind it: manifests, and the Services that each workload has by itself.

Its addresses and the rules that lead from them to the pods are left to `servicenat`, its names to `zone`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from ztconform.errors import UsageError
from ztconform.lab.fields import Field, root
from ztconform.lab.inventory import Inventory, LabPod
from ztconform.lab.labels import dns_1035_label, dns_label, label_map, port_number, port_reference
from ztconform.lab.objectmeta import check_type, read_metadata
from ztconform.lab.selectors import LabelSelector, equal_to
from ztconform.model import Port, Ref, Transport, Workload

HEADLESS_SUFFIX = "-headless"

_ONLY_CLUSTER_IP = "is not supported: the lab has ClusterIP and headless Services"
_OWN_ADDRESSES = "is not supported: the lab gives each Service an IPv4 and an IPv6 address of its own choice"
_UNSUPPORTED = {
    "allocateLoadBalancerNodePorts": _ONLY_CLUSTER_IP,
    "clusterIPs": _OWN_ADDRESSES,
    "externalIPs": _ONLY_CLUSTER_IP,
    "externalName": _ONLY_CLUSTER_IP,
    "externalTrafficPolicy": _ONLY_CLUSTER_IP,
    "healthCheckNodePort": _ONLY_CLUSTER_IP,
    "internalTrafficPolicy": "is not supported: the lab sends to the endpoints of every node",
    "ipFamilies": _OWN_ADDRESSES,
    "ipFamilyPolicy": _OWN_ADDRESSES,
    "loadBalancerClass": _ONLY_CLUSTER_IP,
    "loadBalancerIP": _ONLY_CLUSTER_IP,
    "loadBalancerSourceRanges": _ONLY_CLUSTER_IP,
    "sessionAffinityConfig": "is not supported: the lab has no session affinity",
    "topologyKeys": "is not supported: the lab sends to the endpoints of every node",
    "trafficDistribution": "is not supported: the lab sends to the endpoints of every node",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """Lead from a Service's port to a port of its pods."""

    number: int
    target: int | str  # a name may be another number in each pod
    protocol: Transport = "TCP"
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Stand for the pods of its namespace that it selects."""

    ref: Ref
    ports: tuple[ServicePort, ...]
    selected: LabelSelector | Ref  # labels, or the workload itself where the Service is a workload's own
    headless: bool = False
    publish_not_ready: bool = False


def parse_service(manifest: object) -> Service:
    """Return the Service that a manifest describes; raises Rejected for what the lab does not enforce."""
    whole = root(manifest)
    check_type(whole, "v1", "Service")
    fields = whole.object(("apiVersion", "kind", "metadata", "spec"), {"status": "is set by the API server: remove it"})
    ref = read_metadata(fields.get("metadata", whole.child("metadata", {})), dns_1035_label)
    known = ("type", "clusterIP", "selector", "ports", "publishNotReadyAddresses", "sessionAffinity")
    spec = fields.get("spec", whole.child("spec", {})).object(known, _UNSUPPORTED)
    if "type" in spec:
        spec["type"].one_of("ClusterIP")
    if "sessionAffinity" in spec:
        spec["sessionAffinity"].one_of("None")
    headless = "clusterIP" in spec and spec["clusterIP"].value == "None"
    if "clusterIP" in spec and not headless and spec["clusterIP"].value != "":
        spec["clusterIP"].refuse(_OWN_ADDRESSES)
    selector = label_map(spec["selector"]) if "selector" in spec else {}
    if not selector:
        whole.child("spec.selector").refuse("is required: the lab has no endpoints but pods")
    ports = _read_ports(spec["ports"]) if "ports" in spec else ()
    if not ports and not headless:
        whole.child("spec.ports").refuse("is required")
    return Service(
        ref=ref,
        ports=ports,
        selected=equal_to(selector),
        headless=headless,
        publish_not_ready="publishNotReadyAddresses" in spec and spec["publishNotReadyAddresses"].boolean(),
    )


def _read_ports(field: Field) -> tuple[ServicePort, ...]:
    items = field.items()
    ports: list[ServicePort] = []
    for item in items:
        port = _read_port(item)
        if not port.name and len(items) > 1:
            item.child("name").refuse("is required where a Service has more than one port")
        if port.name and any(other.name == port.name for other in ports):
            item.child("name").refuse("must not be another port's name too")
        if any((other.number, other.protocol) == (port.number, port.protocol) for other in ports):
            item.child("port").refuse("must not be the number of another port of the same protocol")
        ports.append(port)
    return tuple(ports)


def _read_port(field: Field) -> ServicePort:
    # appProtocol is a hint to proxies and changes nothing at L3/L4.
    known = ("name", "protocol", "port", "targetPort", "appProtocol")
    fields = field.object(known, {"nodePort": _ONLY_CLUSTER_IP})
    if "port" not in fields:
        field.child("port").refuse("is required")
    if "appProtocol" in fields:
        fields["appProtocol"].string()
    number = port_number(fields["port"])
    return ServicePort(
        number=number,
        target=port_reference(fields["targetPort"]) if "targetPort" in fields else number,
        protocol=cast(Transport, fields["protocol"].one_of("TCP", "UDP", "SCTP")) if "protocol" in fields else "TCP",
        name=dns_label(fields["name"]) if "name" in fields and fields["name"].value != "" else "",
    )


def own_service(workload: Workload) -> Service | None:
    """Return the Service of the workload's name over its pods, or None if none of its ports is in it."""
    ports = tuple(port for port in workload.ports if port.service is not None)
    taken = [(port.service, port.protocol) for port in ports]
    for number, protocol in taken:
        if taken.count((number, protocol)) > 1:
            raise UsageError(f"workload {workload.ref}: two ports have the Service port {number}/{protocol}; give each its own")
    if not ports:
        return None
    return Service(ref=workload.ref, ports=_own_ports(ports), selected=workload.ref)


def own_headless(workload: Workload) -> Service | None:
    """Return the headless Service "NAME-headless" over the workload's pods, or None if it has no ports."""
    if not workload.ports:
        return None
    ref = Ref(workload.ref.namespace, workload.ref.name + HEADLESS_SUFFIX)
    return Service(ref=ref, ports=_own_ports(workload.ports), selected=workload.ref, headless=True)


def _own_ports(ports: Sequence[Port]) -> tuple[ServicePort, ...]:
    return tuple(
        ServicePort(
            number=port.service or port.number,
            target=port.number,
            protocol=port.protocol,
            name=port.name or f"{port.protocol.lower()}-{port.number}",
        )
        for port in ports
    )


def endpoints(service: Service, inventory: Inventory) -> tuple[LabPod, ...]:
    """Return the pods that stand behind a Service: selected, serving, and ready unless it publishes others too."""
    return tuple(
        pod
        for pod in inventory.pods
        if pod.node is not None
        and pod.serves
        and (pod.ready or service.publish_not_ready)
        and pod.ref.namespace == service.ref.namespace
        and _selects(service.selected, pod)
    )


def _selects(selected: LabelSelector | Ref, pod: LabPod) -> bool:
    return pod.workload == selected if isinstance(selected, Ref) else selected.matches(pod.labels)


def target_number(port: ServicePort, pod: LabPod) -> int | None:
    """Return the number that a Service's port has in a pod; None where the pod has no port of that name and protocol."""
    if isinstance(port.target, int):
        return port.target
    return next((each.number for each in pod.ports if (each.name, each.protocol) == (port.target, port.protocol)), None)
