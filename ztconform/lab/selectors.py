# SPDX-License-Identifier: Apache-2.0
"""Which labels a LabelSelector matches.

Whose labels they are, a pod's or a namespace's, is left to the caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never, cast

from ztconform.lab.fields import Field
from ztconform.lab.labels import label_key, label_map, label_value

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """Demand something of one label."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether the labels meet the requirement; NotIn is met by labels without the key."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
            case _:
                assert_never(self.operator)


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Match labels that meet every requirement; without any it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether the labels meet every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)


EVERYTHING = LabelSelector()


def equal_to(labels: Mapping[str, str]) -> LabelSelector:
    """Return the selector that matches whatever has all of these labels."""
    return LabelSelector(tuple(Requirement(key, "In", frozenset((value,))) for key, value in sorted(labels.items())))


def read_selector(field: Field) -> LabelSelector:
    """Return a LabelSelector (meta/v1)."""
    fields = field.object(("matchLabels", "matchExpressions"))
    labels = label_map(fields["matchLabels"]) if "matchLabels" in fields else {}
    expressions = fields["matchExpressions"].items() if "matchExpressions" in fields else []
    return LabelSelector(equal_to(labels).requirements + tuple(_read_requirement(expression) for expression in expressions))


def _read_requirement(field: Field) -> Requirement:
    fields = field.object(("key", "operator", "values"))
    for name in ("key", "operator"):
        if name not in fields:
            field.child(name).refuse("is required")
    operator = cast(Operator, fields["operator"].one_of("In", "NotIn", "Exists", "DoesNotExist"))
    values = fields["values"].items() if "values" in fields else []
    if operator in ("In", "NotIn") and not values:
        field.child("values").refuse(f"must not be empty with the operator {operator}")
    if operator in ("Exists", "DoesNotExist") and values:
        fields["values"].refuse(f"must be empty with the operator {operator}")
    return Requirement(label_key(fields["key"]), operator, frozenset(label_value(value) for value in values))
