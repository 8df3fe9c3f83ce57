# SPDX-License-Identifier: Apache-2.0
"""The catalogue holds every requirement once, and refuses what it cannot check."""

import dataclasses
import re

import pytest

from ztconform import catalogue, resources
from ztconform.errors import InternalError

GOOD = """
[[requirement]]
id = "N01"
sentence = "Default-deny ingress holds"
area = "segmentation"
features = ["l34"]
references = ["NIST SP 800-207 tenet 3"]
"""

RANGES = {"N": 16, "M": 11, "A": 17, "I": 9, "E": 7, "R": 9, "U": 6, "C": 3}


def test_every_requirement_is_there_in_the_order_of_its_letters() -> None:
    assert [f"{letter}{n:02}" for letter, last in RANGES.items() for n in range(1, last + 1)] == list(catalogue.load())


def test_a_requirement_is_what_its_table_says() -> None:
    wanted = catalogue.Requirement(
        id="N01",
        sentence="Default-deny ingress holds",
        area="segmentation",
        features=frozenset({"l34"}),
        references=("NIST SP 800-207 tenet 3",),
    )
    assert {"N01": wanted} == catalogue.parse(GOOD)


def test_the_catalogue_is_read_once_and_cannot_be_changed() -> None:
    loaded = catalogue.load()
    assert loaded is catalogue.load()
    with pytest.raises(TypeError):
        loaded["N01"] = loaded["N02"]  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded["N01"].sentence = "weaker"  # type: ignore[misc]


def test_every_feature_is_needed_by_some_requirement_or_by_a_part_of_one_that_goes_beyond_it() -> None:
    scenarios = resources.folder("scenarios").glob("test_*.py")
    beyond = {name for path in scenarios for name in re.findall(r'needs="([^"]+)"', path.read_text(encoding="utf-8"))}
    assert catalogue.FEATURES == beyond.union(*(r.features for r in catalogue.load().values()))


def test_no_two_requirements_claim_the_same() -> None:
    sentences = [requirement.sentence for requirement in catalogue.load().values()]
    assert len(sentences) == len(set(sentences))


def test_a_reference_is_a_tenet_or_a_publication_or_a_bypass() -> None:
    form = r"NIST SP 800-207 tenet [1-7]|NIST SP 800-204B|CVE-\d{4}-\d{4,}|GHSA(-\w{4}){3}|[\w.-]+/[\w.-]+#\d+"
    assert [] == [r for requirement in catalogue.load().values() for r in requirement.references if not re.fullmatch(form, r)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + GOOD, "N01 is there twice"),
        (GOOD.replace("segmentation", "plumbing"), "N01: unknown area 'plumbing'"),
        (GOOD.replace("segmentation", "mtls"), "N01: its letter is not that of the area mtls"),
        (GOOD.replace("N01", "Z01"), "Z01: its letter is not that of the area segmentation"),
        (GOOD.replace("N01", "N1"), "N1: an ID is a letter and two digits"),
        (GOOD.replace("l34", "l43"), "N01: unknown feature l43"),
        (GOOD.replace('"l34"', ""), "N01: it names no feature"),
        (GOOD.replace("Default-deny ingress holds", " "), "N01: the sentence is empty"),
        (GOOD.replace("sentence", "sentense"), "N01: unknown or missing sentence, sentense"),
        (GOOD.replace("[[requirement]]", "[[requirements]]"), "only [[requirement]] tables are expected, not requirements"),
        ("", "not nothing"),
        ("[[requirement]", "catalogue.toml: "),
    ],
)
def test_a_faulty_catalogue_is_our_error_and_says_where(text: str, message: str) -> None:
    with pytest.raises(InternalError, match=re.escape(message)):
        catalogue.parse(text)
