# SPDX-License-Identifier: Apache-2.0
"""A NetworkPolicy is defaulted, taken and refused as by the API server; every refusal is one line that names the field."""

import copy
import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.errors import Rejected
from ztconform.lab.networkpolicy import IPBlock, PodPeer, PolicyPort, PolicyRule, parse_policy
from ztconform.lab.selectors import EVERYTHING, equal_to
from ztconform.model import Ref


def manifest(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"podSelector": {}, **spec},
    }


def refusal(value: object) -> str:
    with pytest.raises(Rejected) as caught:
        parse_policy(value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, True, False),
        ({"policyTypes": None}, True, False),
        ({"policyTypes": []}, True, False),
        ({"ingress": []}, True, False),
        ({"egress": []}, True, False),  # the default looks for a rule
        ({"egress": None}, True, False),
        ({"egress": [{}]}, True, True),
        ({"policyTypes": ["Egress"]}, False, True),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, False, True),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, True, False),
        ({"policyTypes": ["Ingress", "Egress"]}, True, True),
        ({"policyTypes": ["Egress", "Egress"]}, False, True),
    ],
)
def test_policy_types_default_as_in_the_api_server(spec: dict[str, Any], ingress: bool, egress: bool) -> None:
    policy = parse_policy(manifest(**spec))
    assert (ingress, egress) == (policy.ingress is not None, policy.egress is not None)
    assert policy.ingress is policy.rules("ingress")
    assert policy.egress is policy.rules("egress")


@pytest.mark.parametrize("absent", ["spec", "podSelector", "null"])
def test_a_policy_without_a_pod_selector_selects_every_pod(absent: str) -> None:
    whole = manifest(podSelector=None) if absent == "null" else manifest()
    if absent == "spec":
        del whole["spec"]
    if absent == "podSelector":
        del whole["spec"]["podSelector"]
    assert EVERYTHING == parse_policy(whole).selector
    assert () == parse_policy(whole).ingress


@pytest.mark.parametrize("namespace", [None, ""])
def test_the_namespace_is_default_unless_given(namespace: str | None) -> None:
    whole = manifest()
    whole["metadata"] = {"name": "a.b-c", "namespace": namespace}
    assert Ref("default", "a.b-c") == parse_policy(whole).ref


