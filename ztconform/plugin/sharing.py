# SPDX-License-Identifier: Apache-2.0
"""Which tests of ours may use a shared cluster side by side: most; what disturbs others waits until it is alone.

Workers wait for each other by locks on files in the run's folder, which end with whoever holds them, however it ends. The locks
are taken around a whole test and never by a fixture, whose end may come after the next test's beginning.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ztconform import catalogue
from ztconform.errors import ZtconformError
from ztconform.model import Case, Manifest
from ztconform.plugin import marks, run, stack
from ztconform.plugin.casefiles import CaseItem
from ztconform.plugin.subjects import SUBJECT


@contextmanager
def part_of(item: pytest.Item) -> Iterator[None]:
    """Hold the part of a shared cluster that a test needs, while it runs in one of several workers."""
    with ExitStack() as held:
        if SUBJECT in item.stash and run.of(item.config).worker and _is_shared(item.config):
            folder = run.folder_of(item.config)
            # Before the cluster itself: who waits for a name must not keep others from having the cluster alone. In one order
            # for all, so that no two wait for each other.
            for name in sorted(_literal_namespaces(item)):
                held.enter_context(_locked(folder / f"namespace-{name}.lock", alone=True))
            held.enter_context(use(folder, alone=is_disruptive(item) or _reaches_beyond(item)))
        yield


@contextmanager
def use(folder: Path, *, alone: bool) -> Iterator[None]:
    """Use what the folder stands for beside others who do so, or alone; who waits to be alone is let in before later ones."""
    with ExitStack() as held:
        with _locked(folder / "turn.lock", alone=True):
            held.enter_context(_locked(folder / "use.lock", alone=alone))
        yield


def is_disruptive(item: pytest.Item) -> bool:
    """Return whether a test disturbs more than its own namespaces: its marker says so, or the feature that it needs."""
    if item.get_closest_marker(marks.DISRUPTIVE) is not None:
        return True
    subject = item.stash[SUBJECT]
    return subject.kind == "requirement" and "disruption" in catalogue.load()[subject.id].features


@contextmanager
def _locked(path: Path, *, alone: bool) -> Iterator[None]:
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that a test forked has the same lock, and may live on
    finally:
        os.close(descriptor)


def _is_shared(config: pytest.Config) -> bool:
    try:
        return stack.chosen(config).shared
    except (ZtconformError, pytest.UsageError):  # the test's own fixtures will say it
        return False


def _cases(item: pytest.Item) -> tuple[Case, ...]:
    return (item.found.case,) if isinstance(item, CaseItem) else ()


def _literal_namespaces(item: pytest.Item) -> frozenset[str]:
    """Return the names that a case file gives to namespaces; those of scenarios are made unique by the stack."""
    return frozenset(name for case in _cases(item) for name in case.topology.namespaces)


def _reaches_beyond(item: pytest.Item) -> bool:
    """Return whether a case file has a manifest that belongs to none of its namespaces."""
    return any(_namespace(manifest) not in case.topology.namespaces for case in _cases(item) for manifest in _manifests(case))


def _manifests(case: Case) -> tuple[Manifest, ...]:
    return (*case.refuse, *(manifest for step in case.steps for manifest in (*step.apply, *step.delete)))


def _namespace(manifest: Manifest) -> str:
    metadata = manifest.get("metadata")
    return str(metadata.get("namespace", "")) if isinstance(metadata, Mapping) else ""
