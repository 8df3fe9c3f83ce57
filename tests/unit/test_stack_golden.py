# SPDX-License-Identifier: Apache-2.0
"""What kind and helm are told for every listed stack, compared with data/stacks, so that no change of it goes unseen.

`ZTC_TEST_GOLDEN=write make test PYTEST_ARGS=tests/unit/test_stack_golden.py` writes the files anew; read the difference.
"""

from pathlib import Path
from typing import Any

import charts
import pytest
import yaml

from ztconform import stacks
from ztconform.kube.helm import Chart
from ztconform.kube.ready import Goal
from ztconform.settings import Settings
from ztconform.stacks import composition, installing
from ztconform.stacks.component import Objects, Step
from ztconform.stacks.composed import ComposedStack

SETTINGS = Settings(run="run")
STACKS = charts.DATA / "stacks"
# Combinations that no listed stack has.
MORE = ("calico+istio:ambient:dual:wireguard", "cilium+linkerd:dual:kpr")


def path_of(name: str) -> Path:
    return STACKS / f"{name.replace('+', '-').replace(':', '-')}.yaml"


def plain(step: Step) -> dict[str, Any]:
    match step:
        case Chart():
            chart = f"{step.repository} {step.name} {step.version}"
            return {"install": step.component, "chart": chart, "namespace": step.namespace, "values": dict(step.values)}
        case Objects():
            return {"apply": step.what, "once": step.once}
        case Goal():
            wants = [f"{want.kind} {want.selector or f'{want.namespace}/{want.name}'}" for want in step.wants]
            return {"await": step.what, "wants": wants}


def composed(name: str) -> dict[str, Any]:
    stack = stacks.find(name)
    assert isinstance(stack, ComposedStack)
    goal = stack.goal(provisioned=True)
    return {
        "kind": {key: value for key, value in stack.kind_config(SETTINGS).items() if key != "nodes"},
        "kernel": [need.what for need in stack.kernel],
        "memory": stack.memory,
        "steps": [plain(step) for step in stack.steps(SETTINGS)],
        "ready": plain(goal),
    }


@pytest.mark.parametrize("name", [*composition.LISTED, *MORE])
def test_kind_and_helm_are_told_the_same_as_before(name: str) -> None:
    found = composed(name)
    path = path_of(name)
    if charts.REGENERATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(found, sort_keys=False, width=120)
        path.write_text(
            f"# SPDX-License-Identifier: Apache-2.0\n# The stack {name}; see tests/unit/test_stack_golden.py.\n{text}",
            encoding="utf-8",
        )
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == yaml.safe_load(yaml.safe_dump(found))


def test_there_is_no_golden_file_of_a_stack_that_is_none() -> None:
    assert {path_of(name) for name in [*composition.LISTED, *MORE]} == set(STACKS.glob("*.yaml"))


@pytest.mark.parametrize("name", composition.LISTED)
def test_a_kept_cluster_is_the_same_for_the_next_run_and_another_for_other_values(name: str, tmp_path: Path) -> None:
    stack = stacks.find(name)
    assert isinstance(stack, ComposedStack)
    kept = Settings(run="a", keep=True)
    again = Settings(run="b", keep=True)
    assert installing.content(stack.steps(kept)) == installing.content(stack.steps(again))
    needed = installing.charts(stack.steps(kept))
    if needed:
        file = tmp_path / "values.yaml"
        file.write_text("a: 1\n", encoding="utf-8")
        other = Settings(run="a", keep=True, values={needed[-1].component: file})
        assert installing.content(stack.steps(kept)) != installing.content(stack.steps(other))
