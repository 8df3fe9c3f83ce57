# SPDX-License-Identifier: Apache-2.0
"""Services are taken or refused field by field, lead to their endpoints equally often, and have names in the zone."""

import dataclasses
import ipaddress
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruleset_walk import THROUGH, Ending, Packet, check_well_formed, ending, endings

from ztconform.errors import Rejected, UsageError
from ztconform.lab.inventory import Inventory, LabPod
from ztconform.lab.ruleset import Hook, Table
from ztconform.lab.servicenat import KUBE_DNS, TABLE, VIPS_V4, VIPS_V6, Vip, allocate, compile_services
from ztconform.lab.services import Service, endpoints, own_headless, own_service, parse_service, target_number
from ztconform.lab.zone import zone
from ztconform.model import Port, Ref, Workload

HTTP = Port(number=8080, name="http", service=80)


def pod(number: int, name: str, **changes: Any) -> LabPod:
    namespace, _, short = name.partition("/")
    ref = Ref("" if namespace == "outsider" else namespace, short)
    found = LabPod(
        ref=ref,
        workload=Ref(ref.namespace, short.rpartition("-")[0] or short),
        node=None if namespace == "outsider" else number % 2,
        device=f"ve{number}",
        v4=f"10.0.0.{number}",
        v6=f"fd00::{number}",
        labels={"app": "web"},
        ports=(HTTP,),
        serves=True,
        ready=True,
    )
    return dataclasses.replace(found, **changes)


WEB = (pod(1, "shop/web-0"), pod(2, "shop/web-1"), pod(3, "shop/web-2"))
WORLD = Inventory(pods=(*WEB, pod(9, "outsider/World")), namespaces={"shop": {}, "other": {}})


def manifest(**spec: Any) -> dict[str, Any]:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front", "namespace": "shop"}, "spec": spec}


def compiled(inventory: Inventory, *services: Service) -> tuple[Table, dict[Ref, Vip]]:
    vips = allocate(services, {})
    table = compile_services(services, vips, inventory)
    check_well_formed(table)
    return table, vips


def destinations(table: Table, address: str, port: int, protocol: str = "tcp") -> dict[str, Fraction]:
    """Return where a new flow to an address is sent, and how often; "" is: nowhere else."""
    source = "fd00::99" if ":" in address else "10.0.0.99"
    found = endings(table, "prerouting", Packet(source=source, target=address, port=port, protocol=protocol))
    assert {"dnat", "through"} >= {end.verdict for end in found}
    return {end.detail: chance for end, chance in found.items()}


