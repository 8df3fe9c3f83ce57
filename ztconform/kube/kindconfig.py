# SPDX-License-Identifier: Apache-2.0
"""The configuration that kind gets: ours, with what a user's file adds to it; pure but for reading that file.

Fields that neither knows are left to kind, which refuses them by name.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ztconform.errors import UsageError

KIND, API_VERSION = "Cluster", "kind.x-k8s.io/v1alpha4"
OPTION = "--ztc-kind-config"

# Lists of patches, to which both sides add; every other list of the user's stands in place of ours.
_APPENDED = frozenset(
    {"kubeadmConfigPatches", "kubeadmConfigPatchesJSON6902", "containerdConfigPatches", "containerdConfigPatchesJSON6902"}
)
_MAPS = frozenset({"networking", "featureGates", "runtimeConfig"})
_NODE_ROLES = frozenset({"control-plane", "worker"})


@dataclass(frozen=True, slots=True)
class Extra:
    """Hold a user's file: what it says, and where in it each top-level field stands."""

    path: Path
    value: Mapping[str, Any]
    lines: Mapping[str, int]

    def fault(self, field: str, what: str) -> UsageError:
        """Return the error that names file, line and field."""
        return UsageError(f"{OPTION} {self.path}:{self.lines.get(field.partition('.')[0], 1)}: {field}: {what}")


def read(path: Path) -> Extra:
    """Return a user's file, or raise UsageError with file and line if it is no kind configuration."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{OPTION} {path}: cannot be read: {why}") from None
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UsageError(f"{OPTION} {path}{line}: is not YAML: {problem}") from None
    if not isinstance(value, dict) or not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{OPTION} {path}:1: a kind configuration is a mapping with kind and apiVersion")
    lines = {str(key.value): key.start_mark.line + 1 for key, _ in node.value}
    extra = Extra(path, value, lines)
    _check(extra)
    return extra


def compose(needs: Mapping[str, Any], extra: Extra | None, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return ours (one control plane and two workers) with a stack's needs, the user's fields, and these labels on every node.

    Raises UsageError where the user's file contradicts what the stack needs.
    """
    own: dict[str, Any] = {
        "kind": KIND,
        "apiVersion": API_VERSION,
        # Two workers: what is encrypted is judged between two nodes, and a denial is probed within a node and across.
        "nodes": [{"role": "control-plane"}, {"role": "worker"}, {"role": "worker"}],
        "networking": {"podSubnet": "10.244.0.0/16"},
    }
    whole = merge(own, needs)
    if extra is not None:
        for path, wanted in _leaves(needs):
            said = _at(extra.value, path)
            if said is not None and said != wanted and path[0] not in _APPENDED:
                raise extra.fault(".".join(path), f"this stack needs {_shown(wanted)}")
        whole = merge(whole, extra.value)
    for node in whole["nodes"]:
        node["labels"] = {**(node.get("labels") or {}), **labels}
    return whole


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return two configurations as one, in which `above` wins; lists of patches are joined."""
    result = copy.deepcopy(dict(below))
    for key, value in above.items():
        there = result.get(key)
        if isinstance(there, dict) and isinstance(value, Mapping):
            result[key] = merge(there, value)
        elif key in _APPENDED and isinstance(there, list) and isinstance(value, Sequence):
            result[key] = [*there, *copy.deepcopy(list(value))]
        else:
            result[key] = copy.deepcopy(value)
    return result


def lifts_cgroup_1(config: Mapping[str, Any]) -> bool:
    """Return whether a patch in the configuration lets the kubelet start on cgroup v1."""
    patches = [config.get("kubeadmConfigPatches") or [], *(node.get("kubeadmConfigPatches") or [] for node in config["nodes"])]
    for patch in (one for some in patches for one in some if isinstance(one, str)):
        try:
            documents = list(yaml.safe_load_all(patch))
        except yaml.YAMLError:  # kind says so itself
            continue
        if any(isinstance(document, dict) and document.get("failCgroupV1") is False for document in documents):
            return True
    return False


def _check(extra: Extra) -> None:
    value = extra.value
    for field, want in (("kind", KIND), ("apiVersion", API_VERSION)):
        if value.get(field) != want:
            raise extra.fault(field, f"must be {want}" + (f", not {_shown(value[field])}" if field in value else ""))
    if "name" in value:
        raise extra.fault("name", "ztconform names its clusters itself; leave this field out")
    for field in _APPENDED & value.keys():
        if not isinstance(value[field], list):
            raise extra.fault(field, "must be a list")
    for field in _MAPS & value.keys():
        if not isinstance(value[field], dict):
            raise extra.fault(field, "must be a mapping")
    if "nodes" in value:
        _check_nodes(extra, value["nodes"])


def _check_nodes(extra: Extra, nodes: Any) -> None:
    if not isinstance(nodes, list) or not nodes or not all(isinstance(node, dict) for node in nodes):
        raise extra.fault("nodes", "must be a list of mappings, each with a role")
    for number, node in enumerate(nodes):
        if node.get("role") not in _NODE_ROLES:
            raise extra.fault(f"nodes.{number}.role", "must be control-plane or worker")
        if not isinstance(node.get("labels", {}), dict):
            raise extra.fault(f"nodes.{number}.labels", "must be a mapping")
        if not isinstance(node.get("kubeadmConfigPatches", []), list):
            raise extra.fault(f"nodes.{number}.kubeadmConfigPatches", "must be a list")
    if not any(node["role"] == "control-plane" for node in nodes):
        raise extra.fault("nodes", "one of them must be a control-plane")


def _leaves(value: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, (*above, key))
        else:
            yield (*above, key), inner


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
