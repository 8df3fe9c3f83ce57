# SPDX-License-Identifier: Apache-2.0
"""The component `spire`: SPIRE with its controller manager and CSI driver, or as it is found; how it is installed, known and set.

Values are checked against the charts spire 0.30.0 and spire-crds 0.6.0. The controller manager of our own stacks ignores a
ClusterSPIFFEID without `className: ztconform`, and the one that would issue to every pod is left out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztconform.settings import Settings
from ztconform.stacks import charts
from ztconform.stacks.component import Composition, Findings, Found, Overlay, Role, Site, Step
from ztconform.stacks.istio import TTL

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.inventory import Rollout
    from ztconform.kube.ready import Goal

NAMESPACE = "spire-system"
CRD_CHART, CHART = "spire-crds", "spire"
CLASS = "ztconform"
TRUST_DOMAIN = "ztconform.example"
CSI_DRIVER = "csi.spiffe.io"
CRDS = (
    "clusterspiffeids.spire.spiffe.io",
    "clusterstaticentries.spire.spiffe.io",
    "clusterfederatedtrustdomains.spire.spiffe.io",
)
_DRIVER = "app.kubernetes.io/name=spiffe-csi-driver"
_AGENT = "spire-agent"
NOT_YET = "SPIRE's Workload API is not asked on Kubernetes yet"

VALUES: Mapping[str, Any] = {
    "global": {
        "spire": {"trustDomain": TRUST_DOMAIN},
        # They would wait for a kubectl of their own, to make webhooks stricter that only an administrator meets.
        "installAndUpgradeHooks": {"enabled": False},
        "deleteHooks": {"enabled": False},
    },
    "spire-server": {
        "persistence": {"type": "emptyDir"},
        # By its group the server owns its volume; without that, an init container of another image would see to it.
        "podSecurityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
        "controllerManager": {"className": CLASS, "identities": {"clusterSPIFFEIDs": {"default": {"enabled": False}}}},
    },
    # Another name for the socket would take an init container with a shell.
    "spire-agent": {"socketAlternate": {"names": []}},
    "spiffe-oidc-discovery-provider": {"enabled": False},
}


class Spire(Overlay):
    """Answer for SPIRE."""

    name = "spire"
    role: Role = "identity"
    summary = "SPIRE: SVIDs for workloads, by its CSI driver"
    memory = 500

    def steps(self, stack: Composition, settings: Settings, site: Site) -> Sequence[Step]:
        """Return the chart of its definitions, and SPIRE's."""
        from ztconform.kube.ready import Goal  # noqa: PLC0415 - the extra may be missing

        return (
            charts.chart(CRD_CHART, settings),
            Goal(what="SPIRE's definitions", crds=CRDS, cluster=False),
            charts.chart(CHART, settings, VALUES, values(settings, site)),
        )

    def promises(self, stack: Composition) -> Mapping[str, str]:
        """Return what SPIRE adds."""
        return features()

    def goal(self, stack: Composition) -> "Goal":
        """Return the CSI driver, wherever it is, and of a chart in its usual place the agents, none ready without the server."""
        from ztconform.kube.ready import Goal, Want  # noqa: PLC0415 - the extra may be missing

        return Goal(
            what="SPIRE",
            wants=(
                Want(kind="daemonset", namespace=NAMESPACE, name=_AGENT, optional=True),
                Want(kind="daemonset", namespace="", name="spiffe-csi-driver", selector=_DRIVER),
            ),
            crds=CRDS,
        )

    def found(self, connection: "Connection") -> Found | None:
        """Return by what SPIRE is known: by its CSI driver, without which workloads of ours do not reach it."""
        driver = _driver(connection)
        return Found(evidence=f"daemonset {driver.namespace}/{driver.name} ({driver.images[0]})") if driver else None

    def findings(self, connection: "Connection", settings: Settings, stack: Composition, kind: str) -> Findings:
        """Return what SPIRE's own settings say that it does."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        driver = _driver(connection)
        namespace = driver.namespace if driver else NAMESPACE
        agents = inventory.rollout(connection, "daemonset", namespace, _AGENT)
        image = agents.images[0] if agents else ""
        return Findings(
            features=features(),
            versions={
                "spire": inventory.tag(image) or image or "unknown",
                "spire trust domain": trust_domain(inventory.config_map(connection, namespace, "spire-server") or {}),
            },
        )

    def status(self, connection: "Connection") -> str:
        """Return what keeps SPIRE's pods from running."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        driver = _driver(connection)
        selector = f"app.kubernetes.io/instance={CHART}"
        troubles = inventory.troubles(connection, driver.namespace if driver else NAMESPACE, selector)
        return "".join(f"{trouble}\n" for trouble in troubles)


def features() -> Mapping[str, str]:
    """Return what SPIRE adds, or why not; the one place that says so once its Workload API is asked."""
    return {
        **dict.fromkeys(("spire", "identity", "svid-rotation"), NOT_YET),
        "federation": "no second trust domain is set up",
    }


def values(settings: Settings, site: Site) -> Mapping[str, Any]:
    """Return the values that depend on the user and the cluster."""
    spire: dict[str, Any] = {"clusterName": site.cluster}
    if settings.pods.image_registry:
        spire["image"] = {"registry": settings.pods.image_registry}
    return {"global": {"spire": spire}, "spire-server": {"defaultX509SvidTTL": f"{settings.svid_ttl or TTL:.0f}s"}}


def trust_domain(data: Mapping[str, str]) -> str:
    """Return the trust domain that a server's configuration names; the chart writes that as JSON."""
    try:
        return str(json.loads(data.get("server.conf", ""))["server"]["trust_domain"])
    except (ValueError, KeyError, TypeError):
        return "unknown"


def _driver(connection: "Connection") -> "Rollout | None":
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    return next(iter(inventory.daemon_sets(connection, _DRIVER)), None)


COMPONENT = Spire()
