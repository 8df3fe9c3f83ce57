# SPDX-License-Identifier: Apache-2.0
"""What runs in a cluster, as far as stacks ask: a component's rollout and images, its settings, nodes, troubled pods; read only.

What that means for a stack is left to `ztconform.stacks`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from ztconform.kube import calls
from ztconform.kube.client import CALL, Connection, is_missing, translated

KUBE_SYSTEM = "kube-system"
DNS_LABEL = "k8s-app=kube-dns"  # of CoreDNS too, by kubeadm and every distribution that follows it

_FORBIDDEN = 403
_TRACE = 400  # lines of a log among which a crash is looked for
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"

Controller = Literal["daemonset", "deployment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Tell how far a DaemonSet or Deployment is."""

    kind: Controller
    namespace: str
    name: str
    wanted: int
    ready: int  # pods of the newest template that are ready
    images: tuple[str, ...]
    selector: str

    @property
    def done(self) -> bool:
        """Return whether every wanted pod is there; none wanted is not done, for then nothing runs."""
        return self.wanted > 0 and self.ready >= self.wanted

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}: {self.ready} of {self.wanted} ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Tell of a node."""

    name: str
    ready: bool
    schedulable: bool
    control_plane: bool
    pods: str  # range of their addresses; "" until one is assigned
    ranges: tuple[str, ...] = ()  # the same, of both families where there are both
    annotations: frozenset[str] = frozenset()  # their keys
    why: str = ""  # it is not ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Tell why a container does not run."""

    pod: str  # namespace/name
    container: str
    image: str
    reason: str
    message: str

    @property
    def about_image(self) -> bool:
        """Return whether its image is what is missing."""
        return self.reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")

    def __str__(self) -> str:
        if self.about_image:
            return f"pod {self.pod}: the image {self.image} cannot be pulled"
        return f"pod {self.pod}: {self.reason}" + (f" ({' '.join(self.message.split())[:200]})" if self.message else "")


def rollout(connection: Connection, kind: Controller, namespace: str, name: str) -> Rollout | None:
    """Return a DaemonSet's or Deployment's rollout; None if there is none of that name."""
    api = client.AppsV1Api(connection.api())
    call = api.read_namespaced_daemon_set if kind == "daemonset" else api.read_namespaced_deployment
    with _asked(f"reading {kind} {namespace}/{name}") as found:
        found.append(rollout_of(kind, call(name, namespace, _request_timeout=CALL)))
    return found[0] if found else None


def deployments(connection: Connection, namespace: str, selector: str) -> Sequence[Rollout]:
    """Return the Deployments that carry labels, of a namespace or (where that is "") of all."""
    api = client.AppsV1Api(connection.api())
    with translated(f"listing the deployments of {namespace or 'all namespaces'}"):
        if namespace:
            items = api.list_namespaced_deployment(namespace, label_selector=selector, _request_timeout=CALL).items
        else:
            items = api.list_deployment_for_all_namespaces(label_selector=selector, _request_timeout=CALL).items
    return [rollout_of("deployment", item) for item in items]


def daemon_sets(connection: Connection, selecting: str = "") -> Sequence[Rollout]:
    """Return the DaemonSets of all namespaces, or those that select their pods by a label ("app=ztunnel").

    That they must have, whereas labels of their own come and go with the versions of a chart.
    """
    api = client.AppsV1Api(connection.api())
    with translated("listing daemonsets"):
        items = api.list_daemon_set_for_all_namespaces(_request_timeout=CALL).items
    found = [rollout_of("daemonset", item) for item in items]
    return [one for one in found if not selecting or selecting in one.selector.split(",")]


def found(connection: Connection, path: str, **query: str) -> Mapping[str, Any] | None:
    """Return an object or a list of any kind; None where it is not there, its kind is not served, or we may not read it."""
    with translated(f"GET {path}"):
        try:
            return calls.ask(connection.api(), "GET", path, query=query).body
        except ApiException as error:
            if is_missing(error) or error.status == _FORBIDDEN:
                return None
            raise


def config_map(connection: Connection, namespace: str, name: str) -> Mapping[str, str] | None:
    """Return a ConfigMap's data; None if there is none of that name."""
    api = client.CoreV1Api(connection.api())
    with _asked(f"reading configmap {namespace}/{name}") as found:
        found.append(dict(api.read_namespaced_config_map(name, namespace, _request_timeout=CALL).data or {}))
    return found[0] if found else None


def established(connection: Connection, crd: str) -> bool:
    """Return whether the API server serves a custom resource."""
    api = client.ApiextensionsV1Api(connection.api())
    with _asked(f"reading the custom resource definition {crd}") as found:
        found.append(api.read_custom_resource_definition(crd, _request_timeout=CALL))
    conditions = (found[0].status.conditions or []) if found and found[0].status else []
    return any(condition.type == "Established" and condition.status == "True" for condition in conditions)


def nodes(connection: Connection) -> Sequence[Node]:
    """Return the nodes by name."""
    with translated("listing nodes"):
        items = client.CoreV1Api(connection.api()).list_node(_request_timeout=CALL).items
    return sorted((_node(item) for item in items), key=lambda node: node.name)


def kubernetes_version(connection: Connection) -> str:
    """Return the API server's version."""
    with translated("asking for the API server's version"):
        return str(client.VersionApi(connection.api()).get_code(_request_timeout=CALL).git_version)


