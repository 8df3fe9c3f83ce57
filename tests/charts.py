# SPDX-License-Identifier: Apache-2.0
"""The stacks' charts for tests: where ZTC_TEST_<KEY>_CHART says that one is, what it renders to, and what of that is recorded.

A chart may be the released one or its source: sources have no version of their own yet, for which the pinned one is put in.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ztconform.kube import helm, machine
from ztconform.kube.helm import Chart
from ztconform.stacks import pins
from ztconform.stacks.images import of_manifests

DATA = Path(__file__).parent / "unit" / "data"
REGENERATE = os.environ.get("ZTC_TEST_GOLDEN") == "write"  # make test PYTEST_ARGS=... with this writes what was compared
PREFIX = "ZTC_TEST_"

# As the sources' own values have it -> what the release puts there.
_RELEASED = {
    "/istio/pilot:latest": "/istio/pilot:1.30.3",
    "/istio/install-cni:latest": "/istio/install-cni:1.30.3",
    "/istio/ztunnel:latest": "/istio/ztunnel:1.30.3",
    "linkerdVersionValue": "edge-26.8.3",
}
_RENDERED: dict[str, list[dict[str, Any]]] = {}  # by chart and values
_WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")
# Settings that detection and findings read, of ConfigMaps that hold many more.
_READ = {
    "cilium-config": (
        "enable-hubble", "enable-ipv4", "enable-ipv6", "enable-l7-proxy", "enable-policy", "enable-wireguard",
        "kube-proxy-replacement", "policy-audit-mode", "routing-mode", "tunnel-protocol",
    ),
    "istio": ("mesh",),
    "linkerd-config": ("values",),
}  # fmt: skip
_LINKERD = ("linkerdVersion", "clusterDomain", "identityTrustDomain", "identity")


def variable(key: str) -> str:
    return f"{PREFIX}{key.upper().replace('-', '_')}_CHART"


def given() -> dict[str, Path]:
    """Return the charts that the environment names."""
    keys = [*pins.load().charts, *pins.load().files]
    return {key: Path(os.environ[variable(key)]) for key in keys if os.environ.get(variable(key))}


def needed(keys: Iterable[str]) -> dict[str, Path]:
    """Return the charts of these keys; skips the test, and says what did not render, without them."""
    there = given()
    if lacking := sorted(set(keys) - there.keys()):
        pytest.skip(f"not rendered: {', '.join(variable(key) for key in lacking)} name no chart")
    return there


def rendered(chart: Chart) -> list[dict[str, Any]]:
    """Return what helm makes of a chart, tests and other hooks left out, with the release's words for the sources'."""
    mark = repr(chart)
    if mark not in _RENDERED:
        _RENDERED[mark] = _render(chart)
    return _RENDERED[mark]


def _render(chart: Chart) -> list[dict[str, Any]]:
    text = helm.render(machine.helm(os.environ.get(f"{PREFIX}HELM_BIN") or "helm"), chart)
    for old, new in _RELEASED.items():
        text = text.replace(old, new)
    # Calico's definitions are 3 MB, which the loader that is all Python takes a minute for.
    found = [document for document in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if document]
    return [document for document in found if not _is_hook(document)]


def images(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted(set(of_manifests(documents)))


def recorded(documents: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield of workloads and settings what a stack is known by: names, labels, images."""
    for document in documents:
        metadata = document["metadata"]
        name = {"name": metadata["name"], "namespace": metadata.get("namespace")}
        if document["kind"] in _WORKLOADS:
            spec = document["spec"]
            containers = [{"name": c["name"], "image": c["image"]} for c in spec["template"]["spec"]["containers"]]
            labels = {key: str(value) for key, value in (metadata.get("labels") or {}).items() if not _is_version(key)}
            yield {
                "apiVersion": "apps/v1",
                "kind": document["kind"],
                "metadata": {**name, "labels": labels},
                "spec": {"selector": spec["selector"], "template": {"spec": {"containers": containers}}},
            }
        elif document["kind"] == "ConfigMap" and metadata["name"] in _READ:
            data = {key: document["data"][key] for key in _READ[metadata["name"]] if key in document["data"]}
            yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": _brief(metadata["name"], data)}


def _brief(name: str, data: dict[str, str]) -> dict[str, str]:
    if name != "linkerd-config":
        return data
    values = yaml.safe_load(data["values"])
    kept = {key: values[key] for key in _LINKERD if key in values}
    kept["proxy"] = {"defaultInboundPolicy": values["proxy"]["defaultInboundPolicy"]}
    return {"values": yaml.safe_dump(kept)}


def _is_hook(document: Mapping[str, Any]) -> bool:
    return "helm.sh/hook" in (document["metadata"].get("annotations") or {})


def _is_version(label: str) -> bool:
    return label in ("app.kubernetes.io/version", "helm.sh/chart", "chart", "app.kubernetes.io/managed-by")
