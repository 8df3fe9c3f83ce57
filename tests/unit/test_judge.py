# SPDX-License-Identifier: Apache-2.0
"""The judge calls a denial only what is proved to be one, and everything else by its name."""

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.evidence import Bystander, Cause, Observation, Round, Verdict, Vital
from ztconform.judge import contradicts, judge, meets
from ztconform.lab.signatures import SIGNATURES
from ztconform.model import Attempt, Kind, Probe, Ref, Row, Signal, Stage

SERVER = Ref("shop", "payment-0")
PROBE = Probe(source=Ref("shop", "checkout-0"), target=SERVER, port=8080, address="pod")
ATTEMPT = Attempt(id="a", row="r", probe=PROBE, targets=(SERVER,), timeout=0.4)
VITAL = Vital(server=SERVER, port=8080, transport="TCP", boot="b1", answers_itself=True, ready=True, in_endpoints=True)
BYSTANDER = Bystander(nodes=(0, 1), transport="TCP", through=True)
TIMEOUT = Observation(attempt="a", nonce="n", sent=1.0, ended=1.4, signal="timeout", stage="connect")
ANSWER = Observation(
    attempt="a",
    nonce="n",
    sent=1.0,
    ended=1.1,
    signal="answered",
    stage="done",
    status=200,
    backend="shop/payment-0",
    boot="b1",
)
CAUSE = Cause(
    nonce="n",
    layer="l34",
    policies=("shop/deny",),
    explicit=False,
    direction="ingress",
    endpoint=SERVER,
    source="nflog",
)
DENIED = Row(id="r", probe=PROBE, want="denied", by=frozenset({"l34"}))


def verdict(observation=TIMEOUT, *, attempt=ATTEMPT, vitals=(VITAL,), bystanders=(BYSTANDER,), cause=CAUSE, baseline=None):
    round_ = Round(observations=(observation,), vitals=tuple(vitals), bystanders=tuple(bystanders))
    known = {SERVER: VITAL} if baseline is None else baseline
    return judge(attempt, observation, round_, signatures=SIGNATURES, cause=cause, baseline=known)


def test_silence_with_every_control_beside_it_is_a_denial():
    assert ("DENIED", "l34", "DROP") == (verdict().kind, verdict().layer, verdict().signature)


def test_an_answer_of_the_target_is_an_allowance():
    assert "ALLOWED" == verdict(ANSWER).kind


@pytest.mark.parametrize(
    ("why", "observation"),
    [
        ("connection refused", replace(TIMEOUT, signal="refused")),
        ("did not resolve", replace(TIMEOUT, signal="dns", stage="dns", detail="NXDOMAIN")),
        ("could not be sent", replace(TIMEOUT, signal="not-run", stage="exec", detail="EMFILE")),
        ("not how a denial looks", replace(TIMEOUT, signal="closed", stage="connect")),
        ("not how a denial looks", replace(TIMEOUT, stage="request")),
        ("names layer l34", replace(TIMEOUT, signal="tls-alert", stage="tls")),
        ("answered 503", replace(ANSWER, status=503)),
        ("not how a denial looks", replace(TIMEOUT, signal="icmp", detail="3/1")),
        ("not how a denial looks", replace(TIMEOUT, signal="icmp", detail="3/3")),
        ("application itself answered 403", replace(ANSWER, status=403)),
        ("not by an agent of ours", replace(ANSWER, backend="", status=403)),
        ("not the target", replace(ANSWER, backend="shop/products-0")),
        ("has restarted", replace(ANSWER, boot="b2")),
    ],
)
def test_what_proves_nothing_is_inconclusive_and_says_why(why, observation):
    assert "INCONCLUSIVE" == verdict(observation).kind
    assert why in verdict(observation).why


