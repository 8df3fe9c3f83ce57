# SPDX-License-Identifier: Apache-2.0
"""Every way to loosen a policy of the mesh turns its scenario red, in the rows that the change opens and in no others."""

import copy
from typing import Any

import pytest
from loosening import ALL, ANY_POD, Mutate, dropped, metadata, of_sidecars, only, rule, scenarios, spec

from ztconform import catalogue, scenario
from ztconform.lab.mesh.authorizationpolicy import parse_authorization_policy
from ztconform.lab.mesh.peerauthentication import parse_peer_authentication
from ztconform.lab.networkpolicy import parse_policy
from ztconform.model import Case
from ztconform.proof import prove_case
from ztconform.shop import shop

DIALECTS = ("kubernetes", "istio")
PARSERS = {
    "AuthorizationPolicy": parse_authorization_policy,
    "NetworkPolicy": parse_policy,
    "PeerAuthentication": parse_peer_authentication,
}


def mtls(mode: str, **more: Any) -> Mutate:
    """Set the mode of a whole PeerAuthentication, and further fields of its spec."""
    return spec(mtls={"mode": mode}, **more)


def at_ports(**modes: str) -> Any:
    """Return modes by port: p9090="PERMISSIVE"."""
    return {int(name.removeprefix("p")): {"mode": mode} for name, mode in modes.items()}


def app(name: str) -> Any:
    """Return a selector by application."""
    return {"matchLabels": {"app": name}}


def _first_rule(part: str, inner: str, changes: dict[str, Any]) -> Mutate:
    def mutate(manifest):
        changed = copy.deepcopy(manifest)
        fields = changed["spec"]["rules"][0][part][0][inner]
        fields.update(changes)
        for name in [n for n, value in fields.items() if value is None]:
            del fields[name]
        return changed

    return mutate


def source(**changes: Any) -> Mutate:
    """Replace fields of the first rule's source; None drops one."""
    return _first_rule("from", "source", changes)


def operation(**changes: Any) -> Mutate:
    """Replace fields of the first rule's operation; None drops one."""
    return _first_rule("to", "operation", changes)


def first_rule(**changes: Any) -> Mutate:
    """Replace `from`, `to` or `when` of the first rule; None drops one."""

    def mutate(manifest):
        changed = copy.deepcopy(manifest)
        named = {name.removesuffix("_"): value for name, value in changes.items()}  # from_, which Python keeps for itself
        (first, *_) = changed["spec"]["rules"]
        first.update(named)
        for name in [n for n, value in first.items() if value is None]:
            del first[name]
        return changed

    return mutate


def parted(manifest):
    """Say who may call and what may be called in two rules: neither limits the other any more."""
    changed = copy.deepcopy(manifest)
    (first,) = changed["spec"]["rules"]
    changed["spec"]["rules"] = [{"from": first["from"]}, {"to": first["to"]}]
    return changed


def dry_run(manifest):
    annotations = {"istio.io/dry-run": "true"}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def enforced(manifest):
    return {**manifest, "metadata": {k: v for k, v in manifest["metadata"].items() if k != "annotations"}}


def kind(name: str, mutate: Mutate) -> Mutate:
    """Change what is of this kind and leave the rest."""
    return lambda manifest: mutate(manifest) if manifest["kind"] == name else manifest


def strict(mutate: Mutate) -> Mutate:
    """Change the PeerAuthentication that is STRICT, where two steps apply one of the same name."""
    return lambda manifest: mutate(manifest) if manifest["spec"].get("mtls") == {"mode": "STRICT"} else manifest


def permissive(mutate: Mutate) -> Mutate:
    return lambda manifest: mutate(manifest) if manifest["spec"].get("mtls") == {"mode": "PERMISSIVE"} else manifest


def tried(mutate: Mutate) -> Mutate:
    """Change the policy that is a dry run."""
    return lambda manifest: mutate(manifest) if "annotations" in manifest["metadata"] else manifest


def applied(mutate: Mutate) -> Mutate:
    """Change the policy that is none."""
    return lambda manifest: manifest if "annotations" in manifest["metadata"] else mutate(manifest)


def principals(*accounts: str) -> Mutate:
    return source(principals=[f"cluster.local/ns/{account.replace('/', '/sa/', 1)}" for account in accounts])


