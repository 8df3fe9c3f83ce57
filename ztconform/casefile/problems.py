# SPDX-License-Identifier: Apache-2.0
"""Where in a case file something is, and what is wrong there: all problems of a load become one UsageError, a line each.

What is right and what is wrong is for `yamlpos`, `structure` and the readers to say.
"""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Never

from ztconform.errors import UsageError

Path = tuple[str | int, ...]  # keys and indices from the top of a document

_SHOWN = 60  # characters of a value that a message repeats
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)


class Mark(NamedTuple):
    """Point into a text; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Hold one YAML document in JSON's types, and where each of its fields was written."""

    file: str  # as messages name it
    number: int = 0  # among the documents of the file
    value: Any
    marks: Mapping[Path, Mark]

    def mark(self, path: Path) -> Mark:
        """Return where a field is, or, for one that is not there, where it belongs."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, Mark(1, 1))


class Report:
    """Collect problems, one a field: the first one found there explains those that follow from it."""

    def __init__(self, main: str) -> None:
        self._main = main  # its problems come first
        self._found: dict[tuple[str, int, Path], tuple[str, Mark, str]] = {}  # file, document, field -> file, mark, text

    def add(self, document: Document, path: Path, message: str) -> None:
        """Say what is wrong with a field."""
        mark = document.mark(path)
        where = f"{document.file}:{mark.line}: " + (f"{dotted(path)}: " if path else "")
        self._found.setdefault((document.file, document.number, path), (document.file, mark, where + message))

    def add_syntax(self, file: str, number: int, mark: Mark, path: Path, message: str) -> None:
        """Say what is wrong with the YAML itself; here the column matters."""
        where = f"{file}:{mark.line}:{mark.column}: " + (f"{dotted(path)}: " if path else "")
        self._found.setdefault((file, number, path), (file, mark, where + message))

    def sound(self, document: Document, path: Path) -> bool:
        """Return whether nothing is wrong at this field or below it."""
        own = (document.file, document.number)
        return not any((file, number) == own and found[: len(path)] == path for file, number, found in self._found)

    def has(self, file: str) -> bool:
        """Return whether anything is wrong in a file."""
        return any(found == file for found, _, _ in self._found)

    def stop(self) -> Never:
        """Raise the UsageError that holds everything found."""
        found = sorted(self._found.values(), key=lambda one: (one[0] != self._main, one))
        raise UsageError("\n".join(text for _, _, text in found))

    def stop_if_any(self) -> None:
        """Raise the UsageError if anything was found."""
        if self._found:
            self.stop()


@dataclass(frozen=True, slots=True)
class Place:
    """Stand on one field of a document, with the report at hand."""

    document: Document
    path: Path
    value: Any
    report: Report

    def has(self, key: str) -> bool:
        """Return whether the field is written here, rightly or wrongly."""
        return isinstance(self.value, dict) and key in self.value

    def sound(self, *keys: str) -> bool:
        """Return whether nothing is wrong at the named fields, or, with none named, anywhere here."""
        paths = [(*self.path, key) for key in keys] or [self.path]
        return all(self.report.sound(self.document, path) for path in paths)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field's value, or the default where it is absent or not sound."""
        return self.value[key] if self.has(key) and self.sound(key) else default

    def at(self, key: str | int) -> "Place":
        """Step down to a field, whether or not it is written."""
        value = self.value
        if isinstance(value, dict):
            below = value.get(str(key))
        else:
            below = value[key] if isinstance(value, list) and isinstance(key, int) else None
        return Place(self.document, (*self.path, key), below, self.report)

    def items(self, key: str) -> Sequence["Place"]:
        """Step down to each item of a list; none where the list is absent or no list."""
        under = self.at(key)
        return [under.at(n) for n in range(len(under.value))] if isinstance(under.value, list) else []

    def fields(self, key: str) -> Sequence[tuple[str, "Place"]]:
        """Step down to each field of a mapping; none where the mapping is absent or no mapping."""
        under = self.at(key)
        return [(name, under.at(name)) for name in under.value] if isinstance(under.value, dict) else []

    def fault(self, message: str, *below: str | int) -> None:
        """Say what is wrong here, or at a field below."""
        self.report.add(self.document, (*self.path, *below), message)

    @property
    def line(self) -> int:
        """Return the line, counted from 1."""
        return self.document.mark(self.path).line

    def seen_from(self, other: "Place") -> str:
        """Return where this is, for a message about another place."""
        return f"line {self.line}" if self.document.file == other.document.file else f"{self.document.file}:{self.line}"


def dotted(path: Path) -> str:
    """Return a path as people write it: expect[1].headers['x.y']."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif _PLAIN_KEY.fullmatch(key):
            text += f".{key}" if text else key
        else:
            text += f"[{shown(key)}]"
    return text


def shown(value: object) -> str:
    """Return a value as a message repeats it, short and on one line."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return ascii(value) if len(value) <= _SHOWN else ascii(value[:_SHOWN])[:-1] + "...'"
        case list():
            return "a list"
        case _:
            return "a mapping"


def suggestion(wrong: str, right: Collection[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest of the right words, or "" where none is near."""
    near = difflib.get_close_matches(wrong, right, n=1)
    return f" (did you mean {shown(near[0])}?)" if near else ""


def listed(words: Collection[str], none: Literal["none", "nothing"] = "none") -> str:
    """Return words in a row, or what to say for no words."""
    return ", ".join(words) or none
