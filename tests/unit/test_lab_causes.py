# SPDX-License-Identifier: Apache-2.0
"""A drop behind a client's own proxy belongs to a probe by its ends and its time, and to no other."""

import pytest

from ztconform.lab.causes import Flight

FLIGHT = Flight(10.0, 10.3, frozenset({"10.244.0.5"}), frozenset({"10.244.1.7"}), 8080)


@pytest.mark.parametrize(
    ("claimed", "drop"),
    [
        ("in t/a", (10.1, "10.244.0.5", "10.244.1.7", 8080, "in t/a")),
        ("in t/a", (9.8, "10.244.0.5", "10.244.1.7", 8080, "in t/a")),  # of a connection that another request had begun
        ("in t/a", (10.32, "10.244.0.5", "10.244.1.7", 8080, "in t/a")),
        ("", (9.6, "10.244.0.5", "10.244.1.7", 8080, "in t/a")),
        ("", (10.5, "10.244.0.5", "10.244.1.7", 8080, "in t/a")),
        ("", (10.1, "10.244.0.6", "10.244.1.7", 8080, "in t/a")),
        ("", (10.1, "10.244.0.5", "10.244.1.8", 8080, "in t/a")),
        ("", (10.1, "10.244.0.5", "10.244.1.7", 8081, "in t/a")),
    ],
)
def test_a_drop_is_joined_by_both_ends_and_the_time_that_a_connection_may_take(claimed, drop):
    assert claimed == FLIGHT.dropped([drop])
    assert claimed == FLIGHT.dropped([(0.0, "x", "y", 1, "z"), drop])


def test_no_drop_is_no_cause():
    assert "" == FLIGHT.dropped([])