PERMISSIVE, DISABLE = mtls("PERMISSIVE"), mtls("DISABLE")
TWIN_NAMESPACE = metadata(namespace="shop-twin")
ANYBODY, ANY_IDENTITY = first_rule(from_=None), source(principals=["*"])
AUDIT = spec(action="AUDIT")
MESHED = {"shop/frontend", "shop/attacker"}  # of the denied callers those that have an identity
SPELLINGS = {" /api/v1/products/", " /api/v1/products\\", " /api/v1//admin"}  # A03, all but the fragment, which never passes
PLAINTEXT = {"by service past its proxy", "!certificate"}

# (requirement, what is done to its policy, how, the rows that come out otherwise: a part of the id of each, all of it with "=")
LOOSENED: list[tuple[str, str, Mutate, str | set[str]]] = [
    ("N16", "in a mesh: not applied", dropped, ALL),
    ("N16", "in a mesh: guarding another label", spec(selector={"matchLabels": {"guard": "no"}}), ALL),
    ("N16", "in a mesh: admitting checkout too", principals("shop/frontend", "shop/checkout"), ALL),
    ("M01", "not applied", dropped, ALL),
    ("M01", "PERMISSIVE", PERMISSIVE, ALL),
    ("M01", "DISABLE", DISABLE, ALL),
    ("M01", "UNSET, which inherits", mtls("UNSET"), ALL),
    ("M01", "without a mode", spec(mtls=None), ALL),
    ("M01", "in another namespace", TWIN_NAMESPACE, ALL),
    ("M01", "for another application", spec(selector=app("products")), ALL),
    ("M01", "but for the port in question", spec(selector=app("payment"), portLevelMtls=at_ports(p8080="PERMISSIVE")), ALL),
    ("M02", "never STRICT", strict(PERMISSIVE), ALL),
    ("M02", "DISABLE in place of STRICT", strict(DISABLE), ALL),
    ("M02", "STRICT for another application", strict(spec(selector=app("products"))), ALL),
    (
        "M02",
        "STRICT at once",
        permissive(mtls("STRICT")),
        {"=shop/legacy GET shop/payment:8080 by service", "=shop/legacy GET shop/payment:8080 by pod"},
    ),
    ("M03", "not applied", dropped, ALL),
    ("M03", "PERMISSIVE", PERMISSIVE, ALL),
    ("M03", "but for that port", spec(selector=app("payment"), portLevelMtls=at_ports(p9191="PERMISSIVE")), ALL),
    ("M03", "for declared ports alone", mtls("PERMISSIVE", selector=app("payment"), portLevelMtls=at_ports(p8080="STRICT")), ALL),
    ("M04", "not applied", dropped, ALL),
    ("M04", "PERMISSIVE as a whole", PERMISSIVE, ALL),
    ("M04", "UNSET as a whole, which inherits PERMISSIVE", mtls("UNSET"), ALL),
    (
        "M04",
        "with the exception for another port",
        spec(portLevelMtls=at_ports(p8080="PERMISSIVE")),
        {"shop/payment:8080 by service", ":9090", "!shop/frontend"},
    ),
    ("M04", "with a second exception", spec(portLevelMtls=at_ports(p9090="PERMISSIVE", p7000="PERMISSIVE")), {":7000"}),
    (
        "M04",
        "with an exception that disables",
        spec(portLevelMtls=at_ports(p9090="PERMISSIVE", p8080="DISABLE")),
        {"shop/legacy GET shop/payment:8080"},
    ),
    ("M04", "with the exception by a Service's number", spec(portLevelMtls=at_ports(p80="PERMISSIVE")), {":9090"}),
    ("M04", "without the exception", spec(portLevelMtls=None), {":9090"}),
    ("M06", "not applied", dropped, PLAINTEXT),
    ("M06", "PERMISSIVE", PERMISSIVE, PLAINTEXT),
    ("M06", "for another application", spec(selector=app("products")), PLAINTEXT),
    ("M07", "DISABLE, so that nobody shows a certificate", DISABLE, ALL),
    ("M11", "not applied", dropped, ALL),
    ("M11", "PERMISSIVE", PERMISSIVE, ALL),
    (
        "M11",
        "for one application only",
        spec(selector=app("payment")),
        {"shop/frontend:", "shop/products:", "shop/checkout:", "shop/attacker:"},
    ),
    ("A01", "not applied", dropped, ALL),
    ("A01", "in another namespace", TWIN_NAMESPACE, ALL),
    ("A01", "for another application", spec(selector=app("products")), ALL),
    ("A01", "AUDIT in place of ALLOW", AUDIT, ALL),
    ("A01", "as a dry run", dry_run, ALL),
    ("A01", "admitting anybody", ANYBODY, ALL),
    ("A01", "admitting every identity", ANY_IDENTITY, MESHED),
    ("A01", "admitting every account of the namespace", principals("shop/*"), MESHED),
    ("A01", "admitting the namespace", source(principals=None, namespaces=["shop"]), MESHED),
    ("A01", "admitting frontend too", principals("shop/checkout", "shop/frontend"), {"shop/frontend"}),
    ("A01", "admitting frontend in its place", principals("shop/frontend"), {"shop/frontend", "shop/checkout"}),
    (
        "A01",
        "admitting whoever is not the attacker",
        source(principals=None, notPrincipals=["cluster.local/ns/shop/sa/attacker"]),
        {"shop/frontend", "shop/legacy"},
    ),
    ("A01", "admitting pods by their addresses", source(principals=None, ipBlocks=["10.244.0.0/16"]), ALL),
    ("A02", "not applied", dropped, ALL),
    ("A02", "AUDIT in place of ALLOW", AUDIT, ALL),
    ("A02", "for another application", spec(selector=app("payment")), ALL),
    ("A02", "with any method", operation(methods=None), {"DELETE"}),
    ("A02", "with one method more", operation(methods=["GET", "DELETE"]), {"DELETE"}),
    ("A02", "with every method but one", operation(methods=None, notMethods=["POST"]), {"DELETE"}),
    ("A02", "with any path", operation(paths=None), {"/api/v1/admin"}),
    ("A02", "with a prefix", operation(paths=["/api/v1/*"]), {"/api/v1/admin"}),
    ("A02", "with a path template", operation(paths=["/api/v1/{*}"]), {"/api/v1/admin"}),
    ("A02", "with every path but one", operation(paths=None, notPaths=["/metrics"]), {"/api/v1/admin"}),
    ("A02", "admitting anybody", ANYBODY, {"shop/payment"}),
    ("A02", "admitting every identity", ANY_IDENTITY, {"shop/payment"}),
    ("A02", "as one rule for callers and one for operations", parted, ALL),
    ("A03", "not applied", dropped, SPELLINGS),
    ("A03", "with any path", operation(paths=None), SPELLINGS),
    ("A03", "with the prefix of everything", operation(paths=["/*"]), SPELLINGS),
    (
        "A03",
        "with a prefix, which an encoded slash passes",
        operation(paths=["/api/v1/products/*", "/api/v1/products"]),
        {"..%2fadmin", "..%5Cadmin"},
    ),
    ("A03", "AUDIT in place of ALLOW", AUDIT, SPELLINGS),
    ("A07", "without DENY", only("no-admin", dropped), ALL),
    ("A07", "AUDIT in place of DENY", only("no-admin", AUDIT), ALL),
    ("A07", "with DENY as a dry run", only("no-admin", dry_run), ALL),
    ("A07", "with ALLOW in place of DENY", only("no-admin", spec(action="ALLOW")), ALL),
    ("A07", "with DENY in another namespace", only("no-admin", TWIN_NAMESPACE), ALL),
    ("A07", "with DENY for another application", only("no-admin", spec(selector=app("products"))), ALL),
    ("A07", "with DENY for one path", only("no-admin", operation(paths=["/admin"])), {"/admin/keys"}),
    ("A07", "with DENY for what is below", only("no-admin", operation(paths=["/admin/*"])), {"/admin by"}),
    ("A07", "with DENY for another method", only("no-admin", operation(methods=["POST"])), ALL),
    (
        "A07",
        "with DENY for another caller",
        only("no-admin", first_rule(from_=[{"source": {"principals": ["cluster.local/ns/shop/sa/frontend"]}}])),
        ALL,
    ),
    ("A07", "with DENY under another name", only("no-admin", metadata(name="renamed")), ALL),
    ("A08", "not applied", dropped, ALL),
    ("A08", "admitting anybody", ANYBODY, ALL),
    ("A08", "admitting every identity", ANY_IDENTITY, MESHED),
    ("A12", "not applied", dropped, ALL),
    ("A12", "with any method", operation(methods=None), {"DELETE"}),
    ("A12", "with any path", operation(paths=None), {"POST shop/payment:8080 by service"}),
    ("A12", "with any operation", first_rule(to=None), ALL),
    ("A17", "not applied", dropped, ALL),
    ("A17", "admitting the account of any namespace", source(principals=["*/sa/checkout"]), {"shop-twin/checkout"}),
    ("A17", "admitting both namespaces", source(principals=None, namespaces=["shop", "shop-twin"]), ALL),
    ("A17", "admitting namespaces that begin alike", source(principals=None, namespaces=["shop*"]), ALL),
    ("A17", "admitting anybody", ANYBODY, ALL),
    ("I01", "not applied", dropped, ALL),
    ("I01", "PERMISSIVE", PERMISSIVE, ALL),
    ("I01", "in another namespace", TWIN_NAMESPACE, ALL),
    ("I02", "not applied", dropped, ALL),
    ("I02", "admitting every identity", ANY_IDENTITY, ALL),
    ("I02", "admitting frontend in checkout's place", principals("shop/frontend"), {"shop/"}),
    ("I03", "not applied", dropped, ALL),
    ("I03", "admitting the namespace", source(serviceAccounts=None, namespaces=["shop"]), ALL),
    (
        "I03",
        "admitting names that begin alike",
        source(serviceAccounts=None, principals=["cluster.local/ns/shop/sa/audit.reader*"]),
        {"audit-longer"},
    ),
    (
        "I03",
        "admitting names that begin less alike",
        source(serviceAccounts=None, principals=["cluster.local/ns/shop/sa/audit*"]),
        {"audit-longer", "audit-dotless"},
    ),
    ("I03", "admitting the near miss too", source(serviceAccounts=["shop/audit.reader", "shop/auditxreader"]), {"audit-dotless"}),
    (
        "I03",
        "admitting the near miss in its place",
        source(serviceAccounts=["shop/auditxreader"]),
        {"audit-dotless", "shop/auditor"},
    ),
    ("R05", "without NetworkPolicies", kind("NetworkPolicy", dropped), {"step 2", "!shop/checkout"}),
    (
        "R05",
        "with any pod admitted",
        only("payment-from-checkout", rule("ingress", **{"from": [ANY_POD]})),
        {"step 2", "!shop/checkout"},
    ),
    (
        "R05",
        "for egress in place of ingress",
        kind(
            "NetworkPolicy",
            lambda m: None if m["metadata"]["name"] == "default-deny" else spec(policyTypes=["Egress"], ingress=None)(m),
        ),
        {"step 2", "!shop/checkout"},
    ),
    ("R06", "without the AuthorizationPolicy", kind("AuthorizationPolicy", dropped), {"step 2", "!shop/checkout"}),
    (
        "R06",
        "with any identity admitted",
        kind("AuthorizationPolicy", ANY_IDENTITY),
        {"shop/frontend POST shop/payment:8080 /v1/payments/1 by service, step 2"},
    ),
    ("R06", "with the AuthorizationPolicy as a dry run", kind("AuthorizationPolicy", dry_run), {"step 2", "!shop/checkout"}),
    ("R07", "not applied", dropped, ALL),
    ("R07", "with anybody admitted while PERMISSIVE", kind("AuthorizationPolicy", ANYBODY), {"shop/uninjected", "!step 2"}),
    ("R07", "never STRICT, and no policy either", strict(dropped), {"step 2", "!shop/checkout"}),
    ("U03", "never enforced", applied(dropped), ALL),
    ("U03", "enforced as a dry run still", applied(dry_run), ALL),
    ("U03", "enforced at once", tried(enforced), {"=shop/frontend POST shop/payment:8080 /v1/payments/1 by service"}),
    ("U05", "in a mesh: without DENY", only("no-admin", dropped), {"/admin"}),
    ("U05", "in a mesh: with DENY under another name", only("no-admin", metadata(name="renamed")), {"/admin"}),
    ("U05", "in a mesh: with ALLOW under another name", only("checkout-everywhere", metadata(name="renamed")), {"shop/frontend"}),
    ("U05", "in a mesh: admitting every identity", only("checkout-everywhere", ANY_IDENTITY), {"shop/frontend"}),
    ("U06", "never STRICT", strict(PERMISSIVE), ALL),
    (
        "U06",
        "STRICT at once",
        permissive(mtls("STRICT")),
        {"=shop/legacy GET shop/payment:8080 by service", "=shop/uninjected GET shop/payment:8080 by service"},
    ),
]
IDS = [f"{requirement} {how}" for requirement, how, *_ in LOOSENED]

