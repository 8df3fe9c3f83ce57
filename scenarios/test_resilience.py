# SPDX-License-Identifier: Apache-2.0
"""Resilience and races: what gets through while things change, or while one layer is missing."""

from ztconform import allowed, denied, requirement, step

PAY = "/v1/payments/1"
CHECKOUT = "spiffe://cluster.local/ns/shop/sa/checkout"


# A mesh policy that was deleted, or a proxy that no longer reads it: the network alone has to hold. A mesh that denies what no
# policy allows would hide that, and so it is opened.
@requirement(id="R05")
def test_without_the_mesh_policy_the_network_layer_still_blocks(shop, prove):
    pays, *others = ((c, "POST", shop.payment, PAY) for c in (shop.checkout, shop.frontend, shop.legacy))
    prove(
        policy=["payment-only-from-checkout", "payments-by-checkout"],
        rows=[allowed(*pays), *(denied(*call, by=["l34", "l7"]) for call in others)],
        steps=[
            step(
                policy=["payment-only-from-checkout", "shop-permissive"],
                rows=[allowed(*pays), *(denied(*call) for call in others)],
            )
        ],
    )


# A CNI that does not enforce, or a NetworkPolicy that was deleted: the mesh alone has to hold.
@requirement(id="R06")
def test_without_the_network_policy_the_mesh_still_blocks(shop, prove):
    pays, *others = ((c, "POST", shop.payment, PAY) for c in (shop.checkout, shop.frontend, shop.legacy))
    prove(
        policy=["payment-only-from-checkout", "payments-by-checkout"],
        rows=[allowed(*pays), *(denied(*call, by=["l34", "l7"]) for call in others)],
        steps=[step(policy="payments-by-checkout", rows=[allowed(*pays), *(denied(*call, by="l7") for call in others)])],
    )


# Injection switched off by a label or an annotation: the account and the labels of a permitted caller, and no certificate.
@requirement(id="R07")
def test_a_pod_without_a_proxy_gains_nothing(shop, prove):
    injected, bare = ((c, "POST", shop.payment, PAY) for c in (shop.checkout, shop.uninjected))
    by_pod = (shop.uninjected, "POST", shop.payment.by("pod"), PAY)
    prove(
        policy=["shop-permissive", "payments-by-checkout"],
        rows=[allowed(*injected), denied(*bare, by="l7"), denied(*by_pod, by="l7")],
        steps=[step(policy="shop-strict", rows=[allowed(*injected), denied(*bare, by="mtls"), denied(*by_pod, by="mtls")])],
    )


# An identity provider whose outage is everybody's, or that is replaced by letting anybody in.
@requirement(id="R08")
def test_valid_svids_keep_working_while_the_identity_provider_is_down(shop, prove):
    pays, other = ((c, "POST", shop.payment, PAY) for c in (shop.checkout, shop.frontend))
    rows = [allowed(*pays, identity=CHECKOUT), denied(*other, by="l7"), denied(shop.legacy, "POST", shop.payment, PAY, by="mtls")]
    cached = allowed(*pays, past_proxy=True, cert="own", identity=CHECKOUT)
    prove(
        policy=["shop-strict", "payments-by-checkout"],
        rows=[*rows, cached],
        steps=[step(provider="server-down", rows=[*rows, cached]), step(provider="down", rows=rows)],
    )


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
