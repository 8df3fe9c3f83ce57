# SPDX-License-Identifier: Apache-2.0
"""Cilium's identities, by its ConfigMap: which labels make them, and how soon a changed label makes another."""

import re
from collections.abc import Mapping, Sequence


def left_out(filters: str, keys: Sequence[str]) -> list[str]:
    """Return which label keys a filter of Cilium keeps out of identities.

    A filter is a list of regular expressions that begin a label, "!" in front of one that excludes; with one that includes, all
    else is left out (https://docs.cilium.io/en/v1.19/operations/performance/scalability/identity-relevant-labels/).
    """
    words = [word.removeprefix("k8s:") for word in filters.split()]
    excluding = [word[1:].removeprefix("k8s:") for word in words if word.startswith("!")]
    including = [word for word in words if not word.startswith("!")]
    return [
        key
        for key in keys
        if any(re.match(word, key) for word in excluding) or (including and not any(re.match(word, key) for word in including))
    ]


def relabelled(config: Mapping[str, str]) -> float:
    """Return for how many seconds at most Cilium leaves changed labels alone, on purpose.

    An agent waits a random time before it looks for the pods' new identity, and then until the other nodes know that; the
    defaults are those of v1.19's `cilium-agent --help`.
    """
    return _seconds(config.get("identity-max-jitter", "30s")) + _seconds(config.get("identity-change-grace-period", "5s"))


def _seconds(duration: str) -> float:
    """Return a duration as Go writes it ("1m30s", "500ms") in seconds; what is none is 0, and for Cilium itself to refuse."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", duration))
