# SPDX-License-Identifier: Apache-2.0
"""What a Service is to have behind it, and what an EndpointSlice says that it has."""

from typing import Any

import pytest

from ztconform.kube.settling import behind, selected


def service(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "payment"}, "spec": {"selector": {"app": "payment"}, **spec}}


def pod(name: str, *, ready: bool = True, ending: bool = False, app: str = "payment", phase: str = "Running") -> dict[str, Any]:
    deletion = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if ending else {}
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {"name": name, "labels": {"app": app, "tier": "backend"}, **deletion},
        "status": {"phase": phase, "conditions": conditions},
    }


def endpointslice(*endpoints: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"labels": {"kubernetes.io/service-name": "payment"}}, "endpoints": list(endpoints)}


def endpoint(name: str, kind: str = "Pod", **conditions: Any) -> dict[str, Any]:
    return {"targetRef": {"kind": kind, "name": name}, "conditions": conditions}


@pytest.mark.parametrize(
    ("made", "pods", "wanted"),
    [
        (service(), [pod("a"), pod("b")], {"a", "b"}),
        (service(), [pod("a"), pod("b", ready=False)], {"a"}),
        (service(), [pod("a"), pod("b", ending=True)], {"a"}),
        (service(), [pod("a"), pod("b", phase="Succeeded")], {"a"}),
        (service(), [pod("a"), pod("b", app="checkout")], {"a"}),
        (service(publishNotReadyAddresses=True), [pod("a", ready=False), pod("b", ending=True)], {"a"}),
        (service(selector={}), [pod("a")], set()),
        (service(selector=None), [pod("a")], set()),
    ],
)
def test_a_service_is_to_have_the_ready_pods_that_it_selects(
    made: dict[str, Any], pods: list[dict[str, Any]], wanted: set[str]
) -> None:
    assert {("payment", name) for name in wanted} == selected(made, pods)


@pytest.mark.parametrize(
    ("made", "there"),
    [
        (endpointslice(endpoint("a", ready=True), endpoint("b", ready=False)), {"a"}),
        (endpointslice(endpoint("a")), {"a"}),  # the API reference: an absent condition counts as ready
        (endpointslice(endpoint("a", kind="Node", ready=True), {"addresses": ["10.0.0.1"]}), set()),
        ({"metadata": {"labels": {"kubernetes.io/service-name": "payment"}}, "endpoints": None}, set()),
    ],
)
def test_an_endpointslice_says_which_pods_are_ready(made: dict[str, Any], there: set[str]) -> None:
    assert {("payment", name) for name in there} == behind(made)
