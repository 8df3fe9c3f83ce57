# SPDX-License-Identifier: Apache-2.0
"""The lab's verdicts are those of Kubernetes' own NetworkPolicy tests and of the published recipes, row by row."""

import pytest
import truth_tables

from ztconform.proof import prove_case

# The lab sends no SCTP: what the rules say of it is held against the same tables in unit/test_truth_tables.py.
CASES = [case for case in (t.case(lambda m: m) for t in truth_tables.load_all()) if any(s.rows for s in case.steps)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_every_row_of_the_table_is_proved(lab, case):
    results = prove_case(case, lab)
    assert results
    assert [] == [(r.row.id, r.outcome, r.why) for r in results if r.outcome != "PROVED"]
