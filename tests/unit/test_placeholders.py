# SPDX-License-Identifier: Apache-2.0
"""Placeholders become addresses and the resolver's place, or one line that names manifest, field and placeholder."""

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.cluster import Resolver
from ztconform.errors import UsageError
from ztconform.model import Manifest, Pod, Ref
from ztconform.placeholders import check, render

RESOLVER = Resolver(address="10.96.0.10", namespace="dns-system", labels={"k8s-app": "kube-dns"}, port=5353)


def pod(ref: Ref, *addresses: str, name: str = "", serves: bool = True) -> Pod:
    return Pod(ref=Ref(ref.namespace, name or ref.name), workload=ref, node=0, addresses=addresses, serves=serves)


PODS = (
    pod(Ref("shop", "payment"), "10.0.3.77", "fd00::3:77"),
    pod(Ref("shop", "payment"), "10.0.9.9", name="payment-satellite", serves=False),
    pod(Ref("shop", "many"), "10.0.1.1", name="many-0"),
    pod(Ref("shop", "many"), "10.0.1.2", name="many-1"),
    pod(Ref("", "world"), "192.0.2.200"),
)
REPLICAS = {Ref("shop", "payment"): 1, Ref("shop", "many"): 2, Ref("", "world"): 1}


def policy(spec: Any) -> Manifest:
    return {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "shop"}, "spec": spec}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${host:shop/payment}", "10.0.3.77/32"),
        ("${host6:shop/payment}", "fd00::3:77/128"),
        ("${net:24:shop/payment}", "10.0.3.0/24"),
        ("${net:0:shop/payment}", "0.0.0.0/0"),
        ("${net:31:shop/payment}", "10.0.3.76/31"),
        ("${net:32:shop/payment}", "10.0.3.77/32"),
        ("${net6:112:shop/payment}", "fd00::3:0/112"),
        ("${host:outsider/world}", "192.0.2.200/32"),
        ("${net:25:outsider/world}", "192.0.2.128/25"),
        ("${dns:namespace}", "dns-system"),
        ("${dns:address}/32", "10.96.0.10/32"),
        ("${dns:label:k8s-app}", "kube-dns"),
        ("${dns:port}", 5353),
        ("${dns:port-string}", "5353"),
        ("port ${dns:port}", "port 5353"),
        ("${dns:port}${dns:port}", "53535353"),
        ("${host:shop/payment},${host:outsider/world}", "10.0.3.77/32,192.0.2.200/32"),
        ("$host {x} $$ }", "$host {x} $$ }"),
        ("", ""),
    ],
)
def test_a_placeholder_becomes_what_it_stands_for(text: str, value: str | int) -> None:
    rendered = render(policy({"a": [{"b": text}]}), PODS, RESOLVER)
    assert (value, type(value)) == (rendered["spec"]["a"][0]["b"], type(rendered["spec"]["a"][0]["b"]))
    assert () == tuple(check(policy({"a": [{"b": text}]}), REPLICAS))


def test_everything_else_in_a_manifest_stays_as_it_is() -> None:
    manifest = policy({"n": 1, "t": True, "none": None, "list": [[], {}, 1.5], "s": "text"})
    assert manifest == render(manifest, PODS, RESOLVER)


FORMS = (
    "host:NS/NAME, host6:NS/NAME, net:BITS:NS/NAME, net6:BITS:NS/NAME, dns:namespace, dns:label:KEY, dns:port, dns:port-string, "
    "dns:address"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${host:shop/paymnt}", "${host:shop/paymnt}: no workload or outsider shop/paymnt (did you mean shop/payment?)"),
        ("${host:x/y}", "${host:x/y}: no workload or outsider x/y"),
        (
            "${net:8:outsider/word}",
            "${net:8:outsider/word}: no workload or outsider outsider/word (did you mean outsider/world?)",
        ),
        ("${host:shop/many}", "${host:shop/many}: shop/many has 2 pods, and it must stand for one"),
        ("${net:33:shop/payment}", "${net:33:shop/payment}: an IPv4 network has at most 32 bits"),
        ("${net6:129:shop/payment}", "${net6:129:shop/payment}: an IPv6 network has at most 128 bits"),
        ("${host:shop/payment", "${host:shop/payment: has no closing brace"),
        ("${hosts:shop/payment}", f"${{hosts:shop/payment}}: no such placeholder; there are {FORMS}"),
        ("${host:payment}", f"${{host:payment}}: no such placeholder; there are {FORMS}"),
        ("${net:shop/payment}", f"${{net:shop/payment}}: no such placeholder; there are {FORMS}"),
        ("${net:-1:shop/payment}", f"${{net:-1:shop/payment}}: no such placeholder; there are {FORMS}"),
        ("${dns:port:string}", f"${{dns:port:string}}: no such placeholder; there are {FORMS}"),
        ("${dns:}", f"${{dns:}}: no such placeholder; there are {FORMS}"),
        ("${dns:label:}", f"${{dns:label:}}: no such placeholder; there are {FORMS}"),
        ("${}", f"${{}}: no such placeholder; there are {FORMS}"),
    ],
)
def test_a_placeholder_that_stands_for_nothing_is_named_before_and_with_pods(text: str, message: str) -> None:
    manifest = policy({"a": [{"b": text}]})
    assert [(("spec", "a", 0, "b"), message)] == check(manifest, REPLICAS)
    with pytest.raises(UsageError) as caught:
        render(manifest, PODS, RESOLVER)
    assert f"NetworkPolicy shop/p: spec.a[0].b: {message}" == str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${host6:outsider/world}", "outsider/world has no IPv6 address"),
        ("${dns:label:app}", "the resolver's pods have no such label, but k8s-app"),
    ],
)
def test_what_only_the_cluster_knows_is_missed_at_rendering(text: str, message: str) -> None:
    assert [] == check(policy(text), REPLICAS)
    with pytest.raises(UsageError) as caught:
        render(policy(text), PODS, RESOLVER)
    assert f"NetworkPolicy shop/p: spec: {text}: {message}" == str(caught.value)


def test_a_placeholder_in_a_fields_name_is_refused() -> None:
    manifest = policy({"${dns:namespace}": 1})
    wrong = "a placeholder cannot stand in a field's name"
    assert [(("spec", "${dns:namespace}"), wrong)] == check(manifest, REPLICAS)
    with pytest.raises(UsageError, match=wrong):
        render(manifest, PODS, RESOLVER)


@given(address=st.ip_addresses(v=4), bits=st.integers(0, 32))
def test_a_network_holds_the_address_and_is_strict(address: ipaddress.IPv4Address, bits: int) -> None:
    spec = render(policy(f"${{net:{bits}:a/b}}"), [pod(Ref("a", "b"), str(address))], RESOLVER)["spec"]
    network = ipaddress.ip_network(spec)  # raises for host bits
    assert (bits, True) == (network.prefixlen, address in network)


TEXTS = st.text(alphabet="${}:/.abhostnetdns6:1") | st.text()
TREES: st.SearchStrategy[Any] = st.recursive(
    TEXTS | st.integers() | st.none(), lambda below: st.lists(below) | st.dictionaries(TEXTS, below), max_leaves=5
)


@given(spec=TREES)
def test_any_manifest_renders_or_is_a_usage_error_and_check_foresees_it(spec: Any) -> None:
    foreseen = check(policy(spec), REPLICAS)
    try:
        rendered: Mapping[str, Any] = render(policy(spec), PODS, RESOLVER)
    except UsageError:
        assert foreseen or "dns:label" in str(spec) or "6:" in str(spec)
    else:
        assert not foreseen
        assert "${" not in str(rendered)