def test_a_manifest_is_read() -> None:
    ports = [
        {"name": "http", "port": 80, "targetPort": "http", "protocol": None, "appProtocol": "http"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    service = parse_service(manifest(type="ClusterIP", clusterIP="", sessionAffinity="None", ports=ports))
    assert Ref("shop", "front") == service.ref
    assert [("http", 80, "http", "TCP"), ("dns", 53, 53, "UDP")] == [
        (p.name, p.number, p.target, p.protocol) for p in service.ports
    ]
    assert (False, False) == (service.headless, service.publish_not_ready)
    assert parse_service(manifest(clusterIP="None", ports=None)).headless
    assert parse_service(manifest(publishNotReadyAddresses=True)).publish_not_ready


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"type": "NodePort"}, "spec.type: must be ClusterIP, not 'NodePort'"),
        ({"type": "LoadBalancer"}, "spec.type: must be ClusterIP, not 'LoadBalancer'"),
        ({"type": "ExternalName"}, "spec.type: must be ClusterIP, not 'ExternalName'"),
        ({"sessionAffinity": "ClientIP"}, "spec.sessionAffinity: must be None, not 'ClientIP'"),
        ({"clusterIP": "10.96.0.20"}, "spec.clusterIP: is not supported"),
        ({"publishNotReadyAddresses": "yes"}, "spec.publishNotReadyAddresses: must be true or false, not 'yes'"),
        ({"selector": {}}, "spec.selector: is required"),
        ({"selector": None}, "spec.selector: is required"),
        ({"selector": {"app": 1}}, "spec.selector[app]: must be a string, not 1"),
        ({"ports": []}, "spec.ports: is required"),
        ({"ports": [{}]}, "spec.ports[0].port: is required"),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, "spec.ports[0].nodePort: is not supported"),
        ({"ports": [{"port": "http"}]}, "spec.ports[0].port: must be an integer, not 'http'"),
        ({"ports": [{"port": 80, "targetPort": "80"}]}, "spec.ports[0].targetPort: '80' is no port name"),
        ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[0].name: is required where a Service has more than one port"),
        (
            {"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]},
            "spec.ports[1].name: must not be another port's name too",
        ),
        (
            {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]},
            "spec.ports[1].port: must not be the number of another",
        ),
        ({"ports": [{"port": 80, "containerPort": 80}]}, "spec.ports[0].containerPort: no such field"),
        ({"selectors": {}}, "spec.selectors: no such field"),
        *[
            ({name: value}, f"spec.{name}: is not supported")
            for name, value in {
                "allocateLoadBalancerNodePorts": True,
                "clusterIPs": ["None"],
                "externalIPs": ["192.0.2.1"],
                "externalName": "example.test",
                "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 1,
                "internalTrafficPolicy": "Local",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "loadBalancerClass": "a/b",
                "loadBalancerIP": "192.0.2.1",
                "loadBalancerSourceRanges": [],
                "sessionAffinityConfig": {},
                "trafficDistribution": "PreferClose",
            }.items()
        ],
    ],
)
def test_what_the_lab_does_not_enforce_is_refused_by_its_field(spec: dict[str, Any], line: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_service(manifest(**spec))
    assert f"Service shop/front: {line}" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("whole", [None, [], {}, {**manifest(), "status": {}}, {**manifest(), "metadata": {"name": "9a"}}])
def test_what_is_no_service_is_refused(whole: object) -> None:
    with pytest.raises(Rejected):
        parse_service(whole)


def test_a_workload_has_a_service_of_its_name_and_a_headless_one() -> None:
    ports = (HTTP, Port(number=53, protocol="UDP", service=5353), Port(number=9000))
    workload = Workload(ref=Ref("shop", "web"), ports=ports)
    service, headless = own_service(workload), own_headless(workload)
    assert service is not None
    assert headless is not None
    assert Ref("shop", "web") == service.ref
    assert [("http", 80, 8080), ("udp-53", 5353, 53)] == [(p.name, p.number, p.target) for p in service.ports]
    assert (Ref("shop", "web-headless"), True) == (headless.ref, headless.headless)
    assert WEB == endpoints(service, WORLD) == endpoints(headless, WORLD)
    assert own_service(Workload(ref=Ref("shop", "web"), ports=(Port(number=1),))) is None
    assert own_headless(Workload(ref=Ref("shop", "web"))) is None


def test_two_ports_of_a_workload_cannot_have_one_service_port() -> None:
    ports = (Port(number=1, service=80), Port(number=2, service=80))
    with pytest.raises(UsageError, match=r"shop/web: two ports have the Service port 80/TCP"):
        own_service(Workload(ref=Ref("shop", "web"), ports=ports))
    tcp_and_udp = (Port(number=53, service=53), Port(number=53, service=53, protocol="UDP"))
    assert own_service(Workload(ref=Ref("shop", "web"), ports=tcp_and_udp)) is not None


@pytest.mark.parametrize(
    ("changes", "by_default", "published"),
    [
        ({}, True, True),
        ({"labels": {"app": "web", "more": "x"}}, True, True),
        ({"labels": {"app": "other"}}, False, False),
        ({"ready": False}, False, True),
        ({"ready": False, "serves": False}, False, False),
        ({"serves": False}, False, False),
        ({"ref": Ref("other", "web-0")}, False, False),
        ({"node": None}, False, False),
    ],
)
def test_an_endpoint_is_selected_serves_and_is_ready(changes: dict[str, Any], by_default: bool, published: bool) -> None:
    world = Inventory(pods=(dataclasses.replace(WEB[0], **changes),), namespaces={})
    assert by_default == bool(endpoints(parse_service(manifest()), world))
    assert published == bool(endpoints(parse_service(manifest(publishNotReadyAddresses=True)), world))


def test_a_workloads_own_service_keeps_its_pods_when_they_are_relabelled() -> None:
    workload = Workload(ref=Ref("shop", "web"), ports=(HTTP,), labels={"app": "web"})
    world = Inventory(pods=(dataclasses.replace(WEB[0], labels={}), pod(4, "shop/other-0")), namespaces={})
    for service in (own_service(workload), own_headless(workload)):
        assert service is not None
        assert ["web-0"] == [each.ref.name for each in endpoints(service, world)]


def test_a_named_target_port_is_each_pods_own_number_and_a_pod_without_it_is_no_endpoint() -> None:
    other_number = dataclasses.replace(WEB[1], ports=(Port(number=9090, name="http"),))
    other_protocol = dataclasses.replace(WEB[2], ports=(Port(number=8080, name="http", protocol="UDP"),))
    service = parse_service(manifest(ports=[{"port": 80, "targetPort": "http"}]))
    world = Inventory(pods=(WEB[0], other_number, other_protocol), namespaces={})
    table, vips = compiled(world, service)
    half = Fraction(1, 2)
    assert {"10.0.0.1 8080": half, "10.0.0.2 9090": half} == destinations(table, vips[service.ref].v4, 80)
    assert target_number(service.ports[0], other_protocol) is None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_endpoint_is_chosen_equally_often_in_both_families(count: int) -> None:
    service = parse_service(manifest())
    table, vips = compiled(Inventory(pods=WEB[:count], namespaces={}), service)
    share = Fraction(1, count)
    assert {f"{each.v4} 8080": share for each in WEB[:count]} == destinations(table, vips[service.ref].v4, 80)
    assert {f"{each.v6} 8080": share for each in WEB[:count]} == destinations(table, vips[service.ref].v6, 80)


def test_an_endpoint_without_ipv6_is_chosen_for_ipv4_alone() -> None:
    service = parse_service(manifest())
    table, vips = compiled(Inventory(pods=(WEB[0], dataclasses.replace(WEB[1], v6="")), namespaces={}), service)
    assert {"10.0.0.1 8080", "10.0.0.2 8080"} == set(destinations(table, vips[service.ref].v4, 80))
    assert {"fd00::1 8080"} == set(destinations(table, vips[service.ref].v6, 80))


def test_another_port_protocol_or_address_is_left_alone_and_an_address_of_a_service_never_leaves_the_node() -> None:
    service = parse_service(manifest())
    table, vips = compiled(WORLD, service)
    vip = vips[service.ref].v4
    assert {"": Fraction(1)} == destinations(table, vip, 81) == destinations(table, vip, 80, "udp")
    assert {"": Fraction(1)} == destinations(table, WEB[0].v4, 80)
    for target, verdict in ((vip, "drop"), (vips[service.ref].v6, "drop"), (WEB[0].v4, "through"), (WEB[0].v6, "through")):
        source = "fd00::99" if ":" in target else "10.0.0.99"
        assert verdict == ending(table, "forward", Packet(source=source, target=target, port=80)).verdict


def test_a_service_without_endpoints_leads_nowhere() -> None:
    service = parse_service(manifest())
    table, vips = compiled(Inventory(pods=(), namespaces={}), service)
    assert {"": Fraction(1)} == destinations(table, vips[service.ref].v4, 80)
    assert () == next(chain.rules for chain in table.chains if chain.name == "translate")


def test_a_pod_that_reaches_itself_through_a_service_is_masqueraded_and_nobody_else() -> None:
    table, _ = compiled(WORLD, parse_service(manifest()))
    assert Ending("masquerade") == ending(table, "postrouting", Packet(source=WEB[0].v4, target=WEB[0].v4, port=8080))
    assert Ending("masquerade") == ending(table, "postrouting", Packet(source=WEB[0].v6, target=WEB[0].v6, port=8080))
    assert THROUGH == ending(table, "postrouting", Packet(source=WEB[0].v4, target=WEB[1].v4, port=8080))


def test_the_table_translates_before_a_policy_judges() -> None:
    table, _ = compiled(WORLD, parse_service(manifest()))
    assert TABLE == table.name
    hooks = {Hook("nat", "prerouting", -100), Hook("nat", "postrouting", 100), Hook("filter", "forward", -1)}
    assert hooks == {chain.hook for chain in table.chains if chain.hook}


def test_a_headless_service_has_no_address_and_no_rule() -> None:
    service = parse_service(manifest(clusterIP="None"))
    table, vips = compiled(WORLD, service)
    assert {} == vips
    assert {"translate", "hairpin", "untranslated"} == {chain.name for chain in table.chains}


def services(*names: str) -> list[Service]:
    return [dataclasses.replace(parse_service(manifest()), ref=Ref(*name.split("/"))) for name in names]


def test_an_address_pair_is_the_same_in_every_run_and_for_every_company() -> None:
    alone = allocate(services("shop/a"), {})
    assert alone == allocate(services("shop/a"), {})
    assert alone[Ref("shop", "a")] == allocate(services("shop/b", "shop/a", "x/y"), {})[Ref("shop", "a")]


def test_kube_dns_has_the_address_that_pods_expect() -> None:
    assert {KUBE_DNS: Vip("10.96.0.10", "fd00:10:96::a")} == allocate(services("kube-system/kube-dns"), {})


@given(st.lists(st.lists(st.sampled_from([f"n{index % 3}/s{index}" for index in range(40)]), unique=True), max_size=5))
def test_a_service_keeps_its_address_while_it_lives_and_none_is_given_twice(rounds: list[list[str]]) -> None:
    held: dict[Ref, Vip] = {}
    for names in rounds:
        found = allocate(services(*names), held)
        assert {Ref(*name.split("/")) for name in names} == set(found)
        assert {ref: vip for ref, vip in held.items() if ref in found} == {ref: vip for ref, vip in found.items() if ref in held}
        assert len(found) == len({vip.v4 for vip in found.values()}) == len({vip.v6 for vip in found.values()})
        assert all(
            ipaddress.IPv4Address(vip.v4) in VIPS_V4 and ipaddress.IPv6Address(vip.v6) in VIPS_V6 for vip in found.values()
        )
        held = found


def test_a_taken_address_is_passed_over() -> None:
    wanted = allocate(services("shop/a"), {})[Ref("shop", "a")]
    found = allocate(services("shop/a", "shop/b"), {Ref("shop", "b"): wanted})
    assert wanted == found[Ref("shop", "b")]
    assert wanted != found[Ref("shop", "a")]


def test_a_service_that_is_declared_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="Service shop/a is declared twice"):
        allocate(services("shop/a", "shop/a"), {})


def test_the_zone_has_full_names_in_lower_case_without_a_trailing_dot() -> None:
    world = Inventory(pods=(*WEB[:2], dataclasses.replace(WEB[2], ready=False), WORLD.pods[-1]), namespaces={})
    front, headless = (
        parse_service(manifest()),
        dataclasses.replace(parse_service(manifest(clusterIP="None")), ref=Ref("shop", "all")),
    )
    nobody = dataclasses.replace(headless, ref=Ref("other", "nobody"))
    vips = allocate([front, headless, nobody], {})
    assert {
        "front.shop.svc.cluster.local": (vips[front.ref].v4, vips[front.ref].v6),
        "all.shop.svc.cluster.local": ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"),
        "nobody.other.svc.cluster.local": (),
        "world.outside.test": ("10.0.0.9", "fd00::9"),
    } == zone([front, headless, nobody], vips, world)
