# SPDX-License-Identifier: Apache-2.0
"""What the user says of a stack to a command that starts no pytest session; the sessions' own options are the plugin's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ztconform.errors import UsageError
from ztconform.settings import PodOptions, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Hold the options as they were given."""

    kind_image: str = ""
    kind_config: Path | None = None
    kind_bin: str = "kind"
    helm_bin: str = "helm"
    agent_image: str = ""
    image_registry: str = ""
    cni_command: str = ""
    load_image: tuple[Path, ...] = ()
    chart: tuple[str, ...] = ()
    chart_version: tuple[str, ...] = ()
    chart_repository: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def settings(self) -> Settings:
        """Return them as settings; raises UsageError for a pair that is none."""
        return Settings(
            kind_image=self.kind_image,
            kind_config=self.kind_config,
            kind_bin=self.kind_bin,
            helm_bin=self.helm_bin,
            cni_command=self.cni_command,
            load_images=self.load_image,
            charts={key: Path(value) for key, value in _pairs("--chart", self.chart).items()},
            chart_versions=_pairs("--chart-version", self.chart_version),
            chart_repositories=_pairs("--chart-repository", self.chart_repository),
            values={key: Path(value) for key, value in _pairs("--values", self.values).items()},
            pods=PodOptions(agent_image=self.agent_image, image_registry=self.image_registry.rstrip("/")),
        )


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not (key and sign and value):
            raise UsageError(f"{option} {text}: give COMPONENT=...")
        if key in found:
            raise UsageError(f"{option} {text}: {key} is given twice")
        found[key] = value
    return found
