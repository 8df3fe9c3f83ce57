# SPDX-License-Identifier: Apache-2.0
"""How the nouns of `model` are written as JSON.

What a report makes of it is left to `report`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ztconform.model import Ref


def to_json(value: Any) -> Any:
    """Return the value in JSON's own types: dataclasses as objects, sets sorted, a Ref as "namespace/name"."""
    if isinstance(value, Ref):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(to_json(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return value
