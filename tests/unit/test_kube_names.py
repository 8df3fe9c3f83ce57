# SPDX-License-Identifier: Apache-2.0
"""How a case's namespaces get names of their own, and its manifests with them; and when an object is there as it was sent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.kube.identities import in_case, in_cluster
from ztconform.kube.names import Names, private
from ztconform.kube.policies import agrees, selector
from ztconform.model import Ref

DNS_LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=12,
)
NAMES = private({"shop": {}, "shop-twin": {}}, "1a2b3c-0")


def test_whom_a_policy_selects_is_renamed_and_labels_of_the_same_text_are_not() -> None:
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop-twin", "kube-system"]}
    selectors = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop", "team": "shop"}}},
        {"namespaceSelector": {"matchExpressions": [expression, {"key": "team", "operator": "In", "values": ["shop"]}]}},
    ]
    manifest = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"ingress": [{"from": selectors}]},
    }
    first, second = NAMES.manifest(manifest)["spec"]["ingress"][0]["from"]
    assert {"kubernetes.io/metadata.name": "shop-1a2b3c-0", "team": "shop"} == first["namespaceSelector"]["matchLabels"]
    named, labelled = second["namespaceSelector"]["matchExpressions"]
    assert ["shop-twin-1a2b3c-0", "kube-system"] == named["values"]
    assert ["shop"] == labelled["values"]
    assert "shop" == NAMES.manifest(manifest)["metadata"]["name"]


@given(st.sets(DNS_LABEL, min_size=1, max_size=5))
def test_a_private_name_is_a_dns_label_and_leads_back(said: set[str]) -> None:
    names = private(dict.fromkeys(said), "1a2b3c-gw1-12")
    for one in said:
        real = names.to_real(one)
        assert len(real) <= 63 and real.endswith("-1a2b3c-gw1-12") and not real.startswith("-")
    if len({names.to_real(one) for one in said}) == len(said):
        assert said == {names.to_case(names.to_real(one)) for one in said}


@given(JSON)
def test_literal_names_change_nothing(value: Any) -> None:
    manifest = {"kind": "NetworkPolicy", "metadata": {"name": "a", "namespace": "b"}, "spec": value}
    assert manifest == Names().manifest(manifest)
    assert Ref("b", "c") == Names().ref(Ref("b", "c"))


@given(JSON)
def test_what_was_sent_agrees_with_itself(value: Any) -> None:
    assert agrees(value, value)


@pytest.mark.parametrize(
    ("sent", "there", "agree"),
    [
        ({"ports": [{"port": 80}]}, {"ports": [{"port": 80, "protocol": "TCP"}]}, True),
        ({"ports": [{"port": 80}]}, {"ports": [{"port": 80, "protocol": "UDP"}]}, False),
        ({"podSelector": {}}, {"podSelector": {}, "policyTypes": ["Ingress"]}, True),
        ({"podSelector": {}, "ingress": []}, {"podSelector": {}}, True),
        ({"podSelector": {}}, {"podSelector": {}, "ingress": [{}]}, False),
        ({"podSelector": {}}, {"podSelector": {}, "egress": [{}]}, False),
        ({"ingress": [{"from": [{"podSelector": {}}]}]}, {"ingress": [{"from": [{"podSelector": {}}, {}]}]}, False),
        ({"podSelector": {"matchLabels": {"app": "a"}}}, {"podSelector": {"matchLabels": {"app": "b"}}}, False),
        ({"podSelector": {"matchLabels": {"app": "a"}}}, {"podSelector": {}}, False),
        ({"policyTypes": ["Ingress", "Egress"]}, {"policyTypes": ["Ingress"]}, False),
        ({"podSelector": {}}, None, False),
        ({"portLevelMtls": {9090: {"mode": "STRICT"}}}, {"portLevelMtls": {"9090": {"mode": "STRICT"}}}, True),
        ({"portLevelMtls": {9090: {"mode": "STRICT"}}}, {"portLevelMtls": {"9091": {"mode": "STRICT"}}}, False),
    ],
)
def test_what_a_webhook_changed_is_not_what_was_sent(sent: Any, there: Any, agree: bool) -> None:
    assert agree is agrees(sent, there)


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ({}, ""),
        ({"matchLabels": {"app": "a", "tier": "b"}}, "app=a,tier=b"),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}, "app in (a,b)"),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}, "app notin (a)"),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}, {"key": "old", "operator": "DoesNotExist"}]}, "app,!old"),
    ],
)
def test_a_selector_is_asked_as_the_api_has_it(declared: dict[str, Any], text: str) -> None:
    assert text == selector(declared)


def test_identities_are_renamed_where_they_are_sent_and_back_where_they_were_seen() -> None:
    sent = in_cluster("URI=spiffe://cluster.local/ns/shop/sa/checkout", NAMES)
    assert "URI=spiffe://cluster.local/ns/shop-1a2b3c-0/sa/checkout" == sent
    seen = "spiffe://corp.example/ns/shop-twin-1a2b3c-0/sa/checkout"
    assert "spiffe://cluster.local/ns/shop-twin/sa/checkout" == in_case(seen, NAMES, "corp.example")
    assert seen.replace("-1a2b3c-0", "") == in_case(seen, NAMES, "other.example")


def test_an_identity_of_a_foreign_namespace_stays_as_it_is() -> None:
    assert "spiffe://cluster.local/ns/other/sa/shop" == in_cluster("spiffe://cluster.local/ns/other/sa/shop", NAMES)


def test_whom_a_mesh_policy_names_is_renamed() -> None:
    source = {
        "principals": ["cluster.local/ns/shop/sa/frontend", "*"],
        "namespaces": ["shop", "kube-system"],
        "serviceAccounts": ["shop/audit.reader", "shop"],
    }
    manifest = {
        "apiVersion": "security.istio.io/v1",
        "metadata": {"namespace": "shop"},
        "spec": {"rules": [{"from": [{"source": source}]}]},
    }
    assert {
        "principals": ["cluster.local/ns/shop-1a2b3c-0/sa/frontend", "*"],
        "namespaces": ["shop-1a2b3c-0", "kube-system"],
        "serviceAccounts": ["shop-1a2b3c-0/audit.reader", "shop"],
    } == NAMES.manifest(manifest)["spec"]["rules"][0]["from"][0]["source"]
