# SPDX-License-Identifier: Apache-2.0
"""Which case files a command line names, and everything that is wrong with them, before anything is started."""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from ztconform.errors import UsageError

SUFFIX = ".ztc.yaml"


def schema() -> str:
    """Return the JSON Schema of case files."""
    return files("ztconform.casefile").joinpath("schema.json").read_text(encoding="utf-8")


def find(named: Iterable[Path]) -> tuple[Path, ...]:
    """Return the case files that are named or lie below a named folder, each once, in a stable order.

    Raises UsageError where a name stands for no case file.
    """
    found: dict[Path, Path] = {}  # by what it really is: as it was named
    for path in named:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        below = sorted(p for p in path.rglob(f"*{SUFFIX}") if p.is_file()) if path.is_dir() else [path]
        if not below:
            raise UsageError(f"{path}: no case file (*{SUFFIX}) below this folder")
        if not below[0].name.endswith(SUFFIX):
            raise UsageError(f"{path}: the name of a case file ends in {SUFFIX}")
        for file in below:
            found.setdefault(file.resolve(), file)
    if not found:
        raise UsageError(f"name at least one case file (*{SUFFIX}), or a folder that holds some")
    return tuple(found.values())


def problems(found: Sequence[Path]) -> list[str]:
    """Return one line for everything that is wrong in any of these files."""
    from ztconform import casefile

    wrong: list[str] = []
    for path in found:
        try:
            casefile.load(path)
        except UsageError as error:
            wrong += str(error).splitlines()
    return wrong
