# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema that editors get and the reader agree: what the schema refuses the reader refuses, and nothing else is form."""

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ztconform import casefile
from ztconform.casefile import structure
from ztconform.casefile.problems import Document, Report
from ztconform.errors import UsageError

CORPUS = Path(__file__).parent / "data" / "casefiles"
SCHEMA = casefile.schema()
EDITOR = jsonschema.Draft202012Validator(SCHEMA)  # what an editor has: it knows nothing of our reader
EVERYTHING = CORPUS / "valid" / "everything.ztc.yaml"
ALL: Any = yaml.safe_load(EVERYTHING.read_text(encoding="utf-8"))


def corpus(kind: str) -> list[Path]:
    found = sorted((CORPUS / kind).glob("*.ztc.yaml"))
    assert len(found) > 2
    return found


def fits(value: object) -> bool:
    return bool(EDITOR.is_valid(value))


def document(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def subschemas(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for below in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from subschemas(below)


def objects(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every mapping."""
    if isinstance(value, dict):
        yield path
        for key, below in value.items():
            yield from objects(below, (*path, key))
    elif isinstance(value, list):
        for n, below in enumerate(value):
            yield from objects(below, (*path, n))


def free(path: tuple[str | int, ...]) -> bool:
    """Return whether a mapping takes any field: labels, headers, changes by name, and what stands in a manifest."""
    names = [key for key in path if isinstance(key, str)]
    lists = ("services", "manifests", "refuse", "apply")
    manifest = bool(names) and (names[0] in lists or "apply" in names or (names[:2] == ["steps", "delete"] and path[3] == 1))
    return manifest or bool({"labels", "headers", "pods", "namespaces"} & set(names[1:]))


def described(field: dict[str, Any]) -> bool:
    """Return whether a field has a description, of its own or by reference."""
    target: Any = SCHEMA
    for key in field.get("$ref", "#/").removeprefix("#/").split("/"):
        target = target[key] if key else {}
    return "description" in field or "description" in target or ("$ref" in target and described(target))


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_object_names_its_fields_except_manifests_and_those_of_free_names() -> None:
    every = [one for one in subschemas(SCHEMA) if one.get("type") == "object"]
    open_ones = [one for one in every if one.get("additionalProperties") is not False]
    named = [set(one["properties"]) for one in open_ones if "properties" in one]
    assert [{"apiVersion", "kind", "metadata"}, {"name", "namespace"}] == named  # a manifest and its metadata
    assert all("propertyNames" in one for one in open_ones if "properties" not in one and one != {"type": "object"})


def test_every_pattern_has_words_of_its_own() -> None:
    patterns = [one for one in subschemas(SCHEMA) if isinstance(one.get("pattern"), str)]
    assert [] == [one["pattern"] for one in patterns if "errorMessage" not in one]


def test_every_field_that_a_user_writes_is_described() -> None:
    fields = [field for one in subschemas(SCHEMA) for field in one.get("properties", {}).items()]
    silent = {name for name, field in fields if not described(field)}
    assert {"apiVersion", "kind", "metadata", "name", "namespace", "workload"} >= silent  # a Kubernetes object's own


@pytest.mark.parametrize("path", corpus("valid"), ids=lambda path: path.name)
def test_what_loads_fits_the_schema(path: Path) -> None:
    assert casefile.load(path).case.id
    assert fits(document(path))


@pytest.mark.parametrize("path", corpus("wrong-form"), ids=lambda path: path.name)
def test_what_does_not_fit_the_schema_does_not_load(path: Path) -> None:
    assert not fits(document(path))
    with pytest.raises(UsageError):
        casefile.load(path)


@pytest.mark.parametrize("path", corpus("wrong-meaning"), ids=lambda path: path.name)
def test_what_makes_no_sense_fits_the_schema_and_does_not_load(path: Path) -> None:
    assert fits(document(path))
    with pytest.raises(UsageError):
        casefile.load(path)


def test_the_corpus_uses_every_field_of_the_format() -> None:
    parts = {name: part for name, part in SCHEMA["$defs"].items() if "properties" in part and name != "manifest"}
    text = EVERYTHING.read_text(encoding="utf-8")
    fields = {key for part in (*parts.values(), *subschemas(SCHEMA["properties"])) for key in part.get("properties", {})}
    assert set() == {field for field in fields if f"{field}:" not in text}


def _with(path: tuple[str | int, ...], key: str, value: object) -> Any:
    """Return the document that has everything with one field more."""
    changed = copy.deepcopy(ALL)
    inner = changed
    for step in path:
        inner = inner[step]
    inner[key] = value
    return changed


@pytest.mark.parametrize("path", [path for path in objects(ALL) if not free(path)], ids=lambda path: ".".join(map(str, path)))
def test_a_field_that_nobody_knows_is_refused_everywhere(tmp_path: Path, path: tuple[str | int, ...]) -> None:
    changed = _with(path, "zzz", "x")
    assert not fits(changed)
    with pytest.raises(UsageError, match=r"zzz: unknown field"):
        casefile.load(_written(tmp_path, changed))


WORDS = st.sampled_from(["a", "b", "a/a", "kube-system/kube-dns", "TCP", "UDP", "http", "allowed", "denied", "GET", "/"])
SCALARS = WORDS | st.integers(-1, 81) | st.booleans() | st.none() | st.text("aZ-_/. \u00e9\u4e00", max_size=3)
KEYS = st.sampled_from(
    sorted({key for one in subschemas(SCHEMA) if isinstance(one.get("properties"), dict) for key in one["properties"]})
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=5)


@settings(max_examples=150)
@given(path=st.sampled_from(sorted(objects(ALL), key=str)), key=KEYS, value=VALUES)
def test_schema_and_reader_agree_on_the_form_of_any_change(
    tmp_path_factory: pytest.TempPathFactory, path: tuple[str | int, ...], key: str, value: object
) -> None:
    changed = _with(path, key, value)
    report = Report("x")
    structure.check(Document(file="x", value=changed, marks={}), report)
    assert fits(changed) != report.has("x")
    try:
        casefile.load(_written(tmp_path_factory.getbasetemp(), changed))
    except UsageError:
        return
    assert fits(changed)


def _written(folder: Path, value: object) -> Path:
    (folder / "policies").mkdir(exist_ok=True)
    shutil.copy(EVERYTHING.parent / "policies" / "two.yaml", folder / "policies")
    (folder / "case.ztc.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
    return folder / "case.ztc.yaml"
