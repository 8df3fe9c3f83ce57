# SPDX-License-Identifier: Apache-2.0
"""A packet that a client's own proxy lost is joined by its ends, for nobody knows its source port: and by nothing less."""

from typing import Any

import pytest

from ztconform.kube.hubble import is_told, telling, tried
from ztconform.kube.pods import KubePod
from ztconform.kube.profile import Journey
from ztconform.model import Ref, Workload


def pod(name: str, address: str) -> KubePod:
    ref = Ref("shop", name)
    return KubePod(ref=ref, real=ref, workload=Workload(ref=ref), node=0, addresses=(address,), serves=True)


JOURNEY = Journey(nonce="n1", source=pod("checkout", "10.0.0.7"), targets=(pod("payment", "10.0.1.9"),), port=8080, since=5.0)


def flow(source: str = "10.0.0.7", target: str = "10.0.1.9", port: int = 8080, **more: Any) -> dict[str, Any]:
    return {
        "IP": {"source": source, "destination": target},
        "l4": {"TCP": {"source_port": 41000, "destination_port": port}},
        **more,
    }


def test_the_latest_drop_between_the_ends_is_taken() -> None:
    assert flow(uuid="b") == tried([(5.1, flow(uuid="a")), (5.2, flow(uuid="b")), (5.3, flow(port=9090))], JOURNEY)


@pytest.mark.parametrize(
    "found",
    [
        (4.9, flow()),
        (5.1, flow(source="10.0.0.8")),
        (5.1, flow(target="10.0.1.8")),
        (5.1, flow(port=9090)),
        (5.1, {"IP": {"source": "10.0.0.7", "destination": "10.0.1.9"}, "l4": {"UDP": {"destination_port": 8080}}}),
        (5.1, {}),
    ],
)
def test_a_drop_of_before_or_between_others_is_not(found: tuple[float, dict[str, Any]]) -> None:
    assert tried([found], JOURNEY) is None


NAMED = flow(drop_reason_desc="POLICY_DENY", traffic_direction="INGRESS", ingress_denied_by=[{"name": "no-legacy"}])
DROPPED = flow(drop_reason_desc="POLICY_DENY", traffic_direction="INGRESS")
DEFAULT = flow(drop_reason_desc="POLICY_DENIED", traffic_direction="INGRESS")


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        (None, DROPPED, DROPPED),
        (NAMED, DROPPED, NAMED),
        (DROPPED, NAMED, NAMED),
        (NAMED, {**NAMED, "uuid": "b"}, {**NAMED, "uuid": "b"}),
        (DEFAULT, {**DEFAULT, "uuid": "b"}, {**DEFAULT, "uuid": "b"}),
    ],
)
def test_of_a_verdict_and_its_drop_the_one_that_names_the_rule_is_kept(
    before: dict[str, Any] | None, now: dict[str, Any], kept: dict[str, Any]
) -> None:
    assert kept == telling(before, now)


@pytest.mark.parametrize(("event", "told"), [(None, False), (DROPPED, False), (NAMED, True), (DEFAULT, True)])
def test_a_denial_by_a_rule_is_waited_for_until_the_rule_is_named(event: dict[str, Any] | None, told: bool) -> None:
    assert told is is_told(event)
