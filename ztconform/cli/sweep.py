# SPDX-License-Identifier: Apache-2.0
"""What `ztconform sweep` says and removes: of this machine always, of a cluster when it is named.

Who is dead, and how its things go, is left to `kube.sweep`, `kube.containers` and `kube.kind`.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ztconform.errors import EXIT_PROVED, ClusterError, UsageError, ZtconformError

if TYPE_CHECKING:
    from ztconform.kube.client import Connection

_EXTRA = ("kubernetes", "tenacity", "urllib3")  # what the extra `kube` brings


@dataclass(slots=True, kw_only=True)
class _Sweeper:
    """Sweep one part after the other, and remember whether there was anything."""

    say: Callable[[str], None]
    dry_run: bool
    count: int = 0
    failed: list[str] = field(default_factory=list)

    def attempt(self, part: Callable[[], None]) -> None:
        """Sweep a part; the others are swept although it fails."""
        try:
            part()
        except ZtconformError as error:
            self.failed.append(str(error))

    def swept(self, line: str) -> None:
        """Say that a thing is gone."""
        self.count += 1
        self.say(line)

    def would(self, what: str) -> None:
        """Say that a thing would be removed."""
        self.swept(f"would remove {what}")

    def cluster(self, connection: "Connection", prefix: str) -> None:
        """Sweep what dead runs left in a cluster."""
        from ztconform.kube import sweep

        found = sweep.leftovers(connection, prefix)
        for run in found.living:
            self.say(f"the run {run.id} gave a sign of life {max(run.silent, 0):.0f} s ago: left alone")
        if found.unseen:
            self.say(f"cannot list {', '.join(found.unseen)}: what was left of these was not looked for")
        if self.dry_run:
            for what in sweep.listed(connection, found):
                self.would(what)
        else:
            sweep.remove(connection, found.dead, prefix, self.swept)

    def containers(self) -> None:
        """Sweep containers on this machine."""
        from ztconform.kube import containers
        from ztconform.kube.liveness import Life

        for container in containers.ours():
            what = f"container {container.name} of the run {container.run}"
            if container.life is Life.UNKNOWN:
                self.say(f"{what}: cannot tell from here whether that lives, left alone (docker rm --force {container.name})")
            elif container.life is Life.DEAD and self.dry_run:
                self.would(what)
            elif container.life is Life.DEAD:
                containers.remove(container)
                self.swept(f"removed {what}")

    def kind_clusters(self, binary: Path) -> None:
        """Sweep kind clusters on this machine."""
        from ztconform.kube import kind, ledger

        if not any(record.stale for record in ledger.default().records()):
            return  # nobody needs kind for that
        for record in kind.leftovers(binary):
            what = f"kind cluster {record.name} of the run {record.run}"
            if self.dry_run:
                self.would(what)
            else:
                kind.delete(binary, record.name)
                self.swept(f"removed {what}")


def sweep(say: Callable[[str], None], *, context: str, kubeconfig: Path | None, prefix: str, kind_bin: str, dry_run: bool) -> int:
    """Remove what dead runs left, or with `dry_run` only list it, in one line a thing.

    Raises UsageError for a context that is not known, and ClusterError for what failed, after everything else was tried.
    """
    sweeper = _Sweeper(say=say, dry_run=dry_run)
    if context:
        connection = _connected(context, kubeconfig)
        sweeper.attempt(lambda: sweeper.cluster(connection, prefix))
    if shutil.which("docker"):
        sweeper.attempt(sweeper.containers)
        sweeper.attempt(lambda: sweeper.kind_clusters(Path(kind_bin)))
    if sweeper.failed:
        raise ClusterError("; ".join(sweeper.failed))
    if not sweeper.count:
        say("nothing to sweep: no dead run has left anything")
    return EXIT_PROVED


def _connected(context: str, kubeconfig: Path | None) -> "Connection":
    try:
        from ztconform.kube import client
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _EXTRA:
            raise UsageError("--context needs the Kubernetes client: pip install 'ztconform[kube]'") from None
        raise
    return client.connect(context, kubeconfig)
