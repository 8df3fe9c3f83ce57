# SPDX-License-Identifier: Apache-2.0
"""How the steps of a stack are done in a new cluster: charts, objects that no chart has, and what must be ready in between.

Which steps those are is left to the components, and how a chart gets there to `ztconform.kube.helm`.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ztconform.errors import ClusterError, Rejected
from ztconform.kube import helm, inventory, machine, ready
from ztconform.kube.client import Connection, connect
from ztconform.kube.helm import Chart
from ztconform.kube.kind import Plan
from ztconform.kube.ready import Goal
from ztconform.kube.resources import Resources
from ztconform.settings import Settings
from ztconform.stacks.component import Objects, Step

WITHIN = 300.0  # seconds for a part to be ready; images may have to be pulled


def run(steps: Sequence[Step], settings: Settings, plan: Plan) -> None:
    """Do the steps in order; raises ClusterError that names the one that failed, with what the cluster says of it."""
    for step in steps:
        match step:
            case Chart():
                settings.notify(f"installing {step.component} ({step})")
                _install(step, settings, plan)
            case Objects():
                settings.notify(f"installing {step.what} ({step.component})")
                _apply(step, connect(plan.context, plan.kubeconfig))
            case Goal():
                settings.notify(f"waiting for {step.what}")
                ready.wait(connect(plan.context, plan.kubeconfig), step, WITHIN, settings.notify)


def charts(steps: Sequence[Step]) -> tuple[Chart, ...]:
    """Return what helm installs."""
    return tuple(step for step in steps if isinstance(step, Chart))


def objects(steps: Sequence[Step]) -> tuple[Objects, ...]:
    """Return what is applied without a chart."""
    return tuple(step for step in steps if isinstance(step, Objects))


def content(steps: Sequence[Step]) -> Sequence[Any]:
    """Return what the steps install, such that it is equal where a kept cluster has all of it already."""
    told: list[Any] = [[step.component, step.what, step.mark] for step in objects(steps)]
    for chart in charts(steps):
        files = [path.read_text(encoding="utf-8") for path in chart.files]
        told.append([chart.component, str(chart), dict(chart.values), files])
    return told


def _install(chart: Chart, settings: Settings, plan: Plan) -> None:
    try:
        helm.install(machine.helm(settings.helm_bin), chart, plan.kubeconfig, plan.context)
    except ClusterError as error:
        # helm names the object that failed, a hook's job for one; why it did is in the events alone.
        warning = ""
        with suppress(ClusterError):
            warning = inventory.last_warning(connect(plan.context, plan.kubeconfig), chart.namespace, "")
        raise ClusterError(f"{error}; {warning}" if warning else str(error)) from None


def _apply(objects: Objects, connection: Connection) -> None:
    resources = Resources(connection)
    put = resources.keep if objects.once else resources.apply
    for manifest in objects.make():
        try:
            put(manifest)
        except Rejected as error:
            raise ClusterError(f"the cluster refuses {objects.what} ({objects.component}): {error}") from None
