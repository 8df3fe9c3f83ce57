# SPDX-License-Identifier: Apache-2.0
"""Every example, and a case with every kind of step and row, is proved as it stands."""

from pathlib import Path

import pytest

from ztconform import casefile, resources
from ztconform.proof import prove_case

FILES = [*sorted(resources.folder("examples").glob("*.ztc.yaml")), *sorted(Path(__file__).with_name("data").glob("*.ztc.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_case_file_is_proved(lab, path):
    results = prove_case(casefile.load(path).case, lab)
    assert results
    assert [] == [(r.row.id, r.outcome, r.why) for r in results if r.outcome != "PROVED"]
