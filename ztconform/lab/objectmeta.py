# SPDX-License-Identifier: Apache-2.0
"""Which object a manifest describes: its name and namespace out of apiVersion, kind and metadata.

What the specification says is left to the module of the kind.
"""

from collections.abc import Callable, Mapping

from ztconform.lab.fields import Field, shown
from ztconform.lab.labels import check_annotations, dns_label, label_map
from ztconform.model import Ref

_SERVER_SET = "is set by the API server: remove it"
_UNSUPPORTED = {
    "creationTimestamp": _SERVER_SET,
    "deletionGracePeriodSeconds": _SERVER_SET,
    "deletionTimestamp": _SERVER_SET,
    "finalizers": "is not supported: the lab deletes at once",
    "generateName": "is not supported: write a name",
    "generation": _SERVER_SET,
    "managedFields": _SERVER_SET,
    "ownerReferences": "is not supported: the lab collects no garbage",
    "resourceVersion": _SERVER_SET,
    "selfLink": _SERVER_SET,
    "uid": _SERVER_SET,
}


def check_type(manifest: Field, api_version: str, kind: str) -> None:
    """Refuse a manifest of another kind or version, before its fields are read."""
    if not isinstance(manifest.value, Mapping):
        manifest.refuse(f"must be a mapping, not {shown(manifest.value)}")
    for name, expected in (("apiVersion", api_version), ("kind", kind)):
        field = manifest.child(name, manifest.value.get(name))
        if field.value != expected:
            field.refuse(f"must be {expected}, not {shown(field.value)}")


def read_metadata(metadata: Field, name_of: Callable[[Field], str]) -> Ref:
    """Return the object's namespace ("default" if it has none) and name.

    Labels and annotations are checked and then left alone: no policy or Service is selected by its own, so that they
    enforce nothing.
    """
    fields = metadata.object(("name", "namespace", "labels", "annotations"), _UNSUPPORTED)
    if "labels" in fields:
        label_map(fields["labels"])
    if "annotations" in fields:
        check_annotations(fields["annotations"])
    name, namespace = fields.get("name"), fields.get("namespace")
    if name is None or name.value == "":
        metadata.child("name").refuse("is required")
    return Ref("default" if namespace is None or namespace.value == "" else dns_label(namespace), name_of(name))
