# SPDX-License-Identifier: Apache-2.0
"""Which containers dead runs left in the local Docker: hosts outside a cluster, labelled with the process that started them.

Whether that process lives is left to `liveness`; kind's nodes are left to `kind`.
"""

from dataclasses import dataclass

from ztconform.errors import ClusterError
from ztconform.kube import docker, liveness
from ztconform.kube.liveness import Life

_FIELDS = (liveness.RUN, liveness.PID, liveness.START, liveness.BOOT, liveness.HOST)
_FORMAT = "\t".join(("{{.ID}}", "{{.Names}}", *(f'{{{{.Label "{field}"}}}}' for field in _FIELDS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """Name one container, its run, and whether the process that started it lives."""

    id: str
    name: str
    run: str
    life: Life


def ours() -> tuple[Container, ...]:
    """Return all containers that any run started, by name.

    Raises ClusterError.
    """
    listed = docker.run(["ps", "--all", "--no-trunc", "--filter", f"label={liveness.RUN}", "--format", _FORMAT])
    return tuple(sorted(map(_container, listed.splitlines()), key=lambda container: container.name))


def remove(container: Container) -> None:
    """Remove a container with its volumes, running or not; one that is gone by now is no error.

    Raises ClusterError.
    """
    try:
        docker.run(["rm", "--force", "--volumes", container.id])
    except ClusterError as error:
        if "No such container" not in str(error):
            raise


def _container(line: str) -> Container:
    number, name, *values = line.split("\t")
    labels = dict(zip(_FIELDS, values, strict=True))
    return Container(id=number, name=name, run=labels[liveness.RUN], life=liveness.life(liveness.from_labels(labels)))
