# SPDX-License-Identifier: Apache-2.0
"""The scenarios of a mesh, unchanged, on a real cluster with Istio's ambient mode; and what turns their proofs red.

ZTC_TEST_ISTIO_CNI_CHART and ZTC_TEST_ZTUNNEL_CHART name folders or archives of its charts beside those that `test_mesh` names,
ZTC_TEST_ISTIO_CNI_VALUES and ZTC_TEST_ZTUNNEL_VALUES files of values, ZTC_TEST_GATEWAY_API the definitions of Gateway API, and
ZTC_TEST_AMBIENT_IMAGES a folder with archives of pilot, proxyv2, install-cni and ztunnel.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kube_clusters import Ready, given, outcomes, path, provide, settings_of

from ztconform import proof
from ztconform.kube.cluster import KubeCluster
from ztconform.model import Case, Manifest, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof.canary import mesh_canary
from ztconform.settings import Settings

STACK = "cilium+istio:ambient"
CHARTS = {
    "istio-base": "ISTIO_BASE_CHART",
    "istiod": "ISTIOD_CHART",
    "istio-cni": "ISTIO_CNI_CHART",
    "ztunnel": "ZTUNNEL_CHART",
    "gateway-api": "GATEWAY_API",
}
VALUES = {"istiod": "ISTIOD_VALUES", "istio-cni": "ISTIO_CNI_VALUES", "ztunnel": "ZTUNNEL_VALUES"}
CONNECTIONS = ("M01", "M02", "M03", "M04", "M11", "N16")
REQUESTS = ("A01", "A02", "A07", "A08", "A17", "I01", "I02", "I03", "R07", "U03", "U05")  # by waypoints
MISSING = [f"ZTC_TEST_{name}" for name in (*CHARTS.values(), *VALUES.values(), "AMBIENT_IMAGES") if not given(name)]
NAMES = ("permitted", "stranger", "server")

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"Istio's charts and images are named by {', '.join(MISSING)}, which are not set"
)


def settings(folder: Path) -> Settings:
    """Return what the environment says, with Istio's charts beside the CNI's."""
    found = settings_of(folder)
    charts = {**found.charts, **{name: Path(given(variable)) for name, variable in CHARTS.items()}}
    values = {**found.values, **{name: Path(given(variable)) for name, variable in VALUES.items()}}
    images = path("AMBIENT_IMAGES")
    return replace(found, charts=charts, values=values, load_images=(*found.load_images, *([images] if images else [])))


@pytest.fixture(scope="module")
def meshed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    yield from provide(STACK, settings(tmp_path_factory.mktemp("ambient")))


@pytest.fixture
def cluster(meshed: Ready) -> Iterator[KubeCluster]:
    with meshed.start() as started:
        yield started


def shop() -> Topology:
    port = Port(number=8080, name="http", service=80)
    workloads = (
        *(Workload(ref=Ref("shop", n), ports=(port,), service_account=n, labels={"app": n}, meshed=True) for n in NAMES),
        Workload(ref=Ref("shop", "bare")),
    )
    return Topology(namespaces={"shop": {}}, workloads=workloads, private=True)


def deny(source: str) -> Manifest:
    """Return a policy that denies an account at the server."""
    principals = [f"cluster.local/ns/shop/sa/{source}"]
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "not-you", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "server"}},
            "action": "DENY",
            "rules": [{"from": [{"source": {"principals": principals}}]}],
        },
    }


def row(source: str, want: str) -> Row:
    probe = Probe(source=Ref("shop", source), target=Ref("shop", "server"), port=8080)
    by = frozenset({"l7"}) if want == "denied" else frozenset()
    return Row(id=f"{source} {want}", probe=probe, want=want, by=by)  # type: ignore[arg-type]  # literals, as given


@pytest.mark.parametrize("requirements", [CONNECTIONS, REQUESTS], ids=["connections", "requests"])
def test_every_requirement_of_ambient_is_proved(requirements: tuple[str, ...], meshed: Ready, tmp_path: Path) -> None:
    found, said = outcomes(meshed, requirements, tmp_path)
    assert dict.fromkeys(requirements, "PROVED") == found, said


def by_waypoint() -> tuple[Manifest, ...]:
    """Return a policy by which the server's waypoint admits one account, and one by which ztunnel admits the waypoint alone."""

    def allow(name: str, account: str, **where: object) -> Manifest:
        rules = [{"from": [{"source": {"principals": [f"cluster.local/ns/shop/sa/{account}"]}}]}]
        return {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {**where, "action": "ALLOW", "rules": rules},
        }

    return (
        allow("permitted", "permitted", targetRefs=[{"group": "", "kind": "Service", "name": "server"}]),
        allow("only-by-waypoint", "waypoint", selector={"matchLabels": {"app": "server"}}),
    )


