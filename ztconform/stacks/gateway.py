# SPDX-License-Identifier: Apache-2.0
"""The component `gateway`: Istio's ingress and egress gateways, by the gateway chart (1.30.3) or as they are found."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztconform.settings import Settings
from ztconform.stacks import charts
from ztconform.stacks.component import Composition, Findings, Found, Overlay, Role, Site, Step

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.ready import Goal

# The chart's key is the release's name, of which the chart makes the pods' labels: istio-ingressgateway has istio=ingressgateway.
INGRESS, EGRESS = "istio-ingressgateway", "istio-egressgateway"
_LABELS = {INGRESS: "istio=ingressgateway", EGRESS: "istio=egressgateway"}
VALUES: Mapping[str, Any] = {
    "autoscaling": {"enabled": False},
    "imagePullPolicy": "IfNotPresent",
    "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
    # kind has no load balancers: from outside it is reached by its node port, from inside by its Service.
    "service": {"type": "NodePort"},
}


class Gateway(Overlay):
    """Answer for Istio's gateways."""

    name = "gateway"
    role: Role = "gateway"
    summary = "Istio's ingress and egress gateways"
    memory = 300

    def steps(self, stack: Composition, settings: Settings, site: Site) -> Sequence[Step]:
        """Return both gateways; their proxy is injected, so that Istio must be ready."""
        return (
            charts.chart(INGRESS, settings, VALUES),
            charts.chart(EGRESS, settings, VALUES, {"service": {"type": "ClusterIP"}}),
        )

    def promises(self, stack: Composition) -> Mapping[str, str]:
        """Return what the gateways add."""
        return {"egress-gateway": "no call is sent through the egress gateway yet"}

    def goal(self, stack: Composition) -> "Goal":
        """Return both gateways."""
        from ztconform.kube.ready import Goal, Want  # noqa: PLC0415 - the extra may be missing

        return Goal(
            what="the gateways",
            wants=tuple(Want(kind="deployment", namespace="", name=name, selector=labels) for name, labels in _LABELS.items()),
        )

    def found(self, connection: "Connection") -> Found | None:
        """Return by what the gateways are known: by their labels, both of them."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        found = [inventory.deployments(connection, "", labels) for labels in _LABELS.values()]
        if not all(found):
            return None
        return Found(evidence=", ".join(f"deployment {one[0].namespace}/{one[0].name}" for one in found))

    def findings(self, connection: "Connection", settings: Settings, stack: Composition, kind: str) -> Findings:
        """Return what the gateways add."""
        return Findings(features=self.promises(stack))

    def status(self, connection: "Connection") -> str:
        """Return what keeps their pods from running."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        found = [one for labels in _LABELS.values() for one in inventory.deployments(connection, "", labels)]
        troubles = [trouble for one in found for trouble in inventory.troubles(connection, one.namespace, one.selector)]
        return "".join(f"{trouble}\n" for trouble in troubles)


COMPONENT = Gateway()
