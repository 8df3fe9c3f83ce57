# SPDX-License-Identifier: Apache-2.0
"""Authorization at L7: which identity may do what to which path, and what does not talk its way around that."""

from ztconform import allowed, denied, requirement

PAY, LIST = "/v1/payments/1", "/api/v1/products"
CHECKOUT = "spiffe://cluster.local/ns/shop/sa/checkout"

# Each is the forbidden /api/v1/admin by another reading of the path. CVE-2021-31920: doubled and encoded slashes.
BYPASSES = (
    f"{LIST}/../admin",
    f"{LIST}/%2e%2e/admin",
    f"{LIST}/..%2fadmin",
    f"{LIST}/..%5Cadmin",
    f"{LIST}\\..\\admin",
    f"/api/v1//admin?next={LIST}",
)
FRAGMENT = f"/api/v1/admin#{LIST}"  # CVE-2021-39156
FORGED = (
    ("x-forwarded-client-cert", f"URI={CHECKOUT}"),
    ("l5d-client-id", "checkout.shop.serviceaccount.identity.linkerd.cluster.local"),
)


# Lateral movement: a pod beside, one without identity, one that speaks mutual TLS itself under its own name.
@requirement(id="A01")
def test_only_the_permitted_principal_passes(shop, prove):
    prove(
        policy="payments-by-checkout",
        rows=[
            allowed(shop.checkout, "POST", shop.payment, PAY, identity=CHECKOUT),
            denied(shop.frontend, "POST", shop.payment, PAY, by="l7"),
            denied(shop.legacy, "POST", shop.payment, PAY, by="l7"),
            denied(shop.attacker, "POST", shop.payment, PAY, past_proxy=True, cert="own", by="l7"),
        ],
    )


# A permitted caller that was taken over, and uses more of the API than it ever needed.
@requirement(id="A02")
def test_only_permitted_methods_and_paths_pass(shop, prove):
    prove(
        policy="products-read-only",
        rows=[
            allowed(shop.frontend, "GET", shop.products, LIST),
            denied(shop.frontend, "DELETE", shop.products, LIST, by="l7"),
            denied(shop.frontend, "GET", shop.products, "/api/v1/admin", by="l7"),
            denied(shop.payment, "GET", shop.products, LIST, by=["l34", "l7"]),  # who calls is for either layer
        ],
    )


# Path confusion between proxy and application, with a stolen certificate: the client's own proxy would tidy the paths up.
@requirement(id="A03")
def test_no_spelling_of_a_path_bypasses_an_allow_rule(shop, prove):
    plain = allowed(shop.attacker, "GET", shop.products, LIST, past_proxy=True, cert="shop/checkout")
    prove(
        policy="products-read-only",
        rows=[
            plain,
            *(denied(shop.attacker, "GET", shop.products, p, past_proxy=True, cert="shop/checkout", by="l7") for p in BYPASSES),
            denied(shop.attacker, "GET", shop.products, FRAGMENT, past_proxy=True, cert="shop/checkout", by="l7", twin=plain),
        ],
    )


# An allow rule that grew too wide: the denial of a part must hold whatever else is allowed.
@requirement(id="A07")
def test_deny_wins_over_allow(shop, prove):
    prove(
        policy="payment-but-admin",
        rows=[
            allowed(shop.checkout, "GET", shop.payment, PAY),
            denied(shop.checkout, "GET", shop.payment, "/admin", by="l7", named=["shop/no-admin"]),
            denied(shop.checkout, "GET", shop.payment, "/admin/keys", by="l7", named=["shop/no-admin"]),
        ],
    )


# The header in which a proxy tells the application who called, sent by the caller.
@requirement(id="A08")
def test_a_forged_identity_header_is_nobody(shop, prove):
    prove(
        policy="payments-by-checkout",
        rows=[
            allowed(shop.checkout, "POST", shop.payment, PAY, headers=FORGED, identity=CHECKOUT),
            denied(shop.frontend, "POST", shop.payment, PAY, headers=FORGED, by="l7"),
            denied(shop.legacy, "POST", shop.payment, PAY, headers=FORGED, by="l7"),
            denied(shop.attacker, "POST", shop.payment, PAY, headers=FORGED, past_proxy=True, cert="own", by="l7"),
        ],
    )


# A connection that is opened by a permitted request and goes on with another: the first must not vouch for the second.
@requirement(id="A12")
def test_every_request_of_a_connection_is_authorized_anew(shop, prove):
    prove(
        policy="payments-by-checkout",
        rows=[
            allowed(shop.attacker, "POST", shop.payment, PAY, past_proxy=True, cert="shop/checkout", connection="kept"),
            denied(shop.attacker, "DELETE", shop.payment, PAY, past_proxy=True, cert="shop/checkout", connection="kept", by="l7"),
            denied(shop.attacker, "POST", shop.payment, "/", past_proxy=True, cert="shop/checkout", connection="kept", by="l7"),
        ],
    )


# Whoever may create accounts in one namespace names one like another namespace's.
@requirement(id="A17")
def test_the_same_account_name_in_another_namespace_is_denied(shop, prove):
    prove(
        policy="payments-by-checkout",
        rows=[
            allowed(shop.checkout, "POST", shop.payment, PAY, identity=CHECKOUT),
            denied(shop.twin_checkout, "POST", shop.payment, PAY, by="l7"),
            denied(shop.twin_frontend, "POST", shop.payment, PAY, by="l7"),
        ],
    )
