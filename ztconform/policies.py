# SPDX-License-Identifier: Apache-2.0
"""Which manifests say an intent in a cluster's dialect, or why that dialect cannot say it.

Filling in the placeholders of a manifest (`${host:...}`, `${net:...}`) is left to whoever knows the topology.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ztconform import resources
from ztconform.errors import InternalError, UsageError
from ztconform.model import Manifest

# An intent has in each of these a manifest, or a gap that says why not.
DIALECTS = (
    "kubernetes",  # networking.k8s.io/v1 NetworkPolicy
    "cluster-network-policy",  # policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy
    "cilium",  # cilium.io/v2
    "calico",  # projectcalico.org/v3, enforced and staged
    "istio",  # security.istio.io/v1 for sidecars: policies that select pods
    "istio-waypoint",  # the same for ambient: policies that target a Service, and who passes ztunnel
    "linkerd",  # policy.linkerd.io
)


@dataclass(frozen=True, slots=True)
class Gap:
    """Say that a dialect has no words for an intent, and why."""

    intent: str
    dialect: str
    reason: str


def known() -> tuple[str, ...]:
    """Return the names of all intents, sorted."""
    return tuple(sorted(path.name for path in _root().iterdir() if path.is_dir()))


def gaps() -> tuple[Gap, ...]:
    """Return the declared gaps; raises InternalError if `gaps.yaml` is not a table of intent, dialect and reason."""
    path = _root() / "gaps.yaml"
    found = []
    for table in _documents(path) if path.exists() else ():
        for intent, reasons in table.items():
            if not isinstance(reasons, Mapping) or not all(isinstance(r, str) and r.strip() for r in reasons.values()):
                raise InternalError(f"{path}: {intent}: expected a table of dialects, each with its reason; please report this")
            found += [Gap(intent, dialect, reason) for dialect, reason in reasons.items()]
    return tuple(found)


def load(intent: str, dialects: Sequence[str]) -> tuple[Manifest, ...] | Gap:
    """Return the manifests of an intent in the first of these dialects that has any, placeholders and all.

    Returns the declared gap where none has, of the dialect that can say the most. Raises UsageError for an intent that does not
    exist, and for one that is silent about all these dialects.
    """
    if intent not in known():
        near = difflib.get_close_matches(intent, known(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are: {', '.join(known()) or 'none'}"
        raise UsageError(f"policy {intent!r}: no such intent under manifests/policies; {hint}")
    for dialect in dialects:
        path = _root() / intent / f"{dialect}.yaml"
        if path.exists():
            if documents := _documents(path):
                return documents
            raise InternalError(f"{path}: no manifest in it; please report this")
    declared = {gap.dialect: gap for gap in gaps() if gap.intent == intent}
    # NetworkPolicy, which comes first, can say the least.
    for dialect in (*dialects[1:], *dialects[:1]):
        if dialect in declared:
            return declared[dialect]
    raise UsageError(
        f"policy {intent!r}: no manifest for {' or '.join(dialects) or 'no dialect at all'}; "
        f"write {_root() / intent}/<dialect>.yaml, or declare the gap in {_root() / 'gaps.yaml'}"
    )


def _root() -> Path:
    return resources.folder("manifests") / "policies"


def _documents(path: Path) -> tuple[Manifest, ...]:
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise InternalError(f"{path}: {' '.join(str(error).split())}; please report this") from error
    if not all(isinstance(document, Mapping) for document in documents):
        raise InternalError(f"{path}: every document must be an object; please report this")
    return tuple(documents)
