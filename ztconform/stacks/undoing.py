# SPDX-License-Identifier: Apache-2.0
"""Whether the user's values switch off what an option of the stack switched on, which is then not the stack that they named.

Other values of ours may well be replaced. What runs in the end is asked of the cluster.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ztconform.errors import UsageError

if TYPE_CHECKING:
    from ztconform.kube.helm import Chart


def check(name: str, with_options: Sequence["Chart"], without: Sequence["Chart"]) -> None:
    """Raise UsageError for a file of values that undoes an option of the stack of this name."""
    plain = {chart.component: chart.values for chart in without}
    for chart in with_options:
        for file in chart.files:
            for path in undone(chart.values, plain.get(chart.component, {}), read(file)):
                raise UsageError(f"--ztc-values {chart.component}={file}: {path} is on in {name}, and this switches it off")


def undone(ours: Mapping[str, Any], plain: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is on in `ours`, by an option, for it is not in `plain`, and is not in `theirs`."""
    for key, value in ours.items():
        if key not in theirs:
            continue
        before, after = plain.get(key), theirs[key]
        if isinstance(value, Mapping):
            # What is no mapping, null above all, takes all of ours away.
            inner = (before if isinstance(before, Mapping) else {}, after if isinstance(after, Mapping) else dict.fromkeys(value))
            yield from (f"{key}.{path}" for path in undone(value, *inner))
        elif value is True and before is not True and after is not True:
            yield key


def read(file: Path) -> Mapping[str, Any]:
    """Return the values of a file of the user's; none where it cannot be read, or is no mapping."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}  # helm, which is asked to render it, says what is wrong with it
    return found if isinstance(found, Mapping) else {}
