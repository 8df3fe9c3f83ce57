# SPDX-License-Identifier: Apache-2.0
"""The access log tells which proxy refused a probe, and says nothing where two could have; garbage is counted, never believed.

The lines are what Envoy 1.40 wrote for such probes, with addresses of their own.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.lab.mesh import accesslog
from ztconform.lab.mesh.accesslog import FORMAT, AccessLog, Denial
from ztconform.model import Ref

NOW = 1_795_340_900.0  # seconds since the epoch
CLIENT, SERVER, ELSEWHERE = "10.244.0.7", "10.244.1.9", "10.244.1.10"
PAYMENT, CHECKOUT = Ref("shop", "payment-0"), Ref("shop", "checkout-0")
SERVICE = "10.96.0.12"
NO_ADMIN = "ns[shop]-policy[no-admin]-rule[0]"
RULE = f"rbac_access_denied_matched_policy[{NO_ADMIN}]"
IMPLICIT = "rbac_access_denied_matched_policy[none]"
NO_CERTIFICATE = (
    "TLS_error:|268435648:SSL_routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:"
    "peer_did_not_provide_required_client_certificate:TLS_error_end"
)
UNTRUSTED = "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:TLS_error_end"
ALERT = "TLS_error:|268436502:SSL_routines:OPENSSL_internal:SSLV3_ALERT_CERTIFICATE_UNKNOWN:TLS_error_end"
REFUSED = "delayed_connect_error:_Connection_refused"
HTTP_TO_TLS = "TLS_error|error:1000009c:SSL_routines:OPENSSL_internal:HTTP_REQUEST:TLS_error_end"

Line = dict[str, Any]


def line(side: str, pod: Ref, start: float = 0.0, **said: Any) -> Line:
    """Return an entry that begins `start` seconds after the probe was sent; Envoy has null for what it does not know."""
    return {**dict.fromkeys(FORMAT), "side": side, "pod": str(pod), "start": f"{NOW + start:.6f}", **said}


def request(nonce: str = "n1", details: str = "via_upstream", **said: Any) -> Line:
    given = {"nonce": nonce, "details": details, "remote": f"{CLIENT}:41000", "local": f"{SERVER}:8080", "chain": "mtls"}
    return line("inbound-request", PAYMENT, **{**given, "tls": "TLSv1.3", **said})


def connection(start: float = 0.001, pod: Ref = PAYMENT, **said: Any) -> Line:
    return line("inbound-connection", pod, start, **{"remote": f"{CLIENT}:40000", "local": f"{SERVER}:8080", **said})


def outbound(side: str = "outbound-request", start: float = 0.001, **said: Any) -> Line:
    given = {"nonce": "n1" if side == "outbound-request" else None, "remote": f"{CLIENT}:40000", "local": f"{SERVICE}:80"}
    through = {"upstream": f"{SERVER}:8080", "upstream_local": f"{CLIENT}:41000"}
    return line(side, CHECKOUT, start, **{**given, **through, **said})


def fed(lines: Sequence[Line], *, target: str = SERVER, port: int = 8080, captured: bool = False, sent: bool = True) -> AccessLog:
    log = AccessLog(clock=lambda: NOW)
    if sent:
        log.sent("n1", "TCP", CLIENT, 40000, target, port, captured=captured)
    log.feed("".join(json.dumps(entry) + "\n" for entry in lines).encode())
    assert 0 == log.damaged
    return log


def brief(denial: Denial | None) -> tuple[str, str, str, Ref | None] | None:
    return None if denial is None else (denial.layer, denial.how, denial.rule, denial.pod)


REQUESTS: list[tuple[str, list[Line], object]] = [
    ("a rule that denies is named", [request(details=RULE)], ("l7", "http-rbac", NO_ADMIN, PAYMENT)),
    ("a request that no rule allows has no policy's name", [request(details=IMPLICIT)], ("l7", "http-rbac", "", PAYMENT)),
    (
        "a denied gRPC call, answered with 200, is denied",
        [request(details=IMPLICIT, code=200)],
        ("l7", "http-rbac", "", PAYMENT),
    ),
    (
        "another's name for a rule is kept as it is",
        [request(details="rbac_access_denied_matched_policy[by hand]")],
        ("l7", "http-rbac", "by hand", PAYMENT),
    ),
    ("a path that cannot be normalized", [request(details="path_normalization_failed")], ("l7", "http-path", "", PAYMENT)),
    ("a request that went through is no denial", [request()], None),
    ("an application's own 403 is no denial", [request(code=403)], None),
    ("a path is no detail", [request(details=f"x{RULE}")], None),
    ("another's nonce is another's denial", [request(nonce="n2", details=RULE)], None),
    ("a request that came twice is nobody's", [request(details=RULE), request(details=IMPLICIT, start=0.3)], None),
    ("nor where both were refused alike", [request(details=RULE), request(details=RULE, start=0.3)], None),
    ("what the client's own proxy says of a request is not the server's word", [outbound(details=RULE)], None),
    (
        "a request that came through outweighs what its connection met later",
        [request(), connection(remote=f"{CLIENT}:40000", terminated=IMPLICIT)],
        None,
    ),
]


@pytest.mark.parametrize(("what", "lines", "wanted"), REQUESTS, ids=[what for what, *_ in REQUESTS])
def test_a_request_is_found_by_its_nonce(what: str, lines: list[Line], wanted: object) -> None:
    assert wanted == brief(fed(lines, sent=False).of("n1")) == brief(fed(lines).of("n1"))


NOT_MTLS = ("mtls", "not-mtls", "", PAYMENT)
CERTIFICATE = ("mtls", "client-certificate", "", PAYMENT)
REFUSED_PLAINTEXT = {"details": "filter_chain_not_found", "tls_failure": HTTP_TO_TLS}

CONNECTIONS: list[tuple[str, list[Line], object]] = [
    ("plaintext that finds no filter chain", [connection(**REFUSED_PLAINTEXT)], NOT_MTLS),
    ("raw bytes that find none", [connection(details="filter_chain_not_found")], NOT_MTLS),
    ("no client certificate", [connection(chain="mtls", tls_failure=NO_CERTIFICATE)], CERTIFICATE),
    ("an untrusted client certificate", [connection(chain="mtls", tls_failure=UNTRUSTED)], CERTIFICATE),
    (
        "TCP that a rule denies",
        [connection(chain="mtls", tls="TLSv1.3", terminated=RULE)],
        ("l7", "tcp-rbac", NO_ADMIN, PAYMENT),
    ),
    (
        "TCP that no rule allows, told by listener and filter alike",
        [connection(chain="mtls", terminated=IMPLICIT), connection(chain="mtls", terminated=IMPLICIT)],
        ("l7", "tcp-rbac", "", PAYMENT),
    ),
    ("as above, told by the filter alone", [connection(), connection(terminated=IMPLICIT)], ("l7", "tcp-rbac", "", PAYMENT)),
    ("a client that itself hung up with an alert", [connection(chain="mtls", tls_failure=ALERT)], None),
    ("a handshake that broke off", [connection(chain="mtls", tls_failure="TLS_error_end")], None),
    ("a connection that said nothing", [connection()], None),
    ("a connection that was served", [connection(chain="mtls", tls="TLSv1.3")], None),
    ("no entry at all", [], None),
    ("another port of the client", [connection(remote=f"{CLIENT}:40001", **REFUSED_PLAINTEXT)], None),
    ("another client", [connection(remote=f"{ELSEWHERE}:40000", **REFUSED_PLAINTEXT)], None),
    ("the same port towards another pod", [connection(local=f"{ELSEWHERE}:8080", **REFUSED_PLAINTEXT)], None),
    ("the same port towards another port", [connection(local=f"{SERVER}:9090", **REFUSED_PLAINTEXT)], None),
    ("long before it was sent", [connection(start=-0.5, **REFUSED_PLAINTEXT)], None),
    ("long after it was sent", [connection(start=3.0, **REFUSED_PLAINTEXT)], None),
    (
        "the same port again, later",
        [connection(terminated=IMPLICIT), connection(0.9, **REFUSED_PLAINTEXT)],
        ("l7", "tcp-rbac", "", PAYMENT),
    ),
    ("the same port twice at once", [connection(**REFUSED_PLAINTEXT), connection(0.02, **REFUSED_PLAINTEXT)], None),
    ("two denials of one connection", [connection(**REFUSED_PLAINTEXT), connection(terminated=IMPLICIT)], None),
    ("a line without addresses", [connection(remote=None, **REFUSED_PLAINTEXT)], None),
    ("the client's own proxy", [{**connection(**REFUSED_PLAINTEXT), "side": "outbound-connection"}], None),
]


@pytest.mark.parametrize(("what", "lines", "wanted"), CONNECTIONS, ids=[what for what, *_ in CONNECTIONS])
def test_a_connection_is_found_by_the_address_it_came_from(what: str, lines: list[Line], wanted: object) -> None:
    assert wanted == brief(fed(lines).of("n1"))


def test_behind_the_address_of_a_service_any_pod_may_have_refused_but_only_one() -> None:
    here = connection(**REFUSED_PLAINTEXT)
    there = connection(pod=Ref("shop", "payment-1"), local=f"{ELSEWHERE}:8080", **REFUSED_PLAINTEXT)
    assert NOT_MTLS == brief(fed([here], target=SERVICE, port=80).of("n1"))
    assert fed([here, there], target=SERVICE, port=80).of("n1") is None
    assert NOT_MTLS == brief(fed([here, there]).of("n1"))


def test_ipv6_and_mapped_addresses_are_found_as_they_were_sent() -> None:
    log = AccessLog(clock=lambda: NOW)
    log.sent("six", "TCP", "fd00:244::7", 40000, "fd00:244:0::9", 8080, captured=False)
    log.sent("four", "TCP", CLIENT, 40000, SERVER, 8080, captured=False)
    for entry in (
        connection(remote="[fd00:244:0:0::7]:40000", local="[fd00:244::9]:8080", **REFUSED_PLAINTEXT),
        connection(remote=f"[::ffff:{CLIENT}]:40000", **REFUSED_PLAINTEXT),
    ):
        log.feed(json.dumps(entry).encode() + b"\n")
    assert NOT_MTLS == brief(log.of("six")) == brief(log.of("four"))


HTTP, TCP = "outbound-request", "outbound-connection"
BEHIND = connection(0.002, remote=f"{CLIENT}:41000", **REFUSED_PLAINTEXT)
BY_ALERT = ("mtls", "client-certificate", "", None)

THROUGH: list[tuple[str, list[Line], object]] = [
    ("plaintext that it passed on", [outbound(HTTP), BEHIND], NOT_MTLS),
    ("the same of a TCP client", [outbound(TCP), BEHIND], NOT_MTLS),
    ("the same, told by listener and filter", [outbound(TCP), outbound(TCP), BEHIND], NOT_MTLS),
    (
        "TCP that no rule allows",
        [outbound(TCP), connection(0.002, remote=f"{CLIENT}:41000", chain="mtls", terminated=IMPLICIT)],
        ("l7", "tcp-rbac", "", PAYMENT),
    ),
    (
        "a certificate that the server refused after the handshake",
        [outbound(HTTP), connection(0.002, remote=f"{CLIENT}:41000", chain="mtls", tls_failure=UNTRUSTED)],
        CERTIFICATE,
    ),
    ("a certificate that the server refused", [outbound(HTTP, upstream_failure=ALERT, upstream_local=None)], BY_ALERT),
    (
        "a server of the wrong identity",
        [outbound(HTTP, upstream_failure=UNTRUSTED, upstream_local=None)],
        ("mtls", "server-certificate", "", CHECKOUT),
    ),
    ("a server that is not there", [outbound(HTTP, upstream_failure=REFUSED, upstream_local=None)], None),
    ("no connection to a server yet", [outbound(HTTP, upstream_local=None, upstream=None)], None),
    ("no entry of the server", [outbound(HTTP)], None),
    ("a client that was sent to two servers", [outbound(HTTP), outbound(HTTP, 0.3), BEHIND], None),
    ("two entries of one moment that differ", [outbound(TCP), outbound(TCP, upstream_local=f"{CLIENT}:5"), BEHIND], None),
    ("another connection of the client", [outbound(TCP, remote=f"{CLIENT}:40002"), BEHIND], None),
    ("another target", [outbound(TCP, local=f"{SERVICE}:81"), BEHIND], None),
    ("a connection to another pod", [outbound(HTTP, upstream=f"{ELSEWHERE}:8080"), BEHIND], None),
    ("a port of an earlier connection", [outbound(HTTP), BEHIND | {"start": f"{NOW - 5:.6f}"}], None),
    ("the server's entry alone", [connection(**REFUSED_PLAINTEXT)], None),
]


@pytest.mark.parametrize(("what", "lines", "wanted"), THROUGH, ids=[what for what, *_ in THROUGH])
def test_a_captured_client_is_followed_through_its_own_proxy(what: str, lines: list[Line], wanted: object) -> None:
    assert wanted == brief(fed(lines, target=SERVICE, port=80, captured=True).of("n1"))
    assert wanted == brief(fed(lines[::-1], target=SERVICE, port=80, captured=True).of("n1"))


def test_a_denial_says_in_envoys_words_what_was_refused_and_where() -> None:
    denial = fed([connection(chain="mtls", tls_failure=NO_CERTIFICATE)]).of("n1")
    assert (
        Denial(
            nonce="n1",
            layer="mtls",
            how="client-certificate",
            details=NO_CERTIFICATE,
            rule="",
            pod=PAYMENT,
            by=(SERVER, 8080),
        )
        == denial
    )


def test_what_was_not_sent_by_tcp_or_not_sent_at_all_is_nobodys() -> None:
    log = AccessLog(clock=lambda: NOW)
    log.sent("n1", "UDP", CLIENT, 40000, SERVER, 8080, captured=False)
    log.feed(json.dumps(connection(**REFUSED_PLAINTEXT)).encode() + b"\n")
    assert log.of("n1") is None
    assert log.of("never") is None


def noted(*filters: tuple[str, str, str]) -> Line:
    """Return what shadow rules leave in the metadata: of filters by prefix, result, and the rule that matched."""
    said = {}
    for prefix, result, rule in filters:
        said |= {f"{prefix}_shadow_engine_result": result} | ({f"{prefix}_shadow_effective_policy_id": rule} if rule else {})
    return {"http_rbac": said}


DENIES, ALLOWS_NOT = ("istio_dry_run_deny", "denied", NO_ADMIN), ("istio_dry_run_allow", "denied", "")
DRY_RUNS: list[tuple[str, list[Line], str | None]] = [
    ("a dry-run DENY that matches is named", [request(**noted(DENIES))], NO_ADMIN),
    ("a dry-run ALLOW that matches nothing has no name", [request(**noted(ALLOWS_NOT))], ""),
    ("a dry-run DENY comes first", [request(**noted(ALLOWS_NOT, DENIES))], NO_ADMIN),
    ("by a prefix of the lab's own", [request(**noted(("deny", "denied", NO_ADMIN)))], NO_ADMIN),
    ("dry runs that allow", [request(**noted(("deny", "allowed", ""), ("allow", "allowed", NO_ADMIN)))], None),
    ("an audit denies nothing", [request(**noted(("istio_audit", "denied", NO_ADMIN)))], None),
    ("rules in force are no dry run", [request(http_rbac={"deny_enforced_engine_result": "denied"})], None),
    ("no dry run", [request()], None),
    ("a request that came twice", [request(**noted(DENIES)), request(**noted(DENIES), start=0.2)], None),
    ("nothing", [], None),
]


@pytest.mark.parametrize(("what", "lines", "wanted"), DRY_RUNS, ids=[what for what, *_ in DRY_RUNS])
def test_a_dry_run_says_what_it_would_deny(what: str, lines: list[Line], wanted: str | None) -> None:
    log = fed(lines)
    assert wanted == log.would_deny("n1")
    assert log.of("n1") is None


def test_an_audit_rule_is_named_where_it_matched() -> None:
    assert NO_ADMIN == fed([request(**noted(("istio_audit", "allowed", NO_ADMIN), DENIES))]).audited("n1")
    assert "" == fed([request(**noted(("istio_audit", "allowed", ""), DENIES))]).audited("n1")


def test_a_request_came_in_plaintext_or_by_tls_if_it_was_served() -> None:
    assert fed([request(tls=None, chain="plaintext")]).in_plaintext("n1") is True
    assert fed([request()]).in_plaintext("n1") is False
    assert fed([request(tls=None, details=RULE)]).in_plaintext("n1") is None
    assert fed([request(), request(start=0.2)]).in_plaintext("n1") is None
    assert fed([]).in_plaintext("n1") is None


def test_callers_that_still_send_plaintext_are_listed_by_the_pod_that_served_them() -> None:
    log = fed(
        [
            request(tls=None, remote=f"{CLIENT}:1"),
            request(tls=None, remote=f"{CLIENT}:2"),
            connection(chain="plaintext", remote=f"{ELSEWHERE}:3", pod=CHECKOUT),
            request(remote="10.244.0.1:4"),
            request(tls=None, details=RULE, remote="10.244.0.2:5"),
            connection(**REFUSED_PLAINTEXT, remote="10.244.0.3:6"),
            connection(remote="10.244.0.4:7"),
            connection(chain="plaintext", terminated=IMPLICIT, remote="10.244.0.5:8"),
            outbound(tls=None, chain="x"),
        ]
    )
    assert {PAYMENT: {CLIENT}, CHECKOUT: {ELSEWHERE}} == log.plaintext_callers()


@given(st.lists(st.integers(1, 40), max_size=30))
def test_a_line_may_come_in_any_pieces(cuts: list[int]) -> None:
    data = "".join(json.dumps(entry) + "\n" for entry in (request(details=RULE), connection(**REFUSED_PLAINTEXT))).encode()
    whole, pieces = AccessLog(clock=lambda: NOW), AccessLog(clock=lambda: NOW)
    whole.feed(data)
    for cut in cuts:
        pieces.feed(data[:cut])
        data = data[cut:]
    pieces.feed(data)
    assert 2 == len(whole.entries)
    assert whole.entries == pieces.entries
    assert 0 == pieces.damaged


def test_half_a_line_is_no_entry_yet() -> None:
    log = AccessLog(clock=lambda: NOW)
    text = json.dumps(request(details=RULE)).encode()
    log.feed(text)
    assert (None, 0) == (log.of("n1"), log.damaged)
    log.feed(b"\n")
    assert "http-rbac" == log.of("n1").how


_PLAIN = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20)
ANY_JSON = _PLAIN | st.lists(_PLAIN, max_size=3) | st.dictionaries(st.text(max_size=5), _PLAIN, max_size=3)


@given(st.binary(max_size=400))
def test_garbage_is_counted_and_makes_no_entry(garbage: bytes) -> None:
    log = AccessLog(clock=lambda: NOW)
    log.feed(garbage + b"\n")
    assert () == log.entries
    assert sum(bool(part.strip()) for part in garbage.split(b"\n")) == log.damaged
    log.feed(json.dumps(request(details=RULE)).encode() + b"\n")
    assert "http-rbac" == log.of("n1").how


@given(st.dictionaries(st.sampled_from(["side", "pod", *FORMAT]), ANY_JSON, max_size=4))
def test_no_value_of_a_field_breaks_the_reader_or_makes_a_denial_of_its_own(changed: dict[str, Any]) -> None:
    log = AccessLog(clock=lambda: NOW)
    log.sent("n1", "TCP", CLIENT, 40000, SERVER, 8080, captured=False)
    log.feed(json.dumps({**connection(), **changed}).encode() + b"\n")
    assert 1 == len(log.entries) + log.damaged
    assert log.of("n1") is None
    assert log.would_deny("n1") is None


MISSING: list[tuple[str, Callable[[Line], Line]]] = [
    ("no side", lambda entry: entry | {"side": None}),
    ("another side", lambda entry: entry | {"side": "sideways"}),
    ("a list for a side", lambda entry: entry | {"side": ["inbound-request"]}),
    ("no pod", lambda entry: entry | {"pod": None}),
    ("a pod without a namespace", lambda entry: entry | {"pod": "payment-0"}),
    ("a pod without a name", lambda entry: entry | {"pod": "shop/"}),
    ("no start", lambda entry: entry | {"start": None}),
    ("a start that is no number", lambda entry: entry | {"start": "soon"}),
    ("a start without end", lambda entry: entry | {"start": "inf"}),
    ("a start beyond floats", lambda entry: entry | {"start": 10**400}),
]


@pytest.mark.parametrize(("what", "broken"), MISSING, ids=[what for what, _ in MISSING])
def test_an_entry_without_what_it_is_joined_by_is_damage(what: str, broken: Callable[[Line], Line]) -> None:
    log = AccessLog(clock=lambda: NOW)
    log.feed(json.dumps(broken(request(details=RULE))).encode() + b"\n")
    assert (1, ()) == (log.damaged, log.entries)


def test_json_that_nests_without_end_is_damage() -> None:
    log = AccessLog(clock=lambda: NOW)
    log.feed(b"[" * 200_000 + b"\n")
    assert 1 == log.damaged


def test_a_line_without_end_is_damage_once_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesslog, "_LONGEST", 100)
    log = AccessLog(clock=lambda: NOW)
    for _ in range(5):
        log.feed(b"x" * 60)
    log.feed(b"the end of it\n" + json.dumps(request(details=RULE)).encode() + b"\n")
    assert 1 == log.damaged
    assert "http-rbac" == log.of("n1").how


def test_only_so_much_is_remembered_and_what_is_forgotten_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesslog, "_KEPT", 3)
    log = AccessLog(clock=lambda: NOW)
    for n in range(5):
        log.sent(f"n{n}", "TCP", CLIENT, n, SERVER, 8080, captured=False)
        log.feed(json.dumps(request(nonce=f"n{n}", details=RULE)).encode() + b"\n")
    assert 3 == len(log.entries)
    assert [None, None, "l7", "l7", "l7"] == [d and d.layer for d in (log.of(f"n{n}") for n in range(5))]
