# SPDX-License-Identifier: Apache-2.0
"""Real connections through the one real Envoy meet what Istio's sidecars do, whoever opens them and however."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.lab import mesh_scenes

pytest.importorskip("cryptography", reason="no certificates without it")
pytest.importorskip("envoy", reason="the mesh's proxy is not installed")

WHO = pytest.mark.parametrize("who", ["self", "nobody"])
PATHS = Path(__file__).parents[1] / "unit" / "data" / "istio" / "path-normalization.yaml"
CLOSED = "closed request ECONNRESET"
PLAIN, UNMESHED, ECHO = "200 from api as nobody", "200 from legacy as nobody", "echo from api"

ALWAYS = {
    "api to itself by address": PLAIN,
    "web to legacy by VIP": UNMESHED,
    "web to legacy by address": UNMESHED,
    "health": "200 ztc-agent: 200 ok",
    "health from a meshed pod": "200 ztc-agent: 200 ok",
    "the proxy itself, inbound": "refused connect ECONNREFUSED",
    "the proxy itself, outbound": "refused connect ECONNREFUSED",
    "its own proxy": "refused connect ECONNREFUSED",
}
# By mode: who is known to the server, by name or by a Service's address; and who comes in plaintext.
MTLS = (
    "web by VIP",
    "web by VIP, IPv6",
    "web by headless name",
    "web by headless name with port, IPv6",
)
PLAINTEXT_HTTP = ("web by address", "web undeclared", "legacy by VIP", "legacy by address", "legacy by address, IPv6")
PLAINTEXT_HTTP += ("legacy undeclared",)
PLAINTEXT_TCP = ("web TCP by address", "legacy TCP", "legacy undeclared TCP")


@pytest.fixture(scope="module", params=["self", "nobody"])
def modes(request: pytest.FixtureRequest) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = mesh_scenes.run(request.param, "modes")
    return found


@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT", "DISABLE"])
def test_meshed_clients_are_known_wherever_the_server_takes_mtls(modes: dict[str, dict[str, str]], mode: str) -> None:
    known = mode != "DISABLE"
    wanted = {way: "200 from api as web" if known else PLAIN for way in MTLS}
    wanted |= {"web TCP by VIP": ECHO, "api to itself by VIP": "200 from api as api" if known else PLAIN}
    assert wanted == {way: modes[mode][way] for way in wanted}


@pytest.mark.parametrize("mode", ["PERMISSIVE", "DISABLE"])
def test_plaintext_is_served_where_the_mode_admits_it(modes: dict[str, dict[str, str]], mode: str) -> None:
    wanted = dict.fromkeys(PLAINTEXT_HTTP, PLAIN) | dict.fromkeys(PLAINTEXT_TCP, ECHO)
    assert wanted == {way: modes[mode][way] for way in wanted}


def test_plaintext_is_refused_under_strict_on_every_port_and_from_everybody(modes: dict[str, dict[str, str]]) -> None:
    found = {way: modes["STRICT"][way] for way in PLAINTEXT_HTTP + PLAINTEXT_TCP}
    # By a pod's address on an HTTP port the client's own proxy answers for the server, as Istio's does.
    assert "503 envoy" == found.pop("web by address")[:9]
    assert dict.fromkeys(found, CLOSED) == found


@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT", "DISABLE"])
def test_what_the_mesh_has_no_say_in_is_the_same_in_every_mode(modes: dict[str, dict[str, str]], mode: str) -> None:
    assert {**modes[mode], **ALWAYS} == modes[mode]
    assert "closed request" == modes[mode]["web to nobody"].rpartition(" ")[0]


def test_a_port_has_its_own_mode_whether_the_pod_declares_it_or_only_a_policy_names_it(modes: dict[str, dict[str, str]]) -> None:
    assert {
        "legacy 8080": PLAIN,
        "legacy 8081": PLAIN,
        "legacy 9000": CLOSED,
        "legacy undeclared, named": PLAIN,
        "legacy undeclared": CLOSED,
        "web 80": "200 from api as web",
        "web 81": PLAIN,
    } == modes["by port"]


@WHO
def test_authorization_refuses_by_identity_and_method_and_the_log_names_the_rule(who: str) -> None:
    seen = mesh_scenes.run(who, "authorization")
    denied, rule = "403 envoy: RBAC: access denied", "ns[shop]-policy[p]-rule[0]"
    assert ("200 from api as web", denied) == (seen["web"], seen["intruder"])
    assert ("echo from api", "closed") == (seen["web TCP"], seen["intruder TCP"].split()[0])
    assert "200 from third as intruder" == seen["intruder to another"]
    by_default = "rbac_access_denied_matched_policy[none]"
    assert ["shop/api", 403, by_default, f"{mesh_scenes.SHOP}intruder", "8080-mtls", "TLSv1.3"] == seen["refused"]
    assert ["shop/api", by_default] == seen["refused TCP"]
    assert (denied, "200 from api as web") == (seen["DELETE"], seen["GET"])
    assert f"rbac_access_denied_matched_policy[{rule}]" == seen["deleted"]
    assert "200 from api as web" == seen["dry run"]
    assert rule in seen["shadow"].values()
    assert ["200 from api as intruder", "echo from api"] == seen["none"]


@WHO
def test_a_client_accepts_the_accounts_of_the_endpoints_and_no_other(who: str) -> None:
    seen = mesh_scenes.run(who, "identity")
    assert ["200 from api as web", "200 from third as web"] == seen["both"]
    assert ["200 from api as web", "200 from legacy as nobody"] == seen["mixed"]
    assert "503 envoy" == seen["impostor by VIP"][:9]
    pod, code, flags, why = seen["impostor"]
    assert ("shop/web", 503, "UF") == (pod, code, flags)
    assert f"expected_SANs:_{mesh_scenes.SHOP}api" in why
    assert ("closed", "503") == (seen["impostor TCP"].split()[0], seen["impostor by headless name"].split()[0])
    assert ["200 from third as we", "503 envoy: upstream "] == seen["impostor in both"]
    assert "503 envoy: upstream " == seen["foreign by VIP"]
    assert "200 from api as web" == seen["itself again"]


def test_a_forged_header_is_nobody_and_a_certificate_is_what_its_key_proves() -> None:
    seen = mesh_scenes.run("self", "forged")
    assert {
        "meshed": "200 from api as web",
        "meshed by address": PLAIN,
        "unmeshed": PLAIN,
        "PERMISSIVE intruder ['istio']": "200 as intruder",
        "STRICT intruder ['istio']": "200 as intruder",
        "PERMISSIVE intruder []": "ConnectionResetError",  # no sidecar, and no TLS of the application's own on an HTTP port
        "STRICT intruder []": "200 as intruder",
        "PERMISSIVE foreign ['istio']": "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "STRICT foreign ['istio']": "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "PERMISSIVE none ['istio']": "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "STRICT none ['istio']": "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    } == seen


def test_paths_reach_the_application_as_each_normalization_says() -> None:
    table = yaml.safe_load(PATHS.read_text(encoding="utf-8"))["paths"]
    seen = mesh_scenes.run("self", "paths", json.dumps([sent for sent, *_ in table]))
    wanted = {sent: [[path, path] for path in paths] for sent, *paths in table}
    assert wanted == seen


def test_every_kind_of_application_hears_its_own_protocol() -> None:
    seen = mesh_scenes.run("self", "applications")
    http1, http2 = "GET / HTTP/1.1", "PRI * HTTP/2.0"
    for mode in ("PERMISSIVE", "STRICT"):
        for sent in ("HTTP/1.1", "HTTP/2"):
            assert [http1, http2, http2] == [seen[f"{mode}: {sent} to {app}"] for app in ("http", "http2", "grpc")]
        assert ["GET /ws HTTP/1.1", "HTTP/1.1 101 Switching Protocols", "hello"] == seen[f"{mode}: WebSocket"]
        assert ["banner\n", "hello"] == seen[f"{mode}: tcp"]


@WHO
def test_what_the_firewall_drops_is_a_503_of_the_clients_own_proxy_and_delays_nobody_else(who: str) -> None:
    seen = mesh_scenes.run(who, "dropped")
    assert ("200 from api as web", "503 envoy") == (seen["before"], seen["dropped"][:9])
    assert 0.3 <= seen["took"] < 2.0
    assert [503, "UF"] == seen["logged"]
    assert "closed" == seen["TCP"].split()[0]
    assert [["503"], ["200"]] == seen["many"]
    assert "200 from api as web" == seen["after"]
    assert seen["lingered"] < 1.0


def test_no_connection_leaves_in_plaintext_by_reuse_of_a_source_port() -> None:
    seen = mesh_scenes.run("self", "leak", "4000")
    assert {"answered 200 envoy": 4000} == seen["met"]
    assert {"8080-mtls TLSv1.3": 4000} == seen["chains"]


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed: nothing to compare with")
def test_nft_lists_our_capture_rules_and_our_text_alike() -> None:
    ours, text = mesh_scenes.run("self", "listed", str(shutil.which("nft")))
    assert text == ours
    for words in ("meta mark 0x00000539 notrack", "redirect to :15006", "reject with tcp reset", "ct status"):
        assert words in ours
