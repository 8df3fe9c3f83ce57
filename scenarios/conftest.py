# SPDX-License-Identifier: Apache-2.0
"""Short names for the fixtures of the plugin, in these scenarios only."""

import pytest


@pytest.fixture
def shop(ztc_shop):
    return ztc_shop


@pytest.fixture
def prove(ztc_prove):
    return ztc_prove
