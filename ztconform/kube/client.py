# SPDX-License-Identifier: Apache-2.0
"""How we reach an API server: one named context, a deadline for every call, and its errors in one line.

What is asked of it is left to the other modules.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from ztconform.errors import ClusterError, UsageError

FIELD_MANAGER = "ztconform"
CALL = 10.0  # seconds for one call
_DEFAULT = "your kubeconfig (KUBECONFIG, or ~/.kube/config)"
_FIRST_CALL = 4.0  # an API server that cannot be reached is reported within 5 s
_NOT_FOUND, _CONFLICT, _UNAUTHORIZED, _FORBIDDEN = 404, 409, 401, 403


@dataclass(frozen=True, slots=True)
class Connection:
    """Hold how to reach one cluster; every thread and every exec makes an API client of its own from it."""

    context: str
    configuration: client.Configuration

    def api(self) -> client.ApiClient:
        """Return a new API client."""
        return client.ApiClient(self.configuration)


def connect(context: str, kubeconfig: Path | None = None) -> Connection:
    """Return a connection to the cluster of a context, having asked it for its version.

    Raises UsageError for a context that is not in the file, and ClusterError for a server that does not answer or let us in.
    """
    file = None if kubeconfig is None else str(kubeconfig)
    names = _contexts(file)
    if context not in names:
        known = ", ".join(names) or "none"
        raise UsageError(f"context {context}: {file or _DEFAULT} has no such context; it has {known}")
    configuration = client.Configuration()
    try:
        config.load_kube_config(config_file=file, context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]  # has no types
    except config.ConfigException as error:
        raise ClusterError(f"context {context}: its credentials cannot be used: {first_line(str(error))}") from None
    configuration.retries = urllib3.Retry(connect=0, read=0, redirect=0, status=0, other=0)
    connection = Connection(context, configuration)
    with translated(f"context {context}"):
        client.VersionApi(connection.api()).get_code(_request_timeout=_FIRST_CALL)
    return connection


def _contexts(file: str | None) -> list[str]:
    """Return the contexts of a kubeconfig; the client's own list of them fails where none of them is the current one."""
    paths = [file] if file else os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)
    there = [path for path in map(Path, map(os.path.expanduser, filter(None, paths))) if path.exists()]
    if not there:
        raise UsageError(f"{file or _DEFAULT} is not there: --ztc-kubeconfig names another")
    names: set[str] = set()
    for path in there:
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            names |= {str(one["name"]) for one in found.get("contexts") or []}
        except (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError) as error:
            raise UsageError(f"{path} cannot be used as a kubeconfig: {first_line(str(error))}") from None
    return sorted(names)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what the kubernetes client raises into a ClusterError that says what was being done."""
    try:
        yield
    except ApiException as error:
        raise ClusterError(f"{what}: {reason(error)}") from None
    except urllib3.exceptions.HTTPError as error:
        inner = getattr(error, "reason", None) or error
        raise ClusterError(f"{what}: the API server does not answer ({first_line(str(inner))}); is the cluster up?") from None


def reason(error: ApiException) -> str:
    """Return what the API server said, in one line with what to do about it."""
    said = first_line(str(error.reason or "no reason"))
    try:
        body: Mapping[str, Any] = json.loads(error.body or "{}")
    except (TypeError, ValueError):
        body = {}
    if isinstance(body, Mapping) and body.get("message"):
        said = first_line(str(body["message"]))
    if error.status == _UNAUTHORIZED:
        return f"the API server does not know these credentials ({said}); log in again"
    if error.status == _FORBIDDEN and "is forbidden: User" in said:
        return f"not permitted: {said}"
    return said


def is_missing(error: ApiException) -> bool:
    """Return whether the object is not there."""
    return bool(error.status == _NOT_FOUND)


def is_conflict(error: ApiException) -> bool:
    """Return whether another object, or another version of it, is there."""
    return bool(error.status == _CONFLICT)


def first_line(text: str) -> str:
    """Return the first line of a text, or the whole of it in one line where that is short."""
    return " ".join(text.split())[:400]
