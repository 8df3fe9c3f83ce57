# SPDX-License-Identifier: Apache-2.0
"""How a kind cluster of ours comes and goes: made once whoever asks first, found again by the others, never left half-made.

What is installed in it is left to a callback, what is remembered of it to `ledger`, whether the machine can hold it to `machine`.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ztconform.errors import ClusterError, UsageError, ZtconformError
from ztconform.kube import command, docker
from ztconform.kube.ledger import Ledger, Record, default, owner

PREFIX = "ztc-"
RUN_LABEL = "ztconform.io/run"  # on every node, for whoever meets one

_SLUG = 28  # characters of a stack in its cluster's name: with the run and "-control-plane" a node's name has 63 at most
_QUICK = 60.0  # seconds for kind to answer without doing much
_CREATE = 1200.0  # the node image may have to be pulled
_LOAD = 900.0
_LABEL = "label=io.x-k8s.kind.cluster="  # that kind itself puts on the containers


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Say what cluster is wanted, and for whom."""

    name: str
    image: str
    config: Mapping[str, Any]
    archives: tuple[Path, ...]
    made: Mapping[str, str]  # option -> value that a kept cluster must have been made with
    installs: str  # fingerprint of what the callback installs
    keep: bool
    run: str
    worker: bool
    folder: Path  # of the run: logs, kubeconfig
    notify: Callable[[str], None]

    @property
    def kubeconfig(self) -> Path:
        """Return where the cluster's kubeconfig is written; never the user's own."""
        return self.folder / f"{self.name}.kubeconfig"

    @property
    def context(self) -> str:
        """Return the name of the context in that file."""
        return context(self.name)


def context(name: str) -> str:
    """Return the name that kind gives the context of a cluster."""
    return f"kind-{name}"


def name_of(stack: str, run: str, *, keep: bool) -> str:
    """Return the name of a stack's cluster: of its own for each run, unless it is kept for the next one."""
    slug = "-".join("".join(c if c.isalnum() else " " for c in stack.lower()).split())
    if len(slug) > _SLUG:
        slug = f"{slug[: _SLUG - 7].rstrip('-')}-{hashlib.sha256(slug.encode()).hexdigest()[:6]}"
    return f"{PREFIX}{slug}" if keep else f"{PREFIX}{slug}-{run.lower()}"


def archives(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the image archives that files and folders name, or raise UsageError for one that holds none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob("*.tar"))
            if not inside:
                raise UsageError(f"--ztc-load-image {path}: this folder holds no *.tar")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"--ztc-load-image {path}: there is no such file or folder")
    return tuple(dict.fromkeys(path.absolute() for path in found))


def clusters(binary: Path) -> frozenset[str]:
    """Return the names of all kind clusters."""
    done = _kind(binary, ["get", "clusters"], _QUICK, "list its clusters")
    return frozenset(done.out.split())


def ensure(
    binary: Path,
    plan: Plan,
    *,
    install: Callable[[], None],
    rescue: Callable[[], None],
    ledger: Ledger | None = None,
) -> None:
    """Make the cluster, or find the one that is there, and have its kubeconfig at `plan.kubeconfig`.

    `install` runs once for a cluster. If anything fails while a cluster is made it is deleted again, after `rescue` has saved its
    logs (not after Ctrl-C), and the other processes of the run fail with the same message. Raises UsageError for a kept
    cluster that was made with other options.
    """
    ledger = ledger or default()
    failed = plan.folder / f"{plan.name}.failed"
    with ledger.held(plan.name, plan.notify):
        if failed.exists():
            raise ClusterError(failed.read_text(encoding="utf-8"))
        record = _found(binary, plan, ledger)
        if record is not None:
            _export(binary, plan)
            _complete(binary, plan, ledger, record, install)
            return
        try:
            record = _create(binary, plan, ledger)
            _complete(binary, plan, ledger, record, install)
        except BaseException as error:
            if isinstance(error, ZtconformError):
                failed.write_text(str(error), encoding="utf-8")
                rescue()
            plan.notify(f"removing the cluster {plan.name}, which did not come up")
            _delete(binary, plan.name, ledger)
            raise


def delete(binary: Path, name: str, ledger: Ledger | None = None) -> None:
    """Delete a cluster that nobody uses any more, and all that is remembered of it; never failing because it is gone."""
    ledger = ledger or default()
    _delete(binary, name, ledger)
    ledger.unlock(name)


def _delete(binary: Path, name: str, ledger: Ledger) -> None:
    # kind removes the cluster's context from the kubeconfig that it is told; without one, from the user's.
    with tempfile.TemporaryDirectory() as folder:
        # Whoever was killed may have left requests that Docker still works on: a container can come after the first look.
        for _ in range(3):
            _kind(binary, ["delete", "cluster", f"--name={name}", f"--kubeconfig={folder}/config"], _QUICK * 2, f"delete {name}")
            if not docker.run(["ps", "--all", "--quiet", "--filter", f"{_LABEL}{name}"]):
                break
        else:
            raise ClusterError(f"the kind cluster {name} could not be deleted: try  kind delete cluster --name {name}")
    ledger.forget(name)


def remove(binary: Path, name: str, ledger: Ledger | None = None) -> None:
    """Delete a cluster at the end of its run, unless it is to be kept or is not ours."""
    ledger = ledger or default()
    record = ledger.read(name)
    if record is not None and not (record.keep and record.whole):
        delete(binary, name, ledger)


