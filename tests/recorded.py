# SPDX-License-Identifier: Apache-2.0
"""An API server of recorded objects, all of them ready: for stacks that no test can run, and that are to be known all the same.

What was recorded, and from where, stands in each file of unit/data/objects. What is written to it is kept, and changes nothing.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import yaml
from kubernetes.client import Configuration

from ztconform.kube.client import Connection

OBJECTS = Path(__file__).parent / "unit" / "data" / "objects"
Object = dict[str, Any]

_PLURALS = {
    "GatewayClass": "gatewayclasses",
    "NetworkPolicy": "networkpolicies",
    "TigeraStatus": "tigerastatuses",
    "StagedNetworkPolicy": "stagednetworkpolicies",
}
_RESOURCES = {
    "/api/v1": [("namespaces", "Namespace", False), ("configmaps", "ConfigMap", True), ("secrets", "Secret", True)],
    "/apis/cilium.io/v2": [("ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy", False)],
}
_ALWAYS = {("/apis/apps/v1", plural) for plural in ("daemonsets", "deployments")} | {
    ("/api/v1", plural) for plural in ("pods", "nodes", "events")
}
_READY: dict[str, Object] = {
    "DaemonSet": {
        **dict.fromkeys(("desiredNumberScheduled", "numberReady", "updatedNumberScheduled", "currentNumberScheduled"), 3),
        "numberMisscheduled": 0,
    },
    "Deployment": {"readyReplicas": 1, "updatedReplicas": 1},
    "StatefulSet": {"readyReplicas": 1, "updatedReplicas": 1, "replicas": 1},
}


def objects(*names: str) -> list[Object]:
    """Return the objects of these files."""
    found: list[Object] = []
    for name in names:
        found += [one for one in yaml.safe_load_all((OBJECTS / f"{name}.yaml").read_text(encoding="utf-8")) if one]
    return found


def node(*ranges: str, **annotations: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "one", "annotations": annotations},
        "spec": {"podCIDR": ranges[0], "podCIDRs": list(ranges)},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


@contextmanager
def serving(
    there: Iterable[Object],
    forbidden: Callable[[str], bool] = lambda path: False,
    written: list[tuple[str, str, Object]] | None = None,
) -> Iterator[Connection]:
    """Yield a connection to a server that has these objects, refuses paths, and keeps method, path and body of each write."""
    known = [_ready(one) for one in there]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlparse(self.path)
            found = (
                {"kind": "Status", "message": "forbidden"}
                if forbidden(url.path)
                else _answer(known, url.path, parse_qs(url.query))
            )
            code = 403 if forbidden(url.path) else 404 if found is None else 200
            body = json.dumps(found or {}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PATCH(self) -> None:
            self._write(200)

        def do_POST(self) -> None:
            """Create an object, unless one of its name is there."""
            self._write(201)

        def _write(self, code: int) -> None:
            body = yaml.safe_load(self.rfile.read(int(self.headers["Content-Length"])))
            path = urlparse(self.path).path
            target = path if self.command == "PATCH" else f"{path}/{body['metadata']['name']}"
            if forbidden(target):
                code, found = 403, {"kind": "Status", "message": "no"}
            elif self.command == "POST" and any(_path(one) == target for one in known):
                code, found = 409, {"kind": "Status", "message": "there already"}
            else:
                found = {**body, "metadata": {"uid": "1", **body["metadata"]}}
                if written is not None:
                    written.append((self.command, target, body))
            said = json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Connection("recorded", Configuration(host=f"http://127.0.0.1:{server.server_port}"))
        finally:
            server.shutdown()


def _answer(known: list[Object], path: str, query: Mapping[str, list[str]]) -> Object | None:
    if path == "/version/":
        return {
            "major": "1", "minor": "35", "gitVersion": "v1.35.8", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": "",
        }  # fmt: skip
    if path == "/apis":
        versions = {str(one["apiVersion"]) for one in known}
        return {"groups": [_group(version) for version in sorted(versions) if "/" in version]}
    if path not in _RESOURCES and any(path == _base(one) for one in known):
        return {"resources": [{"name": _plural(one), "kind": one["kind"]} for one in known if _base(one) == path]}
    if path in _RESOURCES:
        return {"resources": [{"name": name, "kind": kind, "namespaced": own} for name, kind, own in _RESOURCES[path]]}
    for one in known:
        if path == _path(one):
            return one
    base, _, plural = path.rpartition("/")
    base, _, namespace = base.partition("/namespaces/")
    selector = (query.get("labelSelector") or [""])[0]
    items = [one for one in known if _base(one) == base and _plural(one) == plural]
    served = bool(items) or (base, plural) in _ALWAYS
    items = [one for one in items if namespace in ("", one["metadata"].get("namespace")) and _selected(one, selector)]
    return {"kind": "List", "items": items} if served else None


def _group(version: str) -> Object:
    served = {"groupVersion": version, "version": version.partition("/")[2]}
    return {"name": version.partition("/")[0], "versions": [served], "preferredVersion": served}


def _selected(one: Object, selector: str) -> bool:
    labels = one["metadata"].get("labels") or {}
    terms = [term for term in selector.split(",") if term]
    return all(labels.get(term.partition("=")[0]) == term.partition("=")[2] if "=" in term else term in labels for term in terms)


def _path(one: Object) -> str:
    namespace = one["metadata"].get("namespace")
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"{_base(one)}{within}/{_plural(one)}/{one['metadata']['name']}"


def _base(one: Object) -> str:
    version = one["apiVersion"]
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _plural(one: Object) -> str:
    kind = str(one["kind"])
    return _PLURALS.get(kind) or (f"{kind.lower()[:-1]}ies" if kind.endswith("y") else f"{kind.lower()}s")


def _ready(one: Object) -> Object:
    if one["kind"] not in _READY:
        return one
    spec = {"replicas": 1, "serviceName": "", "updateStrategy": {}, "strategy": {}, **one["spec"]}
    spec["template"] = {"metadata": {}, **spec["template"]}
    metadata = {"generation": 1, **one["metadata"]}
    return {**one, "metadata": metadata, "spec": spec, "status": {"observedGeneration": 1, **_READY[one["kind"]]}}
