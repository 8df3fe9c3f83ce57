# SPDX-License-Identifier: Apache-2.0
"""The rules that the code keeps for its own sake: which way imports point, what a module looks like, what documents claim."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ztconform import errors

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ztconform"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 330  # lines of a module

# Imports point down only: a component imports from the lines above its own, never from its own line.
LAYERS = (
    {"errors", "model", "timeouts", "agent", "settings"},
    {"evidence"},
    {"jsonform", "resources", "placeholders", "rows"},
    {"judge", "catalogue", "policies", "casefile", "shop", "controls", "mesh"},
    {"cluster"},
    {"proof"},
    {"kube", "lab", "report", "scenario"},
    {"stacks"},
    {"plugin"},
    {"cli"},
)
FRONT = "__init__"  # `ztconform` itself: the public names, gathered from everywhere and imported by nobody of ours


def component(module: Path, package: Path = PACKAGE) -> str:
    """Return the name right below the package: a module's, or a subpackage's."""
    return module.relative_to(package).parts[0].removesuffix(".py")


def imports(module: Path, package: Path = PACKAGE) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of every import, wherever it stands; one of ours goes down to its component.

    `ztconform.__version__` and its like are the package's own, and no import of what it gathers.
    """
    inside = [package.name, *module.relative_to(package).parent.parts]
    tree = ast.parse(module.read_text(encoding="utf-8"))
    whole = any(isinstance(node, ast.Import) and "ztconform" in [alias.name for alias in node.names] for node in ast.walk(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name != package.name)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(inside[: len(inside) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            if base != package.name:
                yield node.lineno, base
            yield from ((node.lineno, _of_front(alias.name, package)) for alias in node.names if base == package.name)
        elif whole and isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == package.name:
            yield node.lineno, _of_front(node.attr, package)


def _of_front(name: str, package: Path) -> str:
    """Return what `ztconform.<name>` really imports."""
    own = (package / name).is_dir() or (package / f"{name}.py").is_file()
    return f"{package.name}.{name}" if own or name.startswith("__") else package.name


def layer(name: str) -> int:
    """Return a component's place; the front stands above all."""
    return len(LAYERS) if name == FRONT else next(place for place, members in enumerate(LAYERS) if name in members)


def upward(module: Path, package: Path = PACKAGE) -> list[str]:
    """Return the imports of a module that do not point down."""
    own = component(module, package)
    wrong = []
    for line, name in imports(module, package):
        top, _, rest = name.partition(".")
        if top == package.name:
            other = rest.partition(".")[0] or FRONT
            dunder = other.startswith("__") and other != FRONT
            if other != own and not dunder and layer(other) >= layer(own):
                wrong.append(f"{module.name}:{line} imports {name}")
    return wrong


def foreign(module: Path, package: Path = PACKAGE) -> list[str]:
    """Return the imports of a module that are allowed elsewhere only."""
    own = component(module, package)
    wrong = []
    for line, name in imports(module, package):
        top = name.partition(".")[0]
        if own == "agent":
            bad = top not in sys.stdlib_module_names and not name.startswith(f"{package.name}.agent")
        else:
            bad = (top in ("pytest", "_pytest") and own != "plugin") or (top == "kubernetes" and own != "kube")
        if bad:
            wrong.append(f"{module.name}:{line} imports {name}")
    return wrong


def relative(module: Path) -> str:
    return str(module.relative_to(ROOT))


def test_every_component_has_a_layer() -> None:
    known = set().union(*LAYERS) | {FRONT}
    assert set() == {component(module) for module in MODULES} - known


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_imports_point_down(module: Path) -> None:
    assert [] == upward(module)


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_only_the_plugin_imports_pytest_and_the_agent_nothing_but_the_standard_library(module: Path) -> None:
    assert [] == foreign(module)


@pytest.mark.parametrize(
    ("path", "line", "found"),
    [
        ("judge.py", "from ztconform import lab", ["judge.py:1 imports ztconform.lab"]),
        ("judge.py", "import ztconform.proof.protocol", ["judge.py:1 imports ztconform.proof.protocol"]),
        ("judge.py", "from ztconform.catalogue import load", ["judge.py:1 imports ztconform.catalogue"]),
        ("judge.py", "from ztconform import requirement", ["judge.py:1 imports ztconform"]),
        ("judge.py", "import ztconform\nztconform.requirement", ["judge.py:2 imports ztconform"]),
        ("judge.py", "import ztconform\nztconform.__version__", []),
        ("lab/world.py", "from ..report import matrix", ["world.py:1 imports ztconform.report"]),
        ("lab/world.py", "def f():\n    from ztconform.plugin import x", ["world.py:2 imports ztconform.plugin"]),
        ("lab/world.py", "from .. import report", ["world.py:1 imports ztconform.report"]),
        ("lab/world.py", "from ztconform import model\nfrom . import netns\nfrom ztconform.lab import zone", []),
    ],
)
def test_an_import_that_does_not_point_down_is_found(tmp_path: Path, path: str, line: str, found: list[str]) -> None:
    assert found == upward(_planted(tmp_path, path, line), tmp_path / "ztconform")


@pytest.mark.parametrize(
    ("path", "line", "found"),
    [
        ("cli/run.py", "import pytest", ["run.py:1 imports pytest"]),
        ("proof/plan.py", "from _pytest.config import Config", ["plan.py:1 imports _pytest.config"]),
        ("lab/world.py", "import kubernetes.client", ["world.py:1 imports kubernetes.client"]),
        ("agent/server.py", "import yaml", ["server.py:1 imports yaml"]),
        ("agent/server.py", "from ztconform.model import Ref", ["server.py:1 imports ztconform.model"]),
        ("agent/server.py", "import socket\nfrom . import wire\nfrom ztconform.agent import wire", []),
        ("plugin/__init__.py", "import pytest", []),
    ],
)
def test_an_import_that_is_allowed_elsewhere_only_is_found(tmp_path: Path, path: str, line: str, found: list[str]) -> None:
    assert found == foreign(_planted(tmp_path, path, line), tmp_path / "ztconform")


def _planted(tmp_path: Path, path: str, text: str) -> Path:
    package = tmp_path / "ztconform"
    for name in set().union(*LAYERS):
        (package / name).mkdir(parents=True)
    module = package / path
    if module.parent == package:
        (package / module.stem).rmdir()
    module.write_text(text, encoding="utf-8")
    return module


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_a_module_has_its_licence_a_docstring_and_a_readable_length(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert "# SPDX-License-Identifier: Apache-2.0" == text.partition("\n")[0]
    assert ast.get_docstring(ast.parse(text))
    assert LONGEST > len(text.splitlines())


def test_scenarios_use_public_names_only() -> None:
    used = {(path.name, name) for path in sorted((ROOT / "scenarios").glob("*.py")) for _, name in _plain_imports(path)}
    assert set() == {(path, name) for path, name in used if name.startswith("ztconform.")}


def _plain_imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


def drawn(text: str) -> dict[str, tuple[str, int | None]]:
    """Return the parent and the exit code of every class in a tree drawn with +--."""
    above = ["Exception"]
    tree: dict[str, tuple[str, int | None]] = {}
    for indent, name, rest in re.findall(r"^([ |]*)\+-- (\w+)(.*)$", text, re.MULTILINE):
        depth = len(indent) // 4  # the tree itself is indented by one step
        code = re.search(r"exit (\d)$", rest)
        tree[name] = (above[depth - 1], int(code[1]) if code else None)
        above[depth:] = [name]
    return tree


def test_the_drawn_tree_of_errors_is_the_tree_of_the_classes() -> None:
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    real = {name: (kind.__bases__[0].__name__, getattr(kind, "exit_code", errors.EXIT_RED)) for name, kind in classes.items()}
    real["AssertionError"] = ("Exception", None)
    assert real == drawn(errors.__doc__ or "")


def claimed(text: str) -> list[str]:
    """Return what a document names in backquotes and looks like a path of ours."""
    return [
        name for name in re.findall(r"`([\w./*-]+)`", text) if re.fullmatch(r"[\w.*-]+(/[\w.*-]*)+|[\w-]+\.(py|toml|md)", name)
    ]


def missing(text: str) -> list[str]:
    return [name for name in claimed(text) if not (list(ROOT.glob(name)) or list(PACKAGE.glob(name)))]


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"])
def test_the_paths_that_a_document_names_exist(name: str) -> None:
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"there is no {name}")
    assert [] == missing(path.read_text(encoding="utf-8"))


def test_a_path_that_does_not_exist_is_found() -> None:
    assert ["ztconform/engine.py", "gone.py"] == missing("`ztconform/engine.py` before `judge.py` in `ztconform/`, not `gone.py`")
