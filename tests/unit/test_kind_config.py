# SPDX-License-Identifier: Apache-2.0
"""What kind is told: ours, the stack's needs and the user's file as one, or one line that says what is wrong with that file."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ztconform.errors import UsageError
from ztconform.kube import kindconfig

HEAD = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"
NEEDS = {"networking": {"disableDefaultCNI": True}}
LABELS = {"ztconform.io/run": "r1"}


def extra(folder: Path, text: str) -> kindconfig.Extra:
    path = folder / "mine.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return kindconfig.read(path)


def test_without_a_file_there_are_three_labelled_nodes_without_a_cni() -> None:
    config = kindconfig.compose(NEEDS, None, LABELS)
    assert ["control-plane", "worker", "worker"] == [node["role"] for node in config["nodes"]]
    assert [LABELS] * 3 == [node["labels"] for node in config["nodes"]]
    assert {"podSubnet": "10.244.0.0/16", "disableDefaultCNI": True} == config["networking"]


def test_fields_of_the_users_are_merged_and_its_nodes_stand_in_place_of_ours(tmp_path: Path) -> None:
    text = """\
featureGates: {KubeletInUserNamespace: true}
networking: {podSubnet: 10.9.0.0/16, ipFamily: ipv4}
containerdConfigPatches: [mirror]
nodes:
- role: control-plane
  labels: {tier: one}
- role: worker
  extraMounts: [{hostPath: /a, containerPath: /b}]
"""
    config = kindconfig.compose({**NEEDS, "containerdConfigPatches": ["ours"]}, extra(tmp_path, text), LABELS)
    assert {"KubeletInUserNamespace": True} == config["featureGates"]
    assert {"podSubnet": "10.9.0.0/16", "ipFamily": "ipv4", "disableDefaultCNI": True} == config["networking"]
    assert ["ours", "mirror"] == config["containerdConfigPatches"]
    assert ["control-plane", "worker"] == [node["role"] for node in config["nodes"]]
    assert {"tier": "one", **LABELS} == config["nodes"][0]["labels"]
    assert [{"hostPath": "/a", "containerPath": "/b"}] == config["nodes"][1]["extraMounts"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("networking: {disableDefaultCNI: false}\n", ":3: networking.disableDefaultCNI: this stack needs true"),
        ("name: mine\n", ":3: name: ztconform names its clusters itself"),
        ("\nfeatureGates: [a]\n", ":4: featureGates: must be a mapping"),
        ("containerdConfigPatches: a\n", ":3: containerdConfigPatches: must be a list"),
        ("nodes: 3\n", ":3: nodes: must be a list of mappings"),
        ("nodes: []\n", ":3: nodes: must be a list of mappings"),
        ("nodes: [{role: boss}]\n", ":3: nodes.0.role: must be control-plane or worker"),
        ("nodes: [{role: worker}]\n", ":3: nodes: one of them must be a control-plane"),
        ("nodes: [{role: control-plane, labels: [a]}]\n", ":3: nodes.0.labels: must be a mapping"),
        ("nodes: [{role: control-plane, kubeadmConfigPatches: a}]\n", ":3: nodes.0.kubeadmConfigPatches: must be a list"),
        ("networking: {a: [}\n", ":3: is not YAML"),
    ],
)
def test_a_wrong_file_is_one_line_with_file_line_and_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        kindconfig.compose(NEEDS, extra(tmp_path, text), LABELS)
    assert f"--ztc-kind-config {tmp_path / 'mine.yaml'}{said}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Pod\napiVersion: v1\n", ":1: kind: must be Cluster, not Pod"),
        ("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha3\n", ":2: apiVersion: must be kind.x-k8s.io/v1alpha4, not "),
        ("featureGates: {}\n", ":1: kind: must be Cluster"),
        ("- a\n", ":1: a kind configuration is a mapping"),
        ("", ":1: a kind configuration is a mapping"),
    ],
)
def test_a_file_that_is_no_kind_configuration_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        kindconfig.read(path)
    assert f"{path}{said}" in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--ztc-kind-config .*/none.yaml: cannot be read: No such file or directory$"):
        kindconfig.read(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("config", "lifted"),
    [
        ({"nodes": [{}]}, False),
        ({"nodes": [{}], "kubeadmConfigPatches": ["kind: KubeletConfiguration\nfailCgroupV1: false\n"]}, True),
        ({"nodes": [{}], "kubeadmConfigPatches": ["kind: KubeletConfiguration\nfailCgroupV1: true\n"]}, False),
        ({"nodes": [{"kubeadmConfigPatches": ["a: 1\n---\nfailCgroupV1: false\n"]}]}, True),
        ({"nodes": [{}], "kubeadmConfigPatches": ["{"]}, False),
    ],
)
def test_a_patch_that_lets_the_kubelet_start_on_cgroup_v1_is_found(config: dict[str, Any], lifted: bool) -> None:
    assert lifted is kindconfig.lifts_cgroup_1(config)


names = st.sampled_from(["networking", "featureGates", "containerdConfigPatches", "extraMounts", "x"])
values = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
maps = st.dictionaries(names, values, max_size=4)


@given(below=maps, above=maps)
def test_merging_loses_no_field_and_changes_neither_side(below: dict[str, Any], above: dict[str, Any]) -> None:
    before = yaml.safe_dump([below, above])
    merged = kindconfig.merge(below, above)
    assert before == yaml.safe_dump([below, above])
    assert below.keys() | above.keys() == merged.keys()
    for key, value in above.items():
        if not isinstance(value, dict | list):
            assert value == merged[key]


@given(one=maps)
def test_merging_with_nothing_changes_nothing(one: dict[str, Any]) -> None:
    assert one == kindconfig.merge(one, {}) == kindconfig.merge({}, one)
