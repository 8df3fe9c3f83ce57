# SPDX-License-Identifier: Apache-2.0
"""The compiled rules agree with the truth tables of Kubernetes' own suite and of the published recipes, cell by cell."""

import dataclasses
from collections.abc import Mapping

import pytest
from ruleset_walk import check_well_formed, connect
from truth_tables import DATA, NODES, TruthTable, inventory_of, load, load_all, render

from ztconform.lab.inventory import Inventory
from ztconform.lab.isolation import compile_node
from ztconform.lab.networkpolicy import NetworkPolicy, parse_policy
from ztconform.model import Ref, Step

TABLES = load_all()


def relabelled(inventory: Inventory, relabel: Mapping[Ref, Mapping[str, str | None]]) -> Inventory:
    def merged(labels: Mapping[str, str], ref: Ref) -> dict[str, str]:
        return {key: value for key, value in {**labels, **relabel.get(ref, {})}.items() if value is not None}

    return Inventory(
        pods=tuple(dataclasses.replace(pod, labels=merged(pod.labels, pod.ref)) for pod in inventory.pods),
        namespaces={name: merged(labels, Ref(name, "")) for name, labels in inventory.namespaces.items()},
    )


def after(step: Step, inventory: Inventory, policies: dict[Ref, NetworkPolicy]) -> Inventory:
    """Do a step: change the policies in place, and return the inventory as it is then."""
    for manifest in step.apply:
        policy = parse_policy(render(manifest, inventory))
        policies[policy.ref] = policy
    for manifest in step.delete:
        del policies[Ref(manifest["metadata"]["namespace"], manifest["metadata"]["name"])]
    return relabelled(inventory, dict(step.relabel))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name.replace(" ", "-"))
def test_every_cell_comes_out_as_published(table: TruthTable) -> None:
    inventory = inventory_of(table.topology)
    policies: dict[Ref, NetworkPolicy] = {}
    for step, expected in table.steps:
        inventory = after(step, inventory, policies)
        pods = {pod.ref: pod for pod in inventory.pods}
        tables = {node: compile_node(node, inventory, tuple(policies.values())) for node in range(NODES)}
        for each in tables.values():
            check_well_formed(each)
        for cells in expected:
            for family in table.families:
                denied = {
                    (source, target)
                    for source, target in table.pairs()
                    if not connect(tables, pods[source], pods[target], protocol=cells.protocol, port=cells.port, family=family)[0]
                }
                assert cells.denied == denied, f"{cells.protocol} {cells.port} IPv{family}"


@pytest.mark.parametrize(
    ("file", "count"), [("netpol.yaml", 42), ("netpol-udp.yaml", 3), ("netpol-sctp.yaml", 3), ("recipes.yaml", 17)]
)
def test_no_published_case_is_missing(file: str, count: int) -> None:
    names = [table.name for table in load(DATA / file)]
    assert count == len(names) == len(set(names))


def test_pods_of_a_table_stand_on_every_node() -> None:
    for table in TABLES:
        assert set(range(NODES)) == {pod.node for pod in inventory_of(table.topology).pods if pod.node is not None}


def test_a_table_becomes_a_case_with_a_row_for_every_cell() -> None:
    table = next(table for table in TABLES if table.name == "every port of one protocol")
    case = table.case(lambda manifest: manifest)
    rows = case.steps[0].rows
    assert 2 * 9 * 8 == len(rows) == len({row.id for row in rows})
    assert {"x/a"} == {str(row.probe.target) for row in rows if row.want == "denied"}
    assert {"udp"} == {row.probe.kind for row in rows if row.want == "denied"}
