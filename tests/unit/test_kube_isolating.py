# SPDX-License-Identifier: Apache-2.0
"""A policy isolates the pods that it selects in the directions that it closes, whatever else it admits."""

from typing import Any

import pytest

from ztconform.kube.isolating import Isolated, isolated

PAYMENT = {"matchLabels": {"app": "payment"}}


def policy(kind: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    version = "networking.k8s.io/v1" if kind == "NetworkPolicy" else "cilium.io/v2"
    metadata = {"name": "p"} if "Clusterwide" in kind else {"name": "p", "namespace": "shop"}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, **more}


def cilium(**spec: Any) -> dict[str, Any]:
    return policy("CiliumNetworkPolicy", {"endpointSelector": PAYMENT, **spec})


@pytest.mark.parametrize(
    ("manifest", "directions"),
    [
        (policy("NetworkPolicy", {"podSelector": {}}), {"ingress"}),
        (policy("NetworkPolicy", {"podSelector": {}, "egress": [{}]}), {"ingress", "egress"}),
        (policy("NetworkPolicy", {"podSelector": {}, "policyTypes": ["Egress"]}), {"egress"}),
        ({**policy("NetworkPolicy", {"podSelector": {}}), "apiVersion": "projectcalico.org/v3"}, set()),
        (cilium(ingress=[{}]), {"ingress"}),
        (cilium(ingress=[]), set()),
        (cilium(egressDeny=[{}]), {"egress"}),
        (cilium(ingress=[{}], enableDefaultDeny={"ingress": False}), set()),
        (cilium(enableDefaultDeny={"egress": True}), {"egress"}),
        (policy("CiliumNetworkPolicy", {"nodeSelector": {}, "ingress": [{}]}), set()),
        (policy("AuthorizationPolicy", {"action": "DENY"}), set()),
    ],
)  # fmt: skip
def test_the_directions_that_a_policy_closes(manifest: dict[str, Any], directions: set[str]) -> None:
    assert directions == {direction for direction in ("ingress", "egress") if list(isolated(manifest, direction))}


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"app": "payment"}, [("shop", {"app": "payment"})]),
        ({"k8s:app": "payment", "any:tier": "x"}, [("shop", {"app": "payment", "tier": "x"})]),
        ({"k8s:io.kubernetes.pod.namespace": "shop"}, [("shop", {})]),
        ({"k8s:io.kubernetes.pod.namespace": "other"}, []),
        ({"io.cilium.k8s.policy.serviceaccount": "payment"}, []),
    ],
)
def test_cilium_selects_by_labels_with_their_source(labels: dict[str, str], found: list[tuple[str, dict[str, str]]]) -> None:
    manifest = policy("CiliumNetworkPolicy", {"endpointSelector": {"matchLabels": labels}, "ingress": [{}]})
    assert [Isolated(of, {"matchLabels": plain, "matchExpressions": []}) for of, plain in found] == list(
        isolated(manifest, "ingress")
    )


def test_a_policy_of_the_whole_cluster_selects_a_namespace_by_a_label() -> None:
    selector = {"matchLabels": {"io.kubernetes.pod.namespace": "other"}}
    whole = policy("CiliumClusterwideNetworkPolicy", {"endpointSelector": selector, "ingress": [{}]})
    assert ["other"] == [one.namespace for one in isolated(whole, "ingress")]


def test_a_policy_of_the_whole_cluster_is_of_any_namespace_and_one_may_have_several_rules() -> None:
    rule = {"endpointSelector": PAYMENT, "egress": [{}]}
    whole = policy("CiliumClusterwideNetworkPolicy", {}, specs=[rule, {**rule, "egress": None}])
    assert [""] == [one.namespace for one in isolated(whole, "egress")]
