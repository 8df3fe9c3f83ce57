# SPDX-License-Identifier: Apache-2.0
"""An intent says the same in each dialect of the network layer: the same table of who may open a connection to whom."""

from collections.abc import Sequence
from typing import Any

import pytest
from cni_oracles import Http, verdict
from dialect_world import RELABELLINGS, connections, load, name, pod, relabelled, said_in, world
from policy_oracle import Connection

from ztconform.lab.inventory import Inventory
from ztconform.model import Ref

SHOP = world()
CLUSTER = "cluster-network-policy"
OTHERS = ("cilium", "calico", CLUSTER)
# A dialect whose rules for incoming calls know no callers but pods says nothing of the others, and its manifests are of intents
# that do not either.
ANY_CALLER = ("cilium", "calico")


def table(dialect: str, manifests: Sequence[Any], inventory: Inventory, *, pods_alone: bool = False) -> dict[str, str]:
    """Return the verdict on every connection."""
    return {
        name(each): verdict(dialect, inventory, manifests, each)
        for each in connections(inventory)
        if not (pods_alone and each.source.node is None)
    }


def cases() -> list[tuple[str, str]]:
    return [(intent, dialect) for dialect in OTHERS for intent in said_in("kubernetes", dialect)]


def test_the_shop_has_something_to_compare() -> None:
    assert len(cases()) > 25
    assert len(table("kubernetes", [], SHOP)) > 500


@pytest.mark.parametrize(("intent", "dialect"), cases())
def test_an_intent_admits_and_denies_the_same_as_in_networkpolicy(intent: str, dialect: str) -> None:
    alone = dialect not in ANY_CALLER
    for changes in RELABELLINGS:
        there = relabelled(SHOP, changes)
        expected = table("kubernetes", load(intent, "kubernetes", there), there, pods_alone=alone)
        assert {"allowed", "l34"} == set(expected.values())
        assert expected == table(dialect, load(intent, dialect, there), there, pods_alone=alone)


def to_payment(source: str, inventory: Inventory = SHOP) -> Connection:
    payment = pod(inventory, Ref("shop", "payment"))
    return Connection(source=pod(inventory, Ref("shop", source)), target=payment, protocol="TCP", port=8080, family=4)


@pytest.mark.parametrize("dialect", OTHERS)
def test_the_denial_of_legacy_is_all_that_differs_from_what_admits_the_shop(dialect: str) -> None:
    admitting, denying = (load(i, dialect, SHOP) for i in ("payment-by-the-shop", "payment-but-not-legacy"))
    before, after = table(dialect, admitting, SHOP), table(dialect, denying, SHOP)
    assert {name(to_payment("legacy"))} == {cell for cell in before if before[cell] != after[cell]}
    assert ("allowed", "l34") == (before[name(to_payment("legacy"))], after[name(to_payment("legacy"))])
    assert admitting[0] in denying


def changed(manifests: Sequence[Any], path: str, value: Any) -> list[Any]:
    """Return manifests with one field changed: a policy's name, then the steps below its spec; None drops what is there."""
    named, *steps = path.split("/")
    (manifest,) = [each for each in manifests if each["metadata"]["name"] == named]
    if not steps:
        return [each for each in manifests if each is not manifest]
    place = manifest["spec"]
    for step in steps[:-1]:
        place = place[int(step) if step.isdigit() else step]
    last = int(steps[-1]) if steps[-1].isdigit() else steps[-1]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return list(manifests)


@pytest.mark.parametrize(
    ("dialect", "path", "value"),
    [
        ("cilium", "no-legacy", None),
        ("calico", "no-legacy", None),
        ("calico", "no-legacy/order", 300),
        ("calico", "no-legacy/tier", "default"),  # the tier before it admits
        ("calico", "no-legacy/tier", "kube-baseline"),
        (CLUSTER, "no-legacy", None),
        (CLUSTER, "no-legacy/priority", 300),
        (CLUSTER, "no-legacy/tier", "Baseline"),
    ],
)
def test_where_tiers_or_orders_are_mixed_up_legacy_gets_through(dialect: str, path: str, value: Any) -> None:
    manifests = changed(load("payment-but-not-legacy", dialect, SHOP), path, value)
    assert "allowed" == verdict(dialect, SHOP, manifests, to_payment("legacy"))


def test_what_is_staged_is_what_would_be_enforced() -> None:
    staged = load("payment-only-from-checkout-staged", "calico", SHOP)
    assert {"StagedNetworkPolicy"} == {manifest["kind"] for manifest in staged}
    enforced = [
        {**m, "kind": "NetworkPolicy", "spec": {k: v for k, v in m["spec"].items() if k != "stagedAction"}} for m in staged
    ]
    assert load("payment-only-from-checkout", "calico", SHOP) == enforced


def test_by_name_checkout_reaches_the_resolver_and_what_is_outside_on_one_port_and_nobody_else() -> None:
    said = table("cilium", load("egress-to-world-by-name", "cilium", SHOP), SHOP)
    by_label = ("shop/checkout -> ", "shop/uninjected -> ")  # both bear the label
    assert {"allowed"} == {found for cell, found in said.items() if not cell.startswith(by_label)}
    assert {
        "shop/checkout -> kube-system/kube-dns:53/UDP",
        "shop/checkout -> kube-system/kube-dns:53/TCP",
        "shop/checkout -> outsider/world:8080/TCP",
        "shop/checkout -> outsider/excepted:8080/TCP",  # kept out by its name, which the DNS proxy knows and this table does not
    } == {cell for cell, found in said.items() if cell.startswith(by_label[0]) and found == "allowed"}
    (manifest,) = load("egress-to-world-by-name", "cilium", SHOP)
    dns, names = manifest["spec"]["egress"]
    assert names["toFQDNs"] == dns["toPorts"][0]["rules"]["dns"] == [{"matchName": "world.shop.svc.cluster.local"}]


