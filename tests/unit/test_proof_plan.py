# SPDX-License-Identifier: Apache-2.0
"""How long a probe waits that is to be denied: longer only where its client's own proxy connects in its place."""

from dataclasses import replace

import pytest

from ztconform.model import Pod, Probe, Ref, Row
from ztconform.proof import plan
from ztconform.timeouts import KUBERNETES

CLIENT, SERVER = Ref("shop", "frontend"), Ref("shop", "payment")
LATE = replace(KUBERNETES, captured=11.0)


def timeout(*, captured: bool, want: str = "denied", **probe: object) -> float:
    fields = {"source": CLIENT, "target": SERVER, "port": 8080, "address": "pod", **probe}
    row = Row(id="r", probe=Probe(**fields), want=want)  # type: ignore[arg-type]  # as given
    pods = [
        Pod(ref=Ref("shop", "frontend-0"), workload=CLIENT, node=0, addresses=("10.244.0.7",), captured=captured),
        Pod(ref=Ref("shop", "payment-0"), workload=SERVER, node=1, addresses=("10.244.1.9",), captured=True),
    ]
    (attempt,), _ = plan.attempts(row, pods, lambda service: (), LATE)
    return attempt.timeout


@pytest.mark.parametrize(
    ("captured", "probe", "expected"),
    [
        (True, {}, 12.0),
        (True, {"kind": "tcp"}, 12.0),
        (True, {"past_proxy": True}, 1.0),
        (True, {"kind": "udp"}, 1.0),
        (False, {}, 1.0),
    ],
)
def test_a_denied_probe_waits_for_its_clients_own_proxy_alone(captured: bool, probe: dict[str, object], expected: float) -> None:
    assert expected == timeout(captured=captured, **probe)


def test_an_allowed_probe_waits_as_long_whoever_connects() -> None:
    assert KUBERNETES.allowed == timeout(captured=True, want="allowed") == timeout(captured=False, want="allowed")
