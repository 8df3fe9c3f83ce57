# SPDX-License-Identifier: Apache-2.0
"""How one call to the API server is made so that it ends in time, and which calls may be made again.

What is called is left to the other modules; errors stay the kubernetes client's own, for `client.translated` to put into words.
"""

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_exponential, wait_random

from ztconform.kube.client import CALL, is_conflict, is_missing

_T = TypeVar("_T")
PATIENCE = 45.0  # seconds; an API server that was stopped for ten answers again after about twenty
_PAUSE, _LONGEST_PAUSE = 0.2, 2.0  # seconds between two attempts, doubled each time
_TOO_MANY = 429
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what the API server answered, and when by its own clock."""

    body: Mapping[str, Any]
    date: datetime | None  # None where a proxy took the header away


def safely(call: Callable[[], _T], *, deadline: float = PATIENCE) -> _T:
    """Return what a call returns that does no harm when it is made twice: a read, a server-side apply, a deletion by uid.

    It is made again after a lost connection, a timeout, 429 and 5xx, as long as another attempt begins within `deadline`
    seconds; then the last error is raised as it is. The call bounds itself, by its `_request_timeout`. Nothing else is repeated:
    no other 4xx, no certificate that is not trusted, and no status 0, which is how a Ctrl-C inside `stream()` is reported.
    """
    again = Retrying(
        retry=retry_if_exception(is_passing),
        wait=wait_exponential(multiplier=_PAUSE, max=_LONGEST_PAUSE) + wait_random(0, _PAUSE),
        stop=stop_before_delay(deadline),
        reraise=True,
    )
    return again(call)


def is_passing(error: BaseException) -> bool:
    """Return whether the same call may succeed a little later."""
    if isinstance(error, ApiException):
        status = error.status or 0
        return status == _TOO_MANY or status >= 500
    if not isinstance(error, urllib3.exceptions.HTTPError):
        return False
    inner = getattr(error, "reason", None) or error
    return not (inner.args and isinstance(inner.args[0], ssl.SSLCertVerificationError))


def ask(
    api: client.ApiClient,
    method: str,
    path: str,
    *,
    timeout: float = CALL,
    query: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    content: str = "application/json",
) -> Answer:
    """Make one call on any path and return its JSON, for kinds that the client has no model of and for the server's clock.

    Raises what the kubernetes client raises.
    """
    headers = {"Accept": "application/json", "Content-Type": content}
    said, date = _call(api, method, path, headers, query or {}, body, timeout)
    return Answer(json.loads(said or b"{}"), date)


def text(api: client.ApiClient, path: str, *, query: Mapping[str, str], timeout: float = CALL) -> bytes:
    """Return what is not JSON: a container's log. Raises what the kubernetes client raises."""
    return _call(api, "GET", path, {"Accept": "*/*"}, query, None, timeout)[0]


def _call(
    api: client.ApiClient,
    method: str,
    path: str,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    body: Mapping[str, Any] | None,
    timeout: float,
) -> tuple[bytes, datetime | None]:
    request = api.param_serialize(
        method,
        path,
        query_params=list(query.items()),
        header_params=dict(headers),
        body=body,
        auth_settings=["BearerToken"],
    )
    response: Any = api.call_api(*request, _request_timeout=timeout)
    said: bytes = response.read()
    if not 200 <= response.status <= 299:
        raise ApiException.from_response(http_resp=response, body=said.decode(errors="replace"), data=None)
    return said, _date(response.getheader("Date"))


def delete(api: client.ApiClient, path: str, *, uid: str, version: str = "", deadline: float = PATIENCE) -> bool:
    """Delete the object that was recorded, and return whether the server took that; False if it is gone, going, or another.

    With a resource version, only as long as nobody has changed it. Raises what the kubernetes client raises.
    """
    conditions = {"uid": uid} | ({"resourceVersion": version} if version else {})
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "preconditions": conditions}
    try:
        safely(lambda: ask(api, "DELETE", path, body=options), deadline=deadline)
    except ApiException as error:
        if is_missing(error) or is_conflict(error):
            return False
        raise
    return True


def _date(header: str | None) -> datetime | None:
    """Return the instant of a Date header."""
    try:
        return parsedate_to_datetime(header or "")
    except ValueError:
        return None
