# SPDX-License-Identifier: Apache-2.0
"""A lab for each test module: real namespaces, real rules, real traffic."""

from collections.abc import Iterator

import pytest

from ztconform.lab.cluster import LabCluster


@pytest.fixture(scope="module")
def lab() -> Iterator[LabCluster]:
    """Give the module one lab."""
    with LabCluster() as cluster:
        yield cluster
