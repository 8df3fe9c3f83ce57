# SPDX-License-Identifier: Apache-2.0
"""Whether a cluster lets us do what a run needs, asked of the cluster itself before anything is created, and what role would.

Granting it is left to the cluster's owner.
"""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import yaml
from kubernetes.client.exceptions import ApiException

from ztconform.errors import ClusterError
from ztconform.kube import calls, inventory, kinds
from ztconform.kube.client import Connection, is_missing, translated

ROLE = "ztconform"
_RBAC = "rbac.authorization.k8s.io"
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_AT_ONCE = 8  # reviews under way, so that a distant API server has answered them all within seconds
_OWN = ("create", "delete", "get", "list", "patch")  # of what we apply, read back, find again and remove
_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Name what we do with one resource, in any namespace: ours have names that nobody knows beforehand."""

    group: str
    resource: str  # "pods", or "pods/exec"
    verbs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the resource with its group, as `kubectl` takes it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


ALWAYS = (
    Need(group="", resource="namespaces", verbs=(*_OWN, "watch")),
    Need(group="", resource="pods", verbs=(*_OWN, "watch")),
    # A websocket is opened by a GET, and newer API servers ask for `create` all the same.
    Need(group="", resource="pods/exec", verbs=("create", "get")),
    Need(group="", resource="pods/log", verbs=("get",)),
    Need(group="", resource="configmaps", verbs=_OWN),
    Need(group="", resource="services", verbs=_OWN),
    Need(group="", resource="serviceaccounts", verbs=_OWN),
    Need(group="", resource="nodes", verbs=("get", "list", "watch")),
    Need(group="", resource="events", verbs=("list",)),
    Need(group="apiextensions.k8s.io", resource="customresourcedefinitions", verbs=("get", "list")),
    Need(group="apps", resource="daemonsets", verbs=("get", "list")),
    Need(group="apps", resource="deployments", verbs=("get", "list")),
    Need(group="discovery.k8s.io", resource="endpointslices", verbs=("get", "list", "watch")),
    Need(group="coordination.k8s.io", resource="leases", verbs=_OWN),
)


# Beside the policies of Istio what stands with meshed pods: it goes with its namespace.
_WITH_ISTIO = "security.istio.io"
ISTIO = (
    Need(group="networking.istio.io", resource="destinationrules", verbs=("create", "get", "patch")),
    Need(group="telemetry.istio.io", resource="telemetries", verbs=("create", "get", "patch")),
)
# Waypoints are Gateways, from which Istio makes the rest.
_WITH_AMBIENT = "app=ztunnel"
AMBIENT = (
    Need(group="gateway.networking.k8s.io", resource="gatewayclasses", verbs=("get",)),
    Need(group="gateway.networking.k8s.io", resource="gateways", verbs=("create", "get", "list", "patch", "watch")),
)

# Its policies belong to tiers, which have permissions of their own
# (https://docs.tigera.io/calico/latest/network-policy/policy-tiers/rbac-tiered-policies); its flows are read in a pod of Whisker.
_WITH_CALICO = "projectcalico.org"
CALICO = (
    Need(group=_WITH_CALICO, resource="tiers", verbs=("get",)),
    Need(group=_WITH_CALICO, resource="tier.networkpolicies", verbs=_OWN),
    Need(group=_WITH_CALICO, resource="tier.stagednetworkpolicies", verbs=_OWN),
    Need(group="", resource="pods/portforward", verbs=("create", "get")),
)


def needs(connection: Connection) -> tuple[Need, ...]:
    """Return what a run needs on this cluster, of its kinds of policy those that it serves.

    Raises ClusterError.
    """
    served = kinds.served(connection)
    groups = {kind.group for kind in served}
    more = [*(ISTIO if _WITH_ISTIO in groups else ()), *(CALICO if _WITH_CALICO in groups else ())]
    if _WITH_ISTIO in groups:
        ztunnels = inventory.found(connection, "/apis/apps/v1/daemonsets", labelSelector=_WITH_AMBIENT) or {}
        more += AMBIENT if ztunnels.get("items") else ()
    return (*ALWAYS, *more, *(Need(group=kind.group, resource=kind.resource, verbs=_OWN) for kind in served))


def missing(connection: Connection, wanted: Sequence[Need]) -> list[Need]:
    """Return what these credentials may not do, resource by resource.

    Raises ClusterError.
    """
    api = connection.api()
    reviews = [(need, verb) for need in wanted for verb in need.verbs]

    def is_allowed(review: tuple[Need, str]) -> bool:
        answer = calls.safely(lambda: calls.ask(api, "POST", _REVIEWS, body=_review(*review)))
        return bool(answer.body["status"].get("allowed"))

    with translated(f"context {connection.context}: what these credentials may do"), ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = dict(zip(reviews, pool.map(is_allowed, reviews), strict=True))
    refused = (
        Need(group=need.group, resource=need.resource, verbs=tuple(verb for verb in need.verbs if not answers[need, verb]))
        for need in wanted
    )
    return [need for need in refused if need.verbs]


def check(connection: Connection) -> None:
    """Return if these credentials may do all that a run needs.

    Raises ClusterError that names what they may not, and where the role that permits it is to be had.
    """
    if lacking := missing(connection, needs(connection)):
        told = ", ".join(f"{need.name} ({' '.join(need.verbs)})" for need in lacking)
        raise ClusterError(
            f"context {connection.context}: not permitted: {told}; "
            f"the role that permits it is printed by  ztconform doctor --context {connection.context}"
        )


def report(connection: Connection) -> str:
    """Return what these credentials may not do, followed by what an administrator has to apply; or that they may do everything.

    All lines are valid YAML, so that the whole of it can be handed to `kubectl apply -f -`. Raises ClusterError.
    """
    wanted, user = needs(connection), _user(connection)
    who = f"context {connection.context}, user {user or 'unknown'}"
    lacking = missing(connection, wanted)
    if not lacking:
        return f"# {who}: all that a run needs is permitted\n"
    told = "".join(f"#   {need.name}: {', '.join(need.verbs)}\n" for need in lacking)
    head = f"# {who}: not permitted\n{told}# To permit what a run needs, have an administrator apply this:\n"
    return f"{head}{cluster_role(ROLE, wanted)}---\n{binding(ROLE, user or 'NAME-OF-THE-USER')}"


def cluster_role(name: str, wanted: Sequence[Need]) -> str:
    """Return a ClusterRole that permits these needs and nothing else, as YAML."""
    together: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for need in wanted:
        together[need.group, need.verbs].append(need.resource)
    rules = [
        {"apiGroups": [group], "resources": resources, "verbs": list(verbs)} for (group, verbs), resources in together.items()
    ]
    return _yaml({"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})


def binding(role: str, user: str) -> str:
    """Return a ClusterRoleBinding that gives a role to a user, as YAML."""
    if user.startswith(_ACCOUNT):
        namespace, _, name = user.removeprefix(_ACCOUNT).partition(":")
        subject = {"kind": "ServiceAccount", "namespace": namespace, "name": name}
    else:
        subject = {"kind": "User", "apiGroup": _RBAC, "name": user}
    reference = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role}
    metadata = {"name": role}
    return _yaml(
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": reference,
            "subjects": [subject],
        }
    )


def _user(connection: Connection) -> str:
    """Return the name by which the cluster knows us; "" where it cannot tell, before Kubernetes 1.28."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    with translated(f"context {connection.context}: who we are"):
        try:
            answer = calls.safely(lambda: calls.ask(connection.api(), "POST", _WHO, body=body))
        except ApiException as error:
            if is_missing(error):
                return ""
            raise
    return str(answer.body["status"]["userInfo"].get("username", ""))


def _review(need: Need, verb: str) -> dict[str, Any]:
    resource, _, part = need.resource.partition("/")
    attributes = {"group": need.group, "resource": resource, "subresource": part, "verb": verb}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }


def _yaml(manifest: dict[str, Any]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, default_flow_style=None)
