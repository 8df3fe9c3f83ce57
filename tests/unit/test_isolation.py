# SPDX-License-Identifier: Apache-2.0
"""The compiled rules admit and deny what the API reference says, name who denied, and cover whole flows and both families."""

import dataclasses
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_oracle import Connection, allowed, isolating
from ruleset_walk import UPLINK, Packet, check_well_formed, connect, ending

from ztconform.errors import InternalError
from ztconform.lab.inventory import Inventory, LabPod
from ztconform.lab.isolation import NFLOG_GROUP, TABLE, compile_node, log_prefix, parse_prefix, selecting
from ztconform.lab.networkpolicy import Direction, parse_policy
from ztconform.lab.ruleset import Hook, Log, Table
from ztconform.model import Port, Ref

NODES = (0, 1)
DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")
HTTP, DNS = Port(number=8080, name="http"), Port(number=53, name="dns", protocol="UDP")


def pod(
    number: int, name: str, node: int | None = 0, labels: dict[str, str] | None = None, ports: tuple[Port, ...] = (HTTP,)
) -> LabPod:
    namespace, _, short = name.partition("/")
    return LabPod(
        ref=Ref("" if namespace == "outsider" else namespace, short),
        workload=Ref(namespace, short),
        node=node,
        device=f"ve{number}",
        v4=f"10.0.{node or 0}.{number}",
        v6=f"fd00::{node or 0}:{number}",
        labels=labels or {},
        ports=ports,
        serves=True,
        ready=True,
    )


def inventory(*pods: LabPod, **namespaces: dict[str, str]) -> Inventory:
    names = {each.ref.namespace for each in pods if each.node is not None} | set(namespaces)
    return Inventory(
        pods=pods, namespaces={name: {"kubernetes.io/metadata.name": name, **namespaces.get(name, {})} for name in names}
    )


def policy(name: str, **spec: Any) -> dict[str, Any]:
    namespace, _, short = name.partition("/")
    metadata = {"name": short, "namespace": namespace}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {"podSelector": {}, **spec},
    }


def tables(world: Inventory, *manifests: dict[str, Any]) -> dict[int, Table]:
    policies = [parse_policy(manifest) for manifest in manifests]
    found = {node: compile_node(node, world, policies) for node in NODES}
    for table in found.values():
        check_well_formed(table)
    return found


CLIENT, SERVER = pod(1, "shop/client", labels={"app": "client"}), pod(2, "shop/server", node=1, labels={"app": "server"})
OTHER, NEIGHBOUR = pod(3, "other/client", labels={"app": "client"}), pod(4, "shop/neighbour", labels={"app": "neighbour"})
OUTSIDER = pod(5, "outsider/world", node=None, labels={"app": "client"})
WORLD = inventory(CLIENT, SERVER, OTHER, NEIGHBOUR, OUTSIDER)


def got_in(
    world: Inventory, target: LabPod, *manifests: dict[str, Any], protocol: str = "TCP", port: int = 8080, family: int = 4
) -> set[str]:
    compiled = tables(world, *manifests)
    sources = [each for each in world.pods if each.ref != target.ref]
    return {str(each.ref) for each in sources if connect(compiled, each, target, protocol=protocol, port=port, family=family)[0]}


def got_out(
    world: Inventory, source: LabPod, *manifests: dict[str, Any], protocol: str = "TCP", port: int = 8080, family: int = 4
) -> set[str]:
    compiled = tables(world, *manifests)
    targets = [each for each in world.pods if each.ref != source.ref]
    return {str(each.ref) for each in targets if connect(compiled, source, each, protocol=protocol, port=port, family=family)[0]}


