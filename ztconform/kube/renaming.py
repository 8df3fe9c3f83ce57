# SPDX-License-Identifier: Apache-2.0
"""Where the manifests of each dialect name a namespace, and how they read once namespaces have other names; pure.

What is not in these tables stays as it is: the same word may be an account, a label of the user's, or a path. An object that
belongs to no namespace gets a name of its own too.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ztconform.model import Manifest

ToReal = Callable[[str], str]
Rewrite = Callable[[str, ToReal], str]

# Labels whose value is a namespace's name. Cilium copies those of a namespace to its pods, and says in front of a key where a
# label comes from (https://docs.cilium.io/en/v1.19/security/policy/kubernetes/#namespaces).
LABELS = frozenset(
    {
        "kubernetes.io/metadata.name",
        "projectcalico.org/name",
        "projectcalico.org/namespace",
        "io.kubernetes.pod.namespace",
        "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
    }
)
_SOURCES = ("k8s:", "any:")

# Objects of no namespace whose names are ours to choose, by group and kind.
CLUSTER_SCOPED = frozenset(
    {
        ("policy.networking.k8s.io", "ClusterNetworkPolicy"),
        ("cilium.io", "CiliumClusterwideNetworkPolicy"),
        ("projectcalico.org", "GlobalNetworkPolicy"),
        ("projectcalico.org", "StagedGlobalNetworkPolicy"),
    }
)

_PRINCIPAL = re.compile(r"(?<![^/])ns/([^/*]+)(?![^/])")
_IDENTITY = re.compile(r"\.([^.*]+)\.serviceaccount\.identity\.")
_HOST = re.compile(r"\.([^.*]+)\.svc(?![^.])")
# A quoted string by itself, or a label that is compared with one or with a set of them.
_COMPARED = re.compile(
    r"""(?:'[^']*'|"[^"]*")|([\w./-]+)(\s*(?:==|!=|\s(?:not\s+)?in\b)\s*)('[^']*'|"[^"]*"|\{[^}]*\})""", re.ASCII
)
_QUOTED = re.compile(r"""(['"])([^'"]*)\1""")


def _name(text: str, to_real: ToReal) -> str:
    return to_real(text)


def _within(pattern: re.Pattern[str]) -> Rewrite:
    """Return how a text reads once the namespace that the pattern finds in it, as its only group, is renamed."""

    def rewrite(text: str, to_real: ToReal) -> str:
        return pattern.sub(lambda found: found[0].replace(found[1], to_real(found[1]), 1), text)

    return rewrite


def _account(text: str, to_real: ToReal) -> str:
    """Return NAMESPACE/ACCOUNT renamed; an account alone is of the policy's own namespace."""
    namespace, slash, account = text.partition("/")
    return f"{to_real(namespace)}/{account}" if slash else text


def _selector(text: str, to_real: ToReal) -> str:
    """Return one of Calico's selector expressions renamed."""

    def one(found: re.Match[str]) -> str:
        key, operator, values = found.groups()
        if key not in LABELS:
            return found[0]
        return f"{key}{operator}{_QUOTED.sub(lambda quoted: f'{quoted[1]}{to_real(quoted[2])}{quoted[1]}', values)}"

    return _COMPARED.sub(one, text)


# By API group the fields that name a namespace, whether their value is one text or a list; and the keys that a condition of
# Istio's may have, whose `values` do.
_FIELDS: Mapping[str, Mapping[str, Rewrite]] = MappingProxyType(
    {
        "cilium.io": {"namespace": _name, "matchName": _within(_HOST), "matchPattern": _within(_HOST)},
        "policy.networking.k8s.io": {"domainNames": _within(_HOST)},
        "policy.linkerd.io": {"namespace": _name, "identities": _within(_IDENTITY)},
        "projectcalico.org": {
            "namespace": _name,
            "selector": _selector,
            "notSelector": _selector,
            "namespaceSelector": _selector,
        },
        "security.istio.io": {
            "namespace": _name,
            "namespaces": _name,
            "notNamespaces": _name,
            "principals": _within(_PRINCIPAL),
            "notPrincipals": _within(_PRINCIPAL),
            "serviceAccounts": _account,
            "notServiceAccounts": _account,
            "hosts": _within(_HOST),
            "notHosts": _within(_HOST),
        },
    }
)
_CONDITIONS: Mapping[str, Rewrite] = MappingProxyType(
    {"source.namespace": _name, "source.principal": _within(_PRINCIPAL), "source.serviceAccount": _account}
)
_NO_FIELDS = frozenset({"matchLabels", "labels", "annotations"})  # below these a field's name is anybody's key


def renamed(manifest: Manifest, to_real: ToReal, suffix: str) -> dict[str, Any]:
    """Return a manifest as it is in the cluster: where it lives, whom it selects, and its name if it lives in no namespace."""
    group = str(manifest.get("apiVersion")).rpartition("/")[0]
    metadata = dict(manifest.get("metadata") or {})
    if "namespace" in metadata:
        metadata["namespace"] = to_real(str(metadata["namespace"]))
    if suffix and (group, manifest.get("kind")) in CLUSTER_SCOPED:
        metadata["name"] = own_name(str(metadata.get("name")), suffix)
    rest = {key: value for key, value in manifest.items() if key != "metadata"}
    return {**_walk(rest, _FIELDS.get(group, {}), to_real), "metadata": metadata}


def own_name(name: str, suffix: str) -> str:
    """Return the name in the cluster of an object that belongs to no namespace."""
    return f"{name}-{suffix}"


def _walk(value: Any, fields: Mapping[str, Rewrite], to_real: ToReal) -> Any:
    if isinstance(value, Mapping):
        whose = _of_values(value, fields)
        # A reference of Linkerd's may be to the namespace itself.
        named = {"name": _name} if "identities" in fields and value.get("kind") == "Namespace" else {}
        return {key: _below(key, below, {**fields, **whose, **named}, to_real) for key, below in value.items()}
    return [_walk(below, fields, to_real) for below in value] if isinstance(value, list | tuple) else value


def _of_values(value: Mapping[str, Any], fields: Mapping[str, Rewrite]) -> Mapping[str, Rewrite]:
    """Return how the values are to be rewritten that an object with a `key` compares it with."""
    key = value.get("key")
    if _is_namespace(key):
        return {"values": _name}
    condition = _CONDITIONS.get(str(key)) if "principals" in fields else None
    return {"values": condition, "notValues": condition} if condition is not None else {}


def _below(key: str, value: Any, fields: Mapping[str, Rewrite], to_real: ToReal) -> Any:
    rewrite = _name if _is_namespace(key) else fields.get(key)
    if rewrite is not None and isinstance(value, str):
        return rewrite(value, to_real)
    if rewrite is not None and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return [rewrite(one, to_real) for one in value]
    inner = {} if key in _NO_FIELDS else {k: f for k, f in fields.items() if k not in ("values", "notValues", "name")}
    return _walk(value, inner, to_real)


def _is_namespace(key: object) -> bool:
    text = str(key)
    return next((text.removeprefix(source) for source in _SOURCES if text.startswith(source)), text) in LABELS
