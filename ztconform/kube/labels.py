# SPDX-License-Identifier: Apache-2.0
"""How we know what is ours in a cluster: labels on every object that we create, and nothing else makes it ours."""

from collections.abc import Mapping
from dataclasses import dataclass

MANAGED = "app.kubernetes.io/managed-by"
MANAGER = "ztconform"


@dataclass(frozen=True, slots=True)
class Labels:
    """Name the label keys of one run."""

    prefix: str
    run: str
    worker: str = ""

    @property
    def run_key(self) -> str:
        """Return the key whose value is the run's ID."""
        return f"{self.prefix}/run"

    @property
    def workload_key(self) -> str:
        """Return the key by which a workload's own Services select its serving pods."""
        return f"{self.prefix}/workload"

    def ours(self) -> Mapping[str, str]:
        """Return the labels of whatever this run creates."""
        return {MANAGED: MANAGER, self.run_key: self.run}

    def selector(self) -> str:
        """Return the label selector of everything that any run of ours created."""
        return f"{MANAGED}={MANAGER},{self.run_key}"
