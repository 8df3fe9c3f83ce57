# SPDX-License-Identifier: Apache-2.0
"""The kernel itself hands a capture the packets of the addresses that it is about, plain or in a tunnel, and nobody else's."""

import pytest

from tests.lab import kernel_scenes


@pytest.mark.parametrize("who", ["self", "nobody"])
def test_a_capture_holds_one_pods_packets_and_no_others(who: str) -> None:
    seen = ["plain to remote", "wrapped to remote"]
    assert {"seen": seen, "lost": 0, "full": False} == kernel_scenes.run(who, "captured")
