# SPDX-License-Identifier: Apache-2.0
"""Pods, nodes and the outside host reach each other as the drawing in `wiring` says, and nothing else can be reached."""

import pytest

from tests.lab import kernel_scenes

WHO = pytest.mark.parametrize("who", ["self", "nobody"])


@WHO
def test_everything_is_connected_and_the_rest_is_unreachable_not_silent(who: str) -> None:
    v4, v6 = "10.244.0.2", "fd00:10:244::2"
    assert {
        "client to neighbour 10.244.0.3": v4,
        "client to neighbour fd00:10:244:0::3": v6,
        "client to remote 10.244.1.2": v4,
        "client to remote fd00:10:244:1::2": v6,
        "client to outside 192.0.2.10": v4,
        "client to outside 2001:db8::10": v6,
        "client to outside 169.254.169.254": v4,
        "outside to client 10.244.0.2": "172.18.0.254",
        "outside to client fd00:10:244:0::2": "fd00:172:18::fe",
        "client to node 172.18.0.2": "ECONNREFUSED",
        "client to node 172.18.0.3": "ECONNREFUSED",
        "client to nobody 10.96.0.1": "EHOSTUNREACH",
        "client to nobody fd00:10:96::1": "ENETUNREACH",
        "client to nobody 10.244.0.99": "EHOSTUNREACH",
        "client to nobody fd00:10:244::99": "ENETUNREACH",
        "client to nobody 198.51.100.1": "ENETUNREACH",
        "client to nobody 2001:db8:1::1": "ENETUNREACH",
    } == kernel_scenes.run(who, "connectivity")


def test_a_node_drops_ipv4_packets_with_the_address_of_another_pod() -> None:
    assert "10.244.0.3" == kernel_scenes.run("self", "forgery")


@WHO
def test_a_removed_pod_is_gone_at_once_and_its_addresses_are_free(who: str) -> None:
    seen = kernel_scenes.run(who, "replacement")
    assert [["cali-client", "eth0", "lo"], ["eth0", "lo"]] == seen["left"]
    assert ["10.244.0.2", "fd00:10:244::2"] == seen["heir"]
    assert ["10.244.0.2", "10.244.0.3"] == seen["first"]
    assert ["cali-client", "cali-heir", "eth0", "lo"] == seen["still"]
    assert [
        "the lab already has a pod client",
        "pod x is on node 7; the lab has nodes 0 to 1",
    ] == seen["refused"][:2]
    assert seen["refused"][2].startswith("the kernel refused veth cali-a-name-of-20-letters to eth0: ")
