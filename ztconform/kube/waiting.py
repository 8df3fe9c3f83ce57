# SPDX-License-Identifier: Apache-2.0
"""Until something in the API server is as wanted: by watching it, within a deadline, with the reason if it never is."""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import urllib3
from kubernetes.client.exceptions import ApiException

from ztconform.errors import ClusterError
from ztconform.kube.client import translated
from ztconform.kube.resources import Resources

_WATCH = 20.0  # seconds before a watch that brings nothing is begun anew
Found = Mapping[str, Mapping[str, Any]]  # objects by name


def until(
    resources: Resources, path: str, lacking: Callable[[Found], str], *, what: str, seconds: float, **query: str
) -> dict[str, Mapping[str, Any]]:
    """Watch a collection until `lacking` has nothing to say of its objects, and return them by name.

    Raises ClusterError with its last word when the time is over, or what `lacking` itself raises.
    """
    deadline = monotonic() + seconds
    with translated(what):
        while True:
            listed = resources.read(path, **query)
            found = {item["metadata"]["name"]: item for item in listed.get("items") or []}
            why = lacking(found)
            if not why:
                return found
            left = deadline - monotonic()
            if left <= 0:
                raise ClusterError(f"{what}: after {seconds:.0f} s still {why}")
            try:
                for event in resources.watch(path, listed["metadata"]["resourceVersion"], min(left, _WATCH), **query):
                    if not _take(event, found):
                        break  # the version is too old by now: list again
                    why = lacking(found)
                    if not why:
                        return found
            except (ApiException, urllib3.exceptions.HTTPError):
                continue  # listed again, with its own patience


def _take(event: Mapping[str, Any], found: dict[str, Mapping[str, Any]]) -> bool:
    item = event["object"]
    if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
        return False
    name = item["metadata"]["name"]
    if event["type"] == "DELETED":
        found.pop(name, None)
    else:
        found[name] = item
    return True