EVERYBODY = {"shop/client", "other/client", "shop/neighbour", "outsider/world"}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("ingress", "expected"),
    [
        ([], set()),
        ([{}], EVERYBODY),
        ([{"from": []}], EVERYBODY),
        ([{"from": [{"podSelector": {}}]}], {"shop/client", "shop/neighbour"}),
        ([{"from": [{"namespaceSelector": {}}]}], EVERYBODY - {"outsider/world"}),
        ([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}], {"shop/client"}),
        (
            [{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "client"}}}]}],
            {"shop/client", "other/client"},
        ),
        ([{"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}], set()),
        ([{"ports": [{"port": 8080}]}], EVERYBODY),
        ([{"ports": [{"port": 8081}]}], set()),
        ([{"ports": [{"port": 8000, "endPort": 8080}]}], EVERYBODY),
        ([{"ports": [{"port": 8000, "endPort": 8079}]}], set()),
        ([{"ports": [{"port": "http"}]}], EVERYBODY),
        ([{"ports": [{"port": "http", "protocol": "UDP"}]}], set()),
        ([{"ports": [{"protocol": "SCTP"}]}], set()),
    ],
)
def test_ingress(ingress: list[Any], expected: set[str], family: int) -> None:
    assert expected == got_in(WORLD, SERVER, policy("shop/p", ingress=ingress), family=family)


def test_policies_add_up_without_mixing_ones_peers_with_anothers_ports() -> None:
    by_client = policy(
        "shop/a", ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 1}]}]
    )
    by_neighbour = policy(
        "shop/b", ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "neighbour"}}}], "ports": [{"port": 2}]}]
    )
    assert {"shop/client"} == got_in(WORLD, SERVER, by_client, by_neighbour, port=1)
    assert {"shop/neighbour"} == got_in(WORLD, SERVER, by_client, by_neighbour, port=2)


def test_an_ip_block_speaks_of_one_family_and_of_pods_and_outsiders_alike() -> None:
    block = policy("shop/p", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.3/32", "10.0.0.4/31"]}}]}])
    assert {"shop/client"} == got_in(WORLD, SERVER, block)
    assert set() == got_in(WORLD, SERVER, block, family=6)
    assert EVERYBODY == got_in(WORLD, SERVER, policy("shop/p", ingress=[{"from": [{"ipBlock": {"cidr": "::/0"}}]}]), family=6)
    assert set() == got_in(WORLD, SERVER, policy("shop/p", ingress=[{"from": [{"ipBlock": {"cidr": "::/0"}}]}]))


def test_a_named_port_is_each_pods_own_number() -> None:
    first = pod(1, "shop/first", ports=(Port(number=80, name="web"), Port(number=80, name="web-udp", protocol="UDP")))
    second = pod(2, "shop/second", node=1, ports=(Port(number=8080, name="web"),))
    without = pod(6, "shop/without", ports=(Port(number=80, name="other"),))
    world = inventory(first, second, without, OTHER)
    ingress = policy("shop/p", ingress=[{"ports": [{"port": "web"}]}])
    assert {"shop/second", "shop/without", "other/client"} == got_in(world, first, ingress, port=80)
    assert set() == got_in(world, first, ingress, port=8080)
    assert set() == got_in(world, first, ingress, port=80, protocol="UDP")
    assert set() == got_in(world, second, ingress, port=80)
    by_udp = policy("shop/p", ingress=[{"ports": [{"port": "web", "protocol": "UDP"}, {"port": "web-udp"}]}])
    assert set() == got_in(world, first, by_udp, port=80) | got_in(world, first, by_udp, port=80, protocol="UDP")
    assert set() == got_in(world, without, ingress, port=80)
    by_udp = policy(
        "other/p", policyTypes=["Egress"], egress=[{"ports": [{"port": "web", "protocol": "UDP"}, {"port": "web-udp"}]}]
    )
    assert set() == got_out(world, OTHER, by_udp, port=80) | got_out(world, OTHER, by_udp, port=80, protocol="UDP")


@pytest.mark.parametrize(
    ("peers", "on_80", "on_8080"),
    [
        ({}, {"shop/first"}, {"shop/second"}),
        ({"to": [{"namespaceSelector": {}}]}, {"shop/first"}, {"shop/second"}),
        ({"to": [{"podSelector": {}}]}, set(), set()),
        ({"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, {"shop/first"}, {"shop/second"}),
        ({"to": [{"ipBlock": {"cidr": "10.0.1.0/24"}}]}, set(), {"shop/second"}),
        ({"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/24"]}}]}, set(), {"shop/second"}),
    ],
)
def test_a_named_port_of_an_egress_rule_is_each_destinations_own_number(
    peers: dict[str, Any], on_80: set[str], on_8080: set[str]
) -> None:
    first = pod(1, "shop/first", ports=(Port(number=80, name="web"),))
    second = pod(2, "shop/second", node=1, ports=(Port(number=8080, name="web"),))
    world = inventory(first, second, pod(6, "shop/without", ports=(Port(number=80, name="other"),)), OTHER)
    egress = policy("other/p", policyTypes=["Egress"], egress=[{**peers, "ports": [{"port": "web"}]}])
    assert on_80 == got_out(world, OTHER, egress, port=80)
    assert on_8080 == got_out(world, OTHER, egress, port=8080)
    assert (set() if "ipBlock" in str(peers) else on_80) == got_out(world, OTHER, egress, port=80, family=6)
    by_v6 = policy(
        "other/p", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "fd00::1:0/112"}}], "ports": [{"port": "web"}]}]
    )
    assert {"shop/second"} == got_out(world, OTHER, by_v6, port=8080, family=6)
    assert set() == got_out(world, OTHER, by_v6, port=8080) | got_out(world, OTHER, by_v6, port=80, family=6)


