# SPDX-License-Identifier: Apache-2.0
"""What a YAML text says, in JSON's types and with the place of every field; whether that makes sense is for the callers.

PyYAML reads YAML 1.1, editors and this file's JSON Schema mostly 1.2. Where the two differ (yes, 010, 12:30, <<) the text is
refused with what to write instead, so that nothing means two things.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from ztconform.casefile.problems import Document, Mark, Path, Report, shown

_DEPTH = 50  # nesting beyond this is an accident, and would overflow the stack of whatever walks the value
_SIZE = 200_000  # values after aliases are followed: stops "billion laughs" files
_TAG = "tag:yaml.org,2002:"
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_YES = frozenset({"yes", "on"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}", re.ASCII)
_NUMBER_IN_1_2 = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")


class _TooLarge(Exception):
    """The document has more than _SIZE values."""


def documents(text: str, file: str, report: Report) -> list[Document]:
    """Return the documents of a YAML text; what is wrong with the YAML goes into the report.

    Empty where the text cannot be parsed. Messages call the text `file`.
    """
    found = []
    for number, root in enumerate(_nodes(text, file, report)):
        reader = _Reader(file, number, report)
        try:
            value = reader.value(root, (), ())
        except _TooLarge:
            message = f"has more than {_SIZE} values once its aliases are followed"
            report.add_syntax(file, number, _mark(root.start_mark), (), message)
            return []
        found.append(Document(file=file, number=number, value=value, marks=reader.marks))
    return found


def _nodes(text: str, file: str, report: Report) -> list[yaml.Node]:
    loader: yaml.SafeLoader | None = None
    found: list[yaml.Node] = []
    try:
        loader = yaml.SafeLoader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                found.append(node)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark(before.count("\n") + 1, error.position - before.rfind("\n"))
        character = text[error.position : error.position + 1]
        report.add_syntax(file, 0, mark, (), f"the character {shown(character)} is not allowed in YAML")
        return []
    except yaml.MarkedYAMLError as error:
        problem = error.problem_mark or error.context_mark
        at = _mark(problem) if problem else Mark(1, 1)
        report.add_syntax(file, 0, at, (), _syntax(error, text, at))
        return []
    except RecursionError:
        report.add_syntax(file, 0, Mark(1, 1), (), f"is nested more than {_DEPTH} levels deep")
        return []
    # PyYAML turns "\UFFFFFFFF" and "%YAML 1.<5000 digits>" into a character or an int without asking whether there is one.
    except (ValueError, OverflowError):
        at = _mark(loader.get_mark()) if loader else Mark(1, 1)
        report.add_syntax(file, 0, at, (), "holds a number or an escape that stands for nothing")
        return []
    return found


def _syntax(error: yaml.MarkedYAMLError, text: str, at: Mark) -> str:
    lines = text.splitlines()
    line = lines[at.line - 1] if at.line <= len(lines) else ""
    if line[at.column - 1 : at.column] == "\t":
        return "a tab cannot indent; use spaces"
    message = " ".join(f"is not YAML: {error.problem or error.context}".split())
    # Inside [ ] and { } a plain string ends at a brace, so ${host:shop/payment} works there between quotes only.
    return message + ("; write strings that hold ${...} between quotes" if "${" in line else "")


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


class _Reader:
    """Turn the nodes of one document into values, noting where each was."""

    def __init__(self, file: str, number: int, report: Report) -> None:
        self.marks: dict[Path, Mark] = {}
        self._file = file
        self._number = number
        self._report = report
        self._left = _SIZE

    def value(self, node: yaml.Node, path: Path, above: tuple[yaml.Node, ...]) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _TooLarge
        self.marks.setdefault(path, _mark(node.start_mark))
        if any(node is one for one in above):
            return self._refuse(node, path, "contains itself by an alias")
        if len(above) > _DEPTH:
            return self._refuse(node, path, f"is nested more than {_DEPTH} levels deep")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        kind = "map" if isinstance(node, yaml.MappingNode) else "seq"
        if node.tag != _TAG + kind:
            return self._refuse(node, path, f"the tag {shown(node.tag.removeprefix(_TAG))} is not supported")
        above = (*above, node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, n), above) for n, item in enumerate(node.value)]
        return dict(self._entries(node, path, above))

    def _entries(self, node: yaml.Node, path: Path, above: tuple[yaml.Node, ...]) -> Iterator[tuple[str, Any]]:
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            mark = _mark(key_node.start_mark)
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in lines:
                message = f"is given twice, in line {lines[key]} and here"
                self._report.add_syntax(self._file, self._number, mark, (*path, key), message)
                continue
            lines[key] = mark.line
            self.marks[*path, key] = mark
            yield key, self.value(value_node, (*path, key), above)

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._refuse(node, path, "a field's name must be a string, not a list or a mapping")
            return None
        name = str(node.value)
        if _SURROGATE.search(name):
            self._refuse(node, path, f"{shown(name)} is not valid Unicode")
            return None
        if node.tag == _TAG + "merge":
            self._refuse(node, (*path, name), "merge keys are not supported; write the fields out")
            return None
        # Kubernetes reads {8080: x} as {"8080": x}; for bools and null the two YAMLs disagree.
        if node.tag == _TAG + "str" or (node.tag == _TAG + "int" and _DECIMAL.fullmatch(name)):
            return name
        self._refuse(node, (*path, name), f'{shown(name)} is no string in YAML; quote the field\'s name: "{name}"')
        return None

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = str(node.value)
        if _SURROGATE.search(text):
            return self._refuse(node, path, "is not valid Unicode")
        read = _SCALARS.get(node.tag.removeprefix(_TAG))
        if read is None:
            return self._refuse(node, path, f"the tag {shown(node.tag.removeprefix(_TAG))} is not supported")
        try:
            # 1e3 and 080 are strings to PyYAML, numbers to everybody else.
            return read(text) if node.style or read is not str or not _NUMBER_IN_1_2.fullmatch(text) else _integer(text)
        except ValueError as error:
            return self._refuse(node, path, str(error))

    def _refuse(self, node: yaml.Node, path: Path, message: str) -> Any:
        self._report.add_syntax(self._file, self._number, _mark(node.start_mark), path, message)
        return node.value if isinstance(node, yaml.ScalarNode) else None


def _boolean(text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    instead = "true" if text.lower() in _YES else "false"
    raise ValueError(f'{shown(text)} is a boolean in YAML 1.1 and a string in 1.2; quote it ("{text}") or write {instead}')


def _null(text: str) -> None:
    if text not in _NULL:
        raise ValueError(f"{shown(text)} is not null")


def _integer(text: str) -> int:
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f'{shown(text)} is a number that not all YAML reads alike; write it in decimal or quote it ("{text}")')
    return int(text)


def _number(text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise ValueError(f'{shown(text)} is not a number in plain decimals; write it so or quote it ("{text}")')
    return float(text)


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "timestamp": str,
    "value": str,
    "merge": str,
    "bool": _boolean,
    "null": _null,
    "int": _integer,
    "float": _number,
}
