# SPDX-License-Identifier: Apache-2.0
"""Every example in examples/ is a case file that loads and has something to teach; the lab's tests prove them."""

from pathlib import Path

import pytest

from ztconform import casefile

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.ztc.yaml"))


def test_there_are_examples() -> None:
    assert {"default-deny-with-dns", "namespace-isolated", "payment-only-from-checkout"} <= {
        path.name.removesuffix(".ztc.yaml") for path in EXAMPLES
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_loads_under_its_own_name_and_has_allowed_rows_beside_denied(path: Path) -> None:
    case = casefile.load(path).case
    assert path.name == f"{case.id}.ztc.yaml"
    assert {"allowed", "denied"} <= {row.want for row in case.steps[0].rows}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_begins_with_a_comment_for_a_newcomer(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
