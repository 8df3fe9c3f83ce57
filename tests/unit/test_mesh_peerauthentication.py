# SPDX-License-Identifier: Apache-2.0
"""A PeerAuthentication is taken and refused as by Istio; every refusal is one line that names the field."""

from typing import Any

import pytest
from mesh_pods import lab_pod

from ztconform.errors import Rejected
from ztconform.lab.mesh.modes import modes
from ztconform.lab.mesh.peerauthentication import parse_peer_authentication
from ztconform.lab.mesh.view import MeshConfig
from ztconform.lab.selectors import EVERYTHING, equal_to
from ztconform.model import Port, Ref

LABELLED: dict[str, Any] = {"matchLabels": {"app": "a"}}


def manifest(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": spec,
    }


def refusal(value: object) -> str:
    with pytest.raises(Rejected) as caught:
        parse_peer_authentication(value)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("version", ["security.istio.io/v1", "security.istio.io/v1beta1"])
def test_both_versions_say_the_same(version: str) -> None:
    whole = manifest(selector=LABELLED, mtls={"mode": "STRICT"})
    assert parse_peer_authentication(whole) == parse_peer_authentication({**whole, "apiVersion": version})


@pytest.mark.parametrize(
    ("spec", "mode"),
    [
        ({}, None),
        ({"mtls": None}, None),
        ({"mtls": {}}, None),
        ({"mtls": {"mode": None}}, None),
        ({"mtls": {"mode": "UNSET"}}, None),
        ({"mtls": {"mode": "DISABLE"}}, "DISABLE"),
        ({"mtls": {"mode": "PERMISSIVE"}}, "PERMISSIVE"),
        ({"mtls": {"mode": "STRICT"}}, "STRICT"),
    ],
)
def test_a_mode_is_read(spec: dict[str, Any], mode: str | None) -> None:
    assert mode == parse_peer_authentication(manifest(**spec)).mode


def test_a_policy_without_a_specification_sets_nothing() -> None:
    whole = manifest()
    del whole["spec"]
    policy = parse_peer_authentication(whole)
    assert (None, {}, EVERYTHING) == (policy.mode, policy.ports, policy.selector)


@pytest.mark.parametrize(
    ("selector", "expected", "workloads"),
    [
        (None, EVERYTHING, False),
        ({}, EVERYTHING, False),
        ({"matchLabels": {}}, EVERYTHING, False),
        (LABELLED, equal_to({"app": "a"}), True),
    ],
)
def test_a_selector_without_labels_is_the_namespaces(selector: Any, expected: object, workloads: bool) -> None:
    policy = parse_peer_authentication(manifest(selector=selector))
    assert (expected, workloads) == (policy.selector, policy.selects_workloads)


def test_ports_are_numbers_whether_yaml_reads_them_as_numbers_or_not() -> None:
    ports = {8080: {"mode": "DISABLE"}, "9090": {"mode": "UNSET"}, 7070: {}}
    assert {8080: "DISABLE", 9090: None, 7070: None} == parse_peer_authentication(
        manifest(selector=LABELLED, portLevelMtls=ports)
    ).ports


