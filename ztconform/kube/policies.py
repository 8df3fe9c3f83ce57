# SPDX-License-Identifier: Apache-2.0
"""The manifests of a case in the API server: applied all or none, read back, and those of others beside them.

Where they name a namespace is left to `names`; what they do is for the probes to show.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ztconform.errors import ClusterError, Rejected
from ztconform.kube.isolating import isolated
from ztconform.kube.kinds import Kind
from ztconform.kube.labels import MANAGED, MANAGER, Labels
from ztconform.kube.names import Names
from ztconform.kube.objects import labelled
from ztconform.kube.resources import Identity, Resources, base
from ztconform.model import Manifest, Ref, of_manifest
from ztconform.proof import change
from ztconform.proof.plan import bound_services

# What the API server fills in, which changes nothing of what a policy says (networking/v1 defaults).
_DEFAULTS: Mapping[str, Any] = {"protocol": "TCP"}


@dataclass(frozen=True, slots=True)
class _Applied:
    manifest: Manifest  # as the case says it
    sent: Manifest  # as it was sent
    identity: Identity
    namespaced: bool


class Policies:
    """Hold what one owner has applied."""

    def __init__(self, resources: Resources, names: Names, labels: Labels, kinds: Sequence[Kind], mesh_root: str = "") -> None:
        """Begin with nothing; `kinds` are the cluster's kinds of policy, among which others may have some.

        The mesh's policies in the namespace `mesh_root` are in force in all others.
        """
        self._mesh_root = mesh_root
        self._resources = resources
        self._names = names
        self._labels = labels
        self._applied: dict[change.Key, _Applied] = {}
        self._kinds = kinds

    def apply(self, manifests: Sequence[Manifest]) -> None:
        """Apply manifests, once the API server has accepted all of them in a dry run; raises Rejected."""
        sent = [labelled(self._names.manifest(manifest), self._labels) for manifest in manifests]
        for made in sent:
            self._demand_ours(made)
            self._resources.apply(made, dry_run=True)
        for manifest, made in zip(manifests, sent, strict=True):
            identity, _ = self._resources.apply(made)
            self._applied[change.key(manifest)] = _Applied(manifest, made, identity, self._resources.is_namespaced(made))

    def _demand_ours(self, manifest: Manifest) -> None:
        """Refuse to overwrite an object that is not ours; in a namespace of ours there is none."""
        if self._resources.is_namespaced(manifest):
            return
        path = self._resources.path(manifest)
        version, plural = str(manifest["apiVersion"]), path.split("/")[-2]
        name = str(manifest["metadata"]["name"])
        there = self._resources.items(f"{base(version)}/{plural}", fieldSelector=f"metadata.name={name}")
        if any((found["metadata"].get("labels") or {}).get(MANAGED) != MANAGER for found in there):
            raise Rejected(of_manifest(manifest), "an object of this name is there, and it is not ours")

    def delete(self, manifests: Iterable[Manifest]) -> None:
        """Delete what was applied under these names; raises ClusterError."""
        for manifest in manifests:
            applied = self._applied.pop(change.key(manifest), None)
            if applied is not None:
                self._resources.delete(applied.identity)

    def remove(self) -> None:
        """Delete what does not go with its namespace; raises ClusterError."""
        for key, applied in list(self._applied.items()):
            if not applied.namespaced:
                self._resources.delete(applied.identity)
            del self._applied[key]

    def said(self, real: str) -> str:
        """Return a policy as the case names it, by its name in the cluster."""
        return self._names.policy(real)

    def read_back(self) -> tuple[Manifest, ...]:
        """Return what was applied: as it was, where that is what is there, and otherwise what is there."""
        found = []
        for applied in self._applied.values():
            try:
                there = self._resources.read(applied.identity.path)
            except Exception as error:  # whatever keeps it from being read: it is not known to be in force
                found.append({**applied.manifest, "spec": {"unread": str(error)}})
                continue
            same = there["metadata"]["uid"] == applied.identity.uid and agrees(applied.sent.get("spec"), there.get("spec"))
            found.append(dict(applied.manifest) if same else {**applied.manifest, "spec": there.get("spec")})
        return tuple(found)

    def foreign(self, namespaces: Sequence[str]) -> frozenset[str]:
        """Return the policies in these namespaces, and those of the whole cluster, that this run did not apply."""
        return frozenset(
            f"{path.rpartition('/')[2]} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}"
            for kind in self._kinds
            for path in kind.within([*namespaces, *self._beyond(kind)])
            for item in self._resources.get(path).get("items") or []
            if (item["metadata"].get("labels") or {}).get(self._labels.run_key) != self._labels.run
        )

    def _beyond(self, kind: Kind) -> Sequence[str]:
        return [self._mesh_root] if self._mesh_root and kind.group == "security.istio.io" else []

    @property
    def staged(self) -> bool:
        """Return whether any of them is only logged."""
        return any(str(applied.sent.get("kind")).startswith("Staged") for applied in self._applied.values())

    def selecting(self, pod: Ref, direction: str) -> tuple[str, ...]:
        """Return the policies that isolate a pod (as it is in the cluster) in a direction, as the case names them."""
        found = []
        for applied in self._applied.values():
            metadata = applied.sent["metadata"]
            pods = isolated(applied.sent, direction)
            if any(one.namespace in ("", pod.namespace) and self._is_selected(pod, one.selector) for one in pods):
                found.append(self._names.policy("/".join(filter(None, (metadata.get("namespace"), metadata["name"])))))
        return tuple(sorted(found))

    def _is_selected(self, pod: Ref, declared: Mapping[str, Any]) -> bool:
        query = {"labelSelector": selector(declared), "fieldSelector": f"metadata.name={pod.name}"}
        return bool(self._resources.items(f"/api/v1/namespaces/{pod.namespace}/pods", **query))

    def spec(self, kind: str, policy: Ref) -> Mapping[str, Any]:
        """Return what was applied of a kind under a name as it is in the cluster; empty where nothing was."""
        for applied in self._applied.values():
            metadata = applied.sent["metadata"]
            if (applied.sent.get("kind"), metadata.get("namespace"), metadata["name"]) == (kind, policy.namespace, policy.name):
                return applied.sent.get("spec") or {}
        return {}

    def known_as(self, policy: Ref) -> str:
        """Return a policy's name as the case says it."""
        return f"{self._names.to_case(policy.namespace)}/{policy.name}"

    def speaking_of(self, pod: Ref, kind: str, root: str, wanted: Mapping[str, str], *, dry_run: bool) -> tuple[str, ...]:
        """Return the mesh's policies of a kind that select a pod (as it is in the cluster), as the case names them.

        Those of the namespace `root` speak of every pod; `wanted` are fields that they have, an ALLOW being the default action.
        One that is bound to a Service, or to a gateway, selects no pod.
        """
        there = self._of_mesh(kind, (root, pod.namespace), wanted, dry_run=dry_run)
        specs = ((name, sent.get("spec") or {}) for name, sent in there)
        selecting = ((name, spec.get("selector") or {}) for name, spec in specs if "targetRefs" not in spec)
        return tuple(sorted(name for name, labels in selecting if self._is_selected(pod, labels)))

    def bound_to(self, service: Ref, kind: str, wanted: Mapping[str, str], *, dry_run: bool) -> tuple[str, ...]:
        """Return the mesh's policies of a kind that are bound to a Service (as it is in the cluster); the rest is as above."""
        there = self._of_mesh(kind, (service.namespace,), wanted, dry_run=dry_run)
        return tuple(sorted(name for name, sent in there if service in bound_services(sent)))

    def _of_mesh(
        self, kind: str, namespaces: Collection[str], wanted: Mapping[str, str], *, dry_run: bool
    ) -> Iterator[tuple[str, Manifest]]:
        """Yield the policies of a kind in these namespaces that have these fields: as the case names each, and as it was sent."""
        for applied in self._applied.values():
            spec, metadata = applied.sent.get("spec") or {}, applied.sent["metadata"]
            dry = (metadata.get("annotations") or {}).get("istio.io/dry-run") == "true"
            if applied.sent.get("kind") != kind or metadata.get("namespace") not in namespaces or dry != dry_run:
                continue
            if all(spec.get(key, value if key == "action" else None) == value for key, value in wanted.items()):
                yield self.known_as(Ref(str(metadata["namespace"]), str(metadata["name"]))), applied.sent


