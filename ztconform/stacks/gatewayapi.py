# SPDX-License-Identifier: Apache-2.0
"""Where the definitions of Gateway API come from, which no chart brings: a file or folder of the user's, or the pinned release.

Who needs them is left to the components: Istio's waypoints do, sidecars and Linkerd do without.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ztconform.errors import ClusterError, UsageError
from ztconform.model import Manifest
from ztconform.settings import Settings
from ztconform.stacks import pins
from ztconform.stacks.component import Objects, Step

KEY = "gateway-api"
CLASSES = "gatewayclasses.gateway.networking.k8s.io"
CRDS = (CLASSES, "gateways.gateway.networking.k8s.io", "httproutes.gateway.networking.k8s.io")
_WITHIN = 30.0  # seconds for the download
# What the release consists of: definitions, and a policy that keeps older ones from replacing them.
_KINDS = frozenset({"CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"})


def steps(settings: Settings, *, needed: bool) -> list[Step]:
    """Return how the definitions get into the cluster; nothing where nobody needs them and the user named none."""
    from ztconform.kube.ready import Goal  # noqa: PLC0415 - the extra may be missing

    path = settings.charts.get(KEY)
    if path is None and not needed:
        return []
    address = _address(settings)
    objects = Objects(
        component=KEY,
        what=f"the definitions of Gateway API from {path or address}",
        make=lambda: read(path) if path else parse(_downloaded(address), address),
        mark=str(path or address),
        check=lambda: _check(path, address),
    )
    return [objects, Goal(what="the definitions of Gateway API", crds=CRDS, cluster=False)]


def read(path: Path) -> Sequence[Manifest]:
    """Return the definitions of a file, or of all YAML files of a folder; raises UsageError where there are none."""
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    found: list[Manifest] = []
    for file in files:
        try:
            found += parse(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--ztc-chart {KEY}={path}: {file.name} cannot be read: {error}") from None
    if not any(one["kind"] == "CustomResourceDefinition" for one in found):
        raise UsageError(
            f"--ztc-chart {KEY}={path}: no custom resource definition in it; give standard-install.yaml of a release"
        )
    return found


def parse(text: str, where: str) -> Sequence[Manifest]:
    """Return the objects of a text that belong to a release; raises UsageError if it is not YAML."""
    try:
        documents: list[Any] = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: is not YAML: {' '.join(str(error).split())[:200]}") from None
    return [document for document in documents if isinstance(document, dict) and document.get("kind") in _KINDS]


def _address(settings: Settings) -> str:
    pin = pins.load().files[KEY]
    version = settings.chart_versions.get(KEY) or pin.version
    url = settings.chart_repositories.get(KEY) or pin.url
    return url.format(version=version)


def _check(path: Path | None, address: str) -> None:
    if path is not None:
        read(path)
        return
    import requests  # noqa: PLC0415 - the extra may be missing

    try:
        answer = requests.head(address, timeout=_WITHIN, allow_redirects=True)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise _unreachable(address, error) from None


def _downloaded(address: str) -> str:
    import requests  # noqa: PLC0415 - the extra may be missing

    try:
        answer = requests.get(address, timeout=_WITHIN)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise _unreachable(address, error) from None
    return answer.text


def _unreachable(address: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"{address} cannot be had ({' '.join(str(error).split())[:200]}): name a file or folder with the definitions of "
        f"Gateway API by --ztc-chart {KEY}=PATH, or another place by --ztc-chart-repository {KEY}=URL"
    )