PREFIX = "PeerAuthentication shop/p: "


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"mtls": {"mode": "strict"}}, "spec.mtls.mode: must be UNSET or DISABLE or PERMISSIVE or STRICT, not 'strict'"),
        ({"mtls": "STRICT"}, "spec.mtls: must be a mapping, not 'STRICT'"),
        ({"mtls": {"modes": "STRICT"}}, "spec.mtls.modes: no such field"),
        ({"mtl": {"mode": "STRICT"}}, "spec.mtl: no such field"),
        ({"selector": {"matchExpressions": []}}, "spec.selector.matchExpressions: no such field"),
        ({"selector": {"matchLabels": {"app": "*"}}}, "spec.selector.matchLabels[app]: '*' is no label value"),
        ({"selector": {"matchLabels": {"": "a"}}}, "spec.selector.matchLabels[]: '' is no label key"),
        ({"portLevelMtls": {8080: {"mode": "STRICT"}}}, "spec.portLevelMtls: needs a selector with labels"),
        ({"selector": {}, "portLevelMtls": {8080: {}}}, "spec.portLevelMtls: needs a selector with labels"),
        ({"selector": LABELLED, "portLevelMtls": {}}, "spec.portLevelMtls: must not be empty"),
        ({"selector": LABELLED, "portLevelMtls": []}, "spec.portLevelMtls: must be a mapping, not a list"),
        ({"selector": LABELLED, "portLevelMtls": {0: {}}}, "spec.portLevelMtls[0]: must be from 1 to 65535, not 0"),
        ({"selector": LABELLED, "portLevelMtls": {"65536": {}}}, "spec.portLevelMtls['65536']: must be from 1 to 65535"),
        ({"selector": LABELLED, "portLevelMtls": {"http": {}}}, "spec.portLevelMtls['http']: must be an integer, not 'http'"),
        ({"selector": LABELLED, "portLevelMtls": {"080": {}}}, "spec.portLevelMtls['080']: must be an integer, not '080'"),
        ({"selector": LABELLED, "portLevelMtls": {True: {}}}, "spec.portLevelMtls[true]: must be an integer, not true"),
        ({"selector": LABELLED, "portLevelMtls": {80: {}, "80": {}}}, "spec.portLevelMtls['80']: port 80 is there twice"),
        ({"selector": LABELLED, "portLevelMtls": {80: None}}, "spec.portLevelMtls[80]: must be a mapping, not null"),
        ({"selector": LABELLED, "portLevelMtls": {80: {"mode": 1}}}, "spec.portLevelMtls[80].mode: must be UNSET or"),
    ],
)
def test_what_istio_refuses_is_refused_by_name(spec: dict[str, Any], message: str) -> None:
    assert refusal(manifest(**spec)).startswith(PREFIX + message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"apiVersion": "security.istio.io/v2"}, "apiVersion: must be security.istio.io/v1, not 'security.istio.io/v2'"),
        ({"kind": "AuthorizationPolicy"}, "kind: must be PeerAuthentication"),
        ({"status": {}}, "status: is written by Istio: remove it"),
        (
            {"metadata": {"name": "p", "namespace": "shop", "labels": {"istio.io/rev": "canary"}}},
            "metadata.labels[istio.io/rev]:",
        ),
        (
            {"metadata": {"name": "p", "namespace": "shop", "annotations": {"istio.io/dry-run": "true"}}},
            "metadata.annotations[istio.io/dry-run]: must not be there: only an AuthorizationPolicy supports istio.io/dry-run",
        ),
        (
            {"metadata": {"name": "p", "namespace": "shop", "annotations": {"internal.istio.io/parents": "x"}}},
            "metadata.annotations[internal.istio.io/parents]: is reserved",
        ),
        ({"metadata": {"name": "P", "namespace": "shop"}}, "metadata.name: 'P' is no DNS subdomain"),
    ],
)
def test_what_surrounds_a_specification_is_read_as_strictly(change: dict[str, Any], message: str) -> None:
    assert message in refusal({**manifest(), **change})


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_manifest_is_refused(value: object) -> None:
    assert "must be a mapping" in refusal(value)


def test_a_port_that_is_not_declared_has_its_own_mode_too() -> None:
    policy = parse_peer_authentication(manifest(selector=LABELLED, portLevelMtls={9999: {"mode": "STRICT"}}))
    found = modes(lab_pod("shop", "a", Port(number=80)), [policy], MeshConfig())
    assert ("PERMISSIVE", {80: "PERMISSIVE", 9999: "STRICT"}) == (found.default, found.ports)


def test_another_root_namespace_is_the_meshs() -> None:
    whole = {**manifest(mtls={"mode": "STRICT"}), "metadata": {"name": "default", "namespace": "mesh"}}
    policy = parse_peer_authentication(whole)
    assert Ref("mesh", "default") == policy.ref
    assert "STRICT" == modes(lab_pod("shop", "a"), [policy], MeshConfig(root_namespace="mesh")).default
    assert "PERMISSIVE" == modes(lab_pod("shop", "a"), [policy], MeshConfig()).default
