# SPDX-License-Identifier: Apache-2.0
"""When a Lease is stale, whose clock says so, and which calls are made again."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("kubernetes")

import urllib3
from kubernetes.client.exceptions import ApiException

from ztconform.kube import calls, lease
from ztconform.kube.labels import Labels

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
LABELS = Labels("ztconform.io", "r1", "gw0")


def held(silent: float = 0, **spec: Any) -> dict[str, Any]:
    """Return a Lease that was renewed so many seconds before NOW."""
    made = dict(lease.manifest("one", "r1", LABELS, NOW - timedelta(seconds=silent)))
    made["metadata"] = {**made["metadata"], "creationTimestamp": "2026-11-22T11:50:00Z"}
    made["spec"] = {key: value for key, value in {**made["spec"], **spec}.items() if value is not None}
    return made


@pytest.mark.parametrize(
    ("one", "stale"),
    [
        (held(0), False),
        (held(59.9), False),
        (held(60), True),
        (held(3600), True),
        (held(-5), False),  # by a clock that is ahead
        (held(59, leaseDurationSeconds=30), True),
        (held(59, leaseDurationSeconds=None), False),
        (held(61, leaseDurationSeconds=None), True),
        (held(0, renewTime=None), False),  # taken just now
        (held(0, renewTime=None, acquireTime=None), True),  # made ten minutes ago
    ],
)
def test_a_run_is_dead_after_a_minute_of_silence(one: dict[str, Any], stale: bool) -> None:
    assert stale is lease.is_stale(one, NOW)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_what_is_written_is_what_is_read(instant: datetime) -> None:
    made = lease.manifest("one", "r1", LABELS, instant)
    assert 0 == lease.silence(made, instant)
    # The API server refuses a MicroTime without its six digits, which isoformat() leaves out on a full second.
    assert len("2026-11-22T12:00:00.000000Z") == len(made["spec"]["renewTime"])


def test_a_lease_carries_the_labels_by_which_sweep_knows_it() -> None:
    assert LABELS.ours() == lease.manifest("one", "r1", LABELS, NOW)["metadata"]["labels"]


@pytest.mark.parametrize(("offset", "off_by"), [(3600, 0), (-86400, 0)])
def test_the_api_servers_clock_counts_and_not_ours(offset: int, off_by: int) -> None:
    clock = lease.ServerClock()
    theirs = datetime.now(UTC) + timedelta(seconds=offset)
    clock.hear(calls.Answer({}, theirs))
    assert abs((clock.now() - theirs).total_seconds() - off_by) < 5


def test_an_answer_without_a_date_changes_nothing() -> None:
    clock = lease.ServerClock()
    clock.hear(calls.Answer({}, NOW))
    clock.hear(calls.Answer({}, None))
    assert abs((clock.now() - NOW).total_seconds()) < 5


def max_retry(inner: Exception) -> urllib3.exceptions.MaxRetryError:
    return urllib3.exceptions.MaxRetryError(urllib3.HTTPSConnectionPool("host"), "/", inner)


UNTRUSTED = urllib3.exceptions.SSLError(ssl.SSLCertVerificationError("self-signed"))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ApiException(status=429), True),
        (ApiException(status=500), True),
        (ApiException(status=503), True),
        (ApiException(status=0), False),  # Ctrl-C inside stream()
        (ApiException(status=None), False),
        (ApiException(status=401), False),
        (ApiException(status=403), False),
        (ApiException(status=404), False),
        (ApiException(status=409), False),
        (ApiException(status=422), False),
        (urllib3.exceptions.ProtocolError("cut off"), True),
        (urllib3.exceptions.ReadTimeoutError(urllib3.HTTPSConnectionPool("host"), "/", "late"), True),
        (max_retry(urllib3.exceptions.NewConnectionError(urllib3.connection.HTTPConnection("host"), "refused")), True),
        (max_retry(urllib3.exceptions.SSLError(ssl.SSLEOFError("the server stops"))), True),
        (max_retry(UNTRUSTED), False),
        (UNTRUSTED, False),
        (KeyboardInterrupt(), False),
        (ValueError(), False),
    ],
)
def test_a_call_is_made_again_only_after_what_passes(error: BaseException, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_PAUSE", 0.001)
    call = _failing(error, times=2)
    if again:
        assert "answer" == calls.safely(call)
    else:
        with pytest.raises(type(error)) as raised:
            calls.safely(call)
        assert error is raised.value


def test_the_last_error_comes_out_as_it_is_when_the_time_is_over() -> None:
    error = ApiException(status=503)
    with pytest.raises(ApiException) as raised:
        calls.safely(_failing(error, times=99), deadline=0.3)
    assert error is raised.value


def _failing(error: BaseException, times: int) -> Callable[[], str]:
    left = [error] * times

    def call() -> str:
        if left:
            raise left.pop()
        return "answer"

    return call
