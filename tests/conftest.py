# SPDX-License-Identifier: Apache-2.0
"""What every test of the project may lean on: nothing of the surroundings reaches the runs that it starts."""

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not whether the code is right: no test fails of it.
settings.register_profile("ztconform", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ztconform")

_SURROUNDINGS = ("CI", "BUILD_NUMBER", "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _SURROUNDINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
