# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS: who may speak plaintext to whom, on which port, and which certificates are believed."""

from ztconform import allowed, denied, requirement, step


# Sniffing and replay by whoever reaches the pod network. Istio's sidecars send plaintext to a pod that is called by its address.
@requirement(id="M01")
def test_strict_refuses_plaintext_by_every_way_to_the_pod(shop, prove):
    prove(
        policy="shop-strict",
        rows=[
            allowed(shop.frontend, "GET", shop.payment),
            *(denied(shop.legacy, "GET", shop.payment.by(way), by="mtls") for way in ("service", "headless", "pod")),
            denied(shop.frontend, "GET", shop.payment.by("pod"), by="mtls", needs="plaintext-by-address"),
            allowed(shop.frontend, "GET", shop.payment.by("pod"), unless="plaintext-by-address"),
        ],
    )


# A migration that stays in its first step: what passes here is what PERMISSIVE leaves open.
@requirement(id="M02")
def test_permissive_admits_plaintext_until_the_shop_is_strict(shop, prove):
    meshed = (shop.frontend, "GET", shop.payment)
    plain = [(shop.legacy, "GET", shop.payment.by(way)) for way in ("service", "pod")]
    prove(
        policy="shop-permissive",
        rows=[allowed(*meshed), *(allowed(*call) for call in plain)],
        steps=[step(policy="shop-strict", rows=[allowed(*meshed), *(denied(*call, by="mtls") for call in plain)])],
    )


# A debug or admin port that no Service names, and that whoever scans the pod finds.
@requirement(id="M03")
def test_a_port_that_nobody_declared_is_strict_too(shop, prove):
    debug = shop.payment.on("debug")
    prove(
        policy="shop-strict",
        rows=[
            allowed(shop.attacker, "GET", debug, past_proxy=True, cert="own"),
            denied(shop.attacker, "GET", debug, past_proxy=True, by="mtls"),
            denied(shop.legacy, "GET", debug, by="mtls"),
            denied(shop.frontend, "GET", debug, by="mtls", needs="plaintext-by-address"),
            allowed(shop.frontend, "GET", debug, unless="plaintext-by-address"),
        ],
    )


# An exception for a scraper that opens the application with it.
@requirement(id="M04")
def test_an_exception_for_one_port_opens_that_port_alone(shop, prove):
    prove(
        policy="payment-strict-but-metrics",
        rows=[
            allowed(shop.legacy, "GET", shop.payment.on("metrics")),
            allowed(shop.frontend, "GET", shop.payment),
            denied(shop.legacy, "GET", shop.payment, by="mtls"),
            denied(shop.legacy, "TCP", shop.payment.on("ledger-7000"), by="mtls"),
        ],
    )


# TLS without a client certificate, a stolen key after its time, a certificate from a CA of the attacker's own.
@requirement(id="M06")
def test_a_certificate_that_is_absent_expired_or_foreign_is_refused(shop, prove):
    good = allowed(shop.attacker, "GET", shop.payment, past_proxy=True, cert="own")
    bad = ("none", "expired", "foreign-ca")
    prove(
        policy="shop-strict",
        rows=[
            good,
            *(denied(shop.attacker, "GET", shop.payment, past_proxy=True, cert=cert, by="mtls", twin=good) for cert in bad),
            denied(shop.attacker, "GET", shop.payment, past_proxy=True, by="mtls"),
        ],
    )


# Spoofed addresses or endpoints: another pod answers where payment's account is declared.
@requirement(id="M07")
def test_a_client_refuses_a_server_of_another_account(shop, prove):
    right = allowed(shop.checkout, "GET", shop.payment)
    prove(
        policy="shop-strict",
        rows=[
            right,
            denied(shop.checkout, "GET", shop.impostor, by="mtls", twin=right),
            denied(shop.checkout, "POST", shop.impostor, "/v1/payments/1", by="mtls", twin=right),
        ],
    )


# Injection that failed or was switched off: STRICT does nothing for a pod without a proxy, whose plaintext still passes.
@requirement(id="M11")
def test_every_pod_of_the_shop_is_captured(shop, prove):
    captured = (shop.frontend, shop.products, shop.payment, shop.checkout, shop.attacker)
    prove(
        policy="shop-strict",
        rows=[
            allowed(shop.legacy, "GET", shop.uninjected.by("pod")),
            *(denied(shop.legacy, "GET", pod.by("pod"), by="mtls") for pod in captured),
        ],
    )
