# SPDX-License-Identifier: Apache-2.0
"""All that the one Envoy of the mesh is told, of every meshed pod: pure data out of `view`, in the form that Envoy reads.

How it gets there is left to `xdsfiles` and `envoy`; certificates are made by `svid`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ztconform.lab.mesh import inbound, upstreams
from ztconform.lab.mesh.authorization import authorization
from ztconform.lab.mesh.outbound import outbound
from ztconform.lab.mesh.view import MeshConfig, MeshedPod, MeshService
from ztconform.model import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Hold what Envoy is told, but for secrets; authorization filters by their names."""

    listeners: tuple[Mapping[str, Any], ...]
    clusters: tuple[Mapping[str, Any], ...]
    authorization: Mapping[str, Mapping[str, Any]]


def key(pod: Ref) -> str:
    """Return the name of a pod's resources, and of the secret with its identity; a namespace's name has no dot."""
    return f"{pod.namespace}.{pod.name}"


def resources(pods: Sequence[MeshedPod], services: Sequence[MeshService], config: MeshConfig, directory: str) -> Resources:
    """Return the resources of all meshed pods; `directory` is Envoy's, where its files are and its log goes."""
    listeners: list[Mapping[str, Any]] = []
    clusters: list[Mapping[str, Any]] = []
    for pod in pods:
        name = key(pod.pod.ref)
        out = outbound(name, pod, services, config, directory)
        listeners += [inbound.listener(name, pod, config, directory), out.listener]
        clusters += [upstreams.plaintext(name, pod), *out.clusters]
    return Resources(listeners=tuple(listeners), clusters=tuple(clusters), authorization=authorization(pods))
