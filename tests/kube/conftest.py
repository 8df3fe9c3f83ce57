# SPDX-License-Identifier: Apache-2.0
"""Real clusters for the tests of this folder, which `make test-cluster` runs.

One cluster with Cilium serves all of them; with ZTC_TEST_KEEP=1 it stays for the next run.
"""

import shlex
from collections.abc import Iterator

import pytest
from kube_clusters import Ready, containers, given, provide, settings_of


@pytest.fixture(scope="session")
def cilium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    """Yield a kind cluster with Cilium."""
    yield from provide("cilium", settings_of(tmp_path_factory.mktemp("cilium")))


@pytest.fixture(scope="session")
def plain_command() -> str:
    """Return the command that gives a kind cluster a CNI which enforces nothing."""
    if not given("PLAIN_CNI"):
        pytest.skip("ZTC_TEST_PLAIN_CNI names no command ('CMD {cluster}') that installs a CNI which enforces no policy")
    assert "{cluster}" in shlex.split(given("PLAIN_CNI"))
    return given("PLAIN_CNI")


@pytest.fixture
def nothing_left(cilium: Ready) -> Iterator[None]:
    """Demand that a test leaves nothing behind."""
    before = containers()
    yield
    assert [] == cilium.leftovers(within=60, beside=before)
