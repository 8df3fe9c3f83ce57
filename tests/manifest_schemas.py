# SPDX-License-Identifier: Apache-2.0
"""The schemas that API servers hold manifests against, as strict as `fieldValidation: Strict`: an unknown field is refused.

A structural schema refuses none by itself, and an API server that is not asked to be strict drops it in silence: the policy then
says less than it seems to. CEL rules (x-kubernetes-validations) and what admission webhooks check are not evaluated.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Schema = dict[str, Any]
Manifest = Mapping[str, Any]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_COMBINED = ("allOf", "anyOf", "oneOf", "not")  # they constrain what `properties` has, and bring no fields


class UniqueKeyLoader(yaml.SafeLoader):
    """Refuse what plain YAML loaders pass over: a key that stands twice in a mapping, of which only the last would count."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.YAMLError(f"{node.start_mark}: {key!r} stands twice")
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=deep))


UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def documents(text: str) -> list[Any]:
    """Return the documents of a YAML text; raises yaml.YAMLError, also for a key that stands twice."""
    return list(yaml.load_all(text, Loader=UniqueKeyLoader))


class Schemas:
    """Hold the schemas of a folder, by "group/version/Kind"."""

    def __init__(self, folder: Path) -> None:
        """Read them; without kubernetes.json nothing is known of metadata either, and that is an error."""
        self._raw: dict[str, Schema] = {}
        self._validators: dict[str, jsonschema.Draft202012Validator] = {}
        core = json.loads((folder / "kubernetes.json").read_text(encoding="utf-8"))
        definitions = core["components"]["schemas"]
        self._meta = _inlined({"$ref": _META}, definitions)
        self._raw["networking.k8s.io/v1/NetworkPolicy"] = _inlined({"$ref": core["root"]}, definitions)
        for path in sorted(folder.glob("*.json")):
            for name, resource in json.loads(path.read_text(encoding="utf-8")).get("resources", {}).items():
                self._raw[name] = resource["schema"]

    def __contains__(self, kind: str) -> bool:
        return kind in self._raw

    def wrongs(self, manifest: Manifest) -> list[str]:
        """Return what is wrong with a manifest, each with its field; raises KeyError for a kind without a schema."""
        kind = kind_of(manifest)
        if kind not in self._validators:
            self._validators[kind] = jsonschema.Draft202012Validator(strict(self._whole(kind)))
        found = self._validators[kind].iter_errors(_plain(manifest))
        return sorted(f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found)

    def filled_in(self, manifest: Manifest) -> Any:
        """Return a manifest as it is once the API server has filled in the schema's defaults."""
        return _filled_in(_plain(manifest), self._whole(kind_of(manifest)))

    def _whole(self, kind: str) -> Schema:
        schema = self._raw[kind]
        typed = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": self._meta}
        required = ["apiVersion", "kind", "metadata", *schema.get("required", [])]
        return {**schema, "properties": {**schema["properties"], **typed}, "required": required}


def kind_of(manifest: Manifest) -> str:
    """Return "group/version/Kind"."""
    return f"{manifest.get('apiVersion')}/{manifest.get('kind')}"


def strict(schema: Schema) -> Schema:
    """Return a structural schema as JSON Schema that refuses unknown fields at every level."""
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "format"}
    for keyword in _COMBINED:  # as they are
        if keyword in schema:
            made[keyword] = schema[keyword]
    if "properties" in schema:
        made["properties"] = {name: strict(below) for name, below in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        made["items"] = strict(schema["items"])
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    elif schema.get("nullable") and "type" in schema:
        made["type"] = [schema["type"], "null"]
    if schema.get("x-kubernetes-list-type") == "set":
        made["uniqueItems"] = True
    return made


def _inlined(schema: Any, definitions: Mapping[str, Schema]) -> Any:
    """Return a schema of OpenAPI with its references and single allOf put in their places."""
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    parts = [definitions[reference.rpartition("/")[2]] for reference in [schema.get("$ref")] if reference]
    if len(schema.get("allOf", ())) == 1:
        parts += schema["allOf"]
    rest = {key: value for key, value in schema.items() if key != "$ref" and not (key == "allOf" and len(value) == 1)}
    merged: Schema = {}
    for part in (*(_inlined(part, definitions) for part in parts), rest):
        merged.update(part)
    made = {key: value if key == "properties" else _inlined(value, definitions) for key, value in merged.items()}
    if "properties" in made:
        made["properties"] = {name: _inlined(below, definitions) for name, below in merged["properties"].items()}
    return made


def _filled_in(value: Any, schema: Schema) -> Any:
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        defaults = {name: below["default"] for name, below in fields.items() if "default" in below and name not in value}
        return {name: _filled_in(below, fields.get(name, {})) for name, below in {**value, **defaults}.items()}
    return [_filled_in(below, schema.get("items", {})) for below in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Return a manifest as the JSON that is sent: keys are texts there, also those that YAML reads as numbers."""
    return json.loads(json.dumps(value))


def manifests_in(document: Any) -> Iterator[Manifest]:
    """Yield the manifests that stand in a case file's document, or the document if it is one itself."""
    if isinstance(document, Mapping) and document.get("kind") == "Case":
        for place in (document, *document.get("steps", ())):
            for listed in ("manifests", "apply", "refuse"):
                yield from (each for each in place.get(listed, ()) if isinstance(each, Mapping))
    else:
        yield document
