# SPDX-License-Identifier: Apache-2.0
"""What the agent's tests share: `address`, a loopback address of each test's own, and `packed`, the agent as one file."""

import itertools
import os
from pathlib import Path

import pytest

from ztconform.kube import agentpyz

_numbers = itertools.count()


@pytest.fixture
def address() -> str:
    """Return a loopback address that nobody else on this machine uses now."""
    return f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.{1 + next(_numbers) % 250}"


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the agent as one file, as it is in a pod."""
    path = tmp_path_factory.mktemp("agent") / agentpyz.NAME
    path.write_bytes(agentpyz.pack())
    return path
