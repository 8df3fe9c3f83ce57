# SPDX-License-Identifier: Apache-2.0
"""Whether a document has the form that the JSON Schema demands, in words for a person; what its names mean is for the readers."""

import functools
import importlib.resources
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
from jsonschema.protocols import Validator

from ztconform.casefile.problems import Document, Path, Report, listed, shown, suggestion

_NOUNS = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of case files."""
    text = importlib.resources.files(__package__).joinpath("schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def check(document: Document, report: Report, definition: str = "") -> None:
    """Report everything that does not fit the schema, or one definition of it."""
    for error in _validator(definition).iter_errors(document.value):
        for path, message in _findings(error):
            report.add(document, path, message)


@functools.cache
def _validator(definition: str) -> Validator:
    whole = schema()
    part = {"$ref": f"#/$defs/{definition}", "$defs": whole["$defs"]} if definition else whole
    checker = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
    extend: Callable[..., type[Validator]] = jsonschema.validators.extend  # jsonschema's types leave it out
    made: Validator = extend(jsonschema.Draft202012Validator, {"pattern": _pattern}, type_checker=checker)(part)
    return made


def _is_integer(_checker: object, instance: object) -> bool:
    return isinstance(instance, int) and not isinstance(instance, bool)  # JSON Schema counts 8080.0 among the integers


def _pattern(_validator: object, pattern: str, instance: object, _schema: object) -> Iterator[jsonschema.ValidationError]:
    # Python's $ also matches before a last newline, ECMA's does not.
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError("pattern")


def _findings(error: jsonschema.ValidationError) -> Iterator[tuple[Path, str]]:
    path: Path = tuple(error.absolute_path)
    instance: Any = error.instance
    rules: Any = error.schema
    if "propertyNames" in error.absolute_schema_path:
        path = (*path, instance)
    if error.validator == "additionalProperties":
        for key in _unknown(instance, rules):
            free = _free(instance, rules)
            yield (*path, key), "unknown field" + (suggestion(key, free) or f" (left to use: {listed(free)})")
    elif error.validator == "required":
        misspelt = [suggestion(key, _free(instance, rules)) for key in _unknown(instance, rules)]
        for key in rules["required"]:
            if key not in instance and not any(shown(key) in one for one in misspelt):
                yield (*path, key), "is missing"
    else:
        yield path, _message(str(error.validator), instance, rules) or error.message


def _unknown(instance: dict[str, Any], rules: dict[str, Any]) -> list[str]:
    known = rules.get("properties", {})
    return [key for key in instance if key not in known] if rules.get("additionalProperties") is False else []


def _free(instance: dict[str, Any], rules: dict[str, Any]) -> list[str]:
    return [key for key in rules["properties"] if key not in instance]


def _message(rule: str, value: Any, rules: dict[str, Any]) -> str:
    """Return what is wrong in a person's words; "" for a rule that schema.json did not have when this was written."""
    text = ""
    match rule:
        case "type":
            text = _wrong_type(value, rules["type"])
        case "pattern":
            text = f"{shown(value)} {rules['errorMessage']}"
        case "enum":
            words = [str(word) for word in rules["enum"]]
            text = f"{shown(value)} is not one of {listed(words)}" + (suggestion(value, words) if isinstance(value, str) else "")
        case "const":
            text = f"{shown(value)} is not {shown(rules['const'])}"
        case "minimum" | "maximum":
            text = f"{shown(value)} is not between {rules['minimum']} and {rules['maximum']}"
        case "minItems" | "minLength":
            text = "must not be empty"
        case "maxLength":
            text = f"is longer than {rules['maxLength']} characters"
    return text


def _wrong_type(value: object, types: str | list[str]) -> str:
    wanted = [types] if isinstance(types, str) else types
    nouns = " or ".join(_NOUNS[one] for one in wanted)
    if value is None:
        return f"must be {nouns}, but is empty"
    quote = "; put it between quotes" if "string" in wanted and isinstance(value, (bool, int, float)) else ""
    return f"must be {nouns}, not {shown(value)}{quote}"
