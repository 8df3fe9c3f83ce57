# SPDX-License-Identifier: Apache-2.0
"""A line of a sidecar's output is read as an entry of its access log, or not at all: in our own format and in Istio's default."""

import json
from typing import Any

import pytest

from ztconform.mesh.denial import of_connection, of_request, of_upstream
from ztconform.mesh.logentry import Entry
from ztconform.model import Ref
from ztconform.stacks import istiolog
from ztconform.stacks.istiomesh import MESH_CONFIG

POD, OWN = Ref("shop", "payment-0"), ("10.244.1.9", "fd00::9")
START = "2026-11-28T17:00:00.123Z"


def entry(line: str) -> Entry:
    found = istiolog.read(line.encode(), POD, OWN)
    assert found is not None
    return found


def ours(**said: Any) -> str:
    return json.dumps({**dict.fromkeys(istiolog.FORMAT), "start": "1795340900.000001", **said})


def text(**said: str) -> str:
    """Return a line of pilot/pkg/model/telemetry_logging.go's EnvoyTextLogFormat."""
    given = {
        "request": "GET / HTTP/1.1",
        "code": "200",
        "details": "via_upstream",
        "terminated": "-",
        "failure": "-",
        "nonce": "n1",
        "upstream": "10.244.1.9:8080",
        "upstream_local": "127.0.0.6:40001",
        "local": "10.244.1.9:8080",
        "remote": "10.244.0.7:41000",
        "sni": "outbound_.80_._.payment.shop.svc.cluster.local",
        **said,
    }
    return (
        '[{start}] "{request}" {code} - {details} {terminated} "{failure}" 0 9 1 0 "-" "-" "{nonce}" "payment" "{upstream}" '
        "inbound|8080|| {upstream_local} {local} {remote} {sni} default"
    ).format(start=START, **given)


@pytest.mark.parametrize(
    ("local", "protocol", "side"),
    [
        ("10.244.1.9:8080", "HTTP/1.1", "inbound-request"),
        ("[fd00::9]:8080", "HTTP/2", "inbound-request"),
        ("10.244.1.9:8080", None, "inbound-connection"),
        ("10.96.0.12:80", "HTTP/1.1", "outbound-request"),
        ("10.244.2.2:8080", "-", "outbound-connection"),
    ],
)
def test_a_lines_side_is_told_by_where_its_client_wanted_to_go(local: str, protocol: str | None, side: str) -> None:
    assert side == entry(ours(local=local, protocol=protocol)).side


def test_a_denied_request_names_its_rule_in_both_formats() -> None:
    rule = "rbac_access_denied_matched_policy[ns[shop]-policy[no-admin]-rule[0]]"
    for line in (ours(local="10.244.1.9:8080", protocol="HTTP/1.1", nonce="n1", details=rule), text(code="403", details=rule)):
        denial = of_request(entry(line), "n1")
        assert denial is not None
        assert ("l7", "ns[shop]-policy[no-admin]-rule[0]") == (denial.layer, denial.rule)


def test_plaintext_that_found_no_filter_chain_is_a_refused_connection_in_the_default_format() -> None:
    line = text(request="- - -", code="0", details="filter_chain_not_found", nonce="-", upstream="-", upstream_local="-", sni="-")
    found = entry(line)
    denial = of_connection(found, "n1")
    assert "inbound-connection" == found.side
    assert ("10.244.0.7", 41000) == found.remote
    assert denial is not None
    assert "not-mtls" == denial.how


def test_a_client_that_does_not_believe_a_server_says_so_in_the_default_format() -> None:
    failure = "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:TLS_error_end"
    denial = of_upstream(entry(text(code="503", details="upstream_reset{x}", failure=failure, local="10.96.0.12:80")), "n1")
    assert denial is not None
    assert "server-certificate" == denial.how


def test_a_path_with_blanks_and_quotes_does_not_hide_what_follows() -> None:
    assert "n1" == entry(text(request='GET /a b" c HTTP/1.1')).nonce


def test_a_request_without_a_servers_name_in_its_handshake_was_plaintext_in_the_default_format() -> None:
    assert ("", True) == (entry(text(sni="-")).tls, bool(entry(text()).tls))


@pytest.mark.parametrize("line", ["", "{", "[]", '{"level":"info"}', "2026-11-28T17:00:00Z\tinfo\tReadiness succeeded", "[x] y"])
def test_what_is_no_entry_of_an_access_log_is_none(line: str) -> None:
    assert istiolog.read(line.encode(), POD, OWN) is None


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (MESH_CONFIG, ""),
        ({}, ""),
        ({"accessLogFile": "/dev/stdout"}, ""),
        ({"accessLogFile": "/var/log/x"}, "not to /dev/stdout"),
        ({"accessLogFile": "/dev/stdout", "accessLogFormat": "%START_TIME%"}, "a format of this mesh's own"),
        ({"accessLogFile": "/dev/stdout", "accessLogEncoding": "JSON"}, "a format of this mesh's own"),
    ],
)
def test_a_mesh_whose_log_tells_nothing_says_why(config: dict[str, Any], told: str) -> None:
    why = istiolog.unlogged(config)
    assert told in why
    assert bool(told) == bool(why)
