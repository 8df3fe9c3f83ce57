# SPDX-License-Identifier: Apache-2.0
"""When the cluster's own controllers have followed a change: nodes are fit for pods again, EndpointSlices say what pods say.

What does not follow in time is no error here: rounds and the report say what they find.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from ztconform.errors import ClusterError
from ztconform.kube.nodes import Nodes, choose, recovering
from ztconform.kube.pods import condition, is_ending
from ztconform.kube.resources import Resources
from ztconform.kube.waiting import Found, until
from ztconform.settings import Settings

_RECOVERY = 30.0  # seconds; the node controller needs 10 to take a taint away
_FOLLOWED = 20.0  # seconds; a controller that is healthy needs less than one
_SERVICE = "kubernetes.io/service-name"  # the label by which an EndpointSlice names its Service
Pair = tuple[str, str]  # a Service and a pod that is ready behind it


def recovered(resources: Resources, settings: Settings) -> Nodes:
    """Return the nodes to use, once those that are out of order for now have had their time.

    Raises UsageError for a name that there is not, and ClusterError where no node is left.
    """

    def lacking(found: Collection[Mapping[str, Any]]) -> str:
        return recovering(list(found), settings.nodes, settings.pods)

    listed = resources.items("/api/v1/nodes")
    if why := lacking(listed):
        settings.notify(f"waiting for at most {_RECOVERY:.0f} s, since {why}")
        with suppress(ClusterError):
            until(resources, "/api/v1/nodes", lambda found: lacking(found.values()), what="waiting", seconds=_RECOVERY)
        listed = resources.items("/api/v1/nodes")
    return choose(listed, settings.nodes, settings.pods)


def follow(resources: Resources, namespaces: Iterable[str]) -> None:
    """Wait until in these namespaces every Service has the pods behind it that it selects and that are ready, and no others.

    Until then a Service looks as if nobody stood behind it (seen: a pod that is Ready, half a second before its EndpointSlice).
    """
    for namespace in namespaces:
        services = resources.items(f"/api/v1/namespaces/{namespace}/services")
        pods = resources.items(f"/api/v1/namespaces/{namespace}/pods")
        wanted = frozenset(pair for service in services for pair in selected(service, pods))
        known = frozenset(service["metadata"]["name"] for service in services if service["spec"].get("selector"))

        def lacking(found: Found, wanted: frozenset[Pair] = wanted, known: frozenset[str] = known) -> str:
            there = frozenset(pair for item in found.values() for pair in behind(item) if pair[0] in known)
            return ", ".join(f"{pod} behind {service}" for service, pod in sorted(there ^ wanted))

        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        with suppress(ClusterError):
            until(resources, path, lacking, what=f"waiting for the Services of {namespace}", seconds=_FOLLOWED)


def selected(service: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> frozenset[Pair]:
    """Return a Service's name with each pod that is to be ready behind it; of one without a selector nothing is known."""
    name, spec = service["metadata"]["name"], service["spec"]
    selector = spec.get("selector") or {}
    return frozenset(
        (name, pod["metadata"]["name"])
        for pod in pods
        if selector
        and selector.items() <= (pod["metadata"].get("labels") or {}).items()
        and (condition(pod, "Ready") or spec.get("publishNotReadyAddresses"))
        and not is_ending(pod)
    )


def behind(endpointslice: Mapping[str, Any]) -> frozenset[Pair]:
    """Return the name of an EndpointSlice's Service with each pod that it says is ready."""
    name = (endpointslice["metadata"].get("labels") or {}).get(_SERVICE, "")
    return frozenset(
        (name, target["name"])
        for endpoint in endpointslice.get("endpoints") or []
        if (target := endpoint.get("targetRef") or {}).get("kind") == "Pod"
        and (endpoint.get("conditions") or {}).get("ready", True)
    )
