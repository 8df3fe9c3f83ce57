# SPDX-License-Identifier: Apache-2.0
"""The hooks that a user's plugin or conftest.py may answer; who calls them and when is left to `stack`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ztconform.stacks import Stack


def pytest_ztconform_stacks(config: pytest.Config) -> "Sequence[Stack]":  # type: ignore[empty-body]  # a hook specification
    """Return stacks of your own; `--ztc-stack` finds them by their name, before those that ztconform brings.

    Answer it in the root directory's conftest.py or in a plugin: it is asked before tests are collected.
    """
