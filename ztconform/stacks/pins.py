# SPDX-License-Identifier: Apache-2.0
"""What is downloaded unless the user names another: the images, charts and files of `pins.toml`, each overridable by an option.

Using them is left to the stacks.
"""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ztconform.errors import InternalError


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedChart:
    """Name a chart of a repository."""

    repository: str
    name: str
    version: str
    namespace: str
    images: tuple[str, ...] = ()  # that its templates name, with our values
    spawned: tuple[str, ...] = ()  # that what it installs pulls in its turn: an operator's, a sidecar injector's


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedFile:
    """Name a file that is no chart."""

    url: str  # with {version} in it
    version: str

    @property
    def address(self) -> str:
        """Return where it is."""
        return self.url.format(version=self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """Hold all pins."""

    node: str
    agent: str
    charts: Mapping[str, PinnedChart]  # key, as in --ztc-chart KEY=DIR -> chart
    files: Mapping[str, PinnedFile]  # key, likewise -> file


@functools.cache
def load() -> Pins:
    """Return the pins; raises InternalError if the file is wrong."""
    return parse(Path(__file__).with_name("pins.toml").read_text(encoding="utf-8"))


def parse(text: str) -> Pins:
    """Return what a text pins; raises InternalError for any fault in it, an image without a version included."""
    try:
        told = tomllib.loads(text)
        charts = {key: PinnedChart(**_frozen(chart)) for key, chart in told["charts"].items()}
        files = {key: PinnedFile(**file) for key, file in told["files"].items()}
        pins = Pins(**told["images"], charts=MappingProxyType(charts), files=MappingProxyType(files))
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InternalError(f"pins.toml: {error}; please report this") from error
    for image in (pins.node, pins.agent, *(image for chart in charts.values() for image in (*chart.images, *chart.spawned))):
        host, _, rest = image.partition("/")
        if "." not in host or ":" not in rest.partition("@")[0] or ":latest" in rest:
            raise InternalError(f"pins.toml: {image} names no registry or no version; please report this")
    return pins


def _frozen(chart: Mapping[str, Any]) -> dict[str, Any]:
    return {field: tuple(value) if isinstance(value, list) else value for field, value in chart.items()}


def mirrored(image: str, registry: str) -> str:
    """Return a public image's name at a mirror: the registry stands in place of the public one's host."""
    return f"{registry.rstrip('/')}/{image.partition('/')[2]}" if registry else image
