# SPDX-License-Identifier: Apache-2.0
"""What `ztconform run` and `verify` say of real clusters: of Cilium, and of a CNI that enforces nothing."""

import json
import re
from pathlib import Path

import pytest
from kube_clusters import ROOT, Ready, options_of, settings_of, ztconform

# All that need no mesh: what NetworkPolicy says, who denied, and how soon.
OF_THE_NETWORK = {"N01", "N02", "N03", "N04", "N05", "N06", "N11", "N13", "N14", "N16", "R09", "U01", "U05"}


def existing(cluster: Ready) -> list[str]:
    own = cluster.settings.pods.agent_image
    return [
        *(f"--context={cluster.context}", f"--kubeconfig={cluster.kubeconfig}"),
        *([f"--agent-image={own}"] if own else []),
    ]


def outcomes(folder: Path) -> dict[str, str]:
    report = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))
    return {found["id"]: found["outcome"] for found in report["requirements"]}


@pytest.mark.usefixtures("nothing_left")
def test_every_requirement_that_needs_no_mesh_is_proved_on_cilium(cilium: Ready, tmp_path: Path) -> None:
    done = ztconform("run", "-n2", f"--report={tmp_path}", *existing(cilium), "--", "--ztc-outsider=docker:kind", timeout=800)
    print(done.stdout)
    found = outcomes(tmp_path)
    assert {"PROVED"} == {found[name] for name in OF_THE_NETWORK}
    assert {"NOT_SUPPORTED"} == {outcome for name, outcome in found.items() if name not in OF_THE_NETWORK}
    assert 0 == done.returncode
    assert "ztconform on cilium" in done.stdout, "the stack was not detected"
    assert "Cilium does not match pods by ipBlock" in " ".join(done.stdout.split())
    assert re.search(r"Time: .*workloads \d+.*converge \d+.*hold \d+.*release \d+", " ".join(done.stdout.split()))


@pytest.mark.usefixtures("nothing_left")
def test_without_a_host_outside_those_requirements_are_not_supported_with_that_reason(cilium: Ready, tmp_path: Path) -> None:
    done = ztconform("run", f"--report={tmp_path}", "--requirement=N13", *existing(cilium))
    assert {"N13": "NOT_SUPPORTED"} == outcomes(tmp_path)
    assert "no host outside this cluster is known" in " ".join(done.stdout.split())


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("name", ["namespace-isolated", "payment-only-from-checkout"])
def test_a_case_file_is_proved_on_a_cluster_as_it_is_in_the_lab(cilium: Ready, name: str) -> None:
    file = str(ROOT / "examples" / f"{name}.ztc.yaml")
    done = ztconform("verify", file, *existing(cilium), "--", "--ztc-outsider=docker:kind")
    print(done.stdout)
    assert 0 == done.returncode
    assert "1 case: 1 PROVED" in done.stdout


@pytest.mark.usefixtures("nothing_left")
def test_rows_of_a_case_file_that_speak_of_hosts_outside_are_not_supported_where_there_are_none(
    cilium: Ready, tmp_path: Path
) -> None:
    done = ztconform("verify", str(ROOT / "examples" / "namespace-isolated.ztc.yaml"), f"--report={tmp_path}", *existing(cilium))
    report = json.loads((tmp_path / "conformance.json").read_text(encoding="utf-8"))
    rows = {row["id"]: row["outcome"] for row in report["cases"][0]["rows"]}
    assert {"NOT_SUPPORTED"} == {outcome for name, outcome in rows.items() if "outsider" in name}
    assert {"PROVED"} == {outcome for name, outcome in rows.items() if "outsider" not in name}
    assert 0 == done.returncode


@pytest.mark.usefixtures("nothing_left")
def test_a_case_file_that_needs_a_mesh_is_one_line_where_there_is_none(cilium: Ready) -> None:
    done = ztconform("verify", str(ROOT / "examples" / "permissive-to-strict.ztc.yaml"), *existing(cilium))
    assert done.returncode in (2, 3)
    assert "is to be meshed: this stack has no service mesh" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr


def test_a_cni_that_enforces_nothing_is_one_clear_red(plain_command: str, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    own = [option for option in options_of(settings) if "cilium" not in option]
    done = ztconform("run", "--stack=custom", f"--cni-command={plain_command}", f"--report={tmp_path}", "--", *own)
    print(done.stdout)
    said = " ".join(done.stdout.split())
    assert 1 == done.returncode
    assert "this cluster's CNI enforces no NetworkPolicy" in said
    assert {"NOT_RUN", "NOT_SUPPORTED"} >= set(outcomes(tmp_path).values())
    assert 1 == said.count("until it passes no denial means anything")
    seconds = re.search(r"canary (\d+(?:\.\d)?) s", said)
    assert seconds is not None and float(seconds[1]) < 60
