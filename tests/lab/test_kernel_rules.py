# SPDX-License-Identifier: Apache-2.0
"""A ruleset that was loaded does to real packets what it says, and a refused one changes nothing."""

import shutil

import pytest

from tests.lab import kernel_scenes

WHO = pytest.mark.parametrize("who", ["self", "nobody"])


@WHO
def test_sets_ports_ranges_and_blocks_admit_and_the_rest_is_dropped_and_logged(who: str) -> None:
    seen = kernel_scenes.run(who, "denial")
    assert {
        "client to 10.244.1.2 80": "10.244.0.2",
        "client to 10.244.1.2 9000": "10.244.0.2",
        "client to 10.244.1.2 81": "silence",
        "client to fd00:10:244:1::2 8010": "fd00:10:244::2",
        "client to fd00:10:244:1::2 8011": "silence",
        "client to 10.244.1.3 80": "10.244.0.2",
        "neighbour to 10.244.1.2 80": "silence",
        "neighbour to 10.244.1.2 9000": "silence",
        "neighbour to 10.244.1.2 81": "silence",
        "neighbour to fd00:10:244:1::2 8010": "silence",
        "neighbour to fd00:10:244:1::2 8011": "silence",
        "neighbour to 10.244.1.3 80": "10.244.0.3",
    } == seen["met"]
    prefix = "in shop/remote"
    assert [
        [prefix, "tcp", "10.244.0.2", "10.244.1.2", 81, 4, True],
        [prefix, "tcp", "fd00:10:244::2", "fd00:10:244:1::2", 8011, 6, True],
        [prefix, "tcp", "10.244.0.3", "10.244.1.2", 80, 4, True],
        [prefix, "tcp", "10.244.0.3", "10.244.1.2", 9000, 4, True],
        [prefix, "tcp", "10.244.0.3", "10.244.1.2", 81, 4, True],
        [prefix, "tcp", "fd00:10:244::3", "fd00:10:244:1::2", 8010, 6, True],
        [prefix, "tcp", "fd00:10:244::3", "fd00:10:244:1::2", 8011, 6, True],
    ] == seen["drops"]
    assert seen["lost"] is False


@WHO
def test_random_dnat_reaches_both_endpoints_of_a_service_in_both_families(who: str) -> None:
    for served in kernel_scenes.run(who, "balanced").values():
        assert ["open"] == served["met"]
        assert 40 == sum(served["served"])
        assert min(served["served"]) > 0  # by chance once in 5e11 runs


def test_masquerading_hides_a_pod_behind_its_node() -> None:
    assert ["10.244.0.2", "172.18.0.2"] == kernel_scenes.run("self", "masqueraded")


@WHO
def test_replacing_a_table_lets_nothing_through_and_drops_nothing_in_between(who: str) -> None:
    seen = kernel_scenes.run(who, "atomic")
    assert [] == seen["failed"]
    assert seen["swaps"] > 20
    assert (seen["sent"], 0) == (seen["allowed"], seen["denied"])


@WHO
def test_a_refused_ruleset_names_the_object_and_leaves_the_old_one_in_force(who: str) -> None:
    seen = kernel_scenes.run(who, "refusal")
    assert ["silence", "silence", "10.244.0.2"] == seen["met"]
    assert seen["said"][0].startswith('the kernel refused rule of chain policy forward "shop/open": ')
    assert seen["said"][1].startswith("the kernel refused chain policy late: ")
    assert "sysctl -w net.core.wmem_max=" in seen["said"][2]


def test_large_rulesets_are_taken_and_200_rules_are_in_force_within_20_ms() -> None:
    seen = kernel_scenes.run("self", "large")
    assert ["10.244.0.2", "silence"] == seen["met"]
    assert seen["encode"] < 0.08  # 8 ms on an idle machine
    assert seen["encode"] + seen["load"] < 0.2  # 20 ms on an idle machine


@WHO
def test_a_few_events_are_all_there_and_none_is_reported_lost(who: str) -> None:
    last = ["udp", "fd00:10:244::2", 53, 6]
    assert {"drops": 100, "lost": False, "lost later": False, "last": last} == kernel_scenes.run(who, "flooded", "100")


@WHO
def test_events_that_the_kernel_could_not_queue_are_noticed_for_good(who: str) -> None:
    seen = kernel_scenes.run(who, "flooded", "60000")
    assert 0 < seen["drops"] < 60000
    assert (True, True) == (seen["lost"], seen["lost later"])


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed: nothing to compare with")
def test_nft_lists_our_messages_and_our_text_alike() -> None:
    ours, text = kernel_scenes.run("self", "listed")
    assert text == ours
    for words in ('comment "a/b"', 'log prefix "a log/prefix" group 7', "dnat ip6 to [fd00::1]:53", "ip daddr != 10.0.0.0/12"):
        assert words in ours
