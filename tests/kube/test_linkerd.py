# SPDX-License-Identifier: Apache-2.0
"""The scenarios of a mesh, unchanged, on a real cluster with Linkerd, deny-by-default; and what turns their proofs red.

ZTC_TEST_LINKERD_CRDS_CHART, ZTC_TEST_LINKERD_CONTROL_PLANE_CHART and ZTC_TEST_LINKERD_VIZ_CHART name folders or archives of its
charts, ZTC_TEST_LINKERD_IMAGES a folder with archives of what they pull. What the other variables say is in `kube_clusters`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kube_clusters import Ready, given, outcomes, path, provide, settings_of

from ztconform import proof
from ztconform.kube.cluster import KubeCluster
from ztconform.model import Manifest
from ztconform.proof.canary import mesh_canary
from ztconform.settings import Settings

STACK = "cilium+linkerd"
CHARTS = ("linkerd-crds", "linkerd-control-plane", "linkerd-viz")
REQUIREMENTS = (
    *("M01", "M02", "M03", "M04", "M11", "A01", "A02", "A08", "A17"),
    *("I01", "I02", "N16", "R05", "R06", "R07", "U04", "U05", "U06"),
)
NEEDED = (*(f"{name.upper().replace('-', '_')}_CHART" for name in CHARTS), "LINKERD_IMAGES")
MISSING = [f"ZTC_TEST_{name}" for name in NEEDED if not given(name)]

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"Linkerd's charts and images are named by {', '.join(MISSING)}, which are not set"
)


def settings(folder: Path) -> Settings:
    """Return what the environment says, with Linkerd's charts beside the CNI's."""
    found = settings_of(folder)
    charts = {name: Path(given(variable)) for name, variable in zip(CHARTS, NEEDED, strict=False)}
    images = path("LINKERD_IMAGES")
    return replace(found, charts={**found.charts, **charts}, load_images=(*found.load_images, *([images] if images else [])))


@pytest.fixture(scope="module")
def meshed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    yield from provide(STACK, settings(tmp_path_factory.mktemp("linkerd")))


@pytest.fixture
def cluster(meshed: Ready) -> Iterator[KubeCluster]:
    with meshed.start() as started:
        yield started


def test_every_requirement_of_linkerd_is_proved(meshed: Ready, tmp_path: Path) -> None:
    found, said = outcomes(meshed, REQUIREMENTS, tmp_path)
    assert dict.fromkeys(REQUIREMENTS, "PROVED") == found, said


def test_the_canary_sees_a_server_that_lets_everybody_in(cluster: KubeCluster) -> None:
    def open_up(manifest: Manifest) -> Manifest:
        if manifest["kind"] != "Server":
            return manifest
        return {**manifest, "spec": {**manifest["spec"], "accessPolicy": "all-unauthenticated"}}

    results = proof.prove_case(mesh_canary(("linkerd",)), cluster, mutate=open_up, patience=10)
    assert ["PROVED", "VIOLATED", "VIOLATED"] == [result.outcome for result in results]


def test_the_canary_sees_a_mesh_that_lets_nobody_in(cluster: KubeCluster) -> None:
    results = proof.prove_case(mesh_canary(("linkerd",)), cluster, mutate=lambda manifest: None, patience=10)
    assert "VIOLATED" == results[0].outcome
