# SPDX-License-Identifier: Apache-2.0
"""What a pod's own status says: where it is, whether it is ready, and why it never will be; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ztconform.errors import ClusterError
from ztconform.kube.resources import Identity
from ztconform.model import Pod, Port, Ref, Workload

# What the kubelet waits with when an image is not to be had.
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_HOPELESS = frozenset({"CreateContainerConfigError", "CreateContainerError"})
_FAILING = frozenset({"RunContainerError", "CrashLoopBackOff"})  # for good, when it happens again and again
_STARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KubePod:
    """Hold one of our pods, or an outsider."""

    ref: Ref  # as the case says it
    real: Ref  # as it is in the cluster; of an outsider, its container
    workload: Workload
    node: int | None  # index among the nodes that are used; None: outside
    addresses: tuple[str, ...]
    serves: bool
    identity: Identity | None = None  # None: not the API server's
    container: str = "agent"  # in which its agent runs

    @property
    def outline(self) -> Pod:
        """Return what a proof needs to know of it."""
        return Pod(
            ref=self.ref,
            workload=self.workload.ref,
            node=self.node,
            addresses=self.addresses,
            serves=self.serves,
            host_network=self.workload.host_network,
            captured=self.workload.meshed,
        )

    @property
    def ports(self) -> tuple[Port, ...]:
        """Return the ports that its workload declares."""
        return self.workload.ports


def condition(pod: Mapping[str, Any], kind: str) -> bool:
    """Return whether a condition of the pod is true."""
    return any(c["type"] == kind and c["status"] == "True" for c in (pod.get("status") or {}).get("conditions") or [])


def addresses(pod: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the pod's addresses, IPv4 first."""
    found = [one["ip"] for one in (pod.get("status") or {}).get("podIPs") or []]
    return tuple(sorted(found, key=lambda address: ":" in address))


def is_ending(pod: Mapping[str, Any]) -> bool:
    """Return whether the pod is being deleted, or has ended by itself."""
    return "deletionTimestamp" in pod["metadata"] or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def lacking(pod: Mapping[str, Any]) -> str:
    """Return what a new pod waits for, or "" once its containers answer; raises ClusterError for one that will never be ready."""
    status = pod.get("status") or {}
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        said = f"{waiting.get('reason')}: {waiting.get('message', '')}".strip(": ")
        if waiting.get("reason") in _PULL:
            raise ClusterError(
                f"pod {name}: its image {container['image']} cannot be pulled ({said[:200]}); "
                "--ztc-agent-image names another, --ztc-image-registry a mirror, --ztc-load-image loads an archive into kind"
            )
        again = waiting.get("reason") in _FAILING and container.get("restartCount", 0) >= _STARTS
        if waiting.get("reason") in _HOPELESS or again:
            raise ClusterError(f"pod {name} cannot be started: {said[:300]} {_end(container.get('lastState') or {})}".rstrip())
    if status.get("phase") in ("Failed", "Succeeded"):
        ends = [_end(container.get("state") or {}) for container in status.get("containerStatuses") or []]
        why = next(filter(None, ends), str(status.get("message") or status.get("reason") or "no reason given"))
        raise ClusterError(f"pod {name} has ended before it was ready: {why}")
    if condition(pod, "ContainersReady"):
        return ""
    for found in status.get("conditions") or []:
        if found["type"] == "PodScheduled" and found["status"] == "False":
            return f"pod {name} is not scheduled: {found.get('message', found.get('reason', ''))}"
    return f"pod {name} is not ready"


def _end(state: Mapping[str, Any]) -> str:
    ended = state.get("terminated") or {}
    said = f"exit code {ended.get('exitCode')} {ended.get('reason', '')} {ended.get('message', '')}" if ended else ""
    return " ".join(said.split())[:300]