def selector(declared: Mapping[str, Any]) -> str:
    """Return a label selector as the API's queries have it."""
    terms = [f"{key}={value}" for key, value in (declared.get("matchLabels") or {}).items()]
    for expression in declared.get("matchExpressions") or []:
        key, values = expression["key"], ",".join(expression.get("values") or [])
        match expression["operator"]:
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
            case unknown:
                raise ClusterError(f"label selector operator {unknown} is none that Kubernetes knows")
    return ",".join(terms)


def agrees(sent: Any, there: Any) -> bool:
    """Return whether what is there says what was sent, and no more than the API server's own defaults beside it."""
    if isinstance(sent, Mapping) and isinstance(there, Mapping):
        sent = {str(key): value for key, value in sent.items()}  # YAML has numbers as keys (portLevelMtls), and JSON has none
        added = {key: there[key] for key in there.keys() - sent.keys()}
        if not all(key in sent or _is_default(key, value) for key, value in added.items()):
            return False
        return all(agrees(value, there.get(key)) or (not value and key not in there) for key, value in sent.items())
    if isinstance(sent, list | tuple) and isinstance(there, list | tuple):
        return len(sent) == len(there) and all(agrees(a, b) for a, b in zip(sent, there, strict=True))
    return bool(sent == there)


def _is_default(key: str, value: Any) -> bool:
    return key == "policyTypes" or (key in _DEFAULTS and _DEFAULTS[key] == value)
