# SPDX-License-Identifier: Apache-2.0
"""What Envoy and the kernel are told follows Istio's tables, is lean, and judges each pod by its own policies alone.

That they do with it what it says is tested with real connections, in tests/lab/test_mesh_dataplane.py.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ruleset_walk import check_well_formed
from ztconform.agent.wire import HEALTH_PORT
from ztconform.errors import InternalError
from ztconform.lab import nfnetlink, ruletext
from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh import capture
from ztconform.lab.mesh.authorization import authorization
from ztconform.lab.mesh.resources import Resources, key, resources
from ztconform.lab.mesh.scratch import Scratch
from ztconform.lab.mesh.view import (
    Authorization,
    Endpoint,
    MeshConfig,
    MeshedPod,
    MeshService,
    Mode,
    Normalization,
    RbacFilter,
)
from ztconform.lab.mesh.xdsfiles import XdsFiles
from ztconform.lab.ruleset import Chain, Hook, Marked, Notrack, Proto, Redirect, Reset, Rule, Table, Untranslated
from ztconform.model import App, Port, Ref

PORTS = (Port(number=8080, app="http"), Port(number=9000, app="tcp"), Port(number=5353, protocol="UDP", app="udp"))


def meshed(
    name: str = "api",
    number: int = 2,
    modes: Mapping[int, Mode] | None = None,
    default: Mode = "PERMISSIVE",
    judges: Authorization | None = None,
) -> MeshedPod:
    ref = Ref("shop", name)
    pod = LabPod(
        ref=ref,
        workload=ref,
        node=0,
        device=f"cali-{name}",
        v4=f"10.244.0.{number}",
        v6=f"fd00::{number:x}",
        labels={},
        ports=PORTS,
        serves=True,
        ready=True,
    )
    return MeshedPod(
        pod=pod,
        principal=f"cluster.local/ns/shop/sa/{name}",
        netns=f"/run/netns/{number}",
        modes=modes if modes is not None else {8080: default, 9000: default},
        default_mode=default,
        authorization=judges or Authorization(),
    )


def endpoint(number: int, account: str, mode: Mode | None, port: int = 8080) -> Endpoint:
    principal = f"cluster.local/ns/shop/sa/{account}" if account else ""
    return Endpoint(v4=f"10.244.0.{number}", v6=f"fd00::{number:x}", port=port, principal=principal, mode=mode)


def service(
    *endpoints: Endpoint, app: App = "http", port: int = 80, headless: bool = False, declared: bool = False
) -> MeshService:
    return MeshService(
        service=Ref("shop", "api"),
        port=port,
        app=app,
        v4="" if headless else "10.96.1.1",
        v6="" if headless else "fd00:10:96::101",
        hosts=("api.shop.svc.cluster.local", "api.shop"),
        endpoints=endpoints,
        headless=headless,
        declared=declared,
    )


def compiled(*services: MeshService, pod: MeshedPod | None = None, config: MeshConfig | None = None) -> Resources:
    return resources([pod or meshed()], services, config or MeshConfig(), "/run/xds")


def listener(found: Resources, side: str) -> Any:
    (it,) = [each for each in found.listeners if each["name"].endswith(f"|{side}")]
    return it


def chains(it: Mapping[str, Any]) -> dict[str, Any]:
    return {chain["name"]: chain for chain in it["filter_chains"]}


def proxy(chain: Mapping[str, Any]) -> Any:
    """Return the last filter of a chain."""
    return chain["filters"][-1]["typed_config"]


def routes(chain: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return by host the clusters and accounts of a chain's routes."""
    found: dict[str, list[str]] = {}
    for host in proxy(chain)["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            dialled = [each["string_match"]["exact"] for each in route["match"].get("filter_state", [])]
            peer = route.get("metadata", {}).get("filter_metadata", {}).get("ztconform", {}).get("accounts", "")
            cluster = route["route"]["cluster"].partition("|")[2]
            found.setdefault(host["domains"][0], []).append(
                " ".join(filter(None, [*dialled, cluster, peer.replace("spiffe://", "")]))
            )
    return found


API, THIRD = "cluster.local/ns/shop/sa/api", "cluster.local/ns/shop/sa/third"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("STRICT", {"8080-mtls", "9000-mtls", "other-mtls-http", "other-mtls"}),
        (
            "PERMISSIVE",
            {
                *("8080-mtls", "8080-plaintext", "9000-mtls", "9000-plaintext", "9000-tls"),
                *("other-mtls-http", "other-mtls", "other-plaintext-http", "other-plaintext", "other-tls"),
            },
        ),
        ("DISABLE", {"8080-plaintext", "9000-plaintext", "other-plaintext-http", "other-plaintext"}),
    ],
)
def test_a_mode_has_the_filter_chains_of_istio(mode: Mode, expected: set[str]) -> None:
    it = listener(compiled(pod=meshed(default=mode)), "inbound")
    assert expected == set(chains(it))
    for name, chain in chains(it).items():
        context = chain.get("transport_socket", {}).get("typed_config", {})
        assert ("mtls" in name) == context.get("require_client_certificate", False)
        assert {"mtls": "tls", "plaintext": "raw_buffer", "tls": "tls"}[name.split("-")[1]] == chain["filter_chain_match"][
            "transport_protocol"
        ]


