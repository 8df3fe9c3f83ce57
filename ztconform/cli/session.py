# SPDX-License-Identifier: Apache-2.0
"""How a command becomes a pytest session: its arguments, its configuration, its cache, and the exit code of ours.

The session itself is left to `ztconform.plugin`.
"""

import difflib
import importlib.util
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ztconform import catalogue, resources
from ztconform.errors import UsageError

DEFAULT_STACK = "lab"

# What a user sets for suites of their own would load strangers into a proof of ours, or switch ztconform's plugin off.
_FOREIGN_SETTINGS = ("PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """Say on what, and how, to prove."""

    stack: str | None  # None: the lab, or what the named cluster turns out to be
    of_the_stack: Mapping[str, str | bool | Sequence[str] | None]  # options of the plugin, without their prefix
    report: Path | None
    workers: str | None  # as pytest-xdist takes it: a number, auto or logical
    exitfirst: bool
    verbose: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Say which scenarios to prove; without anything, all."""

    requirements: tuple[str, ...] = ()
    keyword: str | None = None
    marks: str | None = None

    def arguments(self) -> list[str]:
        """Return pytest's arguments; everything that is given must hold."""
        terms = [f"({self.keyword})"] if self.keyword else []
        if self.requirements:
            terms.append(f"({' or '.join(self.requirements)})")
        keyword = ["-k", " and ".join(terms)] if terms else []
        return [*keyword, *(["-m", self.marks] if self.marks else [])]


def check_requirements(ids: Collection[str]) -> None:
    """Raise UsageError for an ID that the catalogue does not have."""
    known = catalogue.load()
    for name in ids:
        if name not in known:
            near = difflib.get_close_matches(name.upper(), known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"IDs run from {min(known)} to {max(known)}"
            raise UsageError(f"--requirement {name}: the catalogue has no such requirement; {hint}")


def prove_scenarios(manner: Manner, selection: Selection, extra: Sequence[str]) -> int:
    """Prove the scenarios that came with ztconform, and return the exit code."""
    scenarios = resources.folder("scenarios")
    return _start([*_arguments(manner, scenarios, extra), *selection.arguments(), *extra, str(scenarios)])


def prove_case_files(manner: Manner, files: Sequence[Path], extra: Sequence[str] = ()) -> int:
    """Prove case files, running no conftest.py that happens to lie beside them, and return the exit code."""
    paths = [file.absolute() for file in files]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return _start([*_arguments(manner, root, extra), "--noconftest", *extra, *map(str, paths)])


def _arguments(manner: Manner, root: Path, extra: Sequence[str]) -> list[str]:
    arguments = [
        "-c",
        str(Path(__file__).with_name("pytest.ini")),
        f"--rootdir={root}",
        "--import-mode=importlib",
        *_cache(),
        *_stack(manner, extra),
    ]
    if manner.report is not None:
        arguments.append(f"--ztc-report={manner.report.absolute()}")
    if manner.workers is not None:
        if importlib.util.find_spec("xdist") is None:
            raise UsageError("-n needs pytest-xdist: type  pip install 'ztconform[xdist]'")
        if not (manner.workers.isdecimal() or manner.workers in ("auto", "logical")):
            raise UsageError(f"-n {manner.workers}: expected a number of processes, auto or logical")
        arguments += ["-n", manner.workers]
    if manner.exitfirst:
        arguments.append("-x")
    return arguments + ["-v"] * manner.verbose


def _stack(manner: Manner, extra: Sequence[str]) -> list[str]:
    """Return the plugin's options; where nobody says a word of the stack it is named, so that its preflight comes first."""
    said = manner.of_the_stack.get("context") or any(one.startswith(("--ztc-context", "--ztc-stack")) for one in extra)
    stack = manner.stack or ("" if said else DEFAULT_STACK)
    arguments = [f"--ztc-stack={stack}"] if stack else []
    for name, given in manner.of_the_stack.items():
        option = "--ztc-" + name.replace("_", "-")
        if given is True:
            arguments.append(option)
        elif given:
            arguments += [f"{option}={value}" for value in ([given] if isinstance(given, str) else given)]
    return arguments


def _cache() -> list[str]:
    """Return where pytest's cache goes: scenarios may lie where nobody may write, as in site-packages."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):  # a user without a home, as in a container that runs as some number
        return ["-p", "no:cacheprovider"]
    return ["-o", f"cache_dir={Path(base) / 'ztconform' / 'pytest'}"]


def _start(arguments: list[str]) -> int:
    for name in _FOREIGN_SETTINGS:
        os.environ.pop(name, None)
    from ztconform.plugin import launch

    return launch.main(arguments)