def test_labels_and_annotations_are_taken_and_change_nothing() -> None:
    whole = manifest()
    whole["metadata"] |= {"labels": {"a": "b"}, "annotations": {"Example.com/Any": "any text\n"}, "creationTimestamp": None}
    assert parse_policy(manifest()) == parse_policy(whole)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, PolicyRule()),
        ({"from": None, "ports": None}, PolicyRule()),
        ({"from": [], "ports": []}, PolicyRule()),
        ({"ports": [{}]}, PolicyRule(ports=(PolicyPort("TCP"),))),
        ({"ports": [{"protocol": "SCTP"}]}, PolicyRule(ports=(PolicyPort("SCTP"),))),
        ({"ports": [{"port": 80, "endPort": None}]}, PolicyRule(ports=(PolicyPort("TCP", 80),))),
        ({"ports": [{"port": 80, "endPort": 80}]}, PolicyRule(ports=(PolicyPort("TCP", 80, 80),))),
        ({"ports": [{"protocol": "UDP", "port": "dns"}]}, PolicyRule(ports=(PolicyPort("UDP", "dns"),))),
        ({"from": [{"podSelector": {}}]}, PolicyRule((PodPeer(None, EVERYTHING),))),
        ({"from": [{"namespaceSelector": {}}]}, PolicyRule((PodPeer(EVERYTHING, EVERYTHING),))),
        (
            {"from": [{"podSelector": {"matchLabels": {"a": "b"}}, "namespaceSelector": {"matchLabels": {"c": "d"}}}]},
            PolicyRule((PodPeer(equal_to({"c": "d"}), equal_to({"a": "b"})),)),
        ),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.3.4/32"]}}]},
            PolicyRule(
                (
                    IPBlock(
                        ipaddress.IPv4Network("10.0.0.0/8"),
                        (ipaddress.IPv4Network("10.1.0.0/16"), ipaddress.IPv4Network("10.2.3.4/32")),
                    ),
                )
            ),
        ),
        (
            {"from": [{"ipBlock": {"cidr": "FD00:0::/8", "except": None}}]},
            PolicyRule((IPBlock(ipaddress.IPv6Network("fd00::/8")),)),
        ),
        ({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, PolicyRule((IPBlock(ipaddress.IPv4Network("0.0.0.0/0")),))),
    ],
)
def test_a_rule_is_read(rule: dict[str, Any], expected: PolicyRule) -> None:
    assert (expected,) == parse_policy(manifest(ingress=[rule])).ingress
    mirrored = {"to" if key == "from" else key: value for key, value in rule.items()}
    assert (expected,) == parse_policy(manifest(egress=[mirrored])).egress


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"podselector": {}}, "spec.podselector: no such field"),
        ({"policyTypes": ["ingress"]}, "spec.policyTypes[0]: must be Ingress or Egress, not 'ingress'"),
        ({"policyTypes": ["Ingress", "Egress", "Ingress"]}, "spec.policyTypes: must not hold more than two entries"),
        ({"policyTypes": "Ingress"}, "spec.policyTypes: must be a list, not 'Ingress'"),
        ({"ingress": {}}, "spec.ingress: must be a list, not a mapping"),
        ({"ingress": [None]}, "spec.ingress[0]: must not be null: write the element out, or remove it"),
        ({"ingress": [[]]}, "spec.ingress[0]: must be a mapping, not a list"),
        ({"ingress": [{"to": []}]}, "spec.ingress[0].to: no such field"),
        ({"egress": [{"from": []}]}, "spec.egress[0].from: no such field"),
        (
            {"policyTypes": ["Ingress"], "egress": [{"ports": [{"port": 0}]}]},
            "spec.egress[0].ports[0].port: must be from 1 to 65535",
        ),
        ({"ingress": [{"from": [{}]}]}, "spec.ingress[0].from[0]: must have a podSelector, a namespaceSelector or an ipBlock"),
        ({"ingress": [{"from": [{"podSelector": None}]}]}, "spec.ingress[0].from[0]: must have a podSelector"),
        (
            {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]},
            "spec.ingress[0].from[0]: must not have an ipBlock and a selector at once",
        ),
    ],
)
def test_a_wrong_specification_is_refused_by_its_field(spec: dict[str, Any], line: str) -> None:
    assert f"NetworkPolicy shop/p: {line}" in refusal(manifest(**spec))


