# SPDX-License-Identifier: Apache-2.0
"""Where the agent's tests listen: `address` is a loopback address of each test's own."""

import itertools
import os

import pytest

_numbers = itertools.count()


@pytest.fixture
def address() -> str:
    """Return a loopback address that nobody else on this machine uses now."""
    return f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.{1 + next(_numbers) % 250}"