def test_a_port_that_only_a_policy_names_is_sniffed_and_one_that_no_policy_names_has_the_default() -> None:
    it = listener(compiled(pod=meshed(modes={7777: "DISABLE"}, default="STRICT")), "inbound")
    named = {name for name in chains(it) if not name.startswith("other")}
    assert {"7777-plaintext-http", "7777-plaintext", "8080-mtls", "9000-mtls"} == named


@given(
    st.dictionaries(st.sampled_from([8080, 9000, 7777, 7778]), st.sampled_from(["STRICT", "PERMISSIVE", "DISABLE"])), st.data()
)
def test_an_inspector_is_on_exactly_where_a_chain_asks_what_it_finds_out(modes: dict[int, Mode], data: st.DataObject) -> None:
    default: Mode = data.draw(st.sampled_from(["STRICT", "PERMISSIVE", "DISABLE"]))
    it = listener(compiled(pod=meshed(modes=modes, default=default)), "inbound")
    filters = {each["name"].rpartition(".")[2]: each for each in it["listener_filters"]}
    for port in (8080, 9000, 7777, 7778, 4444):
        own = [chain for name, chain in chains(it).items() if name.startswith(f"{port}-")]
        own = own or [chain for name, chain in chains(it).items() if name.startswith("other")]
        matches = [chain["filter_chain_match"] for chain in own]
        wanted = {
            "tls_inspector": any(match["transport_protocol"] == "tls" for match in matches),
            "http_inspector": any("h2c" in match.get("application_protocols", []) for match in matches),
        }
        assert wanted == {name: name in filters and not _holds(filters[name].get("filter_disabled"), port) for name in wanted}


def _holds(predicate: Any, port: int) -> bool:
    if predicate is None:
        return False
    if "not_match" in predicate:
        return not _holds(predicate["not_match"], port)
    rules = predicate["or_match"]["rules"] if "or_match" in predicate else [predicate]
    return any(rule["destination_port_range"]["start"] <= port < rule["destination_port_range"]["end"] for rule in rules)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("NONE", (False, None, None)),
        ("BASE", (True, None, None)),
        ("MERGE_SLASHES", (True, True, None)),
        ("DECODE_AND_MERGE_SLASHES", (True, True, "UNESCAPE_AND_FORWARD")),
    ],
)
def test_paths_are_normalized_alike_on_both_sides(setting: Normalization, expected: tuple[Any, ...]) -> None:
    found = compiled(service(endpoint(2, "api", "STRICT")), config=MeshConfig(path_normalization=setting))
    for side, name in (("inbound", "8080-mtls"), ("outbound", "80-services")):
        manager = proxy(chains(listener(found, side))[name])
        fields = ("normalize_path", "merge_slashes", "path_with_escaped_slashes_action")
        assert expected == tuple(manager.get(each) for each in fields)


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ((endpoint(2, "api", "STRICT"),), f"mtls {API}"),
        ((endpoint(2, "api", "PERMISSIVE"), endpoint(3, "third", "STRICT")), f"mtls {API},{THIRD}"),
        ((endpoint(2, "api", "DISABLE"),), "plaintext"),
        ((endpoint(2, "", None),), "plaintext"),
        ((), "plaintext"),
        ((endpoint(2, "api", "STRICT"), endpoint(3, "", None)), f"shop/api:80|4 {API}"),
        ((endpoint(2, "api", "STRICT"), endpoint(3, "third", "DISABLE")), f"shop/api:80|4 {API}"),
    ],
)
def test_a_service_is_called_by_mtls_as_its_endpoints_take_it(endpoints: tuple[Endpoint, ...], expected: str) -> None:
    found = compiled(service(*endpoints))
    assert f"10.96.1.1:80 {expected}" == routes(chains(listener(found, "outbound"))["80-services"])["*"][0]
    names = [cluster["name"].partition("|")[2] for cluster in found.clusters]
    assert expected.partition(" ")[0] in names
    assert len(names) == len(set(names))


