# SPDX-License-Identifier: Apache-2.0
"""The scenarios, manifests and examples are found in a checkout, in an editable install and in a wheel, and all of them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ztconform import resources
from ztconform.errors import InternalError

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDERS = ("scenarios", "manifests", "examples")
ASK = """
import site, sys
site.addsitedir(sys.argv[1])
from ztconform.resources import folder
print(*map(folder, sys.argv[2:]), sep="\\n")
"""


def found(site: Path, cwd: Path) -> list[Path]:
    """Return what a fresh interpreter, isolated from this one's paths, finds with only this directory of packages."""
    command = [sys.executable, "-I", "-S", "-c", ASK, str(site), *FOLDERS]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=True)
    return [Path(line) for line in done.stdout.splitlines()]


def pip(target: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--disable-pip-version-check", "--target", str(target), *arguments], timeout=120, check=True)


def contents(folder: Path) -> dict[str, bytes]:
    paths = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, capture_output=True, timeout=120, check=True)
    return next(folder.glob("*.whl"))


def test_a_checkout_has_them_beside_the_package() -> None:
    assert [CHECKOUT / name for name in FOLDERS] == [resources.folder(name) for name in ("scenarios", "manifests", "examples")]


def test_an_editable_install_finds_those_of_the_checkout(tmp_path: Path) -> None:
    pip(tmp_path / "site", "--editable", str(CHECKOUT))
    assert [CHECKOUT / name for name in FOLDERS] == found(tmp_path / "site", tmp_path)
    assert not (tmp_path / "site" / "ztconform").exists()  # no copy that would grow stale


def test_a_wheel_carries_every_file_of_them(wheel: Path, tmp_path: Path) -> None:
    pip(tmp_path / "site", str(wheel))
    carried = found(tmp_path / "site", tmp_path)
    assert [tmp_path / "site" / "ztconform" / "_data" / name for name in FOLDERS] == carried
    for name, folder in zip(FOLDERS, carried, strict=True):
        assert contents(CHECKOUT / name) == contents(folder)


def test_a_wheel_carries_the_package_with_its_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"ztconform"} == {name.split("/")[0] for name in names if ".dist-info/" not in name}
    data = {
        "ztconform/catalogue.toml",
        "ztconform/report/schema.json",
        "ztconform/casefile/schema.json",
        "ztconform/cli/pytest.ini",
    }
    assert set() == data - set(names)
    for name in ("LICENSE", "NOTICE"):
        assert [name] == [path.rpartition("/")[2] for path in names if path.endswith(f"licenses/{name}")]


def test_a_folder_that_is_nowhere_is_our_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "ztconform")
    with pytest.raises(InternalError, match=r"scenarios/ is neither in .*_data nor beside"):
        resources.folder("scenarios")
