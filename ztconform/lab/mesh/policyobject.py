# SPDX-License-Identifier: Apache-2.0
"""What the security.istio.io kinds have in common: their versions, metadata, workload selector and refused status.

What a specification says is left to the module of the kind. The rules are those of Istio 1.30: the published CRDs and
pkg/config/validation.
"""

from collections.abc import Mapping

from ztconform.lab.fields import Field, root, shown
from ztconform.lab.labels import dns_subdomain, label_map
from ztconform.lab.objectmeta import check_type, read_metadata
from ztconform.lab.selectors import EVERYTHING, LabelSelector, equal_to
from ztconform.model import Ref

DRY_RUN = "istio.io/dry-run"

_STABLE = "security.istio.io/v1"
_BETA = "security.istio.io/v1beta1"  # the same schema
_REVISION = "istio.io/rev"
_INTERNAL = "internal.istio.io/"
_BOOLEANS = {  # of Go's strconv.ParseBool, which reads the annotation
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


def read_object(manifest: object, kind: str) -> tuple[Ref, Field, Field | None]:
    """Return the object's name, its specification ({} where it has none), and its dry-run annotation if there is one."""
    whole = root(manifest)
    is_beta = isinstance(manifest, Mapping) and manifest.get("apiVersion") == _BETA
    check_type(whole, _BETA if is_beta else _STABLE, kind)
    fields = whole.object(("apiVersion", "kind", "metadata", "spec"), {"status": "is written by Istio: remove it"})
    metadata = fields.get("metadata", whole.child("metadata", {}))
    ref = read_metadata(metadata, dns_subdomain)
    parts = metadata.object(metadata.value)
    if "labels" in parts and _REVISION in parts["labels"].entries():
        parts["labels"].entries()[_REVISION].refuse("is not supported: the lab's mesh has no revisions, and applies every policy")
    annotations = parts["annotations"].entries() if "annotations" in parts else {}
    for name, entry in annotations.items():
        if name.startswith(_INTERNAL):
            entry.refuse("is reserved: Istio refuses it")
    return ref, fields.get("spec", whole.child("spec", {})), annotations.get(DRY_RUN)


def read_boolean(annotation: Field) -> bool:
    """Return what an annotation says, as Go reads a boolean."""
    text = annotation.string()
    if text not in _BOOLEANS:
        annotation.refuse(f'must be "true" or "false", not {shown(text)}')
    return _BOOLEANS[text]


def read_workload_selector(spec: Mapping[str, Field]) -> LabelSelector:
    """Return which pods the `selector` of a specification selects; without labels it selects all, as without a selector."""
    if "selector" not in spec:
        return EVERYTHING
    fields = spec["selector"].object(("matchLabels",))
    return equal_to(label_map(fields["matchLabels"])) if "matchLabels" in fields else EVERYTHING
