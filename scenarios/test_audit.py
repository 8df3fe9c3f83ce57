# SPDX-License-Identifier: Apache-2.0
"""Audit: what would be denied is known before it is, and every denial can be traced to what denied it."""

from ztconform import allowed, denied, requirement, step


# A policy that would cut off a caller nobody thought of, and that was never tried out on live traffic.
@requirement(id="U01")
def test_an_audited_pod_is_reached_and_what_policies_would_deny_is_logged(shop, prove):
    permitted, other = ((c, "GET", shop.payment) for c in (shop.checkout, shop.legacy))
    enforced = [allowed(*permitted), denied(*other)]
    objecting = ["shop/default-deny", "shop/payment-from-checkout"]
    prove(
        policy="payment-only-from-checkout",
        rows=enforced,
        steps=[
            step(audit=[shop.payment], rows=[allowed(*permitted), allowed(*other, logged=objecting)]),
            step(rows=enforced),
        ],
    )


# Calico names the first of the policies by which a default deny would be in force, and not all that select the pod.
@requirement(id="U02")
def test_a_staged_policy_passes_and_logs_what_it_would_deny(shop, prove):
    permitted, other = ((c, "GET", shop.payment) for c in (shop.checkout, shop.legacy))
    prove(
        policy="payment-only-from-checkout-staged",
        rows=[allowed(*permitted), allowed(*other, logged=["shop/default-deny"])],
        steps=[step(policy="payment-only-from-checkout", rows=[allowed(*permitted), denied(*other)])],
    )


# A policy that is tried out on live traffic, and that nobody sees the result of.
@requirement(id="U03")
def test_a_dry_run_passes_and_logs_what_it_would_deny(shop, prove):
    permitted, other = ((c, "POST", shop.payment, "/v1/payments/1") for c in (shop.checkout, shop.frontend))
    prove(
        policy="payments-by-checkout-dry-run",
        rows=[allowed(*permitted, logged=[]), allowed(*other, logged=["shop/payments-by-checkout"])],
        steps=[step(policy="payments-by-checkout", rows=[allowed(*permitted), denied(*other, by="l7")])],
    )


# The same of a mesh whose policies have an audit of their own: it names the server that would have refused.
@requirement(id="U04")
def test_an_audited_authorization_passes_and_logs_what_it_would_deny(shop, prove):
    permitted, other = ((c, "POST", shop.payment, "/v1/payments/1") for c in (shop.checkout, shop.frontend))
    prove(
        policy="payments-by-checkout-dry-run",
        rows=[allowed(*permitted, logged=[]), allowed(*other, logged=["shop/payment-http"])],
        steps=[step(policy="payments-by-checkout", rows=[allowed(*permitted), denied(*other, by="l7")])],
    )


@requirement(id="U05")
def test_every_denial_is_attributed_to_its_policy_or_to_those_that_select_the_endpoint(shop, prove):
    both, mesh = ["shop/default-deny", "shop/payment-from-checkout"], ["shop/checkout-everywhere"]
    here, there = shop.payment, shop.payment.by("pod")
    implicit = [denied(shop.legacy, "GET", here, named=both), denied(shop.twin_checkout, "GET", there, named=both)]
    other = denied(shop.legacy, "GET", shop.products, named=["shop/default-deny"])
    prove(policy="payment-only-from-checkout", rows=[allowed(shop.checkout, "GET", here), *implicit, other])
    explicit = denied(shop.checkout, "GET", here, "/admin", by="l7", named=["shop/no-admin"])
    default = denied(shop.frontend, "GET", here, "/v1", by="l7", named=mesh)
    prove(needs="l7-authz", policy="payment-but-admin", rows=[allowed(shop.checkout, "GET", here, "/v1"), explicit, default])


# Who would be cut off by STRICT is to be known before it is switched on.
@requirement(id="U06")
def test_callers_that_still_send_plaintext_are_listed(shop, prove):
    meshed, plain, other = ((c, "GET", shop.payment) for c in (shop.frontend, shop.legacy, shop.uninjected))
    prove(
        policy="shop-permissive",
        rows=[allowed(*meshed, logged=[]), allowed(*plain, logged=["plaintext"]), allowed(*other, logged=["plaintext"])],
        steps=[step(policy="shop-strict", rows=[allowed(*meshed), denied(*plain, by="mtls"), denied(*other, by="mtls")])],
    )