def leftovers(binary: Path, ledger: Ledger | None = None) -> tuple[Record, ...]:
    """Return the clusters of ours whose run is dead; kept ones are not among them. Forgets those that are gone."""
    ledger = ledger or default()
    there = clusters(binary)
    stale = [record for record in ledger.records() if record.stale]
    for record in stale:
        if record.name not in there:
            ledger.forget(record.name)
            ledger.unlock(record.name)
    return tuple(record for record in stale if record.name in there)


def export_kubeconfig(binary: Path, name: str, path: Path) -> None:
    """Write a cluster's kubeconfig, readable by nobody else."""
    done = _kind(binary, ["get", "kubeconfig", f"--name={name}"], _QUICK, f"export the kubeconfig of {name}")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(done.out)
    draft.replace(path)


def export_logs(binary: Path, name: str, folder: Path) -> str:
    """Save the nodes' logs into a folder; return "" or, never raising, why that failed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _kind(binary, ["export", "logs", str(folder), f"--name={name}"], _QUICK * 3, f"export the logs of {name}")
    except (ZtconformError, OSError) as error:
        return str(error)[:200]  # kind names every command of every node that failed
    return ""


def _found(binary: Path, plan: Plan, ledger: Ledger) -> Record | None:
    """Return the record of a whole cluster that is there; removes one that was left half-made."""
    record = ledger.read(plan.name)
    if plan.name not in clusters(binary):
        return None
    if record is None:
        raise ClusterError(
            f"a kind cluster {plan.name} is there that this user did not make: delete it (kind delete cluster --name {plan.name})"
        )
    if not record.whole:  # its maker held the lock that we hold now, so it is dead
        plan.notify(f"removing the cluster {plan.name}, which an interrupted run left half-made")
        _delete(binary, plan.name, ledger)
        return None
    changed = sorted(
        option for option in record.made.keys() | plan.made.keys() if record.made.get(option) != plan.made.get(option)
    )
    if changed:
        raise UsageError(
            f"the kept cluster {plan.name} was made with another {' and '.join(changed)}: "
            f"delete it (kind delete cluster --name {plan.name}), or run without --ztc-keep"
        )
    return record


def _create(binary: Path, plan: Plan, ledger: Ledger) -> Record:
    record = Record(name=plan.name, run=plan.run, owner=owner(worker=plan.worker), keep=plan.keep, made=plan.made)
    ledger.write(record)
    count = len(plan.config["nodes"])
    plan.notify(f"creating the kind cluster {plan.name} ({count} {'node' if count == 1 else 'nodes'}, {plan.image})")
    config = plan.folder / f"{plan.name}.kind.yaml"
    config.write_text(yaml.safe_dump(dict(plan.config), sort_keys=False), encoding="utf-8")
    # -P: nothing in the run's folder, which is the working directory, can be imported by accident.
    argv = [sys.executable, "-P", "-m", "ztconform.kube.kindcall"]
    done = command.follow(
        [*argv, plan.name, str(plan.kubeconfig), str(binary), plan.image, str(config)],
        within=_CREATE,
        tell=lambda line: _progress(line, plan.notify),
        cwd=plan.folder,
    )
    log = plan.folder / f"{plan.name}.kind.log"
    log.write_text(done.out, encoding="utf-8")
    if done.code != 0:
        why = command.complaint(done.out)
        cure = "; name one that is here by --ztc-kind-image" if "pull" in why else ""
        raise ClusterError(f"kind could not create {plan.name}: {why.removeprefix('ERROR: ')}{cure} (all that it said: {log})")
    return record


def _progress(line: str, notify: Callable[[str], None]) -> None:
    """Hand on a step that kind has done, without its pictures."""
    if line.startswith("✓"):
        notify(f"kind: {line.encode('ascii', 'ignore').decode().strip()}")


def _complete(binary: Path, plan: Plan, ledger: Ledger, record: Record, install: Callable[[], None]) -> None:
    """Load the images and install what is not in the cluster yet, and remember that it is."""
    new = {_fingerprint(path): path for path in plan.archives}
    new = {mark: path for mark, path in new.items() if mark not in record.loaded}
    for mark, path in new.items():
        plan.notify(f"loading {path.name} into the nodes of {plan.name}")
        _kind(binary, ["load", "image-archive", str(path), f"--name={plan.name}"], _LOAD, f"load {path} (--ztc-load-image)")
        record = replace(record, loaded=(*record.loaded, mark))
    if record.installed != plan.installs or not record.whole:
        ledger.write(replace(record, installed=""))
        install()
    ledger.write(replace(record, whole=True, installed=plan.installs))


def _export(binary: Path, plan: Plan) -> None:
    plan.notify(f"using the kind cluster {plan.name}")
    export_kubeconfig(binary, plan.name, plan.kubeconfig)


def _fingerprint(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        raise UsageError(f"--ztc-load-image {path}: {error.strerror}") from None
    return hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]


def _kind(binary: Path, args: Sequence[str], within: float, what: str) -> command.Done:
    done = command.run([str(binary), *args], within=within)
    if done.code != 0:
        why = command.complaint(done.err) or done.complaint
        raise ClusterError(f"kind could not {what}: {why.removeprefix('ERROR: ')}")
    return done