def test_only_a_service_that_is_meshed_in_part_has_clusters_of_its_own() -> None:
    many = [replace(service(endpoint(2, "api", "STRICT")), service=Ref("shop", f"s{at}"), v4=f"10.96.1.{at}") for at in range(20)]
    names = [cluster["name"] for cluster in compiled(*many).clusters]
    assert ["shop.api|plaintext", "shop.api|mtls"] == names
    grpc = compiled(*many, service(endpoint(2, "api", "STRICT"), app="grpc"))
    assert ["shop.api|plaintext", "shop.api|mtls", "shop.api|mtls-h2"] == [cluster["name"] for cluster in grpc.clusters]


def test_a_pod_has_one_chain_for_all_services_on_an_http_port() -> None:
    many = [replace(service(endpoint(2, "api", "STRICT")), service=Ref("shop", f"s{at}"), v4=f"10.96.1.{at}") for at in range(20)]
    assert ["80-services"] == list(chains(listener(compiled(*many), "outbound")))


def test_a_headless_service_is_known_by_its_host_and_an_address_alone_is_passed_through() -> None:
    found = compiled(service(endpoint(2, "api", "STRICT"), endpoint(3, "", None), port=8080, headless=True))
    chain = chains(listener(found, "outbound"))["8080-headless"]
    assert {
        "api.shop.svc.cluster.local": [f"10.244.0.2:8080 mtls {API}", f"[fd00::2]:8080 mtls {API}", "plaintext"],
        "*": ["plaintext"],
    } == routes(chain)


@pytest.mark.parametrize(("declared", "expected"), [(False, []), (True, [f"shop/api:{at}" for at in (0, 1)])])
def test_tcp_by_a_pods_address_is_mtls_only_through_a_headless_service_of_the_users_own(
    declared: bool, expected: list[str]
) -> None:
    ends = endpoint(2, "api", "STRICT", 9000), endpoint(3, "third", "STRICT", 9000), endpoint(4, "", None, 9000)
    it = listener(compiled(service(*ends, app="tcp", port=9000, headless=True, declared=declared)), "outbound")
    assert expected == list(chains(it))
    assert "passthrough" == it["default_filter_chain"]["name"]


def rbac(name: str, action: str, *entries: str) -> RbacFilter:
    policies = {entry: {"permissions": [{"any": True}], "principals": [{"header": {"name": entry}}]} for entry in entries}
    return RbacFilter(name=name, rules={"action": action, "policies": policies})


def guards(permission: Any) -> set[str]:
    """Return the addresses that a guarded permission asks for."""
    (guard, _) = permission["and_rules"]["rules"]
    return {each["destination_ip"]["address_prefix"] for each in guard["or_rules"]["rules"]}


def test_an_entry_holds_for_the_pods_alone_that_have_it_and_a_pod_without_allow_is_open() -> None:
    first = meshed("a", 2, judges=Authorization(http=(rbac("deny", "DENY", "d"), rbac("allow", "ALLOW", "shared", "own"))))
    second = meshed("b", 3, judges=Authorization(http=(rbac("allow", "ALLOW", "shared"),)))
    found = authorization([first, second, meshed("c", 4)])
    assert {f"{layer}-{name}" for layer in ("http", "tcp") for name in ("audit", "deny", "allow")} == set(found)
    allow = found["http-allow"]["typed_config"]["rules"]
    both, own = {"10.244.0.2", "fd00::2", "10.244.0.3", "fd00::3"}, {"10.244.0.2", "fd00::2"}
    assert both == guards(allow["policies"]["shared"]["permissions"][0])
    assert own == guards(allow["policies"]["own"]["permissions"][0])
    (others,) = allow["policies"]["no ALLOW policy"]["permissions"]
    assert both == {each["destination_ip"]["address_prefix"] for each in others["not_rule"]["or_rules"]["rules"]}
    assert own == guards(found["http-deny"]["typed_config"]["rules"]["policies"]["d"]["permissions"][0])
    assert "no ALLOW policy" not in found["http-deny"]["typed_config"]["rules"]["policies"]
    assert "rules" not in found["tcp-allow"]["typed_config"]


def test_an_allow_filter_without_entries_still_denies_its_pod_everything() -> None:
    found = authorization([meshed(judges=Authorization(http=(rbac("allow", "ALLOW"),)))])
    rules = found["http-allow"]["typed_config"]["rules"]
    assert ["no ALLOW policy"] == list(rules["policies"])
    assert "not_rule" in rules["policies"]["no ALLOW policy"]["permissions"][0]


