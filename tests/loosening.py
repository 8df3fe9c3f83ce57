# SPDX-License-Identifier: Apache-2.0
"""Ways to loosen a policy, and the scenarios that must notice: shared by the tests of each layer."""

import copy
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from ztconform import resources
from ztconform.model import Row

Mutate = Callable[[Any], Any]


def spec(**changes: Any) -> Mutate:
    """Replace fields of the spec; None drops one."""

    def mutate(manifest):
        changed = copy.deepcopy(manifest)
        changed["spec"].update({name: value for name, value in changes.items() if value is not None})
        for name in [n for n, value in changes.items() if value is None]:
            changed["spec"].pop(name, None)
        return changed

    return mutate


def rule(direction: str, **changes: Any) -> Mutate:
    """Replace fields of the first rule; None drops one."""

    def mutate(manifest):
        changed = copy.deepcopy(manifest)
        (first, *_) = changed["spec"][direction]
        for name, value in changes.items():
            if value is None:
                first.pop(name, None)
            else:
                first[name] = value
        return changed

    return mutate


def metadata(**changes: str) -> Mutate:
    return lambda manifest: {**manifest, "metadata": {**manifest["metadata"], **changes}}


def only(name: str, mutate: Mutate) -> Mutate:
    """Change the policy of this name and leave the others."""
    return lambda manifest: mutate(manifest) if manifest["metadata"]["name"] == name else manifest


def typed(*types: str, mutate: Mutate) -> Mutate:
    """Change the policy that lists these types, where two steps apply one of the same name."""
    return lambda manifest: mutate(manifest) if manifest["spec"]["policyTypes"] == list(types) else manifest


def dropped(_: Any) -> None:
    return None


ANY_POD, ANY_NAMESPACE = {"podSelector": {}}, {"namespaceSelector": {}}
CHECKOUT = {"podSelector": {"matchLabels": {"app": "checkout"}}}
PAYMENT = {"matchLabels": {"app": "payment"}}
TCP = {"protocol": "TCP"}
HTTP = {"protocol": "TCP", "port": "http"}
LEDGER = {"protocol": "TCP", "port": 7000, "endPort": 7001}
ALL = "*"  # every denied row
CLOSES = "closes "  # before the name of an allowed row that is then denied


def scenarios() -> dict[str, Callable[..., None]]:
    """Return every scenario by the ID of its requirement."""
    found = {}
    for path in sorted(resources.folder("scenarios").glob("test_*.py")):
        module_spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        for value in vars(module).values():
            for mark in getattr(value, "pytestmark", []):
                found[mark.kwargs["id"]] = value
    return found


def of_sidecars(rows: Sequence[Row]) -> list[Row]:
    """Return a scenario's rows as sidecars play them: of two of a name, that which calls a pod's address in plaintext."""
    return [row for row in rows if not row.unless]
