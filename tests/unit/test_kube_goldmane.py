# SPDX-License-Identifier: Apache-2.0
"""A flow of Goldmane's tells of a probe by its ends, its port and its transport, and of who denied by the last policy tried."""

from dataclasses import replace
from typing import Any

import pytest

from ztconform.kube.goldmane import told
from ztconform.kube.pods import KubePod
from ztconform.kube.profile import Drop, Journey
from ztconform.model import Ref, Workload


def pod(name: str, address: str) -> KubePod:
    ref = Ref("shop", name)
    return KubePod(
        ref=ref, real=Ref("shop-1a2b3c-0", name), workload=Workload(ref=ref), node=0, addresses=(address,), serves=True
    )


LEGACY, PAYMENT = pod("legacy-0", "10.244.1.7"), pod("payment-0", "10.244.2.9")
JOURNEY = Journey(nonce="n", source=LEGACY, targets=(PAYMENT,), port=8080, since=0.0)
PROFILE = {"kind": "Profile", "name": "kns.shop", "namespace": "", "tier": "", "action": "Allow", "policy_index": 0}


def hit(kind: str, name: str, action: str, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "namespace": "shop-1a2b3c-0", "action": action, "policy_index": index, **more}


EXPLICIT = hit("CalicoNetworkPolicy", "no-legacy", "Deny")
DEFAULT = {
    "kind": "EndOfTier",
    "tier": "default",
    "action": "Deny",
    "policy_index": 1,
    "trigger": hit("StagedNetworkPolicy", "default-deny", "ActionUnspecified"),
}


def flow(*enforced: dict[str, Any], pending: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """As whisker-backend of v3.32.1 writes one (pkg/apis/v1/flows.go)."""
    return {
        "action": "Deny",
        "source_name": "legacy-0",
        "source_namespace": "shop-1a2b3c-0",
        "dest_name": "payment-0",
        "dest_namespace": "shop-1a2b3c-0",
        "protocol": "tcp",
        "dest_port": 8080,
        "reporter": "Dst",
        "policies": {"enforced": list(enforced), "pending": pending},
        **more,
    }


def test_a_rule_that_denies_is_named() -> None:
    expected = Drop(nonce="n", direction="ingress", address="10.244.2.9", policies=("shop-1a2b3c-0/no-legacy",))
    assert expected == told([flow(EXPLICIT)], JOURNEY, "enforced")


def test_a_default_deny_is_known_by_the_policy_that_brought_it() -> None:
    expected = Drop(nonce="n", direction="ingress", address="10.244.2.9", default_of=("shop-1a2b3c-0/default-deny",))
    assert expected == told([flow(PROFILE, pending=[DEFAULT], action="Allow")], JOURNEY, "pending")


def test_what_the_source_reports_was_denied_on_its_way_out() -> None:
    expected = Drop(nonce="n", direction="egress", address="10.244.1.7", policies=("shop-1a2b3c-0/no-legacy",))
    assert expected == told([flow(EXPLICIT, reporter="Src")], JOURNEY, "enforced")


@pytest.mark.parametrize(
    "other",
    [
        flow(),
        flow(PROFILE, action="Allow"),
        flow(PROFILE, pending=[DEFAULT], action="Allow"),
        flow(hit("CalicoNetworkPolicy", "no-legacy", "Deny", 0), hit("CalicoNetworkPolicy", "shop", "Allow", 1)),
        flow(EXPLICIT, source_name="checkout-0"),
        flow(EXPLICIT, source_namespace="shop-twin"),
        flow(EXPLICIT, dest_name="products-0"),
        flow(EXPLICIT, dest_port=7000),
        flow(EXPLICIT, protocol="udp"),
        {},
    ],
)
def test_what_passed_or_was_between_others_tells_nothing(other: dict[str, Any]) -> None:
    assert told([other], JOURNEY, "enforced") is None


def test_a_host_outside_has_no_name_of_its_own() -> None:
    assert told([flow(EXPLICIT, source_name="PRIVATE NETWORK")], replace(JOURNEY, source=None), "enforced") is None
