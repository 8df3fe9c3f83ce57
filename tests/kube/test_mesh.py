# SPDX-License-Identifier: Apache-2.0
"""The scenarios of a mesh, unchanged, on a real cluster with Istio's sidecars; and what is no finding but an error there.

ZTC_TEST_ISTIO_BASE_CHART and ZTC_TEST_ISTIOD_CHART name folders or archives of Istio's charts, ZTC_TEST_ISTIOD_VALUES a file of
values, ZTC_TEST_ISTIO_IMAGES a folder with archives of pilot and proxyv2. What the other variables say is in `kube_clusters`.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kube_clusters import Ready, given, outcomes, path, provide, settings_of

from ztconform import catalogue, proof
from ztconform.errors import ClusterError
from ztconform.kube.cluster import KubeCluster
from ztconform.model import Case, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof.canary import mesh_canary
from ztconform.settings import Settings

STACK = "cilium+istio"
NEEDED = ("ISTIO_BASE_CHART", "ISTIOD_CHART", "ISTIOD_VALUES", "ISTIO_IMAGES")
REQUIREMENTS = (
    *("M01", "M02", "M03", "M04", "M06", "M07", "M11"),
    *("A01", "A02", "A03", "A07", "A08", "A12", "A17"),
    *("I01", "I02", "I03", "R05", "R06", "R07", "U03", "U06"),
)
MISSING = [f"ZTC_TEST_{name}" for name in NEEDED if not given(name)]

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"Istio's charts and images are named by {', '.join(MISSING)}, which are not set"
)


def settings(folder: Path) -> Settings:
    """Return what the environment says, with Istio's charts beside the CNI's."""
    found = settings_of(folder)
    istio = {"istio-base": "ISTIO_BASE_CHART", "istiod": "ISTIOD_CHART"}
    charts = {**found.charts, **{name: Path(given(variable)) for name, variable in istio.items()}}
    values = {**found.values, "istiod": Path(given("ISTIOD_VALUES"))}
    images = path("ISTIO_IMAGES")
    return replace(found, charts=charts, values=values, load_images=(*found.load_images, *([images] if images else [])))


@pytest.fixture(scope="module")
def meshed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    yield from provide(STACK, settings(tmp_path_factory.mktemp("mesh")))


@pytest.fixture
def cluster(meshed: Ready) -> Iterator[KubeCluster]:
    with meshed.start() as started:
        yield started


def test_every_scenario_of_the_mesh_is_proved(meshed: Ready, tmp_path: Path) -> None:
    found, said = outcomes(meshed, REQUIREMENTS, tmp_path)
    assert dict.fromkeys(REQUIREMENTS, "PROVED") == found, said
    assert set(REQUIREMENTS) <= catalogue.load().keys()


def test_the_canary_of_the_mesh_sees_a_mesh_whose_policies_are_gone(cluster: KubeCluster) -> None:
    results = proof.prove_case(mesh_canary(("istio",)), cluster, mutate=lambda manifest: None, patience=10)
    assert ["PROVED", "VIOLATED", "VIOLATED"] == [result.outcome for result in results]


def test_a_bare_pod_beside_meshed_ones_has_no_proxy_and_bystanders_have_none(meshed: Ready, cluster: KubeCluster) -> None:
    server = Workload(ref=Ref("shop", "server"), ports=(Port(number=8080, name="http", service=80),), meshed=True)
    bare = Workload(ref=Ref("shop", "bare"))
    cluster.deploy(Topology(namespaces={"shop": {}}, workloads=(server, bare), private=True), "bare")
    told = meshed.kubectl("get", "pods", "-A", "-l", "app.kubernetes.io/managed-by=ztconform", "-o", "json")
    proxied = {
        pod["metadata"]["name"]
        for pod in json.loads(told)["items"]
        if "istio-proxy" in json.dumps([pod["spec"]["containers"], pod["spec"].get("initContainers")])
    }
    assert {"server-0"} == proxied


def test_a_meshed_pod_that_was_given_no_proxy_is_an_error_and_no_finding(meshed: Ready, cluster: KubeCluster) -> None:
    kind = "mutatingwebhookconfiguration"
    saved = json.loads(meshed.kubectl("get", kind, "istio-sidecar-injector", "-o", "json"))
    kept = {key: saved[key] for key in ("apiVersion", "kind", "webhooks")}
    metadata = {key: saved["metadata"][key] for key in ("name", "labels", "annotations") if key in saved["metadata"]}
    server = Workload(ref=Ref("shop", "server"), meshed=True)
    topology = Topology(namespaces={"shop": {}}, workloads=(server,), private=True)
    meshed.kubectl("delete", kind, "istio-sidecar-injector")
    try:
        with pytest.raises(ClusterError, match=r"was not given its proxy, the container istio-proxy.*fails open"):
            cluster.deploy(topology, "uninjected")
    finally:
        meshed.kubectl("create", "-f", "-", told=json.dumps({**kept, "metadata": metadata}))


def test_an_attacker_leaves_past_its_proxy_and_its_pod_is_captured_all_the_same(cluster: KubeCluster) -> None:
    port = Port(number=8080, name="http", service=80)
    server, attacker = (Workload(ref=Ref("shop", name), ports=(port,), meshed=True) for name in ("server", "attacker"))
    strict = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "shop"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }

    def row(name: str, want: str, **fields: object) -> Row:
        probe = Probe(source=attacker.ref, target=server.ref, port=8080, **fields)  # type: ignore[arg-type]  # as given
        by = frozenset({"mtls"}) if want == "denied" else frozenset()
        return Row(id=name, probe=probe, want=want, by=by)  # type: ignore[arg-type]  # literals, as given

    rows = (row("captured", "allowed"), row("past", "denied", past_proxy=True))
    topology = Topology(namespaces={"shop": {}}, workloads=(server, attacker), private=True)
    results = proof.prove_case(Case(id="past", topology=topology, steps=(Step(apply=(strict,), rows=rows),)), cluster)
    assert ["PROVED", "PROVED"] == [result.outcome for result in results], [result.why for result in results]
