# SPDX-License-Identifier: Apache-2.0
"""Who refused a probe is read from the lines of Linkerd's proxies: a request by its ID, a connection by its ends."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ztconform.evidence import Observation
from ztconform.kube.linkerdcauses import Word, word
from ztconform.kube.pods import KubePod
from ztconform.kube.proxylog import Sent
from ztconform.mesh.linkerdlog import Line, read
from ztconform.model import Attempt, Probe, Ref, Workload
from ztconform.stacks import linkerdmesh

SERVER, CLIENT = Ref("shop", "payment-0"), Ref("shop", "frontend-0")
OWN, THROUGH = ("10.244.0.7", 40000), ("10.244.0.7", 41000)  # of the client, and of its proxy
IDENTITY = "frontend.shop-1.serviceaccount.identity.linkerd.cluster.local"


def made(ref: Ref, address: str) -> KubePod:
    workload = Workload(ref=Ref(ref.namespace, ref.name[:-2]), meshed=True)
    return KubePod(ref=ref, real=ref, workload=workload, node=0, addresses=(address,), serves=True)


def sent(*, captured: bool = True, port: int = 8080) -> Sent:
    probe = Probe(source=CLIENT, target=Ref("shop", "payment"), port=port)
    attempt = Attempt(id="a", row="r", probe=probe, targets=(SERVER,), timeout=1.0)
    met = Observation(attempt="a", nonce="n1", sent=1, ended=2, signal="closed", stage="request", source="10.244.0.7 40000")
    client = made(CLIENT, "10.244.0.7") if captured else None
    return Sent(attempt=attempt, observation=met, client=client, servers=(made(SERVER, "10.244.1.9"),))


def access(nonce: str = "n1", status: int = 403, client: tuple[str, int] = THROUGH, identity: str = IDENTITY) -> dict[str, Any]:
    return {
        "client.addr": "{}:{}".format(*client),
        "client.id": identity,
        "timestamp": "2026-11-29T01:00:00.5Z",
        "method": "GET",
        "uri": "http://payment.shop-1/v1?a=b",
        "version": "HTTP/2.0",
        "trace_id": nonce,
        "request_bytes": "",
        "user_agent": "ztconform",
        "host": "payment.shop-1",
        "status": status,
        "total_ns": "61312",
        "processing_ns": "21200",
    }


def event(
    message: str, *spans: dict[str, Any], side: str = "inbound", thread: str = "ThreadId(1)", **fields: Any
) -> dict[str, Any]:
    return {
        "timestamp": "[     7.251313s]",
        "level": "INFO",
        "fields": {"message": message, **fields},
        "target": "linkerd_app_inbound::policy",
        "spans": [{"name": side}, *spans],
        "threadId": "ThreadId(1)",
    }


PORT = {"port": 8080, "name": "server"}
OF_SERVER = {"server.group": "policy.linkerd.io", "server.kind": "server", "server.name": "payment-http"}
REFUSED = event("Request denied", PORT, **OF_SERVER, **{"client.tls": "Some(Established { client_id: Some(..) })"})
TOLD = {"client.addr": "10.244.0.7:41000", "name": "rescue"}
FAILED = event("HTTP/1.1 request failed", PORT, TOLD, error="client 10.244.0.7:41000: unauthorized request on route", path="/v1")
LOST = event(
    "HTTP/1.1 request failed",
    {"client.addr": "10.244.0.7:40000", "name": "rescue"},
    side="outbound",
    error="logical service: unavailable",
    path="/v1",
)


def lines(*said: dict[str, Any], of: Ref = SERVER) -> list[Line]:
    found = [read(json.dumps(one).encode(), of, ()) for one in said]
    return [line for line in found if line is not None]


def test_a_request_that_a_server_refuses_is_known_by_its_id_and_names_the_server() -> None:
    told = word(sent(), lines(REFUSED, FAILED, access()))
    assert told.denied is not None
    assert ("payment-http", True, SERVER) == (told.denied.server, told.denied.authenticated, told.denied.pod)


def test_where_no_route_is_found_nobody_is_named() -> None:
    nowhere = event("HTTP/1.1 request failed", PORT, TOLD, error="no route found for request", path="/v1")
    told = word(sent(), lines(REFUSED, FAILED, nowhere, access(status=404)))
    assert told.denied is not None
    assert "" == told.denied.server


@pytest.mark.parametrize(
    "said",
    [
        (access(),),  # the application's own 403
        (access(status=500), REFUSED, FAILED),
        (REFUSED, event("HTTP/1.1 request failed", PORT, TOLD, error="unauthorized request on route", path="/other"), access()),
        (REFUSED, event("HTTP/1.1 request failed", PORT, TOLD, error="connection closed", path="/v1"), access()),
        (REFUSED, FAILED, access(client=("10.244.0.8", 41000))),
    ],
)
def test_what_the_proxy_does_not_say_it_refused_the_application_answered(said: tuple[dict[str, Any], ...]) -> None:
    told = word(sent(), lines(*said))
    assert (True, None) == (told.known, told.denied)


def test_a_server_is_named_by_what_was_said_on_the_same_thread() -> None:
    other = {**REFUSED, "threadId": "ThreadId(2)", "fields": {**REFUSED["fields"], "server.name": "other"}}
    told = word(sent(), lines(REFUSED, other, FAILED, access()))
    assert told.denied is not None
    assert "payment-http" == told.denied.server


def test_a_client_whose_own_proxy_answered_was_not_led_to_its_server() -> None:
    assert Word(known=True, unreached=True) == word(sent(), lines(LOST, of=CLIENT))
    assert Word(known=False) == word(sent(captured=False), lines(LOST, of=CLIENT))


def denied_connection(client: str, port: int = 7000, **fields: Any) -> dict[str, Any]:
    return event("Connection denied", {"port": port, "name": "server"}, client=client, tls="None(NoClientHello)", **fields)


@pytest.mark.parametrize(
    ("captured", "said", "known"),
    [
        (True, denied_connection("10.244.0.7:41000"), True),
        (False, denied_connection("10.244.0.7:40000"), True),
        (False, denied_connection("10.244.0.7:41000"), False),
        (True, denied_connection("10.244.0.8:41000"), False),
        (True, denied_connection("10.244.0.7:41000", port=7001), False),
    ],
)
def test_a_connection_is_known_by_its_ends(captured: bool, said: dict[str, Any], known: bool) -> None:
    assert known is word(sent(captured=captured, port=7000), lines(said)).known


def test_the_default_of_the_proxy_is_no_server_of_ours() -> None:
    (line,) = lines(denied_connection("10.244.0.7:41000", **{"server.kind": "default", "server.name": "deny"}))
    assert ("", False) == (line.server, line.authenticated)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"fields": 1, "spans": []}', b"[  0.1s] INFO linkerd", b"\xff"])
def test_what_is_no_line_of_these_is_none(text: bytes) -> None:
    assert read(text, SERVER, ()) is None


def test_a_plaintext_client_has_no_identity() -> None:
    (line,) = lines(access(identity="-", status=200))
    assert ("served", False, "/v1", "n1") == (line.what, line.authenticated, line.path, line.nonce)
    assert replace(line, authenticated=True) == lines(access(status=200))[0]


def test_an_identity_reads_as_a_spiffe_id() -> None:
    said = "audit.reader.shop-1.serviceaccount.identity.linkerd.cluster.local"
    assert "spiffe://cluster.local/ns/shop-1/sa/audit.reader" == linkerdmesh.spiffe(said)
    assert "somebody else" == linkerdmesh.spiffe("somebody else")


AUDITED = event("Request allowed", PORT, **OF_SERVER, **{"client.ip": "10.244.0.7", "client.tls": "Some(Established { .. })"})


def test_what_only_an_audit_let_in_is_told_with_its_server() -> None:
    told = word(sent(), lines(AUDITED, access(status=200), AUDITED, access("n2", status=200)))
    assert told.audited is not None
    assert ("payment-http", True) == (told.audited.server, told.audit_known)
    assert (None, True) == ((told := word(sent(), lines(access(status=200)))).audited, told.audit_known)


def test_where_only_some_of_a_clients_requests_were_audited_nobody_knows_which() -> None:
    assert not word(sent(), lines(AUDITED, access(status=200), access("n2", status=200))).audit_known


def test_the_audit_of_another_client_is_none_of_this_one() -> None:
    other = {**AUDITED, "fields": {**AUDITED["fields"], "client.ip": "10.244.0.8"}}
    assert word(sent(), lines(other, access(status=200))).audited is None