@pytest.mark.parametrize(
    ("dropped", "expected"),
    [
        ("", ["PROVED", "PROVED", "PROVED", "PROVED"]),
        ("permitted", ["PROVED", "VIOLATED", "PROVED", "PROVED"]),
        ("only-by-waypoint", ["PROVED", "PROVED", "VIOLATED", "VIOLATED"]),
    ],
)
def test_a_waypoint_that_does_not_judge_is_a_violation_and_so_is_one_that_can_be_bypassed(
    dropped: str, expected: list[str], cluster: KubeCluster
) -> None:
    stranger = row("stranger", "denied")
    past = (replace(r, id=f"{r.id} by pod", probe=replace(r.probe, address="pod")) for r in (stranger, row("bare", "denied")))
    rows = (row("permitted", "allowed"), stranger, *past)
    case = Case(id="waypoint", topology=shop(), steps=(Step(apply=by_waypoint(), rows=rows),))
    results = proof.prove_case(
        case, cluster, mutate=lambda manifest: None if manifest["metadata"]["name"] == dropped else manifest, patience=20
    )
    assert expected == [result.outcome for result in results], [result.why for result in results]
    if not dropped:
        assert [("shop/permitted",), ("shop/only-by-waypoint",), ("shop/only-by-waypoint",)] == [
            result.cause and result.cause.policies for result in results[1:]
        ]


def test_the_canary_sees_a_mesh_whose_policies_are_gone(cluster: KubeCluster) -> None:
    results = proof.prove_case(mesh_canary(("istio",)), cluster, mutate=lambda manifest: None, patience=10)
    assert ["PROVED", "VIOLATED", "VIOLATED"] == [result.outcome for result in results]


def test_a_policy_that_denies_an_account_is_named_by_the_servers_ztunnel(cluster: KubeCluster) -> None:
    rows = (row("permitted", "allowed"), row("stranger", "denied"))
    results = proof.prove_case(Case(id="named", topology=shop(), steps=(Step(apply=(deny("stranger"),), rows=rows),)), cluster)
    assert ["PROVED"] * 2 == [result.outcome for result in results], [result.why for result in results]
    cause = results[1].cause
    assert cause is not None
    assert (("shop/not-you",), True) == (cause.policies, cause.explicit)


def test_a_policy_that_denies_another_account_is_a_violation(cluster: KubeCluster) -> None:
    rows = (row("permitted", "allowed"), row("stranger", "denied"))
    case = Case(id="other", topology=shop(), steps=(Step(apply=(deny("nobody"),), rows=rows),))
    results = proof.prove_case(case, cluster, patience=10)
    assert ["PROVED", "VIOLATED"] == [result.outcome for result in results], [result.why for result in results]


def test_meshed_pods_are_captured_and_no_other_is(meshed: Ready, cluster: KubeCluster) -> None:
    cluster.deploy(shop(), "captured")
    told = meshed.kubectl("get", "pods", "-A", "-l", "app.kubernetes.io/managed-by=ztconform", "-o", "json")
    captured = {
        pod["metadata"]["name"]
        for pod in json.loads(told)["items"]
        if (pod["metadata"].get("annotations") or {}).get("ambient.istio.io/redirection") == "enabled"
    }
    assert {f"{name}-0" for name in NAMES} == captured
