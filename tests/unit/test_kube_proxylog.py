# SPDX-License-Identifier: Apache-2.0
"""What sidecars' log entries say of a probe: found by its nonce or its connection, and nothing where two could be meant."""

from typing import Any

import pytest

from ztconform.evidence import Observation
from ztconform.kube.pods import KubePod
from ztconform.kube.proxylog import Sent, unlogged, word
from ztconform.mesh.logentry import Entry
from ztconform.model import Attempt, Probe, Ref, Signal, Stage, Workload

SERVER, CLIENT = Ref("shop", "payment-0"), Ref("shop", "frontend-0")
NONE_ALLOWS = "rbac_access_denied_matched_policy[none]"
UNBELIEVED = "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:TLS_error_end"
SERVICE, HERE, THROUGH = ("10.96.0.12", 80), ("10.244.0.7", 40000), ("10.244.0.7", 41000)
THERE = ("10.244.1.9", 8080)


def made(ref: Ref, address: str) -> KubePod:
    workload = Workload(ref=Ref(ref.namespace, ref.name[:-2]), meshed=True)
    return KubePod(ref=ref, real=ref, workload=workload, node=0, addresses=(address,), serves=True)


def sent(*, captured: bool) -> Sent:
    probe = Probe(source=CLIENT, target=Ref("shop", "payment"), port=8080)
    attempt = Attempt(id="a", row="r", probe=probe, targets=(SERVER,), timeout=1.0)
    met = Observation(attempt="a", nonce="n1", sent=1, ended=2, signal="closed", stage="request", source="10.244.0.7 40000")
    client = made(CLIENT, "10.244.0.7") if captured else None
    return Sent(attempt=attempt, observation=met, client=client, servers=(made(SERVER, "10.244.1.9"),))


def entry(side: Any, pod: Ref, **said: Any) -> Entry:
    texts = ("nonce", "details", "terminated", "tls_failure", "upstream_failure", "chain", "tls", "peer", "serial")
    nothing: dict[str, Any] = {
        **dict.fromkeys(texts, ""),
        "remote": None,
        "local": None,
        "upstream_local": None,
        "upstream": None,
    }
    return Entry(**{**nothing, "side": side, "pod": pod, "start": 5.0, "shadows": (), **said})


def inbound(**said: Any) -> Entry:
    return entry("inbound-request", SERVER, **{"nonce": "n1", "local": THERE, "remote": THROUGH, **said})


def refused(**said: Any) -> Entry:
    given = {"details": "filter_chain_not_found", "remote": HERE, "local": THERE}
    return entry("inbound-connection", SERVER, **{**given, **said})


def outbound(**said: Any) -> Entry:
    given = {"nonce": "n1", "remote": HERE, "local": SERVICE, "upstream": THERE, "upstream_local": THROUGH}
    return entry("outbound-request", CLIENT, **{**given, **said})


@pytest.mark.parametrize("captured", [False, True])
def test_a_request_that_authorization_refused_is_found_by_its_nonce(captured: bool) -> None:
    found = word(sent(captured=captured), [outbound(), inbound(nonce="n2"), inbound(details=NONE_ALLOWS)])
    assert found.known
    assert found.denial is not None
    assert ("l7", "", SERVER) == (found.denial.layer, found.denial.rule, found.denial.pod)


def test_a_request_that_was_let_in_is_known_and_no_denial() -> None:
    found = word(sent(captured=False), [inbound(details="via_upstream")])
    assert (True, None) == (found.known, found.denial)
    assert found.served is not None


def test_plaintext_of_a_bare_client_is_found_by_the_port_it_left_from() -> None:
    found = word(sent(captured=False), [refused(), refused(remote=("10.244.0.7", 40001), start=6.0)])
    assert found.denial is not None
    assert ("mtls", "not-mtls") == (found.denial.layer, found.denial.how)


def test_plaintext_of_a_captured_client_is_found_through_its_own_proxys_entry() -> None:
    found = word(sent(captured=True), [outbound(), refused(remote=THROUGH)])
    assert found.denial is not None
    assert "not-mtls" == found.denial.how


def test_a_captured_clients_denial_is_not_known_before_the_servers_line_is_there() -> None:
    assert not word(sent(captured=True), [outbound()]).known
    assert not word(sent(captured=True), [refused(remote=THROUGH)]).known


def test_a_client_that_does_not_believe_its_server_is_told_by_its_own_proxy() -> None:
    found = word(sent(captured=True), [outbound(upstream_failure=UNBELIEVED, upstream_local=None)])
    assert found.denial is not None
    assert "server-certificate" == found.denial.how


def test_a_proxy_that_could_not_connect_accuses_nobody() -> None:
    found = word(sent(captured=True), [outbound(upstream_local=None)])
    assert (True, None, True) == (found.known, found.denial, found.unreached)


@pytest.mark.parametrize("said", [{"start": 6.0}, {"start": 5.1}])
def test_two_connections_from_one_port_prove_nothing(said: dict[str, Any]) -> None:
    assert not word(sent(captured=False), [refused(), refused(**said)]).known


@pytest.mark.parametrize("said", [{"pod": Ref("shop", "other-0")}, {"local": ("10.244.1.9", 9090)}, {"remote": THROUGH}])
def test_a_connection_elsewhere_is_not_the_probes(said: dict[str, Any]) -> None:
    others = {"details": "filter_chain_not_found", "remote": HERE, "local": THERE, "pod": SERVER, **said}
    assert not word(sent(captured=False), [entry("inbound-connection", **others)]).known


def test_a_request_that_two_servers_log_proves_nothing() -> None:
    assert not word(sent(captured=False), [inbound(details=NONE_ALLOWS), inbound(details=NONE_ALLOWS, start=6.0)]).known


@pytest.mark.parametrize(
    ("signal", "stage", "without"),
    [
        ("timeout", "connect", True),
        ("timeout", "request", False),
        ("silence", "request", True),
        ("icmp", "connect", True),
        ("tls-alert", "tls", True),
        ("closed", "request", False),
        ("answered", "done", False),
    ],
)
def test_lost_packets_and_alerts_are_in_no_proxys_log(signal: Signal, stage: Stage, without: bool) -> None:
    met = Observation(attempt="a", nonce="n1", sent=1, ended=2, signal=signal, stage=stage)
    assert without == unlogged(met)
