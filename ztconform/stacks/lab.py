# SPDX-License-Identifier: Apache-2.0
"""The stack `lab`: Linux network namespaces on this machine; what they enforce is in `ztconform.lab`."""

from collections.abc import Iterator
from contextlib import contextmanager

from ztconform.cluster import Cluster
from ztconform.settings import Settings


class LabStack:
    """Start the embedded lab."""

    name = "lab"
    summary = "Linux network namespaces and nftables on this machine; needs no root, no Docker, no Kubernetes"

    shared = False

    def preflight(self, settings: Settings) -> None:
        """Raise ClusterError, with the cure, if this machine cannot run the lab."""
        from ztconform.lab.preflight import check  # noqa: PLC0415 - reaches into Linux only when asked

        check()

    @contextmanager
    def start(self, settings: Settings) -> Iterator[Cluster]:
        """Yield a lab of two nodes; it is gone when the context ends, and also if this process dies."""
        from ztconform.lab.cluster import LabCluster  # noqa: PLC0415 - needs Linux

        with LabCluster(svid_ttl=settings.svid_ttl) as cluster:
            yield cluster

    def finish(self, settings: Settings, *, failed: bool) -> None:
        """Do nothing: a lab ends with the process that started it."""


STACK = LabStack()