@pytest.mark.parametrize(
    ("port", "line"),
    [
        ({"port": 0}, "port: must be from 1 to 65535, not 0"),
        ({"port": 65536}, "port: must be from 1 to 65535, not 65536"),
        ({"port": 1 << 80}, "port: must be from 1 to 65535, not an integer beyond 64 bits"),
        ({"port": True}, "port: must be a port's number or name, not true"),
        ({"port": 80.0}, "port: must be a port's number or name, not 80.0"),
        ({"port": "80"}, "port: '80' is no port name"),
        ({"port": "HTTP"}, "port: 'HTTP' is no port name"),
        ({"port": "a-name-too-long-"}, "port: 'a-name-too-long-' is no port name"),
        ({"port": ""}, "port: '' is no port name"),
        ({"protocol": "tcp"}, "protocol: must be TCP or UDP or SCTP, not 'tcp'"),
        ({"protocol": "ICMP"}, "protocol: must be TCP or UDP or SCTP, not 'ICMP'"),
        ({"protocol": ""}, "protocol: must be TCP or UDP or SCTP, not ''"),
        ({"endPort": 80}, "endPort: needs a numeric port beside it"),
        ({"port": "http", "endPort": 80}, "endPort: needs a numeric port beside it"),
        ({"port": 80, "endPort": 79}, "endPort: must not be less than port 80, but is 79"),
        ({"port": 80, "endPort": 65536}, "endPort: must be from 1 to 65535, not 65536"),
        ({"port": 80, "endPort": "90"}, "endPort: must be an integer, not '90'"),
        ({"port": 80, "name": "http"}, "name: no such field"),
    ],
)
def test_a_wrong_port_is_refused_by_its_field(port: dict[str, Any], line: str) -> None:
    assert f"NetworkPolicy shop/p: spec.ingress[0].ports[1].{line}" in refusal(manifest(ingress=[{"ports": [{}, port]}]))
    assert f"NetworkPolicy shop/p: spec.egress[0].ports[0].{line}" in refusal(manifest(egress=[{"ports": [port]}]))


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ({}, "cidr: is required"),
        ({"cidr": ""}, "cidr: is required"),
        ({"cidr": None}, "cidr: is required"),
        ({"cidr": "10.0.0.0"}, "cidr: '10.0.0.0' is no CIDR"),
        ({"cidr": "10.0.0.0/255.0.0.0"}, "cidr: '10.0.0.0/255.0.0.0' is no CIDR"),
        ({"cidr": "10.0.0.0/33"}, "cidr: '10.0.0.0/33' is no CIDR"),
        ({"cidr": "10.0.0.0/08"}, "cidr: '10.0.0.0/08' is no CIDR"),
        ({"cidr": "010.0.0.0/8"}, "cidr: '010.0.0.0/8' is no CIDR"),
        ({"cidr": "fe80::%eth0/64"}, "cidr: 'fe80::%eth0/64' is no CIDR"),
        ({"cidr": "::ffff:10.0.0.0/104"}, "cidr: '::ffff:10.0.0.0/104' must not be an IPv4-mapped IPv6 address"),
        ({"cidr": "${host:shop/a}"}, "cidr: '${host:shop/a}' is no CIDR"),
        ({"cidr": 10}, "cidr: must be a string, not 10"),
        ({"cidr": "10.0.0.0/8", "except": "10.1.0.0/16"}, "except: must be a list"),
        (
            {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]},
            "except[0]: 10.0.0.0/8 must lie within cidr 10.0.0.0/8 and be smaller",
        ),
        ({"cidr": "10.0.0.0/8", "except": ["0.0.0.0/0"]}, "except[0]: 0.0.0.0/0 must lie within cidr"),
        ({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}, "except[1]: 11.0.0.0/16 must lie within cidr"),
        ({"cidr": "10.0.0.0/8", "except": ["fd00::/64"]}, "except[0]: fd00::/64 must lie within cidr"),
        ({"cidr": "10.0.0.0/8", "excepts": []}, "excepts: no such field"),
    ],
)
def test_a_wrong_block_is_refused_by_its_field(block: dict[str, Any], line: str) -> None:
    assert f"NetworkPolicy shop/p: spec.egress[0].to[0].ipBlock.{line}" in refusal(
        manifest(egress=[{"to": [{"ipBlock": block}]}])
    )


