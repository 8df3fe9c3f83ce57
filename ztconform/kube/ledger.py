# SPDX-License-Identifier: Apache-2.0
"""What this machine remembers of the kind clusters that we made: whose each is, whether it is whole, and who may touch it now.

One small file a cluster in the user's state folder, written before the cluster is begun, so that a killed run leaves a trace.
Making and deleting clusters is left to `kind`.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ztconform.errors import ClusterError
from ztconform.kube.liveness import Life, Process, life, process

_PATIENCE = 1800.0  # seconds; another process of the run may be pulling images


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Tell of one cluster."""

    name: str
    run: str
    owner: Process
    keep: bool
    whole: bool = False  # False: being made, or left behind half-made
    made: Mapping[str, str] = field(default_factory=dict)  # option -> what it was when the cluster was made
    installed: str = ""  # fingerprint of what was installed last; "" if that did not succeed
    loaded: tuple[str, ...] = ()  # fingerprints of image archives

    @property
    def stale(self) -> bool:
        """Return whether nobody will ever remove this cluster: its run is dead, and it was not to be kept or is not whole."""
        return life(self.owner) is Life.DEAD and not (self.keep and self.whole)


class Ledger:
    """Keep the records of one user on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> Record | None:
        """Return the record of a cluster; None if there is none that can be read."""
        try:
            told = json.loads(self._file(name).read_text(encoding="utf-8"))
            return Record(**{**told, "owner": Process(**told["owner"]), "loaded": tuple(told["loaded"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, record: Record) -> None:
        """Remember a cluster, in one step: a reader finds the old record or the new one."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = self.folder / f".{record.name}.{os.getpid()}"
            draft.write_text(json.dumps(asdict(record)), encoding="utf-8")
            draft.replace(self._file(record.name))
        except OSError as error:
            raise ClusterError(
                f"cannot write below {self.folder} ({error.strerror}): set XDG_STATE_HOME to where you can"
            ) from None

    def forget(self, name: str) -> None:
        """Remove a record, if there is one."""
        with suppress(OSError):
            self._file(name).unlink()

    def unlock(self, name: str) -> None:
        """Remove the lock of a cluster that is gone; while one is made anew, others may wait for that very file."""
        with suppress(OSError):
            self._lock(name).unlink()

    def records(self) -> tuple[Record, ...]:
        """Return all that is remembered, by name."""
        names = sorted(path.stem for path in self.folder.glob("*.json"))
        return tuple(record for record in map(self.read, names) if record is not None)

    @contextmanager
    def held(self, name: str, notify: Callable[[str], None]) -> Iterator[None]:
        """Hold a cluster alone, waiting for whoever holds it now; a process that dies lets go."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(self._lock(name))
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                notify(f"waiting for another process, which prepares the cluster {name}")
                lock.acquire(timeout=_PATIENCE)
        except Timeout:
            raise ClusterError(
                f"another process has been preparing the cluster {name} for {_PATIENCE / 60:.0f} minutes"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _lock(self, name: str) -> Path:
        return self.folder / f"{name}.lock"


def default() -> Ledger:
    """Return the ledger of this user."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Ledger(Path(base).expanduser() / "ztconform" / "clusters")


def owner(*, worker: bool) -> Process:
    """Return who a cluster belongs to: this process, or for a worker of xdist the controller that started it."""
    parent = os.getppid()
    return process(parent if worker and parent > 1 else os.getpid())
