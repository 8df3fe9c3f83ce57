# SPDX-License-Identifier: Apache-2.0
"""A waypoint: before whom there is one, what it is made of, what it lets be proved, and what its log says of a request."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifest_schemas import Schemas

from ztconform.evidence import Observation
from ztconform.kube import meshpods, objects, waypoints
from ztconform.kube.labels import Labels
from ztconform.kube.pods import KubePod
from ztconform.kube.proxylog import Sent
from ztconform.mesh.logentry import Entry
from ztconform.model import Attempt, Case, Manifest, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import plan
from ztconform.settings import PodOptions
from ztconform.stacks import ambientmesh, istiolog, istiomesh, waypoint

PAYMENT, FRONTEND, PRODUCTS = Ref("shop", "payment"), Ref("shop", "frontend"), Ref("shop", "products")
POD, OWN = Ref("shop", "payment-0"), ("10.244.1.9",)
OURS = istiomesh.MESH_CONFIG
DENIED = "rbac_access_denied_matched_policy[none]"
BY_NAME = "rbac_access_denied_matched_policy[ns[shop-1]-policy[no-admin]-rule[0]]"


def policy(target: Manifest | None, namespace: str = "shop") -> Manifest:
    spec = {"targetRefs": [target]} if target else {"selector": {"matchLabels": {"app": "payment"}}}
    return {"kind": "AuthorizationPolicy", "metadata": {"name": "some", "namespace": namespace}, "spec": spec}


def behind(*applied: Manifest, identity: str | None = None) -> list[str]:
    """Return the workloads that have a waypoint before them in a case of two calls, of which one has this identity."""
    rows = tuple(
        Row(id=str(target), probe=Probe(source=FRONTEND, target=target, port=8080), want="allowed", identity=told)
        for target, told in ((PAYMENT, None), (PRODUCTS, identity))
    )
    workloads = tuple(Workload(ref=ref, meshed=True) for ref in (FRONTEND, PAYMENT, PRODUCTS))
    steps = (Step(rows=rows), Step(apply=applied, rows=rows))
    made = plan.with_waypoints(Case(id="c", topology=Topology(namespaces={"shop": {}}, workloads=workloads), steps=steps))
    return [str(workload.ref) for workload in made.topology.workloads if workload.waypoint]


def test_a_workload_has_a_waypoint_that_a_policy_is_bound_to_or_whose_callers_are_to_be_known() -> None:
    assert [] == behind() == behind(policy(None))
    assert ["shop/payment"] == behind(policy({"group": "", "kind": "Service", "name": "payment"}))
    assert ["shop/products"] == behind(identity="spiffe://cluster.local/ns/shop/sa/frontend")
    assert [] == behind(policy({"group": "", "kind": "Service", "name": "payment"}, namespace="other"))
    assert [] == behind(policy({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "payment"}))


@pytest.mark.parametrize(("has", "label"), [(True, {"istio.io/use-waypoint": "waypoint"}), (False, {})])
def test_a_service_says_which_waypoint_leads_to_it_and_the_headless_one_does_not(has: bool, label: dict[str, str]) -> None:
    workload = Workload(ref=PAYMENT, ports=(Port(number=8080, name="http", service=80),), meshed=True, waypoint=has)
    labels = Labels("ztconform.io", "run", "")
    usual, headless = objects.services(workload, "shop-1", labels)
    spoken = [meshpods.spoken(service, workload, ambientmesh.mesh(OURS)) for service in (usual, headless)]
    added = [
        made["metadata"]["labels"].keys() - before["metadata"]["labels"].keys()
        for made, before in zip(spoken, (usual, headless), strict=True)
    ]
    assert [label.keys(), set()] == added
    assert label.items() <= spoken[0]["metadata"]["labels"].items()


def test_a_waypoint_meets_the_standard_that_our_namespaces_enforce_and_goes_where_our_pods_may() -> None:
    tolerations = ({"key": "dedicated", "operator": "Exists"},)
    options = PodOptions(node_selector={"pool": "tests"}, tolerations=tolerations, pull_secret="ci/pull")
    overlay, gateway = waypoint.objects("shop-1", options)
    (kept,) = yaml.safe_load(overlay["data"]["deployment"]).values()
    spec = kept["template"]["spec"]
    assert {"type": "RuntimeDefault"} == spec["securityContext"]["seccompProfile"]
    assert ({"pool": "tests"}, [*tolerations]) == (spec["nodeSelector"], spec["tolerations"])
    assert [{"name": "pull"}] == spec["imagePullSecrets"]
    assert overlay["metadata"]["name"] == gateway["spec"]["infrastructure"]["parametersRef"]["name"]
    # Pods with our own labels would be taken for some of ours.
    assert {"app": "waypoint"} == gateway["spec"]["infrastructure"]["labels"]


def test_a_waypoint_is_one_that_an_api_server_takes() -> None:
    folder = os.environ.get("ZTC_TEST_SCHEMAS")
    if not folder:
        pytest.skip("schemas not given: nothing validated")
    schemas = Schemas(Path(folder))
    _, gateway = waypoint.objects("shop-1", PodOptions())
    assert [] == [*schemas.wrongs(gateway), *schemas.wrongs(istiomesh.logging("shop-1"))]


def test_a_waypoint_names_the_revision_that_is_to_make_it() -> None:
    for revision, label in (("", None), ("canary", "canary")):
        made = ambientmesh.mesh(OURS, revision=revision).waypoint
        assert made is not None
        (gateway,) = (one for one in made.objects("shop-1", PodOptions()) if one["kind"] == "Gateway")
        assert label == gateway["metadata"]["labels"].get("istio.io/rev")


def test_where_the_mesh_logs_nothing_its_waypoints_do() -> None:
    for config, kinds in (({}, {"Gateway", "ConfigMap", "Telemetry"}), (OURS, {"Gateway", "ConfigMap"})):
        made = ambientmesh.mesh(config).waypoint
        assert made is not None
        assert kinds == {manifest["kind"] for manifest in made.objects("shop-1", PodOptions())}


@pytest.mark.parametrize(
    ("config", "version", "lacking", "missing"),
    [
        (OURS, "1.30.3", "", {}),
        (OURS, "", "", {}),
        (OURS, "1.30-9739e10", "", {}),
        (OURS, "latest", "", {}),
        (OURS, "1.29.4-distroless", "", {"identity": "since 1.30"}),
        (OURS, "1.9-alpha.2", "", {"identity": "since 1.30"}),
        ({}, "1.30.3", "", {"authorization-dry-run": "default log format"}),
        ({"accessLogFormat": "%START_TIME%"}, "1.30.3", "",
         dict.fromkeys(("l7-authz", "dotted-accounts", "authorization-dry-run"), "format of this mesh's own")),
        (OURS, "1.30.3", "no class",
         dict.fromkeys(("l7-authz", "identity", "dotted-accounts", "authorization-dry-run", "waypoint"), "no class")),
    ],
)  # fmt: skip
def test_what_waypoints_let_be_proved_depends_on_version_log_and_class(
    config: dict[str, Any], version: str, lacking: str, missing: dict[str, str]
) -> None:
    found = {name: why for name, why in waypoint.features(config, version, lacking=lacking).items() if why}
    assert waypoint.ONE_BETWEEN == found.pop("direct-calls")
    assert missing.keys() == found.keys()
    assert all(part in found[name] for name, part in missing.items())


def line(nonce: str | None = "n1", details: str = "via_upstream", start: str = "1795340900.1") -> bytes:
    said = {"start": start, "nonce": nonce, "details": details, "local": "10.96.0.12:80", "protocol": "HTTP/1.1"}
    return json.dumps({**dict.fromkeys(istiolog.FORMAT), **said}).encode()


def entries(*lines: bytes) -> list[Entry]:
    return [found for line in lines if (found := istiolog.read_waypoint(line, POD, OWN)) is not None]


def sent(signal: str = "answered", *, captured: bool = True, has: bool = True, **fields: Any) -> Any:
    probe = Probe(source=FRONTEND, target=PAYMENT, port=8080, **fields)
    attempt = Attempt(id="a", row="r", probe=probe, targets=(POD,), timeout=1.0)
    met = Observation(attempt="a", nonce="n1", sent=1, ended=2, signal=signal, stage="done")  # type: ignore[arg-type]  # likewise
    pods = {
        ref: KubePod(ref=ref, real=ref, workload=workload, node=0, addresses=(), serves=True)
        for ref, workload in (
            (FRONTEND, Workload(ref=FRONTEND, meshed=captured)),
            (POD, Workload(ref=PAYMENT, meshed=True, waypoint=has)),
        )
    }
    return attempt, met, pods


@pytest.mark.parametrize(
    ("lines", "denial", "rule"),
    [
        ([line(details=DENIED)], True, ""),
        ([line(details=BY_NAME)], True, "ns[shop-1]-policy[no-admin]-rule[0]"),
        ([line()], False, ""),
        ([line("n2", DENIED), line()], False, ""),
    ],
)
def test_a_request_is_found_by_its_nonce_in_its_waypoints_log(lines: list[bytes], denial: bool, rule: str) -> None:
    attempt, met, pods = sent()
    found = waypoints.word(Sent(attempt=attempt, observation=met, client=pods[FRONTEND], servers=(pods[POD],)), entries(*lines))
    assert (True, denial) == (found.known, found.denial is not None)
    assert found.served is not None
    assert rule == (found.denial.rule if found.denial else "")


@pytest.mark.parametrize("lines", [[], [line("n2")], [line(None)], [b"Envoy proxy is ready"], [line(), line(details=DENIED)]])
def test_a_request_that_none_or_two_lines_may_be_of_is_not_known(lines: list[bytes]) -> None:
    attempt, met, pods = sent()
    assert not waypoints.word(
        Sent(attempt=attempt, observation=met, client=pods[FRONTEND], servers=(pods[POD],)), entries(*lines)
    ).known


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({}, True),
        ({"address": "name"}, True),
        ({"address": "pod"}, False),
        ({"address": "headless"}, False),
        ({"address": "node"}, False),
        ({"via": Ref("shop", "alias")}, False),
        ({"signal": "closed"}, False),
        ({"captured": False}, False),
        ({"has": False}, False),
    ],
)
def test_only_what_was_answered_to_a_captured_client_went_through_the_waypoint(probe: dict[str, Any], expected: bool) -> None:
    attempt, met, pods = sent(**probe)
    assert expected == bool(waypoints.through({"n1": (attempt, met)}, pods))