SCENARIOS = scenarios()
IN_A_MESH = {"mtls", "l7-authz", "identity", "authorization-dry-run"}
OF_SPIRE = {"spire", "federation"}  # what these scenarios turn on is no policy, and is broken in test_spire
MESHED_SCENARIOS = sorted(
    {r for r in SCENARIOS if catalogue.load()[r].features & IN_A_MESH and not catalogue.load()[r].features & OF_SPIRE}
    | {"N16", "U05"}  # of these two the last proof
)


def case_of(requirement: str) -> Case:
    """Return the case that a scenario asks to be proved; its last one, where it asks for two."""
    asked: list[dict[str, Any]] = []
    SCENARIOS[requirement](shop(), lambda **words: asked.append(words))
    words = {name: value for name, value in asked[-1].items() if name != "needs"}
    words["rows"] = of_sidecars(words["rows"])
    made = scenario.case(requirement, shop().topology, DIALECTS, mesh=True, **words)
    assert isinstance(made, Case)
    return made


def _names(parts: set[str], row: str) -> bool:
    """Return whether a row's id has one of these parts and none of those with "!"; with "=" it must be all of it."""
    wanted = any(row == part[1:] if part.startswith("=") else part in row for part in parts if not part.startswith("!"))
    return wanted and not any(part[1:] in row for part in parts if part.startswith("!"))


