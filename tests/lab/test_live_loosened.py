# SPDX-License-Identifier: Apache-2.0
"""Every way to loosen a policy turns its scenario red, in the rows that the change opens and in no others."""

import pytest
from loosening import (
    ALL,
    ANY_NAMESPACE,
    ANY_POD,
    CHECKOUT,
    CLOSES,
    HTTP,
    LEDGER,
    PAYMENT,
    TCP,
    Mutate,
    dropped,
    metadata,
    only,
    rule,
    scenarios,
    spec,
    typed,
)

from ztconform import catalogue, scenario
from ztconform.model import Case
from ztconform.proof import prove_case
from ztconform.shop import shop

# (requirement, what is done to its policy, how, the rows that come out otherwise: part of the id of each, all of it with "=")
LOOSENED: list[tuple[str, str, Mutate, str | set[str]]] = [
    ("N01", "not applied", dropped, ALL),
    ("N01", "in another namespace", metadata(namespace="shop-twin"), ALL),
    ("N01", "for egress in place of ingress", spec(policyTypes=["Egress"]), {"UDP shop/payment", "closes shop-twin/payment"}),
    ("N01", "with an empty rule, which admits everybody", spec(ingress=[{}]), ALL),
    ("N01", "with an empty list of peers", spec(ingress=[{"from": []}]), ALL),
    ("N01", "admitting every namespace", spec(ingress=[{"from": [ANY_NAMESPACE]}]), ALL),
    ("N01", "admitting its own namespace", spec(ingress=[{"from": [ANY_POD]}]), {"GET shop/payment"}),
    ("N01", "admitting UDP", spec(ingress=[{"ports": [{"protocol": "UDP"}]}]), {"UDP"}),
    ("N01", "admitting TCP", spec(ingress=[{"ports": [TCP]}]), {"GET shop/payment"}),
    ("N01", "for one application only", spec(podSelector={"matchLabels": {"app": "products"}}), ALL),
    ("N02", "not applied", dropped, ALL),
    (
        "N02",
        "for ingress in place of egress",
        spec(policyTypes=["Ingress"]),
        {"shop-twin/payment", "outsider/", "closes shop-twin/frontend"},
    ),
    ("N02", "with an empty rule", spec(egress=[{}]), ALL),
    ("N02", "to its own namespace", spec(egress=[{"to": [ANY_POD]}]), {"shop/frontend GET shop/products"}),
    (
        "N02",
        "to every namespace",
        spec(egress=[{"to": [ANY_NAMESPACE]}]),
        {"shop/frontend GET shop/products", "shop-twin/payment"},
    ),
    ("N02", "to any address", spec(egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]), ALL),
    (
        "N02",
        "to the metadata address",
        spec(egress=[{"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}]}]),
        {"outsider/metadata"},
    ),
    ("N02", "to one port", spec(egress=[{"ports": [{"port": 80}]}]), {"outsider/metadata"}),
    ("N02", "for one application only", spec(podSelector=PAYMENT), ALL),
    ("N03", "not applied", dropped, ALL),
    ("N03", "without ports", rule("ingress", ports=None), {"shop/checkout"}),
    ("N03", "without peers", {"from": None}, {"shop/frontend"}),
    ("N03", "admitting any pod", {"from": [ANY_POD]}, {"shop/frontend"}),
    ("N03", "with a range one longer", rule("ingress", ports=[HTTP, LEDGER | {"endPort": 7002}]), {":7002"}),
    ("N03", "with a range that starts one lower", rule("ingress", ports=[HTTP, LEDGER | {"port": 6999}]), {":6999"}),
    ("N03", "with a second named port", rule("ingress", ports=[HTTP, LEDGER, {"port": "metrics"}]), {":9090"}),
    ("N03", "with the range for UDP too", rule("ingress", ports=[HTTP, LEDGER, LEDGER | {"protocol": "UDP"}]), {"UDP"}),
    (
        "N03",
        "with another named port in its place",
        rule("ingress", ports=[{"port": "metrics"}, LEDGER]),
        {":9090", "closes checkout TCP shop/payment:8080"},
    ),
    (
        "N03",
        "as one rule for the peer and one for the ports",
        spec(ingress=[{"from": [CHECKOUT]}, {"ports": [HTTP, LEDGER]}]),
        ALL,
    ),
    ("N04", "not applied", dropped, ALL),
    ("N04", "without peers", {"from": None}, ALL),
    ("N04", "admitting the label in every namespace", {"from": [CHECKOUT | ANY_NAMESPACE]}, ALL),
    ("N04", "admitting every namespace beside the label", {"from": [CHECKOUT, ANY_NAMESPACE]}, ALL),
    (
        "N04",
        "admitting the twin by its labels",
        {"from": [CHECKOUT, {"namespaceSelector": {"matchLabels": {"team": "twin"}}}]},
        ALL,
    ),
    (
        "N04",
        "naming the wrong namespace",
        {"from": [CHECKOUT | {"namespaceSelector": {"matchLabels": {"team": "twin"}}}]},
        {"shop-twin/checkout", "closes =shop/checkout GET shop/payment:8080 by service"},
    ),
    ("N06", "not applied", dropped, ALL),
    ("N06", "for ingress in place of egress", spec(policyTypes=["Ingress"]), ALL),
    ("N06", "to port 53 of anybody", rule("egress", to=None), {"shop-twin/other-dns"}),
    ("N06", "to port 53 of any namespace", rule("egress", to=[ANY_NAMESPACE]), {"shop-twin/other-dns"}),
    (
        "N06",
        "to anybody, but only by UDP",
        rule("egress", to=None, ports=[{"protocol": "UDP", "port": 53}]),
        {"UDP shop-twin/other-dns"},
    ),
    (
        "N06",
        "to any pod of its own namespace too",
        spec(egress=[{"to": [ANY_POD]}, {"ports": [{"port": 53, "protocol": "UDP"}]}]),
        {"GET shop/payment", "UDP shop-twin/other-dns"},
    ),
    ("N13", "not applied", dropped, ALL),
    (
        "N13",
        "without the exception",
        {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}, {"ipBlock": {"cidr": "10.244.0.0/16"}}]},
        ALL,
    ),
    (
        "N13",
        "with the exception of another host",
        {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.200/32"]}}, ANY_POD]},
        ALL,
    ),
    (
        "N13",
        "admitting every pod",
        {"from": [{"ipBlock": {"cidr": "10.244.0.0/16"}}]},
        {"shop/frontend", "closes outsider/world"},
    ),
    ("N14", "not applied", dropped, ALL),
    (
        "N14",
        "closing nothing in its second step",
        typed("Ingress", "Egress", mutate=dropped),
        {"shop/products GET shop/payment:8080 by service, step 2"},
    ),
    (
        "N14",
        "closing ingress only, in its second step",
        typed("Ingress", "Egress", mutate=spec(policyTypes=["Ingress"])),
        {"shop/products GET shop/payment:8080 by service, step 2"},
    ),
    (
        "N14",
        "closing egress only, in its second step",
        typed("Ingress", "Egress", mutate=spec(policyTypes=["Egress"])),
        {"shop/frontend GET shop/products:8080 by service, step 2"},
    ),
    (
        "N14",
        "closing egress too, in its first step",
        typed("Ingress", mutate=spec(policyTypes=["Ingress", "Egress"])),
        {"closes =shop/products GET shop/payment:8080 by service"},
    ),
    (
        "N14",
        "closing egress alone, in its first step",
        typed("Ingress", mutate=spec(policyTypes=["Egress"])),
        {"=shop/frontend GET shop/products:8080 by service", "closes =shop/products GET shop/payment:8080 by service"},
    ),
    ("N16", "not applied", dropped, ALL),
    (
        "N16",
        "admitting any pod",
        {"from": [ANY_POD]},
        {
            "shop/legacy GET",
            "shop/checkout GET shop/payment:8080 by service, step",
            "closes shop-twin/checkout GET shop/payment:8080 by service, step 3",
        },
    ),
    ("N16", "admitting any namespace", {"from": [ANY_NAMESPACE]}, ALL),
    (
        "N16",
        "forgetting the partner",
        {"from": [{"podSelector": {"matchLabels": {"role": "caller"}}}]},
        {"closes shop-twin/checkout GET shop/payment:8080 by service, step 3"},
    ),
    ("R09", "not applied", dropped, ALL),
    ("R09", "for egress only", spec(policyTypes=["Egress"]), {"shop-twin/frontend GET shop/payment"}),
    ("R09", "with empty rules", spec(ingress=[{}], egress=[{}]), ALL),
    (
        "R09",
        "admitting UDP in both directions",
        spec(ingress=[{"ports": [{"protocol": "UDP"}]}], egress=[{"ports": [{"protocol": "UDP"}]}]),
        {"UDP"},
    ),
    ("U05", "without the default deny", only("default-deny", dropped), ALL),
    ("U05", "under another name", only("payment-from-checkout", metadata(name="renamed")), {"GET shop/payment:8080"}),
    (
        "U05",
        "without the policy of payment",
        only("payment-from-checkout", dropped),
        {"GET shop/payment:8080", "closes shop/checkout"},
    ),
    (
        "U05",
        "admitting any pod to payment",
        only("payment-from-checkout", rule("ingress", **{"from": [ANY_POD]})),
        {"shop/legacy GET shop/payment"},
    ),
]


SCENARIOS = scenarios()


def case_of(requirement: str) -> Case:
    """Return the case that a scenario asks to be proved."""
    asked = []
    SCENARIOS[requirement](shop(), lambda **words: asked.append(words))
    words = asked[0]  # a second one is of the mesh: test_live_loosened_mesh.py
    made = scenario.case(requirement, shop().topology, ("kubernetes",), **words)
    assert isinstance(made, Case)
    return made


@pytest.mark.parametrize(("requirement", "how", "mutate", "opens"), LOOSENED, ids=[f"{i} {how}" for i, how, _, _ in LOOSENED])
def test_a_loosened_policy_is_red_in_the_rows_that_it_opens(lab, requirement, how, mutate, opens):
    case = case_of(requirement)
    mutate = rule("ingress", **mutate) if isinstance(mutate, dict) else mutate
    results = prove_case(case, lab, mutate=mutate)
    red = {r.row.id for r in results if r.outcome == "VIOLATED"}
    denied = {r.row.id for r in results if r.row.want == "denied"}
    closed = {r.row.id for r in results if r.row.want == "allowed" and any(_names(part, r.row.id, CLOSES) for part in opens)}
    opened = denied if opens == ALL else {i for i in denied if any(_names(part, i) for part in opens)}
    expected = opened | closed
    assert expected, "the expectation names no row"
    # A policy that is gone altogether may also close what its rules had opened under another one.
    assert expected == (red & denied if opens == ALL else red)


def _names(part: str, row: str, prefix: str = "") -> bool:
    if not part.startswith(prefix) or (not prefix and part.startswith(CLOSES)):
        return False
    part = part.removeprefix(prefix)
    return row == part[1:] if part.startswith("=") else part in row


def test_every_scenario_of_this_stack_has_its_policies_loosened(lab):
    known, features = catalogue.load(), lab.facts().features
    played = {i for i in SCENARIOS if not any(features.get(name, "no") for name in known[i].features)}
    without_mesh = {i for i in played if not known[i].features & scenario.MESH_FEATURES}
    assert without_mesh == {requirement for requirement, *_ in LOOSENED}


@pytest.mark.parametrize("requirement", sorted({requirement for requirement, *_ in LOOSENED}))
def test_a_scenario_is_proved_with_its_own_policy(lab, requirement):
    results = prove_case(case_of(requirement), lab)
    assert [] == [(r.row.id, r.outcome, r.why) for r in results if r.outcome != "PROVED"]
