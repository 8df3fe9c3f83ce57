# SPDX-License-Identifier: Apache-2.0
"""Which mode is in force on each port of a pod, out of all PeerAuthentications of the mesh.

The narrowest scope wins, the oldest policy within a scope, and UNSET inherits from the next wider scope, as in Istio's
pilot/pkg/security/authn. What a mode demands of a connection is left to the listeners.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.peerauthentication import PeerAuthentication
from ztconform.lab.mesh.view import MeshConfig, Mode

_DEFAULT: Mode = "PERMISSIVE"


@dataclass(frozen=True, slots=True)
class PodModes:
    """Hold the modes of a pod: of its declared TCP ports and of ports that a policy names, and of every other port."""

    ports: dict[int, Mode]
    default: Mode


def modes(pod: LabPod, policies: Sequence[PeerAuthentication], config: MeshConfig) -> PodModes:
    """Return the modes that are in force on a pod; `policies` stand in the order in which they were created."""
    root = config.root_namespace
    mesh = _oldest(each for each in policies if each.ref.namespace == root and not each.selects_workloads)
    namespace: PeerAuthentication | None = None
    workload: PeerAuthentication | None = None
    if pod.ref.namespace != root:  # in the root namespace Istio ignores a selector, also for the pods that are there
        own = [each for each in policies if each.ref.namespace == pod.ref.namespace]
        namespace = _oldest(each for each in own if not each.selects_workloads)
        workload = _oldest(each for each in own if each.selects_workloads and each.selector.matches(pod.labels))
    default = _DEFAULT
    for policy in (mesh, namespace, workload):
        if policy and policy.mode:
            default = policy.mode
    ports = {port.number: default for port in pod.ports if port.protocol == "TCP"}
    for number, mode in workload.ports.items() if workload else ():
        ports[number] = mode or default
    return PodModes(ports, default)


def _oldest(policies: Iterable[PeerAuthentication]) -> PeerAuthentication | None:
    return next(iter(policies), None)
