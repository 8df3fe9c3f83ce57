# SPDX-License-Identifier: Apache-2.0
"""Calico's own kinds and its flow log on a real cluster: rules that deny, staged policies, and what turns their proofs red.

ZTC_TEST_CALICO_CRDS_CHART and ZTC_TEST_CALICO_CHART name folders or archives of the operator's charts, ZTC_TEST_CALICO_VALUES a
file of values, ZTC_TEST_CALICO_IMAGES a folder with archives of what they pull. What the others say is in `kube_clusters`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kube_clusters import Ready, given, outcomes, path, provide, settings_of

from ztconform import allowed, denied, proof, scenario, step
from ztconform.evidence import RowResult
from ztconform.kube.cluster import KubeCluster
from ztconform.model import Case, Manifest
from ztconform.settings import Settings
from ztconform.shop import shop

STACK = "calico"
NEEDED = ("CALICO_CRDS_CHART", "CALICO_CHART", "CALICO_VALUES", "CALICO_IMAGES")
REQUIREMENTS = ("N01", "N02", "N03", "N04", "N05", "N06", "N11", "N13", "N14", "N16", "R09", "U02", "U05")
MISSING = [f"ZTC_TEST_{name}" for name in NEEDED if not given(name)]
SHOP = shop()

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"Calico's charts and images are named by {', '.join(MISSING)}, which are not set"
)


def settings(folder: Path) -> Settings:
    """Return what the environment says, with Calico's charts and images."""
    found = settings_of(folder)
    images = path("CALICO_IMAGES")
    return replace(
        found,
        charts={"calico-crds": Path(given("CALICO_CRDS_CHART")), "calico": Path(given("CALICO_CHART"))},
        values={"calico": Path(given("CALICO_VALUES"))},
        load_images=(*found.load_images, *([images] if images else [])),
    )


@pytest.fixture(scope="module")
def calico(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    yield from provide(STACK, settings(tmp_path_factory.mktemp("calico")))


@pytest.fixture
def cluster(calico: Ready) -> Iterator[KubeCluster]:
    with calico.start() as started:
        yield started


def proved(cluster: KubeCluster, case: object, mutate: Callable[[Manifest], Manifest | None]) -> dict[str, RowResult]:
    assert isinstance(case, Case)
    return {result.row.id: result for result in proof.prove_case(case, cluster, mutate=mutate)}


def denial(cluster: KubeCluster) -> object:
    """Return `N05`, as the scenario has it."""
    friend, banned = ((caller, "GET", SHOP.payment) for caller in (SHOP.checkout, SHOP.legacy))
    refused = [allowed(*friend), denied(*banned, named=["shop/no-legacy"])]
    return scenario.case(
        "denial",
        SHOP.topology,
        cluster.facts().dialects,
        policy="payment-by-the-shop",
        rows=[allowed(*friend), allowed(*banned)],
        steps=[step(policy="payment-but-not-legacy", rows=refused)],
    )


def staged(cluster: KubeCluster) -> object:
    """Return the staged half of `U02`."""
    permitted, other = ((c, "GET", SHOP.payment) for c in (SHOP.checkout, SHOP.legacy))
    rows = [allowed(*permitted), allowed(*other, logged=["shop/default-deny"])]
    return scenario.case("staged", SHOP.topology, cluster.facts().dialects, policy="payment-only-from-checkout-staged", rows=rows)


def of(results: dict[str, RowResult], start: str, end: str = "") -> RowResult:
    return next(result for name, result in results.items() if name.startswith(start) and name.endswith(end))


def test_every_requirement_of_calico_is_proved(calico: Ready, tmp_path: Path) -> None:
    found, said = outcomes(calico, REQUIREMENTS, tmp_path, "--ztc-outsider=docker:kind")
    assert dict.fromkeys(REQUIREMENTS, "PROVED") == found, said


def test_a_rule_that_denies_and_is_gone_is_missed(cluster: KubeCluster) -> None:
    def lose(manifest: Manifest) -> Manifest | None:
        return None if manifest["metadata"]["name"] == "no-legacy" else manifest

    assert "VIOLATED" == of(proved(cluster, denial(cluster), lose), "shop/legacy", "step 2").outcome


def test_a_denial_by_another_rule_than_the_one_demanded_is_a_violation(cluster: KubeCluster) -> None:
    def rename(manifest: Manifest) -> Manifest:
        metadata = manifest["metadata"]
        return {**manifest, "metadata": {**metadata, "name": "no-one"}} if metadata["name"] == "no-legacy" else manifest

    result = of(proved(cluster, denial(cluster), rename), "shop/legacy", "step 2")
    assert ("VIOLATED", True) == (result.outcome, "attributed to shop/no-one" in result.why), result.why


def test_a_staged_policy_that_is_enforced_is_a_violation(cluster: KubeCluster) -> None:
    def enforce(manifest: Manifest) -> Manifest:
        spec = {key: value for key, value in manifest["spec"].items() if key != "stagedAction"}
        return {**manifest, "kind": manifest["kind"].removeprefix("Staged"), "spec": spec}

    assert "VIOLATED" == of(proved(cluster, staged(cluster), enforce), "shop/legacy").outcome


def test_of_a_policy_that_was_not_even_staged_nothing_is_known(cluster: KubeCluster) -> None:
    result = of(proved(cluster, staged(cluster), lambda manifest: None), "shop/legacy")
    assert ("INCONCLUSIVE", True) == (result.outcome, "no log knows the request" in result.why), result.why
