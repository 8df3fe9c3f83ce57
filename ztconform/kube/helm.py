# SPDX-License-Identifier: Apache-2.0
"""How a chart gets into a cluster: `helm upgrade --install`, the same the second time; and whether it renders at all.

When what it installs is ready is left to `ready`; which chart and values, to the stacks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ztconform.errors import ClusterError, UsageError
from ztconform.kube import command

_INSTALL = 300.0  # seconds; without --wait, so this is the download and what the API server takes
_RENDER = 120.0  # the chart may have to be downloaded
_OCI = "oci://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Name a chart: of a repository, or (where `path` is given) a folder or archive on this machine."""

    component: str  # as in --ztc-chart COMPONENT=DIR
    namespace: str
    name: str = ""
    repository: str = ""
    version: str = ""
    path: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)  # ours
    files: tuple[Path, ...] = ()  # the user's, on top of ours

    @property
    def source(self) -> Sequence[str]:
        """Return the arguments that tell helm where the chart is."""
        if self.path is not None:
            return [str(self.path)]
        if self.repository.startswith(_OCI):
            return [f"{self.repository.rstrip('/')}/{self.name}", "--version", self.version]
        return [self.name, "--repo", self.repository, "--version", self.version]

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else f"{self.repository} {self.name} {self.version}"


def check(chart: Chart) -> None:
    """Raise UsageError for a chart or values file that is not there or is not one; runs nothing."""
    if chart.path is not None:
        option = f"--ztc-chart {chart.component}={chart.path}"
        if chart.path.is_dir():
            if not (chart.path / "Chart.yaml").is_file():
                raise UsageError(f"{option}: this folder has no Chart.yaml")
        elif not chart.path.is_file():
            raise UsageError(f"{option}: there is no such folder or archive")
    for path in chart.files:
        option = f"--ztc-values {chart.component}={path}"
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"{option}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f" (line {mark.line + 1})" if mark else ""
            raise UsageError(f"{option}: is not YAML{line}: {getattr(error, 'problem', None) or 'it is not UTF-8'}") from None
        if value is not None and not isinstance(value, dict):
            raise UsageError(f"{option}: helm values are a mapping")


def render(binary: Path, chart: Chart) -> str:
    """Return the chart's manifests with these values; touches no cluster.

    Raises ClusterError, in helm's own first line, if it does not render or cannot be had.
    """
    done = command.run(
        [str(binary), "template", chart.component, *_arguments(chart)], within=_RENDER, stdin=yaml.safe_dump(dict(chart.values))
    )
    if done.code != 0:
        raise ClusterError(f"the chart of {chart.component} ({chart}) does not render: {complaint(done.err)}")
    return done.out


def install(binary: Path, chart: Chart, kubeconfig: Path, context: str) -> None:
    """Install the chart, or bring what is installed to it; raises ClusterError in helm's own first line."""
    where = ["--kubeconfig", str(kubeconfig), "--kube-context", context, "--timeout", f"{_INSTALL:.0f}s"]
    done = command.run(
        [str(binary), "upgrade", "--install", "--create-namespace", *where, chart.component, *_arguments(chart)],
        within=_INSTALL + 30,
        stdin=yaml.safe_dump(dict(chart.values)),
    )
    if done.code != 0:
        raise ClusterError(f"helm could not install {chart.component} ({chart}): {complaint(done.err)}")


def complaint(said: str) -> str:
    """Return the line of helm's error output that says what is wrong, without helm's own warnings and advice."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error:")] or lines
    return errors[0].removeprefix("Error: ")[:600] if errors else "it does not say why"


def _arguments(chart: Chart) -> Sequence[str]:
    files = [part for path in chart.files for part in ("--values", str(path))]
    return [*chart.source, "--namespace", chart.namespace, "--values", "-", *files]
