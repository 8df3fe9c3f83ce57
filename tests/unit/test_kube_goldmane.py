# SPDX-License-Identifier: Apache-2.0
"""A flow of Goldmane's tells of a probe by its ends, its port and its transport, and of who denied by the last policy tried."""

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from ztconform.errors import ClusterError
from ztconform.kube.goldmane import GoldmaneLog, told
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


class Whisker:
    """Answer with the flows of the namespaces that are asked for."""

    def __init__(self, *flows: dict[str, Any]) -> None:
        self.flows = flows
        self.asked: list[set[str]] = []

    def __call__(self, path: str) -> bytes:
        (filters,) = parse_qs(urlparse(path).query)["filters"]
        callers = {one["value"] for one in json.loads(filters)["source_namespaces"]}
        self.asked.append(callers)
        return json.dumps({"items": [one for one in self.flows if one["source_namespace"] in callers]}).encode()


TWIN = replace(LEGACY, real=Ref("twin-1a2b3c-0", "legacy-0"))
OF_TWIN = replace(JOURNEY, nonce="t", source=TWIN)


def test_callers_of_another_namespace_are_asked_for_at_once_and_the_same_ones_not_again() -> None:
    whisker = Whisker(flow(EXPLICIT), flow(EXPLICIT, source_namespace="twin-1a2b3c-0"))
    log = GoldmaneLog(whisker)
    assert ["n"] == [drop.nonce for drop in log.drops([JOURNEY]) or ()]
    assert ["t"] == [drop.nonce for drop in log.between([OF_TWIN]) or ()]
    assert ["n"] == [drop.nonce for drop in log.drops([JOURNEY]) or ()]
    assert [{"shop-1a2b3c-0"}, {"shop-1a2b3c-0", "twin-1a2b3c-0"}] == whisker.asked


def test_what_was_known_is_forgotten_when_policies_change() -> None:
    whisker = Whisker(flow(EXPLICIT))
    log = GoldmaneLog(whisker)
    assert log.drops([JOURNEY])
    whisker.flows = ()
    log.changed()
    assert [] == log.drops([JOURNEY])


def test_a_whisker_that_cannot_be_asked_has_lost_events() -> None:
    def refuse(path: str) -> bytes:
        raise ClusterError("it is gone")

    log = GoldmaneLog(refuse)
    assert log.drops([JOURNEY]) is None
    assert "it is gone" in log.lost
