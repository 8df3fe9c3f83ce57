# SPDX-License-Identifier: Apache-2.0
"""Which resolver the cluster gives its pods, told by a pod of ours, and which pods answer there."""

from dataclasses import dataclass
from time import monotonic
from typing import Any

from ztconform.cluster import Resolver
from ztconform.errors import ClusterError
from ztconform.kube.link import LinkError
from ztconform.kube.links import Links
from ztconform.kube.pods import KubePod
from ztconform.kube.policies import selector
from ztconform.kube.resources import Resources
from ztconform.model import Pod, Ref

# By this name every case knows the resolver, wherever it stands.
WORKLOAD = Ref("kube-system", "kube-dns")
_DNS = 53
_ANSWER = 10.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """Hold the cluster's resolver, its domain, and the pods that answer."""

    resolver: Resolver
    domain: str
    workload: Ref
    pods: tuple[Pod, ...]


def find(resources: Resources, links: Links, asked: KubePod) -> Dns:
    """Return the resolver that a pod of ours was given; raises ClusterError for a cluster without one."""
    link = links.of({asked.ref: asked})[asked.ref]
    try:
        if link is None:
            raise LinkError(links.dead(asked.ref))
        told = link.ask("resolver").result(monotonic() + _ANSWER)
    except LinkError as error:
        raise ClusterError(f"a pod of ours cannot be asked for its resolver: {error}") from None
    address = next(iter(told["servers"]), "")
    domain = next((s.partition(".svc.")[2] for s in told["search"] if ".svc." in s), "cluster.local")
    services = resources.items("/api/v1/services")
    # NodeLocal DNS listens on an address that is no Service's; behind it stands the cluster's own.
    service = next((s for s in services if address in (s["spec"].get("clusterIPs") or [])), None) or next(
        (s for s in services if (s["metadata"].get("labels") or {}).get("k8s-app") == "kube-dns"), None
    )
    if service is None or not service["spec"].get("selector"):
        raise ClusterError(
            f"no Service stands behind the resolver {address or 'of our pods'}; the cluster needs a DNS of its own"
        )
    labels = service["spec"]["selector"]
    namespace = service["metadata"]["namespace"]
    query = {"labelSelector": selector({"matchLabels": labels})}
    pods = resources.items(f"/api/v1/namespaces/{namespace}/pods", **query)
    target = next((p.get("targetPort", _DNS) for p in service["spec"]["ports"] if p.get("protocol") == "UDP"), _DNS)
    return Dns(
        resolver=Resolver(address=address, namespace=namespace, labels=labels, port=_number(target, pods)),
        domain=domain,
        workload=WORKLOAD,
        pods=tuple(
            Pod(
                ref=Ref(WORKLOAD.namespace, pod["metadata"]["name"]),
                workload=WORKLOAD,
                node=None,
                addresses=tuple(one["ip"] for one in pod["status"].get("podIPs") or []),
                witnesses=False,
            )
            for pod in pods
        ),
    )


def _number(target: int | str, pods: list[dict[str, Any]]) -> int:
    """Return the number of a target port, which may be named."""
    if isinstance(target, int):
        return target
    declared = [p for pod in pods for c in pod["spec"]["containers"] for p in c.get("ports") or []]
    return next((int(p["containerPort"]) for p in declared if p.get("name") == target), _DNS)
