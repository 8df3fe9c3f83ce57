# SPDX-License-Identifier: Apache-2.0
"""A window is the last request let through after the marker, on the client's own clock, and is never made up."""

from dataclasses import replace

from ztconform.evidence import Observation
from ztconform.model import Attempt, Probe, Ref
from ztconform.proof.window import after, measure

CLIENT = Ref("shop", "checkout-0")
PROBE = Probe(source=CLIENT, target=Ref("shop", "payment-0"), port=8080, address="pod")
ATTEMPT = Attempt(id="a", row="r", probe=PROBE, targets=(), timeout=0.4)


def stream(*signals_at):
    return [
        Observation(
            attempt="a",
            nonce=f"n{at}",
            sent=at,
            ended=at + 0.01,
            signal=signal,
            stage="done",
            backend="t/b" if signal == "answered" else "",
        )
        for signal, at in signals_at
    ]


def window(observations, seen=(), before=None, attempts=(ATTEMPT,), spacing=0.01):
    return measure(attempts, observations, {CLIENT: 10.0} if before is None else before, spacing, seen)


def test_the_last_answer_after_the_marker_ends_the_window():
    came = window(stream(("answered", 9.99), ("answered", 10.0), ("answered", 10.01), ("answered", 10.02), ("timeout", 10.03)))
    assert 0.02 == round(came.seconds, 6)
    assert "20 ms (every 10 ms)" == str(came)


def test_a_window_shorter_than_the_spacing_says_no_more_than_that():
    assert "< 10 ms" == str(window(stream(("answered", 9.995), ("timeout", 10.005), ("timeout", 10.015))))


def test_a_request_that_the_server_saw_was_let_through_whatever_its_client_heard():
    came = window(stream(("timeout", 10.0), ("timeout", 10.01), ("timeout", 10.02)), seen={"n10.01"})
    assert 0.01 == round(came.seconds, 6)


def test_a_widened_gap_widens_what_the_figure_is_worth():
    came = window(stream(("answered", 10.0), ("timeout", 10.05), ("timeout", 10.06)))
    assert 0.05 == round(came.spacing, 6)


def test_nothing_sent_after_the_marker_is_no_window():
    assert window(stream(("answered", 9.9))) is None
    assert window([]) is None
    assert window(stream(("timeout", 10.1)), before={}) is None
    assert window([], attempts=()) is None
    assert window(stream(("not-run", 10.1))) is None


def test_a_stream_whose_last_request_was_let_through_shows_no_end():
    assert window(stream(("timeout", 10.0), ("answered", 10.01))) is None


def test_the_worst_attempt_counts():
    other = Attempt(id="b", row="r", probe=PROBE, targets=(), timeout=0.4)
    second = [
        Observation(
            attempt="b",
            nonce=f"m{at}",
            sent=at,
            ended=at,
            signal=signal,
            stage="done",
            backend="t/b" if signal == "answered" else "",
        )
        for signal, at in [("answered", 10.0), ("answered", 10.01), ("answered", 10.02), ("timeout", 10.03)]
    ]
    came = window([*stream(("timeout", 10.0), ("timeout", 10.01)), *second], attempts=(ATTEMPT, other))
    assert 0.02 == round(came.seconds, 6)


def test_what_gets_through_although_it_was_sent_after_one_that_was_denied_is_counted():
    came = stream(("answered", 10.0), ("timeout", 10.1), ("answered", 10.2), ("timeout", 10.3))
    assert 1 == after([ATTEMPT], came, {ATTEMPT.id: 10.05}, ())
    assert 2 == after([ATTEMPT], came, {ATTEMPT.id: 10.05}, {"n10.3"})
    assert 0 == after([ATTEMPT], came, {ATTEMPT.id: 10.25}, ())
    assert 0 == after([ATTEMPT], came, {}, ())


def test_an_answer_of_a_proxy_is_no_request_let_through():
    refused = replace(stream(("answered", 10.01))[0], backend="", status=403)
    assert 0.0 == window([refused, *stream(("timeout", 10.02))]).seconds
    dns = replace(ATTEMPT, probe=replace(PROBE, kind="dns"))
    assert window([refused], attempts=(dns,)) is None
