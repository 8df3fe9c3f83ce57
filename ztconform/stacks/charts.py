# SPDX-License-Identifier: Apache-2.0
"""Which chart a component is installed from: the pinned one, or whatever of it the user replaced.

Its values are left to the component, and installing it to `ztconform.kube.helm`.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ztconform.errors import UsageError
from ztconform.settings import Settings
from ztconform.stacks import pins

if TYPE_CHECKING:
    from ztconform.kube.helm import Chart


def chart(key: str, settings: Settings, *values: Mapping[str, Any]) -> "Chart":
    """Return the chart of a key of `pins.toml`, with these values, the later above the earlier, and the user's above them all."""
    from ztconform.kube.helm import Chart  # noqa: PLC0415 - the extra may be missing
    from ztconform.kube.kindconfig import merge  # noqa: PLC0415 - likewise

    pin = pins.load().charts[key]
    whole: Mapping[str, Any] = {}
    for some in values:
        whole = merge(whole, some)
    file = settings.values.get(key)
    return Chart(
        component=key,
        namespace=pin.namespace,
        name=pin.name,
        repository=settings.chart_repositories.get(key) or pin.repository,
        version=settings.chart_versions.get(key) or pin.version,
        path=settings.charts.get(key),
        values=whole,
        files=(file,) if file else (),
    )


def check(settings: Settings) -> None:
    """Raise UsageError for an option about a chart that no stack has, or that contradicts another."""
    known = {*pins.load().charts, *pins.load().files}
    _demand(settings.charts, known, "--ztc-chart")
    _demand(settings.chart_versions, known, "--ztc-chart-version")
    _demand(settings.chart_repositories, known, "--ztc-chart-repository")
    _demand(settings.values, pins.load().charts.keys(), "--ztc-values")
    for option, given in (
        ("--ztc-chart-version", settings.chart_versions),
        ("--ztc-chart-repository", settings.chart_repositories),
    ):
        if twice := sorted(given.keys() & settings.charts.keys()):
            raise UsageError(f"{option} {twice[0]}={given[twice[0]]}: --ztc-chart says already where that chart is")


def _demand(given: Mapping[str, object], known: Collection[str], option: str) -> None:
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{option} {name}={value}: no stack installs that; there is: {', '.join(sorted(known))}")
