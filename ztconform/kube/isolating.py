# SPDX-License-Identifier: Apache-2.0
"""Which pods a policy isolates in a direction, so that what it does not allow is denied: of Kubernetes' own kind and of Cilium's.

Pure; a cluster's log names no policy for such a denial. Calico's log names its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ztconform.model import Manifest

# https://docs.cilium.io/en/v1.19/network/kubernetes/policy: a namespace is a label of each pod in it.
_NAMESPACE = "io.kubernetes.pod.namespace"
_SOURCES = ("k8s:", "any:")  # of labels, as Cilium writes them
_RESERVED = ("io.kubernetes.", "io.cilium.", "reserved:")  # labels that no pod has


@dataclass(frozen=True, slots=True)
class Isolated:
    """Say which pods: of a namespace, "" being any, by a label selector."""

    namespace: str
    selector: Mapping[str, Any]


def isolated(manifest: Manifest, direction: str) -> Iterator[Isolated]:
    """Yield which pods a policy isolates in a direction ("ingress" or "egress"), as far as it selects them by labels."""
    group, kind = str(manifest.get("apiVersion")).partition("/")[0], str(manifest.get("kind"))
    namespace = str(manifest["metadata"].get("namespace") or "")
    spec = manifest.get("spec") or {}
    if group == "networking.k8s.io" and kind == "NetworkPolicy":
        # The API reference: without policyTypes ingress always counts, and egress where there are egress rules.
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        if direction in [t.lower() for t in types]:
            yield Isolated(namespace, spec.get("podSelector") or {})
    elif group == "cilium.io" and kind in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"):
        for rule in filter(None, [spec, *(manifest.get("specs") or [])]):
            yield from _of_cilium(rule, direction, namespace)


def _of_cilium(rule: Mapping[str, Any], direction: str, namespace: str) -> Iterator[Isolated]:
    # pkg/policy/api/rule_validation.go: a direction is closed by default where there is any rule for it, an empty one too.
    closed = (rule.get("enableDefaultDeny") or {}).get(direction)
    if closed is None:
        closed = bool(rule.get(direction) or rule.get(f"{direction}Deny"))
    selector = rule.get("endpointSelector")
    if not closed or selector is None:
        return
    labels = {_plain(key): value for key, value in (selector.get("matchLabels") or {}).items()}
    expressions: Sequence[Mapping[str, Any]] = selector.get("matchExpressions") or []
    asked = str(labels.pop(_NAMESPACE, ""))
    plain = [{**expression, "key": _plain(str(expression["key"]))} for expression in expressions]
    elsewhere = asked and namespace and asked != namespace  # which a policy of a namespace cannot select
    if elsewhere or any(key.startswith(_RESERVED) for key in (*labels, *(one["key"] for one in plain))):
        return
    yield Isolated(namespace or asked, {"matchLabels": labels, "matchExpressions": plain})


def _plain(key: str) -> str:
    return next((key.removeprefix(source) for source in _SOURCES if key.startswith(source)), key)
