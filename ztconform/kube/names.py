# SPDX-License-Identifier: Apache-2.0
"""Under which names the namespaces of a case really stand in a cluster that others use too; pure.

A scenario says `shop`, and so does every result; only here and in the API server is it `shop-1a2b3c-0`. A case file's names are
literal, and stay. Where a manifest names a namespace is left to `renaming`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ztconform.kube.renaming import own_name, renamed
from ztconform.model import OUTSIDE, Manifest, Ref

_LONGEST = 63


@dataclass(frozen=True, slots=True)
class Names:
    """Translate between the names of a case and those in the cluster."""

    real: Mapping[str, str] = field(default_factory=dict)  # as a case says it -> in the cluster
    suffix: str = ""  # of what belongs to no namespace; "": its names are literal

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
        """Return a manifest with every mention of a renamed namespace replaced, and a name of its own if it lives in none."""
        return renamed(manifest, self.to_real, self.suffix)

    def policy(self, real: str) -> str:
        """Return a policy as the case names it, NAMESPACE/NAME or of the whole cluster NAME, by its name in the cluster."""
        namespace, slash, name = real.rpartition("/")
        if slash:
            return f"{self.to_case(namespace)}/{name}"
        return name.removesuffix(own_name("", self.suffix)) if self.suffix else name


def private(namespaces: Mapping[str, Any], suffix: str) -> Names:
    """Return names that nobody else has, if `suffix` is nobody else's."""
    room = _LONGEST - len(suffix) - 1
    return Names({name: f"{re.sub('-+$', '', name[:room])}-{suffix}" for name in namespaces}, suffix)