@pytest.mark.parametrize("detail", ["3/9", "3/10", "3/13", "1/1"])
def test_icmp_is_a_denial_only_when_it_says_prohibited(detail):
    assert "ICMP" == verdict(replace(TIMEOUT, signal="icmp", detail=detail)).signature


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("does not answer itself", {"vitals": [replace(VITAL, answers_itself=False)]}),
        ("was not asked", {"vitals": []}),
        ("was not asked", {"vitals": [replace(VITAL, port=9090)]}),
        ("was not asked", {"vitals": [replace(VITAL, transport="UDP")]}),
        ("has restarted", {"vitals": [replace(VITAL, boot="b2")]}),
        ("readiness", {"vitals": [replace(VITAL, ready=False)]}),
        ("readiness", {"vitals": [replace(VITAL, in_endpoints=False)]}),
        ("passed no control", {"baseline": {}}),
        ("no bystander", {"bystanders": []}),
        ("no bystander", {"bystanders": [replace(BYSTANDER, transport="UDP")]}),
        ("did not get through either", {"bystanders": [BYSTANDER, replace(BYSTANDER, through=False)]}),
        ("could not be asked", {"bystanders": [replace(BYSTANDER, through=None)]}),
        ("nothing logged", {"cause": None}),
        ("names layer l7", {"cause": replace(CAUSE, layer="l7")}),
        ("no pod stands behind", {"attempt": replace(ATTEMPT, targets=())}),
    ],
)
def test_silence_without_one_of_its_controls_is_inconclusive(why, changes):
    assert "INCONCLUSIVE" == verdict(**changes).kind
    assert why in verdict(**changes).why


REFUSED = replace(ANSWER, backend="", boot="", status=403, body="RBAC: access denied")
BY_ENVOY = replace(CAUSE, layer="l7", source="access-log")


@pytest.mark.parametrize(
    ("layer", "observation"),
    [
        ("l7", REFUSED),
        ("l7", replace(TIMEOUT, signal="closed", stage="request")),
        ("mtls", replace(TIMEOUT, signal="closed", stage="request")),
        ("l34", replace(TIMEOUT, signal="closed", stage="request")),
        ("mtls", replace(TIMEOUT, signal="tls-alert", stage="tls")),
        ("mtls", replace(REFUSED, status=503, body="")),
        ("l34", replace(REFUSED, status=503, body="")),
        ("l7", replace(REFUSED, status=400, body="")),
    ],
)
def test_what_a_proxy_does_is_a_denial_of_the_layer_that_logged_it_and_of_none_without_a_log(layer, observation):
    assert ("DENIED", layer) == (verdict(observation, cause=replace(BY_ENVOY, layer=layer)).kind, layer)
    assert layer == verdict(observation, cause=replace(BY_ENVOY, layer=layer)).layer
    assert "INCONCLUSIVE" == verdict(observation, cause=None).kind
    assert "INCONCLUSIVE" == verdict(observation, vitals=[replace(VITAL, answers_itself=False)]).kind


def test_a_403_that_is_not_the_proxys_own_is_no_denial():
    assert "INCONCLUSIVE" == verdict(replace(REFUSED, body="forbidden by the shop"), cause=BY_ENVOY).kind
    assert "INCONCLUSIVE" == verdict(replace(REFUSED, backend="shop/payment-0", boot="b1"), cause=BY_ENVOY).kind


@pytest.mark.parametrize("kind", ["udp", "dns"])
def test_udp_silence_needs_the_same_controls(kind):
    attempt = replace(ATTEMPT, probe=replace(PROBE, kind=kind))
    vitals, bystanders = [replace(VITAL, transport="UDP")], [replace(BYSTANDER, transport="UDP")]
    silence = replace(TIMEOUT, signal="silence", stage="request")
    assert "DENIED" == verdict(silence, attempt=attempt, vitals=vitals, bystanders=bystanders).kind
    assert "INCONCLUSIVE" == verdict(silence, attempt=attempt).kind
    assert "INCONCLUSIVE" == verdict(silence, attempt=attempt, vitals=vitals, bystanders=bystanders, cause=None).kind


def test_a_resolver_that_answers_without_an_address_proves_nothing():
    attempt = replace(ATTEMPT, probe=replace(PROBE, kind="dns"))
    answer = replace(ANSWER, status=None, backend="", detail="NOERROR", body="10.96.0.7")
    assert "ALLOWED" == verdict(answer, attempt=attempt).kind
    assert "INCONCLUSIVE" == verdict(replace(answer, body=""), attempt=attempt).kind
    assert "INCONCLUSIVE" == verdict(replace(answer, detail="NXDOMAIN"), attempt=attempt).kind
    assert "INCONCLUSIVE" == verdict(replace(answer, detail="REFUSED"), attempt=attempt).kind


