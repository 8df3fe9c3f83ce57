# SPDX-License-Identifier: Apache-2.0
"""The role that we ask for: all that a run needs, and nothing else."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("kubernetes")

from kubernetes.client import Configuration

from ztconform.kube import access, kinds
from ztconform.kube.access import Need
from ztconform.kube.client import Connection

WORDS = st.text("abc./", min_size=1, max_size=4)
NEEDS = st.lists(
    st.builds(Need, group=WORDS, resource=WORDS, verbs=st.lists(WORDS, min_size=1, max_size=3, unique=True).map(tuple)),
    max_size=8,
)


def permitted(role: str) -> set[tuple[str, str, str]]:
    """Return group, resource and verb of whatever a role permits."""
    rules = yaml.safe_load(role)["rules"]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@given(NEEDS)
def test_a_role_permits_what_is_needed_and_nothing_else(wanted: Sequence[Need]) -> None:
    assert {(need.group, need.resource, verb) for need in wanted for verb in need.verbs} == permitted(
        access.cluster_role("some", wanted)
    )


def test_no_run_needs_a_wildcard_or_secrets_or_a_whole_kind_deleted() -> None:
    for group, resource, verb in permitted(access.cluster_role("ours", access.ALWAYS)):
        assert "*" not in group + resource + verb
        assert ("secrets", "deletecollection") != (resource, verb)
        assert verb in {"create", "delete", "get", "list", "patch", "watch"}


def test_exec_needs_both_the_verb_of_its_websocket_and_the_one_that_newer_servers_ask_for() -> None:
    assert {("", "pods/exec", "get"), ("", "pods/exec", "create")} <= permitted(access.cluster_role("ours", access.ALWAYS))


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("jane", {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}),
        ("system:serviceaccount:ci:tester", {"kind": "ServiceAccount", "namespace": "ci", "name": "tester"}),
        ("oidc:a: b", {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "oidc:a: b"}),
    ],
)
def test_a_binding_names_the_user_as_rbac_does(user: str, subject: dict[str, str]) -> None:
    binding = yaml.safe_load(access.binding("ours", user))
    assert ([subject], "ours") == (binding["subjects"], binding["roleRef"]["name"])


@pytest.fixture
def serving() -> Iterator[Callable[[dict[str, object]], Connection]]:
    """Return a function that serves paths, each with a document or the code of an error, and how to reach them."""
    served: dict[str, object] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = served.get(self.path, 404)
            body = json.dumps({} if isinstance(found, int) else found).encode()
            self.send_response(found if isinstance(found, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    def serve(paths: dict[str, object]) -> Connection:
        served.update(paths)
        return Connection("some", Configuration(host=f"http://127.0.0.1:{server.server_port}"))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield serve
        server.shutdown()


def offered(name: str, *versions: str) -> dict[str, object]:
    """Return an API group, the first of whose versions is the preferred one."""
    known = [{"groupVersion": f"{name}/{version}"} for version in versions]
    return {"name": name, "versions": sorted(known, key=str), "preferredVersion": known[0]}


def resources(**kinds_by_resource: str) -> dict[str, object]:
    return {"resources": [{"name": name, "kind": kind} for name, kind in kinds_by_resource.items()]}


def test_of_the_kinds_of_policy_those_count_that_the_cluster_serves_in_the_version_that_it_prefers(
    serving: Callable[[dict[str, object]], Connection],
) -> None:
    cluster = serving(
        {
            "/apis": {"groups": [offered("apps", "v1"), offered("cilium.io", "v2", "v1"), offered("security.istio.io", "v1")]},
            "/apis/cilium.io/v2": resources(ciliumnetworkpolicies="CiliumNetworkPolicy", ciliumidentities="CiliumIdentity"),
            "/apis/cilium.io/v1": resources(
                ciliumnetworkpolicies="CiliumNetworkPolicy", ciliumclusterwidenetworkpolicies="CiliumClusterwideNetworkPolicy"
            ),
        }
    )
    assert [
        ("/apis/cilium.io/v2/ciliumnetworkpolicies", "CiliumNetworkPolicy"),
        ("/apis/cilium.io/v1/ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy"),
    ] == [(kind.path, kind.name) for kind in kinds.served(cluster)]


def test_a_group_whose_program_is_down_is_not_taken_for_one_that_is_not_there(
    serving: Callable[[dict[str, object]], Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "_PATIENCE", 0.1)
    cluster = serving({"/apis": {"groups": [offered("projectcalico.org", "v3")]}, "/apis/projectcalico.org/v3": 503})
    ours = ["networkpolicies", "globalnetworkpolicies", "stagednetworkpolicies", "stagedglobalnetworkpolicies"]
    assert ours == [kind.resource for kind in kinds.served(cluster)]


@pytest.mark.parametrize(("group", "needed"), [("security.istio.io", True), ("cilium.io", False)])
def test_what_stands_beside_meshed_pods_is_needed_where_istio_runs_alone(
    group: str, needed: bool, serving: Callable[[dict[str, object]], Connection]
) -> None:
    known = resources(authorizationpolicies="AuthorizationPolicy", ciliumnetworkpolicies="CiliumNetworkPolicy")
    cluster = serving({"/apis": {"groups": [offered(group, "v1")]}, f"/apis/{group}/v1": known})
    assert needed == ({"destinationrules.networking.istio.io"} <= {need.name for need in access.needs(cluster)})


@pytest.mark.parametrize(("ztunnels", "needed"), [({"items": [{}]}, True), ({"items": []}, False), (403, False)])
def test_waypoints_are_made_of_gateways_where_istio_is_ambient(
    ztunnels: object, needed: bool, serving: Callable[[dict[str, object]], Connection]
) -> None:
    known = resources(authorizationpolicies="AuthorizationPolicy")
    cluster = serving(
        {
            "/apis": {"groups": [offered("security.istio.io", "v1")]},
            "/apis/security.istio.io/v1": known,
            "/apis/apps/v1/daemonsets?labelSelector=app%3Dztunnel": ztunnels,
        }
    )
    assert needed == ({"gateways.gateway.networking.k8s.io"} <= {need.name for need in access.needs(cluster)})
