# SPDX-License-Identifier: Apache-2.0
"""Pods as the mesh's compilers read them, for tests that run none."""

from collections.abc import Mapping

from ztconform.lab.inventory import LabPod
from ztconform.model import Port, Ref


def lab_pod(namespace: str, name: str, *ports: Port, labels: Mapping[str, str] | None = None, v4: str = "10.244.0.9") -> LabPod:
    """Return a pod with the label app: NAME beside the given ones."""
    ref = Ref(namespace, name)
    return LabPod(
        ref=ref,
        workload=ref,
        node=0,
        device="eth0",
        v4=v4,
        v6="",
        labels={"app": name, **(labels or {})},
        ports=ports,
        serves=True,
        ready=True,
    )