NEVER = ("refused", "dns", "not-run")

observations = st.builds(
    Observation,
    attempt=st.just("a"),
    nonce=st.just("n"),
    sent=st.floats(0, 9),
    ended=st.floats(0, 9),
    signal=st.sampled_from(get_args(Signal)),
    stage=st.sampled_from(get_args(Stage)),
    detail=st.sampled_from(["", "3/13", "3/1", "3/3", "1/1", "1/4", "NOERROR", "NXDOMAIN", "ECONNREFUSED"]),
    status=st.sampled_from([None, 200, 204, 302, 403, 404, 503]),
    body=st.sampled_from(["", "RBAC: access denied", "10.96.0.7"]),
    backend=st.sampled_from(["", "shop/payment-0", "shop/other-0"]),
    boot=st.sampled_from(["", "b1", "b2"]),
)
vitals = st.lists(
    st.builds(
        Vital,
        server=st.sampled_from([SERVER, Ref("shop", "other-0")]),
        port=st.sampled_from([8080, 53]),
        transport=st.sampled_from(["TCP", "UDP"]),
        boot=st.sampled_from(["", "b1", "b2"]),
        answers_itself=st.booleans(),
        ready=st.booleans(),
        in_endpoints=st.booleans(),
    ),
    max_size=4,
)
bystanders = st.lists(
    st.builds(
        Bystander,
        nodes=st.just((0, 1)),
        transport=st.sampled_from(["TCP", "UDP"]),
        through=st.sampled_from([True, False, None]),
    ),
    max_size=4,
)


@given(observations, vitals, bystanders, st.sampled_from([None, CAUSE]), st.sampled_from(["tcp", "udp", "http", "dns"]))
def test_no_denial_ever_stands_without_its_controls(observation, some_vitals, some_bystanders, cause, kind: Kind):
    attempt = replace(ATTEMPT, probe=replace(PROBE, kind=kind))
    came = verdict(observation, attempt=attempt, vitals=some_vitals, bystanders=some_bystanders, cause=cause)
    if came.kind == "DENIED":
        assert observation.signal not in NEVER
        assert observation.signal != "answered" or not observation.backend
        assert cause is not None
        transport = attempt.probe.transport
        mine = [v for v in some_vitals if (v.server, v.port, v.transport) == (SERVER, 8080, transport)]
        assert mine
        assert mine[-1].answers_itself
        assert "b1" == mine[-1].boot
        near = [b for b in some_bystanders if b.transport == transport]
        assert near
        assert all(b.through is True for b in near)


@given(observations)
def test_only_an_answer_of_the_target_or_an_address_is_an_allowance(observation):
    came = verdict(observation)
    if came.kind == "ALLOWED":
        assert ("answered", "shop/payment-0") == (observation.signal, observation.backend)
        assert observation.status is None or 200 <= observation.status < 300


def test_a_row_is_met_only_by_the_verdict_and_layer_that_it_wants():
    l34 = Verdict(kind="DENIED", why="", layer="l34")
    assert meets(DENIED, l34)
    assert not meets(DENIED, replace(l34, layer="mtls"))
    assert not meets(DENIED, Verdict(kind="ALLOWED", why=""))
    assert not meets(DENIED, Verdict(kind="INCONCLUSIVE", why=""))
    assert not meets(replace(DENIED, by=frozenset()), l34)
    allowed = replace(DENIED, want="allowed", by=frozenset())
    assert meets(allowed, Verdict(kind="ALLOWED", why=""))
    assert not meets(allowed, Verdict(kind="INCONCLUSIVE", why=""))
    assert not meets(allowed, l34)


def test_inconclusive_contradicts_no_row_but_meets_only_the_one_that_asks_for_it():
    nothing = Verdict(kind="INCONCLUSIVE", why="")
    assert not contradicts(DENIED, nothing)
    assert contradicts(DENIED, Verdict(kind="ALLOWED", why=""))
    assert contradicts(DENIED, Verdict(kind="DENIED", why="", layer="mtls"))
    assert meets(replace(DENIED, want="inconclusive"), nothing)
    assert contradicts(replace(DENIED, want="inconclusive"), Verdict(kind="ALLOWED", why=""))