def test_one_pod_selector_is_other_pods_in_each_policys_namespace() -> None:
    own: dict[str, Any] = {"ingress": [{"from": [{"podSelector": {}}]}]}
    other = pod(6, "other/server", node=1)
    world = inventory(*WORLD.pods, other)
    assert {"shop/client", "shop/neighbour"} == got_in(world, SERVER, policy("other/p", **own), policy("shop/p", **own))
    assert {"other/client"} == got_in(world, other, policy("shop/p", **own), policy("other/p", **own))


def test_an_outsiders_port_has_no_name() -> None:
    egress = policy("shop/p", policyTypes=["Egress"], egress=[{"ports": [{"port": "http"}]}])
    assert "outsider/world" not in got_out(WORLD, CLIENT, egress)
    assert "outsider/world" in got_out(
        WORLD, CLIENT, policy("shop/p", policyTypes=["Egress"], egress=[{"ports": [{"port": 8080}]}])
    )


def test_a_pod_that_is_not_ready_is_selected_and_is_a_peer() -> None:
    satellite = dataclasses.replace(pod(9, "shop/satellite", node=1, labels={"app": "client"}), v6="", serves=False, ready=False)
    world = inventory(*WORLD.pods, satellite)
    peers = policy(
        "shop/p",
        podSelector={"matchLabels": {"app": "server"}},
        ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
    )
    assert {"shop/client", "shop/satellite"} == got_in(world, SERVER, peers)
    deny = policy("shop/p", podSelector={"matchLabels": {"app": "client"}}, policyTypes=["Egress"])
    assert set() == got_out(world, satellite, deny)


def test_a_pod_is_never_kept_from_itself_on_its_way_through_a_service() -> None:
    deny = policy("shop/p", policyTypes=["Ingress", "Egress"])
    assert connect(tables(WORLD, deny), SERVER, SERVER, protocol="TCP", port=8080, family=4)[0]


def test_a_denial_is_logged_once_by_the_end_that_denied() -> None:
    sender = policy("shop/out", podSelector={"matchLabels": {"app": "client"}}, policyTypes=["Egress"])
    receiver = policy("shop/in", podSelector={"matchLabels": {"app": "server"}})
    assert (False, ("in shop/server",)) == connect(tables(WORLD, receiver), CLIENT, SERVER, protocol="TCP", port=8080, family=4)
    assert (False, ("eg shop/client",)) == connect(
        tables(WORLD, sender, receiver), CLIENT, SERVER, protocol="TCP", port=8080, family=6
    )
    logs = [
        each
        for chain in tables(WORLD, receiver)[1].chains
        for rule in chain.rules
        for each in rule.statements
        if isinstance(each, Log)
    ]
    assert [Log(NFLOG_GROUP, "in shop/server")] == logs


def test_icmp_is_dropped_by_isolation_unless_a_rule_is_without_ports() -> None:
    packet = Packet(source=CLIENT.v4, target=SERVER.v4, protocol="icmp", oif=SERVER.device)
    assert "drop" == ending(tables(WORLD, policy("shop/p", ingress=[{"ports": [{}]}]))[1], "forward", packet).verdict
    assert "accept" == ending(tables(WORLD, policy("shop/p", ingress=[{}]))[1], "forward", packet).verdict
    assert "through" == ending(tables(WORLD)[1], "forward", packet).verdict


@pytest.mark.parametrize(
    ("protocol", "known", "opening", "verdict"),
    [
        ("tcp", False, True, "drop"),
        ("tcp", False, False, "drop"),  # no flow that conntrack knows: nothing is admitted because it does not open one
        ("tcp", True, False, "accept"),
        ("tcp", True, True, "drop"),  # a source port that is taken again, under a policy that came since
        ("udp", False, True, "drop"),
        ("udp", True, True, "accept"),
        ("icmp", True, True, "accept"),  # an error about a flow
    ],
)
def test_a_known_flow_goes_on_but_a_bare_syn_is_judged(protocol: str, known: bool, opening: bool, verdict: str) -> None:
    packet = Packet(
        source=CLIENT.v4, target=SERVER.v4, protocol=protocol, port=8080, oif=SERVER.device, known=known, opening=opening
    )
    assert verdict == ending(tables(WORLD, policy("shop/p"))[1], "forward", packet).verdict


