# SPDX-License-Identifier: Apache-2.0
"""What a user settles for a run, whichever stack it is on; frozen, and free of I/O. How it is said is left to the plugin."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def _silent(line: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodOptions:
    """Say how our own namespaces and pods are made, beyond what a proof asks of them."""

    agent_image: str = ""  # with python3 >= 3.8; "" is the pinned public one
    image_registry: str = ""  # put in front of the public image's name, for a mirror
    pull_secret: str = ""  # "namespace/name" of a secret that is copied into our namespaces
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    namespace_annotations: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)  # which nodes may hold our pods
    tolerations: tuple[Mapping[str, str], ...] = ()
    label_prefix: str = "ztconform.io"  # of the label keys by which we know what is ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Say everything that a stack may want to know before it starts; the lab needs almost none of it."""

    svid_ttl: float | None = None  # seconds that identities of the stack's own live
    spire_server_bin: str = "spire-server"
    spire_agent_bin: str = "spire-agent"
    context: str = ""  # of an existing cluster; "" has the stack make its own
    kubeconfig: Path | None = None  # where the context is looked up; None is kubectl's own default
    keep: bool = False  # leave the cluster for the next run
    kind_image: str = ""
    kind_config: Path | None = None  # merged into ours
    kind_bin: str = "kind"
    helm_bin: str = "helm"
    load_images: tuple[Path, ...] = ()  # archives, or folders of archives, that are loaded into the nodes
    charts: Mapping[str, Path] = field(default_factory=dict)  # component -> folder or archive of its chart
    chart_versions: Mapping[str, str] = field(default_factory=dict)  # component -> version in place of the pinned one
    chart_repositories: Mapping[str, str] = field(default_factory=dict)  # component -> URL in place of the pinned one
    values: Mapping[str, Path] = field(default_factory=dict)  # component -> file of helm values
    cni_command: str = ""  # of the stack `custom`, with {cluster} for the cluster's name
    nodes: tuple[str, ...] = ()  # names of those to use; empty is every schedulable one
    allow_disruptive: bool = False
    privileged: bool = False  # pods of ours may run on their node's own network and capture packets there
    outsider: str = ""  # how a host outside an existing cluster is reached
    pods: PodOptions = field(default_factory=PodOptions)
    run: str = ""  # ID of the run, the same in all of its processes
    worker: str = ""  # of xdist; "" is the only process
    folder: Path | None = None  # of the run: what its processes share
    report: Path | None = None  # where logs go if the run fails
    notify: Callable[[str], None] = _silent  # told what takes long, in a line