def _mutants(requirement: str, mutate: Mutate) -> list[tuple[Any, Any]]:
    return [(manifest, mutate(manifest)) for step in case_of(requirement).steps for manifest in step.apply]


@pytest.mark.parametrize(("requirement", "how", "mutate", "opens"), LOOSENED, ids=IDS)
def test_a_loosening_changes_a_policy_into_another_that_is_accepted_and_names_rows(
    requirement: str, how: str, mutate: Mutate, opens: str | set[str]
) -> None:
    mutants = _mutants(requirement, mutate)
    assert any(before != after for before, after in mutants)
    for _, after in mutants:
        if after is not None:
            PARSERS[after["kind"]](after)
    rows = [row for step in case_of(requirement).steps for row in step.rows]
    assert any(row.want == "denied" if opens == ALL else _names(opens, row.id) for row in rows)


@pytest.mark.parametrize(("requirement", "how", "mutate", "opens"), LOOSENED, ids=IDS)
def test_a_loosened_policy_is_red_in_the_rows_that_it_opens(
    lab: Any, requirement: str, how: str, mutate: Mutate, opens: str | set[str]
) -> None:
    results = prove_case(case_of(requirement), lab, mutate=mutate)
    red = {r.row.id for r in results if r.outcome == "VIOLATED"}
    denied = {r.row.id for r in results if r.row.want == "denied"}
    expected = denied if opens == ALL else {r.row.id for r in results if _names(opens, r.row.id)}
    # A policy that is gone altogether may also close what its rules had opened under another one.
    assert expected == (red & denied if opens == ALL else red), "\n".join(f"{r.row.id}: {r.outcome}: {r.why}" for r in results)


def test_every_scenario_of_the_mesh_has_its_policies_loosened() -> None:
    assert set(MESHED_SCENARIOS) == {requirement for requirement, *_ in LOOSENED}


@pytest.mark.parametrize("requirement", MESHED_SCENARIOS)
def test_a_scenario_is_proved_with_its_own_policy(lab: Any, requirement: str) -> None:
    results = prove_case(case_of(requirement), lab)
    assert [] == [(r.row.id, r.outcome, r.why) for r in results if r.outcome != "PROVED"]
