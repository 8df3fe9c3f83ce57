# SPDX-License-Identifier: Apache-2.0
"""Which names are stacks: every listed one, every other combination that makes sense, and for the rest one line that says why."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.errors import UsageError
from ztconform.stacks import composition
from ztconform.stacks.composition import CNIS, LISTED, OPTIONS, PARTS

THE_MISSIONS = frozenset(
    {
        "kindnet",
        "calico",
        "cilium",
        "cilium:wireguard",
        "calico+istio",
        "cilium+istio",
        "kindnet+istio:ambient",
        "cilium+istio:ambient",
        "calico+linkerd",
        "cilium+linkerd",
        "calico+spire",
    }
)
WORDS = st.sampled_from([*PARTS, *OPTIONS, "", "istioo", "Cilium", " cilium", "lab"])


def test_every_stack_of_the_mission_is_listed_and_every_listed_one_is_spelled_as_it_is_called() -> None:
    assert set() == THE_MISSIONS - set(LISTED)
    assert list(LISTED) == [composition.parse(name).name for name in LISTED]


@pytest.mark.parametrize(
    ("text", "name", "parts", "options"),
    [
        ("cilium", "cilium", ("cilium",), set()),
        ("cilium:wireguard:kpr", "cilium:kpr:wireguard", ("cilium",), {"kpr", "wireguard"}),
        ("cilium+gateway+istio", "cilium+istio+gateway", ("cilium", "istio", "gateway"), set()),
        ("calico+istio:wireguard:ambient", "calico+istio:ambient:wireguard", ("calico", "istio"), {"ambient", "wireguard"}),
        ("kindnet+spire:dual", "kindnet+spire:dual", ("kindnet", "spire"), {"dual"}),
    ],
)
def test_a_name_is_read_into_parts_and_options_and_spelled_in_one_way(
    text: str, name: str, parts: tuple[str, ...], options: set[str]
) -> None:
    found = composition.parse(text)
    assert (name, parts, options) == (found.name, found.parts, found.options)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no part"),
        ("cilum", "'cilum' is no part, did you mean cilium?"),
        ("cilium+", "'' is no part"),
        ("cilium:", "'' is no option"),
        ("cilium:wiregard", "'wiregard' is no option, did you mean wireguard?"),
        ("cilium+cilium", "something is named twice"),
        ("cilium:kpr:kpr", "something is named twice"),
        ("istio", "istio is no CNI, which comes first"),
        ("istio+cilium", "istio is no CNI, which comes first"),
        ("calico+cilium", "a stack has one CNI"),
        ("cilium+istio+linkerd", "a stack has one mesh"),
        ("cilium+gateway", "the gateway is Istio's, and needs istio"),
        ("cilium+linkerd+gateway", "the gateway is Istio's, and needs istio"),
        ("cilium+istio+spire", "a mesh issues identities of its own, and is not given SPIRE's"),
        ("cilium:ambient", "the option ambient is one of istio"),
        ("kindnet:wireguard", "the option wireguard is one of calico and cilium"),
        ("calico:kpr", "the option kpr is one of cilium"),
    ],
)
def test_what_is_no_stack_is_refused_in_one_line_that_says_why_and_lists_what_is(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        composition.parse(text)
    said = str(caught.value)
    assert said.startswith(f"no stack is called {text!r}: {why}; a stack is ")
    assert "\n" not in said
    assert [] == [word for word in (*PARTS, *OPTIONS, *LISTED) if word not in said]


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, max_size=3))
def test_a_name_is_a_stack_or_is_refused_and_its_spelling_is_read_as_the_same_stack(parts: list[str], options: list[str]) -> None:
    text = "".join(["+".join(parts), *(f":{option}" for option in options)])
    try:
        found = composition.parse(text)
    except UsageError:
        return
    assert found == composition.parse(found.name)
    assert set(parts) == set(found.parts)
    assert set(options) == found.options
    assert found.parts[0] in CNIS


@given(st.text(alphabet="abcilumst+:", max_size=20))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        composition.parse(text)
    except UsageError as error:
        assert "\n" not in str(error)


def test_each_option_changes_a_stack_and_each_part_is_in_one() -> None:
    valid = [
        composition.compose(parts, options)
        for parts in ((cni, *rest) for cni in CNIS for size in range(3) for rest in combinations(list(PARTS)[3:], size))
        for options in (chosen for size in range(3) for chosen in combinations(OPTIONS, size))
        if composition.is_valid(parts, options)
    ]
    assert set(PARTS) == {part for one in valid for part in one.parts}
    assert set(OPTIONS) == {option for one in valid for option in one.options}
    assert len(valid) == len({one.name for one in valid})