def test_a_forged_source_does_not_change_whose_egress_is_judged() -> None:
    deny = policy("shop/p", podSelector={"matchLabels": {"app": "client"}}, policyTypes=["Egress"])
    packet = Packet(source=NEIGHBOUR.v4, target=SERVER.v4, port=8080, iif=CLIENT.device, oif=UPLINK)
    assert "drop" == ending(tables(WORLD, deny)[0], "forward", packet).verdict


def test_a_node_has_the_chains_of_its_own_pods_and_sets_that_chains_share() -> None:
    peers = [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]
    found = tables(WORLD, policy("shop/a", ingress=peers), policy("shop/b", ingress=peers))
    assert {"known-flows", "forward", "ingress-ve1", "ingress-ve4"} == {chain.name for chain in found[0].chains}
    assert {"known-flows", "forward", "ingress-ve2"} == {chain.name for chain in found[1].chains}
    assert [frozenset({CLIENT.v4}), frozenset({CLIENT.v6})] == [each.addresses for each in found[0].sets]
    assert {TABLE} == {table.name for table in found.values()}
    assert [Hook("filter", "forward", 0)] == [chain.hook for chain in found[0].chains if chain.hook]
    assert {"ingress[0] of shop/a", "ingress[0] of shop/b", "default deny in shop/server"} == {
        rule.comment for chain in found[1].chains if chain.name == "ingress-ve2" for rule in chain.rules
    }


def test_selecting_names_the_policies_that_isolate_a_pod() -> None:
    manifests = [
        policy("shop/in", podSelector={"matchLabels": {"app": "server"}}),
        policy("shop/out", policyTypes=["Egress"]),
        policy("shop/both", policyTypes=["Ingress", "Egress"], ingress=[{}]),
        policy("other/in"),
    ]
    policies = [parse_policy(manifest) for manifest in manifests]
    assert ("shop/in", "shop/both") == selecting(WORLD, policies, SERVER.ref, "ingress")
    assert ("shop/out", "shop/both") == selecting(WORLD, policies, SERVER.ref, "egress")
    assert ("shop/both",) == selecting(WORLD, policies, CLIENT.ref, "ingress")
    assert () == selecting(WORLD, policies, OUTSIDER.ref, "ingress")
    assert () == selecting(WORLD, policies, Ref("shop", "gone"), "ingress")


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_log_prefix_is_read_back(direction: Any) -> None:
    assert (direction, Ref("shop", "payment-0")) == parse_prefix(log_prefix(direction, Ref("shop", "payment-0")))
    assert 120 == len(log_prefix(direction, Ref("n" * 63, "p" * 253)).encode())


@pytest.mark.parametrize("prefix", ["", "in", "in x", "out shop/a", "in:shop/a"])
def test_a_prefix_of_somebody_else_is_none(prefix: str) -> None:
    assert parse_prefix(prefix) is None


def test_long_names_are_cut_to_what_the_kernel_takes() -> None:
    long = pod(1, f"{'n' * 63}/{'p' * 253}")
    assert set() == got_in(inventory(long, OTHER), long, policy(f"{'n' * 63}/{'q' * 253}", ingress=[{"ports": [{"port": 1}]}]))


def test_a_pod_without_its_namespace_is_our_mistake() -> None:
    world = Inventory(pods=WORLD.pods, namespaces={})
    with pytest.raises(InternalError, match="no namespace"):
        compile_node(1, world, [parse_policy(policy("shop/p", ingress=[{"from": [{"namespaceSelector": {}}]}]))])


def test_twenty_pods_under_ten_policies_compile_in_five_milliseconds() -> None:
    pods = [pod(number, f"shop/p{number}", labels={"app": f"a{number % 5}", "tier": "x"}) for number in range(20)]
    world = inventory(*pods)
    rule = {"ports": [{"port": 80}, {"port": "http"}]}
    policies = [
        parse_policy(
            policy(
                f"shop/p{number}",
                podSelector={"matchLabels": {"tier": "x"}},
                policyTypes=["Ingress", "Egress"],
                ingress=[{"from": [{"podSelector": {"matchLabels": {"app": f"a{number % 5}"}}}], **rule}],
                egress=[{"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": f"a{number % 5}"}}}], **rule}],
            )
        )
        for number in range(10)
    ]
    best = min(_seconds(lambda: compile_node(0, world, policies)) for _ in range(30))  # the best of many: other work runs beside
    assert best < 0.005


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


