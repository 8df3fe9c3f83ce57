# SPDX-License-Identifier: Apache-2.0
"""Whether a layer of the cluster enforces anything at all, asked before the first proof that needs to know.

Processes that share a cluster share the answer: one asks, and the others wait for it. A node that was left out is red beside it.
"""

from collections.abc import Sequence

import pytest

from ztconform import proof
from ztconform.cluster import Cluster
from ztconform.evidence import RowResult
from ztconform.plugin import run, wire
from ztconform.plugin.underway import UNDERWAY, skip
from ztconform.report.results import RED, Attempt, rows_to_json

PHASE = "canary"


class Canaries:
    """Ask each layer of a cluster once whether it enforces anything at all, when something is first to be proved on it."""

    def __init__(self, config: pytest.Config, cluster: Cluster, *, shared: bool) -> None:
        self._config = config
        self._cluster = cluster
        self._shared = shared
        self._asked: dict[str, Attempt] = {}

    def demand(self, item: pytest.Item, layer: proof.CanaryLayer) -> None:
        """Skip the test if the layer's canary does not pass."""
        if layer not in self._asked:
            underway = item.stash[UNDERWAY]
            underway.watch.begin(PHASE)
            try:
                # Every process tells it: the one that asked may die before it could.
                self._asked[layer] = underway.canaries[layer] = self._ask(layer)
                if untested := proof.untested(self._cluster.facts().untested):
                    why = "; ".join(row.why for row in untested)
                    underway.canaries[wire.NODES] = Attempt(rows=tuple(rows_to_json(untested)), why=why)
            finally:
                underway.watch.begin("")
        outcome, why = self._asked[layer].judged()
        if outcome != "PROVED":
            skip(item, "NOT_RUN", f"see canary: {why}")

    def _ask(self, layer: proof.CanaryLayer) -> Attempt:
        def ask() -> Attempt:
            return canary_attempt(proof.prove_canary(self._cluster, layer), layer)

        if not self._shared:
            return ask()
        return wire.load_attempt(run.once(self._config, f"canary-{layer}.json", lambda: wire.dump_attempt(ask())))


def canary_attempt(results: Sequence[RowResult], layer: proof.CanaryLayer) -> Attempt:
    """Return what the canary came to; anything but PROVED is red, a canary without rows too."""
    attempt = Attempt(rows=tuple(rows_to_json(results)), why=proof.complaint(results, layer))
    outcome, why = attempt.judged()
    if outcome == "PROVED" or outcome in RED:
        return attempt
    return Attempt(rows=attempt.rows, outcome="INCONCLUSIVE", why=why)
