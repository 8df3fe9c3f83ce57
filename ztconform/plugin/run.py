# SPDX-License-Identifier: Apache-2.0
"""What the processes of one run share: its ID and a private folder, which xdist's controller names for its workers.

What stands in the folder, beside the mark that a shared cluster was begun, is left to whoever puts it there.
"""

import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_BEGUN = "begun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Name a run, and where its processes meet; nothing is made before `folder_of` is asked for it."""

    id: str
    worker: str  # of xdist; "" is the controller, or the only process
    folder: Path | None  # None in a worker on another machine


_RUN = pytest.StashKey[Run]()


def of(config: pytest.Config) -> Run:
    """Return the run that this process has a part in."""
    known = config.stash.get(_RUN, None)
    if known is None:
        known = config.stash[_RUN] = _told(config) if hasattr(config, "workerinput") else _new()
    return known


def tell(config: pytest.Config, workerinput: dict[str, Any]) -> None:
    """Put into a worker's input what it needs to have a part in the controller's run."""
    own = of(config)
    workerinput["ztc_run"] = own.id
    workerinput["ztc_folder"] = str(own.folder)


def folder_of(config: pytest.Config) -> Path:
    """Return the run's folder, which nobody else may read, and make it if need be."""
    folder = of(config).folder
    assert folder is not None, "a worker on another machine has no part in a shared cluster"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def begin(config: pytest.Config, stack: str) -> None:
    """Note that a process is about to start the shared stack, so that it has to be finished."""
    (folder_of(config) / _BEGUN).write_text(stack, encoding="utf-8")


def begun(config: pytest.Config) -> str:
    """Return the name of the shared stack that some process of the run has started, or ""."""
    folder = of(config).folder
    mark = folder / _BEGUN if folder else None
    return mark.read_text(encoding="utf-8") if mark and mark.exists() else ""


def end(config: pytest.Config) -> None:
    """Remove the folder."""
    if folder := of(config).folder:
        shutil.rmtree(folder, ignore_errors=True)


def once(config: pytest.Config, name: str, make: Callable[[], str]) -> str:
    """Return what `make` returned in the one process of the run that came first; if it raises there, the next one tries."""
    from filelock import FileLock

    path = folder_of(config) / name
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            return path.read_text(encoding="utf-8")
        made = make()
        fresh = path.with_suffix(".new")
        fresh.write_text(made, encoding="utf-8")
        fresh.replace(path)
        return made


def _new() -> Run:
    own = secrets.token_hex(3)
    # Many may write where temporary folders are: what nobody can guess, nobody can have put there before.
    folder = Path(tempfile.gettempdir()) / f"ztconform-{own}-{secrets.token_hex(8)}"
    return Run(id=own, worker="", folder=folder)


def _told(config: pytest.Config) -> Run:
    told: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]  # xdist puts it there
    own = str(told.get("ztc_run") or secrets.token_hex(3))
    return Run(id=own, worker=str(told["workerid"]), folder=Path(told["ztc_folder"]) if "ztc_folder" in told else None)
