# SPDX-License-Identifier: Apache-2.0
"""How a test of ours is known: by the marker that joins it to a requirement, or by a case file's name.

Whether the requirement's ID is known is left to `subjects`, and what the file says to `casefiles`.
"""

import pytest

NAME = "ztc_requirement"
DESCRIPTION = f"{NAME}(id): the test proves this requirement of ztconform's catalogue"
DISRUPTIVE = "ztc_disruptive"
ALONE = f"{DISRUPTIVE}: the test disturbs more of a cluster than its own namespaces, and has a shared one to itself"
CASE_FILE = ".ztc.yaml"  # how the name ends

requirement = pytest.mark.ztc_requirement
disruptive = pytest.mark.ztc_disruptive