@pytest.mark.parametrize(
    "judges",
    [
        (rbac("allow", "ALLOW", "x"), rbac("deny", "DENY", "y")),
        (rbac("jwt", "ALLOW", "x"),),
        (rbac("deny", "DENY", "x"), rbac("deny", "DENY", "y")),
    ],
)
def test_filters_that_nobody_would_ask_are_never_dropped_in_silence(judges: tuple[RbacFilter, ...]) -> None:
    with pytest.raises(InternalError, match="there are audit, deny, allow"):
        authorization([meshed(judges=Authorization(http=judges))])


def test_one_name_never_stands_for_two_different_entries() -> None:
    other = replace(rbac("allow", "ALLOW"), rules={"action": "ALLOW", "policies": {"x": {"permissions": [], "principals": []}}})
    pods = [meshed("a", 2, judges=Authorization(tcp=(rbac("allow", "ALLOW", "x"),)))]
    pods.append(meshed("b", 3, judges=Authorization(tcp=(other,))))
    with pytest.raises(InternalError, match="not the same for shop/b as for shop/a"):
        authorization(pods)


def test_a_change_of_policy_changes_no_listener_and_no_cluster() -> None:
    before, after = compiled(), compiled(pod=meshed(judges=Authorization(http=(rbac("deny", "DENY", "x"),))))
    assert (before.listeners, before.clusters) == (after.listeners, after.clusters)
    assert before.authorization != after.authorization


def test_names_of_resources_part_pods_whose_names_read_alike() -> None:
    assert len({key(Ref("a", "b.c")), key(Ref("a-b", "c")), key(Ref("a", "b-c"))}) == 3
    assert json.dumps(compiled().listeners)  # plain data


def test_a_file_is_moved_in_place_under_a_new_version_only_when_it_changes(tmp_path: Any) -> None:
    files = XdsFiles(tmp_path)
    assert ["1", None, "2", "3"] == [files.put("lds.json", [{"a": at}]) for at in (1, 1, 2)] + [files.put("cds.json", [])]
    assert {"version_info": "2", "resources": [{"a": 2}]} == json.loads((tmp_path / "xds" / "lds.json").read_text())
    assert [] == list((tmp_path / "staging").iterdir())
    files.distrust()
    assert "4" == files.put("cds.json", [])


def test_the_scratch_file_system_hides_nothing_that_the_lab_needs() -> None:
    needed = ["/run/x", "/mnt/x", "/srv/x", "/media/x", "/opt/x", "/home/x"]
    with pytest.raises(Exception, match="needs one of the directories /run, /mnt"):
        Scratch(needed)


def test_capture_is_well_formed_and_takes_all_of_a_pods_tcp_but_what_is_named() -> None:
    table = capture.table()
    check_well_formed(table)
    assert nfnetlink.encode(table)
    text = ruletext.text(table)
    assert text.index(f"tcp dport {HEALTH_PORT} return") < text.index("redirect to :15006")
    assert text.index('oifname "lo" return') < text.index("redirect to :15001")
    assert "meta mark 0x00000539 notrack" in text
    for port in (capture.INBOUND_PORT, capture.OUTBOUND_PORT):
        assert f"tcp dport {port} ct status & dnat == 0 reject with tcp reset" in text


@pytest.mark.parametrize(
    ("text", "rule", "encoded"),
    [
        ("meta mark 0x00000539 notrack", Rule((Marked(1337),), (Notrack(),)), b"notrack\0"),
        ("tcp redirect to :15006", Rule((Proto("tcp"),), (Redirect(15006),)), b"redir\0"),
        ("ct status & dnat == 0 reject with tcp reset", Rule((Untranslated(),), (Reset(),)), b"reject\0"),
    ],
)
def test_what_capture_needs_reads_as_nft_takes_it_and_is_encoded(text: str, rule: Rule, encoded: bytes) -> None:
    said = ruletext.rule(rule)
    assert text in (said, said.replace("meta l4proto tcp", "tcp"))
    batch = nfnetlink.encode(Table("t", (), (Chain("c", (rule,), Hook("nat", "prerouting", -100)),)))
    assert encoded in batch


def test_the_marks_byte_order_is_the_machines_and_the_ports_the_networks() -> None:
    rules = (Rule((Marked(0x539),), (Redirect(0x3A9E),)),)
    batch = nfnetlink.encode(Table("t", (), (Chain("c", rules, Hook("nat", "output", -100)),)))
    assert (0x539).to_bytes(4, sys.byteorder) in batch
    assert bytes.fromhex("3a9e") in batch
