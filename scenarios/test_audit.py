# SPDX-License-Identifier: Apache-2.0
"""Audit: every denial can be traced to what denied it."""

from ztconform import allowed, denied, requirement


@requirement(id="U05")
def test_every_implicit_denial_is_attributed_to_the_policies_that_select_the_endpoint(shop, prove):
    both = ["shop/default-deny", "shop/payment-from-checkout"]
    prove(
        policy="payment-only-from-checkout",
        rows=[
            allowed(shop.checkout, "GET", shop.payment),
            denied(shop.legacy, "GET", shop.payment, named=both),
            denied(shop.twin_checkout, "GET", shop.payment.by("pod"), named=both),
            denied(shop.legacy, "GET", shop.products, named=["shop/default-deny"]),
        ],
    )
