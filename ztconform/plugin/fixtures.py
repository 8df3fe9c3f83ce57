# SPDX-License-Identifier: Apache-2.0
"""The fixtures: the stack under test, its cluster, the canary that must pass first, the shop, and `ztc_prove`.

What they hand out is imported when a test first asks for it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ztconform.cluster import Cluster
    from ztconform.plugin.canaries import Canaries
    from ztconform.plugin.prove import Prove
    from ztconform.shop import Shop
    from ztconform.stacks import Stack


@pytest.fixture(scope="session")
def ztc_stack(pytestconfig: pytest.Config) -> "Stack":
    """Return the stack under test, having asked it whether it can run here."""
    from ztconform.plugin import stack

    return stack.ready(pytestconfig)


@pytest.fixture(scope="session")
def ztc_cluster(pytestconfig: pytest.Config, ztc_stack: "Stack") -> "Iterator[Cluster]":
    """Yield the running cluster; it starts with the first test that needs it, and ends with the session."""
    from ztconform.plugin import stack

    with stack.started(pytestconfig, ztc_stack) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ztc_canary(pytestconfig: pytest.Config, ztc_stack: "Stack", ztc_cluster: "Cluster") -> "Canaries":
    """Return what asks each layer of the cluster, once and before the first proof on it, whether it enforces anything at all."""
    from ztconform.plugin.canaries import Canaries

    return Canaries(pytestconfig, ztc_cluster, shared=ztc_stack.shared)


@pytest.fixture
def ztc_shop() -> "Shop":
    """Return the sample shop; override it with anything that has a `topology` to prove policies in your own."""
    from ztconform.shop import shop

    return shop()


@pytest.fixture
def ztc_prove(
    request: pytest.FixtureRequest,
    subtests: pytest.Subtests,
    ztc_shop: "Shop",
    ztc_cluster: "Cluster",
    ztc_canary: "Canaries",
) -> "Iterator[Prove]":
    """Yield what proves a policy's rows; a test whose requirement the stack cannot prove is skipped with the reason."""
    from ztconform.plugin.progress import progress
    from ztconform.plugin.prove import Prove
    from ztconform.plugin.runner import prepare

    underway = prepare(request.node, ztc_cluster.facts(), ztc_canary)
    prove = Prove(
        item=request.node,
        underway=underway,
        cluster=ztc_cluster,
        canaries=ztc_canary,
        topology=ztc_shop.topology,
        subtests=subtests,
        notify=progress(request.config, underway.subject.id),
        keep_policy=bool(request.config.getoption("usepdb", False)),
    )
    yield prove
    prove.clean_up()
