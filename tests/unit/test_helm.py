# SPDX-License-Identifier: Apache-2.0
"""What helm is told about a chart, and what becomes of its complaints; that helm does it is shown in tests/kube."""

from pathlib import Path

import pytest

from ztconform.errors import UsageError
from ztconform.kube import helm
from ztconform.kube.helm import Chart

PUBLIC = Chart(component="cilium", namespace="kube-system", name="cilium", repository="https://helm.example", version="1.2.3")


def own(path: Path, *files: Path) -> Chart:
    return Chart(component="cilium", namespace="kube-system", path=path, files=files)


def test_a_public_chart_is_named_with_its_repository_and_version() -> None:
    assert ["cilium", "--repo", "https://helm.example", "--version", "1.2.3"] == list(PUBLIC.source)
    assert "https://helm.example cilium 1.2.3" == str(PUBLIC)


def test_a_chart_of_an_oci_registry_is_named_by_its_whole_address() -> None:
    chart = Chart(component="istiod", namespace="a", name="istiod", repository="oci://ghcr.io/istio/charts/", version="1.30.3")
    assert ["oci://ghcr.io/istio/charts/istiod", "--version", "1.30.3"] == list(chart.source)


def test_a_chart_of_the_users_stands_in_its_place(tmp_path: Path) -> None:
    assert [str(tmp_path)] == list(own(tmp_path).source)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ('Error: execution error at (x.yaml:5:3): "a" is required\n', 'execution error at (x.yaml:5:3): "a" is required'),
        ("WARNING: file is group-readable\nError: INSTALLATION FAILED: x\n\nUse --debug\n", "INSTALLATION FAILED: x"),
        ("level=WARN msg=x\n", "level=WARN msg=x"),
        ("", "it does not say why"),
    ],
)
def test_of_helms_output_the_error_is_told(said: str, line: str) -> None:
    assert line == helm.complaint(said)


def test_a_chart_that_is_not_there_or_is_none_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--ztc-chart cilium=.*/none: there is no such folder or archive$"):
        helm.check(own(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"^--ztc-chart cilium=.*: this folder has no Chart.yaml$"):
        helm.check(own(tmp_path))
    (tmp_path / "Chart.yaml").touch()
    helm.check(own(tmp_path))
    helm.check(own(tmp_path / "Chart.yaml"))  # an archive: any file may be one


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [\n", "is not YAML (line 2): "),
        ("- a\n", "helm values are a mapping"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_values_that_are_not_there_or_are_none_are_a_usage_error(tmp_path: Path, text: str | None, said: str) -> None:
    (tmp_path / "Chart.yaml").touch()
    path = tmp_path / "values.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        helm.check(own(tmp_path, path))
    assert f"--ztc-values cilium={path}: {said}" in str(caught.value)


def test_empty_values_are_values(tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").touch()
    (tmp_path / "values.yaml").touch()
    helm.check(own(tmp_path, tmp_path / "values.yaml"))
