# SPDX-License-Identifier: Apache-2.0
"""What components need because of each other: a few values and objects, in this one place.

What each needs by itself is left to it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ztconform.stacks.component import Composition, Step


def values(key: str, stack: Composition) -> Mapping[str, Any]:
    """Return what a stack adds to the values of the chart of this key."""
    return {}


def steps(stack: Composition) -> Sequence[Step]:
    """Return what is installed once all components are."""
    return ()
