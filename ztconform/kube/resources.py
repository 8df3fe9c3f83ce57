# SPDX-License-Identifier: Apache-2.0
"""Objects of any kind in the API server: applied server-side under our field manager, read back, patched, deleted by identity.

Which objects those are is left to the caller. Everything has a deadline; what is repeated is safe to repeat.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from ztconform.errors import Rejected
from ztconform.kube.calls import APPLY_PATCH, MERGE_PATCH, ask, safely, text
from ztconform.kube.client import CALL, FIELD_MANAGER, Connection, is_conflict, is_missing, reason, translated
from ztconform.model import Manifest, of_manifest

_JSON = "application/json"
_REFUSED = frozenset({400, 403, 404, 409, 422})
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """Name one object that we created, and no other that has its name."""

    path: str
    uid: str
    what: str


class Resources:
    """Speak the API in JSON; safe for use by many threads, each of which has a connection of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._local = threading.local()
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}

    def get(self, path: str, **query: str) -> Object:
        """Return an object or a list at the first try; raises what the kubernetes client raises."""
        return self._call("GET", path, query)

    def read(self, path: str, **query: str) -> Object:
        """Return an object or a list, with patience; raises what the kubernetes client raises."""
        return safely(lambda: self.get(path, **query))

    def text(self, path: str, **query: str) -> bytes:
        """Return a container's log at the first try; raises what the kubernetes client raises."""
        return text(self._api(), path, query=query)

    def items(self, path: str, **query: str) -> list[Object]:
        """Return the items of a list; raises ClusterError once the API server has not answered for long."""
        with translated(f"GET {path}"):
            return list(self.read(path, **query).get("items") or [])

    def apply(self, manifest: Manifest, *, dry_run: bool = False) -> tuple[Identity, Object]:
        """Apply a manifest and return its identity and the object that is now there.

        Raises Rejected for what the API server or its admission refuses, an unknown kind or field included.
        """
        path = self.path(manifest)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": "true"}
        if dry_run:
            query["dryRun"] = "All"
        try:
            found = safely(lambda: self._call("PATCH", path, query, body=manifest, content=APPLY_PATCH))
        except ApiException as error:
            if error.status in _REFUSED:
                raise Rejected(of_manifest(manifest), reason(error)) from None
            with translated(f"applying {of_manifest(manifest)}"):
                raise
        return Identity(path, found["metadata"]["uid"], of_manifest(manifest)), found

    def create(self, path: str, manifest: Manifest) -> Identity:
        """Create an object below a collection's path; raises ApiException, also where its name is taken."""
        found = self._call("POST", path, {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}, body=manifest)
        return Identity(f"{path}/{found['metadata']['name']}", found["metadata"]["uid"], of_manifest(manifest))

    def keep(self, manifest: Manifest) -> None:
        """Create an object unless one of its name is there, which then stays as it is; raises Rejected or ClusterError."""
        with translated(f"creating {of_manifest(manifest)}"):
            try:
                self.create(self.path(manifest).rpartition("/")[0], manifest)
            except ApiException as error:
                if not is_conflict(error):
                    raise

    def patch(self, path: str, change: Mapping[str, Any]) -> None:
        """Merge a change into an object; raises ClusterError."""
        with translated(f"PATCH {path}"):
            manager = {"fieldManager": FIELD_MANAGER}
            safely(lambda: self._call("PATCH", path, manager, body=change, content=MERGE_PATCH))

    def delete(self, identity: Identity, *, grace: float | None = None) -> None:
        """Delete the object of this identity; that it is gone already, or another's by now, is no error. Raises ClusterError."""
        options: Object = {"propagationPolicy": "Background", "preconditions": {"uid": identity.uid}}
        if grace is not None:
            options["gracePeriodSeconds"] = round(grace)
        with translated(f"deleting {identity.what}"):
            try:
                safely(lambda: self._call("DELETE", identity.path, {}, body=options))
            except ApiException as error:
                if not (is_missing(error) or error.status == 409):  # another object has taken the name
                    raise

    def path(self, manifest: Manifest) -> str:
        """Return where a manifest's object is; raises Rejected for a kind that this cluster does not serve."""
        version, kind = str(manifest.get("apiVersion")), str(manifest.get("kind"))
        plural, namespaced = self._kind(version, kind, manifest)
        metadata = manifest.get("metadata") or {}
        within = f"/namespaces/{quote(str(metadata.get('namespace') or 'default'))}" if namespaced else ""
        return f"{base(version)}{within}/{plural}/{quote(str(metadata.get('name')))}"

    def is_namespaced(self, manifest: Manifest) -> bool:
        """Return whether objects of this kind live in a namespace; raises Rejected for a kind that is not served."""
        return self._kind(str(manifest.get("apiVersion")), str(manifest.get("kind")), manifest)[1]

    def _found(self, version: str) -> Sequence[Mapping[str, Any]]:
        try:
            return list(self.read(base(version)).get("resources") or [])
        except ApiException as error:
            if is_missing(error):
                return []
            raise

    def _kind(self, version: str, kind: str, manifest: Manifest) -> tuple[str, bool]:
        if (version, kind) not in self._kinds:
            with translated(f"GET {base(version)}"):
                found = self._found(version)
            self._kinds |= {(version, r["kind"]): (r["name"], bool(r["namespaced"])) for r in found if "/" not in r["name"]}
        if (version, kind) not in self._kinds:
            raise Rejected(of_manifest(manifest), f"this cluster serves no kind {kind} in {version}")
        return self._kinds[version, kind]

    def watch(self, path: str, version: str, seconds: float, **query: str) -> Iterator[Object]:
        """Yield the events of a collection after a version, for so many seconds at most; raises ApiException."""
        asked = {**query, "watch": "1", "resourceVersion": version, "timeoutSeconds": str(max(round(seconds), 1))}
        api = self._api()
        request = api.param_serialize(
            "GET", path, query_params=list(asked.items()), header_params={"Accept": _JSON}, auth_settings=["BearerToken"]
        )
        response = api.call_api(*request, _request_timeout=seconds + CALL)
        if not 200 <= response.status <= 299:
            said = response.response.data.decode(errors="replace")
            raise ApiException(status=response.status, reason=response.reason, body=said)
        rest = b""
        try:
            for chunk in response.response.stream(amt=None):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from map(json.loads, lines)
        finally:
            response.response.close()

    def _call(self, method: str, path: str, query: Mapping[str, str], *, body: Any = None, content: str = _JSON) -> Object:
        return dict(ask(self._api(), method, path, query=query, body=body, content=content).body)

    def _api(self) -> client.ApiClient:
        api: client.ApiClient | None = getattr(self._local, "api", None)
        if api is None:
            api = self._local.api = self._connection.api()
        return api


def base(version: str) -> str:
    """Return where an API version is served."""
    return f"/apis/{version}" if "/" in version else f"/api/{version}"
