# SPDX-License-Identifier: Apache-2.0
"""Segmentation at L3/L4: who may open a connection to whom, on which port, across namespaces, and how soon that holds."""

from ztconform import allowed, denied, requirement, step


@requirement(id="N01")
def test_default_deny_ingress_holds_by_pod_address_and_by_service(shop, prove):
    prove(
        policy="default-deny-ingress",
        rows=[
            allowed(shop.frontend, "GET", shop.twin_payment),
            denied(shop.frontend, "GET", shop.payment.by("pod")),
            denied(shop.frontend, "GET", shop.payment.by("service")),
            denied(shop.frontend, "GET", shop.payment.by("headless")),
            denied(shop.twin_frontend, "UDP", shop.payment.by("pod")),
        ],
    )


@requirement(id="N02")
def test_default_deny_egress_blocks_cluster_and_world(shop, prove):
    prove(
        policy="default-deny-egress",
        rows=[
            allowed(shop.twin_frontend, "GET", shop.products),
            denied(shop.frontend, "GET", shop.products),
            denied(shop.frontend, "GET", shop.twin_payment.by("pod")),
            denied(shop.frontend, "GET", shop.world),
            denied(shop.frontend, "GET", shop.metadata),
        ],
    )


@requirement(id="N03")
def test_only_the_declared_peer_and_ports_pass(shop, prove):
    prove(
        policy="payment-ports",
        rows=[
            *(allowed(shop.checkout, "TCP", shop.payment.on(port)) for port in ("http", 7000, 7001)),
            denied(shop.frontend, "TCP", shop.payment.on("http")),
            denied(shop.checkout, "TCP", shop.payment.on("metrics")),
            *(denied(shop.checkout, "TCP", shop.payment.on(port)) for port in (6999, 7002)),
            denied(shop.checkout, "UDP", shop.payment.on(7001, "UDP")),
        ],
    )


@requirement(id="N04")
def test_the_same_labels_in_another_namespace_are_denied(shop, prove):
    prove(
        policy="payment-from-own-checkout",
        rows=[
            allowed(shop.checkout, "GET", shop.payment),
            denied(shop.twin_checkout, "GET", shop.payment),
            denied(shop.twin_checkout, "GET", shop.payment.by("pod")),
        ],
    )


# A denial that somebody adds is meant to hold, whatever else lets a caller in; alone it would show no more than a default deny.
@requirement(id="N05")
def test_a_denial_holds_whatever_else_admits(shop, prove):
    friend, banned = ((caller, "GET", shop.payment) for caller in (shop.checkout, shop.legacy))
    prove(
        policy="payment-by-the-shop",
        rows=[allowed(*friend), allowed(*banned)],
        steps=[step(policy="payment-but-not-legacy", rows=[allowed(*friend), denied(*banned, named=["shop/no-legacy"])])],
    )


@requirement(id="N06")
def test_under_default_deny_only_the_detected_resolver_answers(shop, prove):
    prove(
        policy="egress-dns-only",
        rows=[
            allowed(shop.checkout, "DNS", shop.resolver, "payment"),
            denied(shop.checkout, "UDP", shop.other_dns.on(53, "UDP")),
            denied(shop.checkout, "TCP", shop.other_dns.on(53)),
            denied(shop.checkout, "GET", shop.payment),
        ],
    )


# A node without the pod forwards, and may do so under an address of its own: that must not be a way round the rule.
@requirement(id="N11")
def test_a_node_port_meets_the_policy_of_the_pods_behind_it(shop, prove):
    prove(
        policy="payment-from-two-hosts",
        rows=[
            *(allowed(host, "GET", shop.payment_by_node) for host in (shop.world, shop.test_host)),
            denied(shop.excepted, "GET", shop.payment_by_node),
            denied(shop.excepted, "GET", shop.payment_by_other_node),
        ],
    )


# No policy keeps a pod's own node out: what its network sends there is recorded. Whether an address rule admits a node is for the
# CNI to say; to many a node is no address.
@requirement(id="N12")
def test_a_client_on_another_nodes_network_is_treated_as_declared(shop, prove):
    payment, twin = shop.payment.by("pod"), shop.twin_payment.by("pod")
    denials = [denied(shop.host, "GET", payment), denied(shop.host, "GET", shop.payment.by("service"))]
    prove(policy="default-deny-ingress", rows=[allowed(shop.host, "GET", twin), *denials])
    declared = [allowed(shop.host, "GET", payment), denied(shop.frontend, "GET", payment)]
    prove(needs="node-ipblock", policy="payment-from-one-node", rows=declared)


# Whether an address rule admits pods too is for the CNI to say: to one that gives pods identities, a pod is no address.
@requirement(id="N13")
def test_an_ipblock_admits_the_listed_host_and_not_the_excepted_one(shop, prove):
    world, excepted = ((host, "GET", shop.payment) for host in (shop.world, shop.excepted))
    checkout, frontend = ((pod, "GET", shop.payment.by("pod")) for pod in (shop.checkout, shop.frontend))
    prove(policy="payment-from-listed-hosts", rows=[allowed(*world), denied(*excepted), denied(*frontend)])
    prove(needs="pod-ipblock", policy="payment-from-listed-pods", rows=[allowed(*checkout), denied(*frontend)])


@requirement(id="N14")
def test_policy_types_close_the_directions_they_list_and_no_other(shop, prove):
    inward, outward = (shop.frontend, "GET", shop.products), (shop.products, "GET", shop.payment)
    other = (shop.frontend, "GET", shop.payment)
    prove(
        policy="products-ingress-only",
        rows=[allowed(*outward), denied(*inward)],
        steps=[step(policy="products-both-ways", rows=[allowed(*other), denied(*outward), denied(*inward)])],
    )


# CVE-2023-39347: a policy that still goes by a label that was taken away. In a mesh a caller is known by its account, whatever
# its labels: there a label decides whom a policy protects.
@requirement(id="N16")
def test_whoever_gains_or_loses_a_label_gains_or_loses_access(shop, prove):
    legacy, checkout, twin = ((c, "GET", shop.payment) for c in (shop.legacy, shop.checkout, shop.twin_checkout))
    rows = [allowed(*legacy), denied(*checkout), denied(*twin)]
    swapped = step(relabel={shop.legacy: {"role": "caller"}, shop.checkout: {"role": None}}, rows=rows)
    invited = step(relabel_namespaces={"shop-twin": {"partner": "yes"}}, rows=[allowed(*twin), denied(*checkout)])
    prove(policy="labelled-callers-only", rows=[allowed(*checkout), denied(*legacy), denied(*twin)], steps=[swapped, invited])
    call = (shop.checkout, "GET", shop.payment, "/guarded")
    guarded = step(relabel={shop.payment: {"guard": "yes"}}, rows=[denied(*call, by="l7")])
    prove(needs="l7-authz", policy="guarded-by-frontend", rows=[allowed(*call)], steps=[guarded])