@pytest.mark.parametrize(
    ("metadata", "line"),
    [
        (None, "metadata.name: is required"),
        ([], "metadata: must be a mapping, not a list"),
        ({}, "metadata.name: is required"),
        ({"name": ""}, "metadata.name: is required"),
        ({"name": "A"}, "metadata.name: 'A' is no DNS subdomain"),
        ({"name": "a" * 254}, "is no DNS subdomain"),
        ({"name": 1}, "metadata.name: must be a string, not 1"),
        ({"name": "p", "namespace": "a.b"}, "metadata.namespace: 'a.b' is no DNS label"),
        ({"name": "p", "labels": {"a": 1}}, "metadata.labels[a]: must be a string, not 1"),
        ({"name": "p", "annotations": {"a": 1}}, "metadata.annotations[a]: must be a string, not 1"),
        ({"name": "p", "annotations": {"a b": ""}}, "metadata.annotations[a b]: the key is no annotation key"),
        ({"name": "p", "annotations": {"a": "b" * 262_144}}, "metadata.annotations: must not hold more than 256 KiB"),
        ({"name": "p", "annotation": {}}, "metadata.annotation: no such field"),
        ({"name": "p", "uid": "u"}, "metadata.uid: is set by the API server: remove it"),
        ({"name": "p", "generateName": "p-"}, "metadata.generateName: is not supported: write a name"),
        ({"name": "p", "finalizers": []}, "metadata.finalizers: is not supported"),
    ],
)
def test_wrong_metadata_is_refused_by_its_field(metadata: object, line: str) -> None:
    assert line in refusal({**manifest(), "metadata": metadata})


@pytest.mark.parametrize(
    ("whole", "line"),
    [
        (None, "manifest: must be a mapping, not null"),
        ("text", "manifest: must be a mapping, not 'text'"),
        ([manifest()], "manifest: must be a mapping, not a list"),
        ({}, "object default/?: apiVersion: must be networking.k8s.io/v1, not null"),
        (
            {**manifest(), "apiVersion": "extensions/v1beta1"},
            "apiVersion: must be networking.k8s.io/v1, not 'extensions/v1beta1'",
        ),
        ({**manifest(), "kind": "Pod"}, "Pod shop/p: kind: must be NetworkPolicy, not 'Pod'"),
        ({**manifest(), "status": {}}, "NetworkPolicy shop/p: status: no such field"),
        ({**manifest(), "spec": []}, "NetworkPolicy shop/p: spec: must be a mapping, not a list"),
        (dict([*manifest().items(), (1, 2)]), "NetworkPolicy shop/p: a field name must be a string, not 1"),
        ({**manifest(), "a\nb" * 100: 2}, "no such field"),
    ],
)
def test_what_is_no_network_policy_is_refused(whole: object, line: str) -> None:
    assert line in refusal(whole)


def test_parsing_leaves_the_manifest_as_it_was() -> None:
    whole = manifest(ingress=[{"from": [{"podSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 80}]}])
    before = copy.deepcopy(whole)
    parse_policy(whole)
    assert before == whole


FIELDS = [
    *("apiVersion", "kind", "metadata", "spec", "name", "namespace", "labels", "podSelector", "policyTypes", "ingress", "egress"),
    *("from", "to", "ports", "port", "endPort", "protocol", "ipBlock", "cidr", "except", "namespaceSelector", "matchLabels"),
    *("matchExpressions", "key", "operator", "values", "annotations", "uid"),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.dates(),
    st.sampled_from(["Ingress", "TCP", "In", "Exists", "10.0.0.0/8", "::/0", "http", "networking.k8s.io/v1", "NetworkPolicy"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | SCALARS.filter(bool), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(TREES, st.sampled_from(["whole", "metadata", "spec", "ingress", "egress", "rule", "peer", "port", "selector"]))
def test_whatever_a_manifest_holds_it_is_taken_or_refused_in_one_line(tree: Any, place: str) -> None:
    whole: Any = {
        "whole": tree,
        "metadata": {**manifest(), "metadata": tree},
        "spec": {**manifest(), "spec": tree},
        "ingress": manifest(ingress=tree),
        "egress": manifest(egress=tree),
        "rule": manifest(ingress=[tree]),
        "peer": manifest(egress=[{"to": [tree]}]),
        "port": manifest(ingress=[{"ports": [tree]}]),
        "selector": manifest(podSelector=tree),
    }[place]
    try:
        parse_policy(whole)
    except Rejected as refused:
        assert str(refused).isprintable()
        assert len(str(refused)) < 600
