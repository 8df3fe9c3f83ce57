# SPDX-License-Identifier: Apache-2.0
"""How a test of ours is known: by the marker that joins it to a requirement, or by a case file's name.

Whether the requirement's ID is known is left to `subjects`, and what the file says to `casefiles`.
"""

import pytest

NAME = "ztc_requirement"
DESCRIPTION = f"{NAME}(id): the test proves this requirement of ztconform's catalogue"
CASE_FILE = ".ztc.yaml"  # how the name ends

requirement = pytest.mark.ztc_requirement
