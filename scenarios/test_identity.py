# SPDX-License-Identifier: Apache-2.0
"""Workload identity: who a pod is, for how long, and whom it is not to be mistaken for."""

from ztconform import allowed, denied, requirement, step

ACCOUNT = "spiffe://cluster.local/ns/{}/sa/{}"


# A default account that all pods share, or an identity that is taken from labels: neither tells who called.
@requirement(id="I01")
def test_a_workload_is_known_by_its_namespace_and_account(shop, prove):
    prove(
        policy="shop-strict",
        rows=[
            allowed(shop.frontend, "GET", shop.payment, identity=ACCOUNT.format("shop", "frontend")),
            allowed(shop.checkout, "GET", shop.payment, identity=ACCOUNT.format("shop", "checkout")),
            allowed(shop.twin_checkout, "GET", shop.payment, identity=ACCOUNT.format("shop-twin", "checkout")),
            denied(shop.legacy, "GET", shop.payment, by="mtls"),
        ],
    )


# Rules that are tied to an address instead of to an identity: a rescheduled pod loses its rights, or its heir gains them.
@requirement(id="I02")
def test_a_restarted_pod_keeps_its_access_and_its_identity(shop, prove):
    pays, other = ((c, "POST", shop.payment, "/v1/payments/1") for c in (shop.checkout, shop.frontend))
    own = ACCOUNT.format("shop", "checkout")
    prove(
        policy="payments-by-checkout",
        rows=[allowed(*pays, identity=own), denied(*other, by="l7")],
        steps=[step(restart=[shop.checkout], rows=[allowed(*pays, identity=own), denied(*other, by="l7")])],
    )


# CVE-2026-39350: the dot of an account's name was read as any character. Longer names pass where a match is not anchored.
@requirement(id="I03")
def test_names_that_nearly_match_do_not_match(shop, prove):
    prove(
        policy="products-by-auditor",
        rows=[
            allowed(shop.auditor, "GET", shop.products, identity=ACCOUNT.format("shop", "audit.reader")),
            denied(shop.dotless_auditor, "GET", shop.products, by="l7"),
            denied(shop.longer_auditor, "GET", shop.products, by="l7"),
            denied(shop.checkout, "GET", shop.products, by="l7"),
        ],
    )
