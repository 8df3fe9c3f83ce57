# SPDX-License-Identifier: Apache-2.0
"""The mesh as its compilers read it: meshed pods with their modes and authorization, and the Services that clients know."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ztconform.lab.inventory import LabPod
from ztconform.model import App, Ref

Mode = Literal["STRICT", "PERMISSIVE", "DISABLE"]
Normalization = Literal["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfig:
    """Hold what is set once for the whole mesh."""

    root_namespace: str = "istio-system"
    trust_domain: str = "cluster.local"
    path_normalization: Normalization = "BASE"


@dataclass(frozen=True, slots=True, kw_only=True)
class RbacFilter:
    """Hold one RBAC filter: its name in the access log, and Envoy's own form of its rules; shadow rules only log."""

    name: str
    rules: Mapping[str, Any] | None  # envoy.config.rbac.v3.RBAC as JSON
    shadow_rules: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """Hold the filters of a pod, in the order in which they judge: AUDIT, DENY, ALLOW; none where no policy selects it."""

    http: tuple[RbacFilter, ...] = ()
    tcp: tuple[RbacFilter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshedPod:
    """Describe a meshed pod: who it is, and what its inbound side demands."""

    pod: LabPod
    principal: str  # "cluster.local/ns/shop/sa/payment", without spiffe://
    netns: str  # path of its network namespace, as Envoy opens it
    modes: Mapping[int, Mode]  # of its declared TCP ports
    default_mode: Mode  # of every other port
    authorization: Authorization = Authorization()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Describe one pod behind a Service's port."""

    v4: str
    v6: str
    port: int
    principal: str  # "" for a pod without a sidecar
    mode: Mode | None  # None: without a sidecar; DISABLE: clients send plaintext


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshService:
    """Describe one TCP port of a Service, as every client's sidecar knows it."""

    service: Ref
    port: int  # the Service's number; for a headless one the pods' own
    app: App
    v4: str  # "" for a headless Service
    v6: str
    hosts: tuple[str, ...]  # names by which HTTP clients may call it, without ports; full name, svc.ns, ...
    endpoints: tuple[Endpoint, ...]
    headless: bool = False
    declared: bool = False  # by a manifest; a workload's own Services come by themselves, and are no word of the user's
