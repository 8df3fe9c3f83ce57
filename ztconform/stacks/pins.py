# SPDX-License-Identifier: Apache-2.0
"""What is downloaded unless the user names another: the images and charts of `pins.toml`, each overridable by an option.

Using them is left to the stacks.
"""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ztconform.errors import InternalError


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedChart:
    """Name a chart of a repository."""

    repository: str
    name: str
    version: str
    namespace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """Hold all pins."""

    node: str
    agent: str
    charts: Mapping[str, PinnedChart]  # component -> its chart


@functools.cache
def load() -> Pins:
    """Return the pins; raises InternalError if the file is wrong."""
    return parse(Path(__file__).with_name("pins.toml").read_text(encoding="utf-8"))


def parse(text: str) -> Pins:
    """Return what a text pins; raises InternalError for any fault in it, an image without a version included."""
    try:
        told = tomllib.loads(text)
        charts = {component: PinnedChart(**chart) for component, chart in told["charts"].items()}
        pins = Pins(**told["images"], charts=MappingProxyType(charts))
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InternalError(f"pins.toml: {error}; please report this") from error
    for image in (pins.node, pins.agent):
        host, _, rest = image.partition("/")
        if "." not in host or ":" not in rest.partition("@")[0] or ":latest" in rest:
            raise InternalError(f"pins.toml: {image} names no registry or no version; please report this")
    return pins


def mirrored(image: str, registry: str) -> str:
    """Return a public image's name at a mirror: the registry stands in place of the public one's host."""
    return f"{registry.rstrip('/')}/{image.partition('/')[2]}" if registry else image
