# SPDX-License-Identifier: Apache-2.0
"""Which images a stack runs from, for whoever brings them past an air gap: of the charts that are here, else the pinned ones.

What a mirror calls them is told too, if the user names one.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from ztconform.settings import Settings
from ztconform.stacks import pins

if TYPE_CHECKING:
    from ztconform.kube.helm import Chart
    from ztconform.stacks.kubernetes import KubernetesStack

_HOOK = "helm.sh/hook"


def of(stack: "KubernetesStack", settings: Settings) -> tuple[str, ...]:
    """Return every image of a stack, the nodes' and our pods' first; raises ClusterError if a chart does not render."""
    from ztconform.stacks import installing  # noqa: PLC0415 - the extra may be missing
    from ztconform.stacks.kubernetes import settled  # noqa: PLC0415 - it imports much

    settings = settled(settings)
    found = [settings.kind_image, settings.pods.agent_image]
    for chart in installing.charts(stack.steps(settings)):
        found += sorted(_of_chart(chart, settings))
    return tuple(dict.fromkeys(found))


def of_manifests(documents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the images of pods in manifests, by their full names; those of tests and other hooks are not among them."""
    for document in documents:
        if _HOOK not in (document["metadata"].get("annotations") or {}):
            yield from map(full, _images(document))


def full(image: str) -> str:
    """Return an image's name with its registry, which Docker leaves out of its own."""
    host, slash, rest = image.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{host}{rest}"


def _of_chart(chart: "Chart", settings: Settings) -> Iterator[str]:
    from ztconform.kube import helm, machine  # noqa: PLC0415 - the extra may be missing

    pin = pins.load().charts[chart.component]
    if chart.path is None and chart.version == pin.version:
        yield from (pins.mirrored(image, settings.pods.image_registry) for image in pin.images)
    else:
        text = helm.render(machine.helm(settings.helm_bin), chart)
        # Definitions of kinds are long, name no image, and would take a minute to read.
        documents = (part for part in text.split("\n---") if "image:" in part and "kind: CustomResourceDefinition" not in part)
        yield from of_manifests(document for part in documents if (document := yaml.safe_load(part)))
    # What an operator or an injector pulls stands in no chart; it is of the chart's own version.
    for image in pin.spawned:
        name, colon, tag = image.rpartition(":")
        own = f"{name}{colon}{chart.version}" if tag == pin.version else image
        yield pins.mirrored(own, settings.pods.image_registry)


def _images(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in ("containers", "initContainers") and isinstance(inner, list):
                # What an injector will put there is called "auto".
                yield from (str(one["image"]) for one in inner if one.get("image") not in (None, "auto"))
            else:
                yield from _images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _images(inner)
