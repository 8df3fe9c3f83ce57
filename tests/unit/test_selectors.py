# SPDX-License-Identifier: Apache-2.0
"""Selectors match as Kubernetes does it, and names, labels and ports are taken or refused by the API server's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_oracle import selector_matches

from ztconform.errors import Rejected
from ztconform.lab import labels
from ztconform.lab.fields import Field
from ztconform.lab.selectors import EVERYTHING, equal_to, read_selector


def field(value: object) -> Field:
    return Field("Thing default/t", "spec.selector", value)


def refusal(value: object) -> str:
    with pytest.raises(Rejected) as caught:
        read_selector(field(value))
    return str(caught.value)


@pytest.mark.parametrize(
    ("expression", "matching"),
    [
        ({"operator": "In", "values": ["a", "b"]}, [{"k": "a"}, {"k": "b"}]),
        ({"operator": "In", "values": [""]}, [{"k": ""}]),
        ({"operator": "NotIn", "values": ["a"]}, [{"k": "b"}, {"k": "c"}, {"k": ""}, {}, {"other": "a"}]),
        ({"operator": "Exists"}, [{"k": "a"}, {"k": "b"}, {"k": "c"}, {"k": ""}]),
        ({"operator": "DoesNotExist"}, [{}, {"other": "a"}]),
        ({"operator": "Exists", "values": []}, [{"k": "a"}, {"k": "b"}, {"k": "c"}, {"k": ""}]),
    ],
)
def test_an_expression_matches(expression: dict[str, object], matching: list[dict[str, str]]) -> None:
    selector = read_selector(field({"matchExpressions": [{"key": "k", **expression}]}))
    candidates: list[dict[str, str]] = [{"k": "a"}, {"k": "b"}, {"k": "c"}, {"k": ""}, {}, {"other": "a"}]
    assert [each for each in candidates if each in matching] == [each for each in candidates if selector.matches(each)]


@pytest.mark.parametrize(
    "empty", [{}, {"matchLabels": None}, {"matchLabels": {}, "matchExpressions": []}, {"matchExpressions": None}]
)
def test_an_empty_selector_matches_everything(empty: object) -> None:
    assert EVERYTHING == read_selector(field(empty))
    assert EVERYTHING.matches({})
    assert EVERYTHING.matches({"a": "b"})


def test_every_requirement_has_to_be_met() -> None:
    selector = read_selector(
        field({"matchLabels": {"a": "1", "b": "2"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]})
    )
    assert selector.matches({"a": "1", "b": "2", "c": ""})
    for missing in "abc":
        assert not selector.matches({key: value for key, value in {"a": "1", "b": "2", "c": ""}.items() if key != missing})
    assert not equal_to({"a": ""}).matches({})


keys = st.sampled_from(["app", "tier", "x.io/y"])
values = st.sampled_from(["", "a", "b"])
expressions = st.one_of(
    st.fixed_dictionaries({"key": keys, "operator": st.sampled_from(["In", "NotIn"]), "values": st.lists(values, min_size=1)}),
    st.fixed_dictionaries({"key": keys, "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
)
selectors = st.fixed_dictionaries(
    {}, optional={"matchLabels": st.dictionaries(keys, values), "matchExpressions": st.lists(expressions)}
)


@given(selectors, st.dictionaries(keys, values))
def test_a_selector_matches_what_the_reference_says(selector: dict[str, object], present: dict[str, str]) -> None:
    assert selector_matches(selector, present) == read_selector(field(selector)).matches(present)


@pytest.mark.parametrize(
    ("selector", "line"),
    [
        ([], "spec.selector: must be a mapping, not a list"),
        ({"matchLabel": {}}, "spec.selector.matchLabel: no such field"),
        ({"matchLabels": {"app": 1}}, "spec.selector.matchLabels[app]: must be a string, not 1"),
        ({"matchLabels": {"app": None}}, 'spec.selector.matchLabels[app]: must not be null: write "" or remove the label'),
        ({"matchLabels": {1: "a"}}, "spec.selector.matchLabels: a key must be a string, not 1: put it in quotes"),
        ({"matchLabels": {"-a": "a"}}, "spec.selector.matchLabels[-a]: '-a' is no label key"),
        ({"matchLabels": {"a": "b c"}}, "spec.selector.matchLabels[a]: 'b c' is no label value"),
        ({"matchLabels": {"a": "b\n"}}, "spec.selector.matchLabels[a]: 'b\\n' is no label value"),
        ({"matchExpressions": {}}, "spec.selector.matchExpressions: must be a list, not a mapping"),
        ({"matchExpressions": [None]}, "spec.selector.matchExpressions[0]: must not be null"),
        ({"matchExpressions": [{}]}, "spec.selector.matchExpressions[0].key: is required"),
        ({"matchExpressions": [{"key": "a"}]}, "spec.selector.matchExpressions[0].operator: is required"),
        ({"matchExpressions": [{"key": "", "operator": "Exists"}]}, "spec.selector.matchExpressions[0].key: '' is no label key"),
        (
            {"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]},
            "spec.selector.matchExpressions[0].operator: must be In or NotIn or Exists or DoesNotExist, not 'in'",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "In"}]},
            "spec.selector.matchExpressions[0].values: must not be empty with the operator In",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]},
            "spec.selector.matchExpressions[0].values: must not be empty with the operator NotIn",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "DoesNotExist", "values": ["b"]}]},
            "spec.selector.matchExpressions[0].values: must be empty with the operator DoesNotExist",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c d"]}]},
            "spec.selector.matchExpressions[0].values[1]: 'c d' is no label value",
        ),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": "b"}]}, "values: must be a list, not 'b'"),
    ],
)
def test_a_wrong_selector_is_refused_by_its_field(selector: object, line: str) -> None:
    assert line in refusal(selector)
    assert "\n" not in refusal(selector)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("app", True),
        ("App_1.x-y", True),
        ("app.kubernetes.io/name", True),
        ("a" * 63, True),
        ("a" * 253 + "/" + "a" * 63, True),
        ("a" * 64, False),
        ("a" * 254 + "/a", False),
        ("", False),
        ("/a", False),
        ("a/", False),
        ("a/b/c", False),
        ("A.io/b", False),
        ("-a", False),
        ("a-", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_label_keys(text: str, valid: bool) -> None:
    assert valid == labels.is_label_key(text)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("", True),
        ("a", True),
        ("A_b.c-1", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("-a", False),
        ("a.", False),
        ("a b", False),
    ],
)
def test_label_values(text: str, valid: bool) -> None:
    assert valid == labels.is_label_value(text)


@pytest.mark.parametrize(
    ("check", "taken", "refused"),
    [
        (labels.dns_label, ["a", "9a", "a-b", "a" * 63], ["", "A", "a.b", "-a", "a-", "a_b", "a" * 64, "a\n", 1, None, []]),
        (labels.dns_1035_label, ["a", "a-9", "a" * 63], ["", "9a", "a.b", "A", "a-", "a" * 64]),
        (labels.dns_subdomain, ["a", "9.a", "a-b.c", "a" * 253], ["", ".a", "a.", "a..b", "a.-b", "A", "a" * 254]),
        (
            labels.port_name,
            ["a", "http", "9p", "a-b-c", "a" * 15],
            ["", "80", "a--b", "-a", "a-", "A", "a_b", "a" * 16, "a\n", 80],
        ),
        (labels.port_number, [1, 65535], [0, -1, 65536, 1 << 70, 10**5000, True, "80", 80.0, None]),
        (labels.port_reference, [1, 65535, "http"], [0, 65536, "80", True, 80.0, None, []]),
    ],
)
def test_names_and_ports(check: object, taken: list[object], refused: list[object]) -> None:
    assert callable(check)
    for value in taken:
        assert value == check(field(value))
    for value in refused:
        with pytest.raises(Rejected):
            check(field(value))
