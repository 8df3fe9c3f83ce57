# SPDX-License-Identifier: Apache-2.0
"""Under which names the namespaces of a case really stand in a cluster that others use too; pure.

A scenario says `shop`, and so does every result; only here and in the API server is it `shop-1a2b3c-0`. A case file's names are
literal, and stay.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ztconform.model import OUTSIDE, Manifest, Ref

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_LONGEST = 63
_OF_SPIFFE = re.compile(r"((?:^|/)ns/)([^/]+)(/sa/)")


@dataclass(frozen=True, slots=True)
class Names:
    """Translate between the names of a case and those in the cluster."""

    real: Mapping[str, str] = field(default_factory=dict)  # as a case says it -> in the cluster

    def to_real(self, namespace: str) -> str:
        """Return a namespace's name in the cluster."""
        return self.real.get(namespace, namespace)

    def to_case(self, namespace: str) -> str:
        """Return a namespace's name as the case says it."""
        return next((said for said, real in self.real.items() if real == namespace), namespace)

    def ref(self, ref: Ref) -> Ref:
        """Return a reference as it is in the cluster."""
        return ref if ref.namespace == OUTSIDE else Ref(self.to_real(ref.namespace), ref.name)

    def manifest(self, manifest: Manifest) -> dict[str, Any]:
        """Return a manifest with every mention of a renamed namespace replaced: where it lives, and whom it selects."""
        renamed = self._walk(manifest)
        metadata = dict(renamed.get("metadata") or {})
        if "namespace" in metadata:
            metadata["namespace"] = self.to_real(str(metadata["namespace"]))
        return {**renamed, "metadata": metadata}

    def _source(self, key: str, value: str) -> str:
        """Return one value of an AuthorizationPolicy's source field: a principal, a namespace, or a namespace's account."""
        if key in ("namespaces", "notNamespaces"):
            return self.to_real(value)
        if key in ("serviceAccounts", "notServiceAccounts"):
            namespace, slash, account = value.rpartition("/")
            return f"{self.to_real(namespace)}{slash}{account}"
        return _OF_SPIFFE.sub(lambda found: f"{found[1]}{self.to_real(found[2])}{found[3]}", value)

    def _walk(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            if isinstance(source := value.get("source"), Mapping) and len(value) == 1:
                return {"source": {key: [self._source(key, one) for one in many] for key, many in source.items()}}
            if value.get("key") == NAMESPACE_LABEL and isinstance(value.get("values"), list):
                return {**value, "values": [self.to_real(str(one)) for one in value["values"]]}
            return {
                key: self.to_real(below) if key == NAMESPACE_LABEL and isinstance(below, str) else self._walk(below)
                for key, below in value.items()
            }
        return [self._walk(below) for below in value] if isinstance(value, list | tuple) else value


def private(namespaces: Mapping[str, Any], suffix: str) -> Names:
    """Return names that nobody else has, if `suffix` is nobody else's."""
    room = _LONGEST - len(suffix) - 1
    return Names({name: f"{re.sub('-+$', '', name[:room])}-{suffix}" for name in namespaces})
