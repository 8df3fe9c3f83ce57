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


# Another organization's SPIRE: its certificates are good, and nobody here has agreed to believe them, or does not any more.
@requirement(id="I05")
def test_a_foreign_trust_domain_is_refused_unless_it_is_federated(shop, prove):
    call = (shop.attacker, "GET", shop.payment)
    own = allowed(*call, past_proxy=True, cert="own")
    foreign = denied(*call, past_proxy=True, cert="partner", by="mtls", twin=own)
    known = allowed(*call, past_proxy=True, cert="partner", identity="spiffe://partner.example/ns/shop/sa/attacker")
    federated = step(provider="federated", rows=[own, known])
    prove(policy="shop-strict", rows=[own, foreign], steps=[federated, step(rows=[own, foreign])])


# A process that nobody registered asks for an identity, and is given a neighbour's or a default one.
@requirement(id="I08")
def test_a_workload_that_nobody_registered_gets_no_svid(shop, prove):
    known, other = ((c, "GET", shop.payment) for c in (shop.checkout, shop.frontend))
    pays = allowed(*known, past_proxy=True, cert="own", identity=ACCOUNT.format("shop", "checkout"))
    named = allowed(*other, past_proxy=True, cert="own", identity=ACCOUNT.format("shop", "frontend"))
    unnamed = denied(*other, past_proxy=True, cert="own", by="identity")
    newcomer = step(unregister=[shop.frontend], restart=[shop.frontend], rows=[pays, unnamed])
    prove(policy="shop-strict", rows=[pays, named], steps=[newcomer, step(rows=[pays, named])])


# A stolen node, or a workload that was taken out of service, that still renews its identity.
@requirement(id="I09")
def test_a_deleted_entry_or_a_banned_agent_ends_issuance(shop, prove):
    known, other = ((c, "GET", shop.payment) for c in (shop.checkout, shop.frontend))
    issued = [allowed(*call, past_proxy=True, cert="own") for call in (known, other)]
    ended = [denied(*call, past_proxy=True, cert="own", by="identity") for call in (known, other)]
    deleted = step(unregister=[shop.frontend], rows=[issued[0], ended[1]])
    banned = step(provider="banned", rows=[allowed(*known), *ended])
    prove(policy="shop-strict", rows=issued, steps=[deleted, banned, step(rows=issued)])
