# SPDX-License-Identifier: Apache-2.0
"""Which kinds of policy a cluster serves, of those that we speak: what a run may leave outside its own namespaces.

What is done with their objects is left to the callers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from ztconform.kube import calls
from ztconform.kube.client import Connection, is_missing, translated

# By name, and not whatever carries our labels: Cilium copies those of pods to its identities, which are its own.
POLICIES = (
    ("networking.k8s.io", "networkpolicies"),
    ("policy.networking.k8s.io", "adminnetworkpolicies"),
    ("policy.networking.k8s.io", "baselineadminnetworkpolicies"),
    ("policy.networking.k8s.io", "clusternetworkpolicies"),
    ("cilium.io", "ciliumnetworkpolicies"),
    ("cilium.io", "ciliumclusterwidenetworkpolicies"),
    ("projectcalico.org", "networkpolicies"),
    ("projectcalico.org", "globalnetworkpolicies"),
    ("projectcalico.org", "stagednetworkpolicies"),
    ("projectcalico.org", "stagedglobalnetworkpolicies"),
    ("security.istio.io", "authorizationpolicies"),
    ("security.istio.io", "peerauthentications"),
    ("policy.linkerd.io", "servers"),
    ("policy.linkerd.io", "httproutes"),
    ("policy.linkerd.io", "authorizationpolicies"),
    ("policy.linkerd.io", "meshtlsauthentications"),
    ("policy.linkerd.io", "networkauthentications"),
)
_OF_THE_CLUSTER = frozenset(
    {
        "adminnetworkpolicies",
        "baselineadminnetworkpolicies",
        "clusternetworkpolicies",
        "ciliumclusterwidenetworkpolicies",
        "globalnetworkpolicies",
        "stagedglobalnetworkpolicies",
    }
)
_PATIENCE = 5.0  # seconds for a group that is served by a program of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Name a resource that a cluster serves."""

    group: str
    version: str
    resource: str
    name: str  # as in manifests

    @property
    def path(self) -> str:
        """Return where all of its objects are listed, of all namespaces if they live in some."""
        return f"/apis/{self.group}/{self.version}/{self.resource}"

    def within(self, namespaces: Iterable[str]) -> list[str]:
        """Return where those of its objects are listed that may select pods of these namespaces."""
        if self.resource in _OF_THE_CLUSTER:
            return [self.path]
        return [f"/apis/{self.group}/{self.version}/namespaces/{namespace}/{self.resource}" for namespace in namespaces]


def served(connection: Connection) -> tuple[Kind, ...]:
    """Return the kinds of policy that the cluster serves, each in the version that it prefers.

    Raises ClusterError.
    """
    with translated(f"context {connection.context}: which kinds of policy it serves"):
        found: dict[tuple[str, str], Kind] = {}
        for kind in _offered(connection):
            found.setdefault((kind.group, kind.resource), kind)
        return tuple(found[policy] for policy in POLICIES if policy in found)


def _offered(connection: Connection) -> Iterator[Kind]:
    """Yield what is served of the groups of policies, the preferred version of each first."""
    api = connection.api()
    ours = {group for group, _ in POLICIES}
    for group in calls.safely(lambda: calls.ask(api, "GET", "/apis")).body.get("groups") or ():
        if group["name"] not in ours:
            continue
        preferred = group["preferredVersion"]["groupVersion"]
        for path in sorted((known["groupVersion"] for known in group["versions"]), key=lambda version: version != preferred):
            for resource, name in _resources(api, path):
                yield Kind(group=group["name"], version=path.partition("/")[2], resource=resource, name=name)


def _resources(api: client.ApiClient, path: str) -> list[tuple[str, str]]:
    """Return the resources of a group and version, each with the name of its kind.

    A group is often served by a program of its own, and that may be down: then it is taken to serve all that we know of it, and
    whoever wants to list that finds out, and says so.
    """
    try:
        answer = calls.safely(partial(calls.ask, api, "GET", f"/apis/{path}"), deadline=_PATIENCE)
    except ApiException as error:
        if is_missing(error):  # its definition has just been removed
            return []
        if calls.is_passing(error):
            return [(resource, resource) for group, resource in POLICIES if group == path.partition("/")[0]]
        raise
    return [(known["name"], known["kind"]) for known in answer.body.get("resources") or ()]
