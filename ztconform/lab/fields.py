# SPDX-License-Identifier: Apache-2.0
"""What stands in a manifest, and where: a cursor that reads strictly and refuses with the field's path.

It knows no kind of object; `objectmeta`, `selectors`, `networkpolicy` and `services` say which fields there are.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ztconform.errors import Rejected

_SHOWN = 60  # characters of a wrong value or name that a message repeats


def shown(value: object) -> str:
    """Return a value as one short line, whatever it is."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return "an integer beyond 64 bits"  # Python refuses to print one of more than 4,300 digits
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float, str)):
        text = repr(value)
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f"a value of type {type(value).__name__}"


def _title(manifest: object) -> str:
    """Return "Kind namespace/name" as one line, whatever is missing or wrong."""
    if not isinstance(manifest, Mapping):
        return "manifest"
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}

    def word(value: object, otherwise: str) -> str:
        return value[:_SHOWN] if isinstance(value, str) and value and value.isprintable() else otherwise

    kind, name = word(manifest.get("kind"), "object"), word(metadata.get("name"), "?")
    return f"{kind} {word(metadata.get('namespace'), 'default')}/{name}"


@dataclass(frozen=True, slots=True)
class Field:
    """Point at a value within a manifest."""

    title: str  # "NetworkPolicy shop/deny"
    path: str  # "spec.ingress[0]"; "" is the manifest itself
    value: Any

    def refuse(self, reason: str) -> NoReturn:
        """Raise Rejected for this field."""
        raise Rejected(f"{self.title}: {self.path}" if self.path else self.title, reason)

    def child(self, name: str, value: Any = None) -> "Field":
        """Return the field of that name below this one."""
        return Field(self.title, f"{self.path}.{name}" if self.path else name, value)

    def object(self, known: Collection[str], unsupported: Mapping[str, str] | None = None) -> dict[str, "Field"]:
        """Return the fields of a mapping that are set; null is absent, as for the API server.

        Raises Rejected for a name that is not known, and for one of `unsupported`, whose value is the reason.
        """
        found: dict[str, Field] = {}
        for name, value in self._mapping().items():
            if not isinstance(name, str):
                self.refuse(f"a field name must be a string, not {shown(name)}")
            if unsupported and name in unsupported:
                if value is not None:
                    self.child(name).refuse(unsupported[name])
            elif name not in known:
                plain = name.isascii() and name.isidentifier() and len(name) <= _SHOWN
                self.child(name if plain else shown(name)).refuse("no such field")
            elif value is not None:
                found[name] = self.child(name, value)
        return found

    def entries(self) -> dict[str, "Field"]:
        """Return the entries of a mapping whose keys are data, such as labels."""
        found: dict[str, Field] = {}
        for key, value in self._mapping().items():
            if not isinstance(key, str):
                self.refuse(f"a key must be a string, not {shown(key)}: put it in quotes")
            plain = key.isprintable() and len(key) <= 2 * _SHOWN
            found[key] = Field(self.title, f"{self.path}[{key if plain else shown(key)}]", value)
        return found

    def items(self) -> list["Field"]:
        """Return the elements of a list.

        A null element is refused: the API server reads it as {}, which in `ingress` lets everybody in.
        """
        if not isinstance(self.value, (list, tuple)):
            self.refuse(f"must be a list, not {shown(self.value)}")
        found = [Field(self.title, f"{self.path}[{index}]", value) for index, value in enumerate(self.value)]
        for field in found:
            if field.value is None:
                field.refuse("must not be null: write the element out, or remove it")
        return found

    def string(self) -> str:
        """Return a string."""
        if not isinstance(self.value, str):
            self.refuse(f"must be a string, not {shown(self.value)}")
        return self.value

    def integer(self) -> int:
        """Return an integer; true and false are none."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.refuse(f"must be an integer, not {shown(self.value)}")
        return self.value

    def boolean(self) -> bool:
        """Return true or false."""
        if not isinstance(self.value, bool):
            self.refuse(f"must be true or false, not {shown(self.value)}")
        return self.value

    def one_of(self, *choices: str) -> str:
        """Return a string that is one of the choices, in the same case."""
        if not isinstance(self.value, str) or self.value not in choices:
            self.refuse(f"must be {' or '.join(choices)}, not {shown(self.value)}")
        return self.value

    def _mapping(self) -> Mapping[Any, Any]:
        if not isinstance(self.value, Mapping):
            self.refuse(f"must be a mapping, not {shown(self.value)}")
        return self.value


def root(manifest: object) -> Field:
    """Return the field that stands for a whole manifest."""
    return Field(_title(manifest), "", manifest)
