# SPDX-License-Identifier: Apache-2.0
"""What Case a file describes; every other module of this package answers for one part of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ztconform.casefile import structure, yamlpos
from ztconform.casefile.manifests import Manifests, Unreadable, read_text
from ztconform.casefile.problems import Document, Place, Report
from ztconform.casefile.rows import Ids
from ztconform.casefile.steps import Steps
from ztconform.casefile.topology import read_namespaces, read_workloads
from ztconform.casefile.world import World
from ztconform.errors import InternalError, UsageError
from ztconform.model import Case, Topology

_ROOT_NAMESPACE = "istio-system"  # Istio's default


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """Hold a case and where its rows are written."""

    path: Path
    case: Case  # its manifests still hold placeholders: see `placeholders.render`
    lines: Mapping[str, int]  # row id -> line


def load(path: Path) -> CaseFile:
    """Read a case file and the manifests that it names.

    Raises UsageError with one line for everything that is wrong, sorted by line, each naming file, line and field.
    """
    try:
        text = read_text(path)
    except Unreadable as error:
        raise UsageError(f"{path}: {error}") from None
    report = Report(str(path))
    root = Place(document := _only(text, path, report), (), document.value, report)
    structure.check(document, report)
    if not isinstance(document.value, dict):
        report.stop()
    case, ids = _read(root, path)
    report.stop_if_any()
    if case is None:
        raise InternalError(f"{path}: is refused without a reason; please report this with the file")
    return CaseFile(path=path, case=case, lines=ids.lines)


def _only(text: str, path: Path, report: Report) -> Document:
    documents = yamlpos.documents(text, str(path), report)
    if not documents or (documents[0].value is None and len(documents) == 1):
        report.stop_if_any()
        raise UsageError(f"{path}: is empty; a case file begins with apiVersion: ztconform.io/v1alpha1")
    if len(documents) > 1:
        mark = documents[1].mark(())
        report.add_syntax(str(path), 1, mark, (), "a second document begins; a case file holds one case")
    return documents[0]


def _read(root: Place, path: Path) -> tuple[Case | None, Ids]:
    ids = Ids()
    ids.reserve([*root.items("expect"), *(row for step in root.items("steps") for row in step.items("expect"))])
    world = World()
    world.names_sound = _names_readable(root)
    read_namespaces(root, world)
    workloads = read_workloads(root, world)
    mesh = root.get("mesh", {})
    if "mesh" in root.value or any(one is None or one.meshed for one in world.running.values()):
        world.root_namespace = mesh.get("rootNamespace", _ROOT_NAMESPACE)
    manifests = Manifests(root.report, path, world)
    steps = Steps(world, manifests, ids)
    steps.foresee(root)
    services = steps.services(root)
    refuse = manifests.read(root, "refuse", world.replicas())
    all_steps = (steps.first(root), *(steps.read(place) for place in root.items("steps")))
    if not root.at("refuse").value and not any(place.at("expect").value for place in (root, *root.items("steps"))):
        root.fault("has no rows, here or in a step: a case without rows proves nothing", "expect")
    if not root.sound():
        return None, ids
    topology = Topology(
        namespaces=world.namespaces,
        workloads=workloads,
        services=services,
        outsiders=tuple(one for one in world.outsiders.values() if one),
        mesh=mesh,
    )
    case = Case(
        id=root.get("metadata")["name"], topology=topology, steps=all_steps, refuse=tuple(entry.manifest for entry in refuse)
    )
    return case, ids


def _names_readable(root: Place) -> bool:
    """Return whether a name that is not declared is certainly wrong: no list that declares names is misspelt or no list."""
    lists = all(isinstance(root.value.get(key, []), list) for key in ("namespaces", "workloads", "outsiders", "steps"))
    return lists and "namespaces" in root.value and not root.value.keys() - structure.schema()["properties"].keys()