LIST = "/api/v1/products"


@pytest.mark.parametrize(
    ("source", "http", "expected"),
    [
        ("frontend", Http(path=LIST), "allowed"),
        ("checkout", Http(path=LIST), "allowed"),
        ("frontend", Http(method="DELETE", path=LIST), "l7"),
        ("frontend", Http(path="/api/v1/admin"), "l7"),
        ("frontend", Http(path=f"{LIST}/1"), "l7"),
        ("frontend", Http(path=f"{LIST}?next=/admin"), "l7"),
        ("payment", Http(path=LIST), "l34"),
    ],
)
def test_products_are_read_by_two_and_what_else_is_asked_is_refused_by_http_or_by_the_network(
    source: str, http: Http, expected: str
) -> None:
    products = pod(SHOP, Ref("shop", "products"))
    asked = Connection(source=pod(SHOP, Ref("shop", source)), target=products, protocol="TCP", port=8080, family=4)
    assert expected == verdict("cilium", SHOP, load("products-read-only", "cilium", SHOP), asked, http)


# Ways in which a manifest says too much or too little: the field, and what is there instead.
BROKEN: list[tuple[str, str, str, Any]] = [
    ("default-deny-ingress", "cilium", "default-deny-ingress/ingress", []),  # an empty list closes nothing
    ("default-deny-egress", "cilium", "default-deny-egress/egress", [{"toEndpoints": [{}]}]),
    ("products-both-ways", "cilium", "products/egress", None),
    ("products-ingress-only", "cilium", "products/egress", [{}]),
    ("default-deny-all", "calico", "default-deny-all/types", ["Ingress"]),
    ("products-ingress-only", "calico", "products/types", ["Ingress", "Egress"]),
    ("default-deny-egress", "calico", "default-deny-egress/tier", "kube-admin"),  # what a tier passes on is not denied
    ("default-deny-egress", CLUSTER, "default-deny-egress/subject", {"namespaces": {"matchLabels": {"team": "twin"}}}),
    ("payment-ports", "cilium", "payment-ports/ingress/0/toPorts/0/ports/1/endPort", 7002),
    ("payment-ports", "cilium", "payment-ports/ingress/0/toPorts/0/ports/0/port", "metrics"),
    ("payment-ports", "cilium", "payment-ports/ingress/0/toPorts/0/ports/1/protocol", "UDP"),
    ("payment-ports", "calico", "payment-ports/ingress/0/destination/ports", ["http", "7000:7002"]),
    ("payment-ports", "calico", "payment-ports/ingress/0/protocol", "UDP"),
    ("payment-ports", "calico", "payment-ports/ingress/0/source", {}),
    ("payment-from-own-checkout", "cilium", "payment-from-own-checkout/ingress/0/fromEndpoints/0/matchLabels", {"tier": "web"}),
    ("payment-from-own-checkout", "calico", "payment-from-own-checkout/ingress/0/source/namespaceSelector", "team != 'x'"),
    ("payment-from-own-checkout", CLUSTER, "payment-from-own-checkout/ingress/0/from/0/pods/namespaceSelector", {}),
    ("payment-from-own-checkout", CLUSTER, "payment-from-own-checkout/ingress/1/action", "Accept"),
    ("labelled-callers-only", "cilium", "labelled-callers-only/ingress/0/fromEndpoints/1/matchLabels", {"partner": "yes"}),
    ("labelled-callers-only", "calico", "labelled-callers-only/ingress/1/source", {"selector": "partner == 'yes'"}),
    ("labelled-callers-only", CLUSTER, "labelled-callers-only/ingress/0/from/1/namespaces", {"matchLabels": {"team": "shop"}}),
    ("payment-from-listed-hosts", "cilium", "payment-from-listed-hosts/ingress/0/fromCIDRSet/0/except", []),
    ("payment-from-listed-hosts", "calico", "payment-from-listed-hosts/ingress/0/source/notNets", None),
    ("payment-from-two-hosts", "cilium", "payment-from-two-hosts/ingress/0/fromCIDR", ["0.0.0.0/0"]),
    ("payment-from-two-hosts", "calico", "payment-from-two-hosts/ingress/0/source/nets", ["0.0.0.0/0"]),
    ("payment-from-listed-pods", "calico", "payment-from-listed-pods/ingress/0/source/nets", ["10.244.0.0/16"]),
    ("payment-only-from-checkout", "cilium", "default-deny", None),
    ("payment-only-from-checkout", "calico", "payment-from-checkout/ingress", []),
    ("egress-dns-only", "cilium", "egress-dns-only/egress/0/toEndpoints", [{}]),
    ("egress-dns-only", "calico", "egress-dns-only/egress/0/destination/namespaceSelector", "team == 'twin'"),
    ("egress-dns-only", CLUSTER, "egress-dns-only/egress/0/to/0/pods/podSelector", {"matchLabels": {"app": "other-dns"}}),
    ("egress-dns-only", CLUSTER, "egress-dns-only/egress/1/to", [{"namespaces": {}}]),
]


@pytest.mark.parametrize(("intent", "dialect", "path", "value"), BROKEN)
def test_a_manifest_that_says_something_else_has_another_table(intent: str, dialect: str, path: str, value: Any) -> None:
    there, alone = relabelled(SHOP, RELABELLINGS[-1]), dialect not in ANY_CALLER
    expected = table("kubernetes", load(intent, "kubernetes", there), there, pods_alone=alone)
    manifests = changed(load(intent, dialect, there), path, value)
    assert expected != table(dialect, manifests, there, pods_alone=alone)
