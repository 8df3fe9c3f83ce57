# SPDX-License-Identifier: Apache-2.0
"""What the lab has running, as the compilers read it: pods with their addresses, labels and ports."""

from collections.abc import Mapping
from dataclasses import dataclass

from ztconform.model import Port, Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class LabPod:
    """Describe a pod that has an address; a completed pod has none and is not in the inventory."""

    ref: Ref
    workload: Ref
    node: int | None  # None: an outsider, which no policy selects
    device: str  # host-side interface on its node
    v4: str
    v6: str
    labels: Mapping[str, str]
    ports: tuple[Port, ...]
    serves: bool  # False: a satellite, or an outsider that only calls
    ready: bool  # False: no endpoint of a Service (starting, terminating, satellite)
    service_account: str = "default"
    meshed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Hold all pods, and the labels of all namespaces (kubernetes.io/metadata.name among them)."""

    pods: tuple[LabPod, ...]
    namespaces: Mapping[str, Mapping[str, str]]