NAMESPACES = ["x", "y"]
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b", ""]))
NUMBERS = [79, 80, 81, 443]
NAMES = ["web", "api"]
PROTOCOLS = ["TCP", "UDP", "SCTP"]


@st.composite
def worlds(draw: st.DrawFn) -> Inventory:
    pods = []
    for number in range(1, draw(st.integers(2, 5)) + 1):
        node = draw(st.sampled_from([0, 1, 1, 0, None]))
        ports = draw(
            st.lists(
                st.builds(
                    Port, number=st.sampled_from(NUMBERS), name=st.sampled_from(NAMES), protocol=st.sampled_from(PROTOCOLS)
                ),
                max_size=3,
            )
        )
        name = f"outsider/o{number}" if node is None else f"{draw(st.sampled_from(NAMESPACES))}/p{number}"
        pods.append(pod(number, name, node, draw(LABELS), tuple(ports)))
    return inventory(*pods, **{name: draw(LABELS) for name in NAMESPACES})


EXPRESSIONS = st.one_of(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(["app", "tier", "kubernetes.io/metadata.name"]),
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(st.sampled_from(["a", "b", "", "x", "y"]), min_size=1, max_size=2),
        }
    ),
    st.fixed_dictionaries({"key": st.sampled_from(["app", "tier"]), "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
)
SELECTORS: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": st.none() | LABELS.filter(lambda found: len(found) < 2),
        "matchExpressions": st.lists(EXPRESSIONS, max_size=1),
    },
)
BLOCKS = st.sampled_from(
    [
        {"cidr": "0.0.0.0/0"},
        {"cidr": "::/0"},
        {"cidr": "10.0.0.0/24", "except": ["10.0.0.2/31"]},
        {"cidr": "10.0.0.0/16", "except": ["10.0.1.0/24", "10.0.0.1/32"]},
        {"cidr": "10.0.1.3/32"},
        {"cidr": "fd00::/64", "except": ["fd00::1:0/112"]},
    ]
)
PEERS = st.one_of(
    st.fixed_dictionaries({"ipBlock": BLOCKS}),
    st.fixed_dictionaries({"podSelector": SELECTORS}, optional={"namespaceSelector": SELECTORS}),
    st.fixed_dictionaries({"namespaceSelector": SELECTORS}),
)
POLICY_PORTS = st.one_of(
    st.fixed_dictionaries({}, optional={"protocol": st.sampled_from(PROTOCOLS), "port": st.sampled_from([*NUMBERS, *NAMES])}),
    st.fixed_dictionaries(
        {"port": st.just(80), "endPort": st.sampled_from([80, 81, 443])}, optional={"protocol": st.sampled_from(PROTOCOLS)}
    ),
)


def rules(peers: str) -> st.SearchStrategy[Any]:
    some = {peers: st.none() | st.lists(PEERS, max_size=2), "ports": st.none() | st.lists(POLICY_PORTS, max_size=2)}
    return st.none() | st.lists(st.fixed_dictionaries({}, optional=some), max_size=2)


SPECS = st.fixed_dictionaries(
    {"podSelector": SELECTORS},
    optional={
        "policyTypes": st.sampled_from([None, [], ["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
        "ingress": rules("from"),
        "egress": rules("to"),
    },
)


def blamed(prefix: str) -> tuple[Direction, Ref]:
    found = parse_prefix(prefix)
    assert found is not None
    return found


@settings(max_examples=150)
@given(worlds(), st.lists(st.tuples(st.sampled_from(NAMESPACES), SPECS), max_size=4))
def test_every_connection_comes_out_as_the_reference_says(world: Inventory, specs: list[tuple[str, dict[str, Any]]]) -> None:
    manifests = [policy(f"{namespace}/p{number}", **spec) for number, (namespace, spec) in enumerate(specs)]
    compiled = tables(world, *manifests)
    policies = [parse_policy(manifest) for manifest in manifests]
    for source in world.pods:
        for target in world.pods:
            for protocol in PROTOCOLS:
                for number in NUMBERS:
                    for family in (4, 6):
                        connection = Connection(source=source, target=target, protocol=protocol, port=number, family=family)
                        through, logged = connect(compiled, source, target, protocol=protocol, port=number, family=family)
                        assert allowed(world, manifests, connection) == through, connection
                        assert all(selecting(world, policies, ref, direction) for direction, ref in map(blamed, logged))
        for direction in DIRECTIONS:
            selected_by = isolating(manifests, direction.capitalize(), source)
            names = tuple(f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in selected_by)
            assert names == selecting(world, policies, source.ref, direction)
