# SPDX-License-Identifier: Apache-2.0
"""Resilience and races: what gets through while things change."""

from ztconform import allowed, denied, requirement


@requirement(id="R09")
def test_the_last_leaked_request_after_apply_is_measured_for_every_deny(shop, prove):
    prove(
        policy="default-deny-all",
        rows=[
            allowed(shop.twin_frontend, "GET", shop.twin_payment),
            denied(shop.frontend, "GET", shop.products),
            denied(shop.frontend, "TCP", shop.payment.on("ledger-7000")),
            denied(shop.frontend, "UDP", shop.payment),
            denied(shop.twin_frontend, "GET", shop.payment.by("pod")),
        ],
    )