def troubles(connection: Connection, namespace: str, selector: str) -> Sequence[Trouble]:
    """Return what keeps the containers of some pods from running, and pods from being scheduled."""
    with translated(f"listing the pods of {namespace}"):
        items = (
            client.CoreV1Api(connection.api())
            .list_namespaced_pod(namespace, label_selector=selector, _request_timeout=CALL)
            .items
        )
    return [trouble for item in items for trouble in troubles_of(item)]


def last_words(connection: Connection, trouble: Trouble) -> str:
    """Return what a container logged of why it crashed; "" if it did not crash or nothing can be had."""
    if trouble.reason != "CrashLoopBackOff":
        return ""
    namespace, _, pod = trouble.pod.partition("/")
    with suppress(ApiException, urllib3.exceptions.HTTPError):
        said = client.CoreV1Api(connection.api()).read_namespaced_pod_log(
            pod, namespace, container=trouble.container, previous=True, tail_lines=_TRACE, _request_timeout=CALL
        )
        return of_crash(str(said))
    return ""


def of_crash(log: str) -> str:
    """Return the line that says most of why a program ended: Go's panic, which its stacks follow, or else the last one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    panic = next((line for line in lines if line.startswith(("panic: ", "fatal error: "))), "")
    return (panic or (lines[-1] if lines else ""))[:300]


def last_warning(connection: Connection, namespace: str, prefix: str) -> str:
    """Return the latest warning about an object whose name begins so; "" if there is none or it cannot be had."""
    with suppress(ApiException, urllib3.exceptions.HTTPError):
        api = client.CoreV1Api(connection.api())
        items = api.list_namespaced_event(namespace, field_selector="type=Warning", _request_timeout=CALL).items
        about = [item for item in items if str(item.involved_object.name).startswith(prefix)]
        latest = max(about, key=lambda item: str(_when(item)), default=None)
        return f"{latest.reason}: {' '.join((latest.message or '').split())[-300:]}" if latest else ""
    return ""


def events(connection: Connection) -> str:
    """Return the events of all namespaces as text, oldest first."""
    with translated("listing events"):
        items = client.CoreV1Api(connection.api()).list_event_for_all_namespaces(_request_timeout=CALL * 3).items
    lines = []
    for item in items:
        about = item.involved_object
        place = f"{about.kind} {about.namespace or ''}/{about.name}"
        lines.append(f"{_when(item)} {item.type} {item.reason} {place}: {' '.join((item.message or '').split())}")
    return "".join(f"{line}\n" for line in sorted(lines))


def tag(image: str) -> str:
    """Return the tag of an image reference, without its digest; "" if it has none."""
    name = image.partition("@")[0]
    return name.rpartition("/")[2].partition(":")[2]


@contextmanager
def _asked(what: str) -> Iterator[list[Any]]:
    """Collect an answer; what is not there leaves the list empty."""
    found: list[Any] = []
    with translated(what):
        try:
            yield found
        except ApiException as error:
            if not is_missing(error):
                raise


def rollout_of(kind: Controller, item: Any) -> Rollout:
    """Return how far a DaemonSet or Deployment is, as the API server tells it."""
    status, spec = item.status, item.spec
    if kind == "daemonset":
        wanted, ready, newest = (
            status.desired_number_scheduled or 0,
            status.number_ready or 0,
            status.updated_number_scheduled or 0,
        )
    else:
        wanted = 1 if spec.replicas is None else spec.replicas
        ready, newest = status.ready_replicas or 0, status.updated_replicas or 0
    current = (status.observed_generation or 0) >= item.metadata.generation
    return Rollout(
        kind=kind,
        namespace=item.metadata.namespace,
        name=item.metadata.name,
        wanted=wanted,
        ready=min(ready, newest) if current else 0,
        images=tuple(container.image for container in spec.template.spec.containers),
        selector=",".join(f"{key}={value}" for key, value in sorted((spec.selector.match_labels or {}).items())),
    )


def _when(event: Any) -> Any:
    return event.last_timestamp or event.event_time or event.first_timestamp


def _node(item: Any) -> Node:
    condition = next((one for one in item.status.conditions or [] if one.type == "Ready"), None)
    ready = condition is not None and condition.status == "True"
    return Node(
        name=item.metadata.name,
        ready=ready,
        schedulable=not item.spec.unschedulable,
        control_plane=_CONTROL_PLANE in (item.metadata.labels or {}),
        pods=item.spec.pod_cidr or "",
        ranges=tuple(item.spec.pod_cidrs or ()),
        annotations=frozenset(item.metadata.annotations or {}),
        why="" if ready else " ".join(str((condition and condition.message) or "no condition Ready").split()),
    )


def troubles_of(item: Any) -> Iterator[Trouble]:
    """Yield what keeps a pod, as the API server tells of it, from running."""
    name = f"{item.metadata.namespace}/{item.metadata.name}"
    for condition in item.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            yield Trouble(
                pod=name, container="", image="", reason=condition.reason or "Unschedulable", message=condition.message or ""
            )
    for status in [*(item.status.init_container_statuses or []), *(item.status.container_statuses or [])]:
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason not in ("ContainerCreating", "PodInitializing", None):
            yield Trouble(
                pod=name, container=status.name, image=status.image, reason=waiting.reason, message=waiting.message or ""
            )
