# SPDX-License-Identifier: Apache-2.0
"""Every chart of every listed stack renders with our values, to the pinned images, and to workloads with the labels we know.

ZTC_TEST_<KEY>_CHART names a chart (ZTC_TEST_ISTIOD_CHART for istiod ...), released or its source; without it a test says that it
did not render. ZTC_TEST_GOLDEN=write writes the files below data/objects anew from what was rendered.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import charts
import pytest
import yaml

from ztconform import stacks
from ztconform.kube.helm import Chart
from ztconform.settings import PodOptions, Settings
from ztconform.stacks import composition, gatewayapi, images, installing, pins
from ztconform.stacks.kubernetes import KubernetesStack

OBJECTS = charts.DATA / "objects"
MIRROR = "mirror.example:5000/hub"
LABELLED = {  # chart -> stack whose values it is recorded with
    "cilium": "cilium", "istiod": "cilium+istio", "istio-cni": "cilium+istio:ambient", "ztunnel": "cilium+istio:ambient",
    "istio-ingressgateway": "cilium+istio+gateway", "istio-egressgateway": "cilium+istio+gateway",
    "linkerd-control-plane": "cilium+linkerd", "linkerd-viz": "cilium+linkerd", "spire": "calico+spire",
}  # fmt: skip


def charts_of(name: str, settings: Settings) -> tuple[Chart, ...]:
    stack = stacks.find(name)
    assert isinstance(stack, KubernetesStack)
    return installing.charts(stack.steps(settings))


def keys_of(name: str) -> set[str]:
    return {chart.component for chart in charts_of(name, Settings())}


def with_charts(name: str, **more: Any) -> tuple[Chart, ...]:
    return charts_of(name, Settings(charts=charts.needed(keys_of(name)), **more))


def chart_of(key: str, **more: Any) -> Chart:
    there = charts.needed([key])
    return next(one for one in charts_of(LABELLED[key], Settings(charts=there, **more)) if one.component == key)


@pytest.mark.parametrize("name", [name for name in composition.LISTED if keys_of(name)])
def test_every_chart_of_a_stack_renders_to_the_pinned_images(name: str) -> None:
    for chart in with_charts(name):
        pin = pins.load().charts[chart.component]
        found = {image.partition("@")[0] for image in charts.images(charts.rendered(chart))}
        assert set(pin.images) == found, chart.component


@pytest.mark.parametrize("name", ["cilium", "calico", "cilium+istio:ambient", "cilium+linkerd", "calico+spire"])
def test_every_image_comes_from_the_mirror_that_is_named(name: str) -> None:
    for chart in with_charts(name, pods=PodOptions(image_registry=MIRROR)):
        pin = pins.load().charts[chart.component]
        found = {image.partition("@")[0] for image in charts.images(charts.rendered(chart))}
        assert {pins.mirrored(image, MIRROR) for image in pin.images} == found, chart.component


@pytest.mark.parametrize("name", ["cilium", "calico", "cilium+istio:ambient", "cilium+linkerd", "calico+spire"])
def test_with_loaded_images_no_digest_is_asked_for_and_nothing_is_always_pulled(name: str, tmp_path: Path) -> None:
    for chart in with_charts(name, load_images=(tmp_path,)):
        documents = charts.rendered(chart)
        assert [] == [image for image in charts.images(documents) if "@" in image]
        assert {"IfNotPresent"} >= set(_policies(documents)) - {None}


def _policies(value: Any) -> list[str | None]:
    if isinstance(value, Mapping):
        own = [value.get("imagePullPolicy")] if "image" in value and "name" in value else []
        return own + [policy for inner in value.values() for policy in _policies(inner)]
    return [policy for inner in value for policy in _policies(inner)] if isinstance(value, list) else []


@pytest.mark.parametrize("key", LABELLED)
def test_what_a_stack_is_known_by_is_recorded_as_the_chart_renders_it(key: str) -> None:
    found = list(charts.recorded(charts.rendered(chart_of(key))))
    path = OBJECTS / f"{key}.yaml"
    if charts.REGENERATE:
        head = "# SPDX-License-Identifier: Apache-2.0\n# Rendered by helm from the pinned chart; see tests/unit/test_charts.py.\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + yaml.safe_dump_all(found, sort_keys=True), encoding="utf-8")
    assert found == list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_the_definitions_of_gateway_api_are_read_from_a_folder_and_are_those_that_are_waited_for() -> None:
    found = gatewayapi.read(charts.needed([gatewayapi.KEY])[gatewayapi.KEY])
    assert set(gatewayapi.CRDS) <= {one["metadata"]["name"] for one in found}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("busybox:1.37", "docker.io/library/busybox:1.37"),
        ("prom/prometheus:v2", "docker.io/prom/prometheus:v2"),
        ("quay.io/a/b:1", "quay.io/a/b:1"),
        ("localhost/a:1", "localhost/a:1"),
        ("registry:5000/a:1", "registry:5000/a:1"),
    ],
)
def test_an_image_has_a_registry(image: str, name: str) -> None:
    assert name == images.full(image)
