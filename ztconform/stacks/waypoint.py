# SPDX-License-Identifier: Apache-2.0
"""The waypoint that a namespace of ours gets in Istio's ambient mode: what it is made of, and what it lets be proved.

Checked against release-1.30: who makes it (pilot/pkg/config/kube/gatewaycommon/deploymentcontroller.go), from which template
(manifests/charts/istio-control/istio-discovery/files/waypoint.yaml), and its listeners (listener_waypoint.go).
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from ztconform.model import Manifest
from ztconform.stacks import istiolog, istiomesh

if TYPE_CHECKING:
    from ztconform.settings import PodOptions

NAME = "waypoint"  # istioctl's own, and that of its pods' account: the manifests of the dialect istio-waypoint name both
CLASS = "istio-waypoint"
SERVICE_LABELS: Mapping[str, str] = {"istio.io/use-waypoint": NAME}
ONE_BETWEEN = "behind a waypoint every call comes from the waypoint: the network does not see who called"
_OVERLAY = "ztconform-waypoint"
_TOLD_SINCE = (1, 30)  # versions of Istio in which a waypoint can tell the application who called (istio/istio#54995)


def objects(namespace: str, options: "PodOptions", revision: str = "") -> tuple[Manifest, ...]:
    """Return a waypoint for the Services of a namespace: small, soon gone, and by the Pod Security Standard `restricted`.

    A control plane that has a revision makes those alone that name it.
    """
    whose = {"istio.io/rev": revision} if revision else {}
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": 2,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": istiomesh.PROXY, "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}],
        "tolerations": [dict(toleration) for toleration in options.tolerations],
    }
    if options.node_selector:
        spec["nodeSelector"] = dict(options.node_selector)
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret.partition("/")[2]}]
    overlay = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _OVERLAY, "namespace": namespace},
        "data": {"deployment": yaml.safe_dump({"spec": {"template": {"spec": spec}}})},
    }
    gateway = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": NAME, "namespace": namespace, "labels": {"istio.io/waypoint-for": "service", **whose}},
        "spec": {
            "gatewayClassName": CLASS,
            "infrastructure": {
                "annotations": {"ambient.istio.io/xfcc-include-client-identity": "true"},
                # In place of the Gateway's own, by which its pods would be taken for some of ours.
                "labels": {"app": NAME},
                "parametersRef": {"group": "", "kind": "ConfigMap", "name": _OVERLAY},
            },
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }
    return overlay, gateway


def features(config: Mapping[str, Any], version: str, *, lacking: str = "") -> Mapping[str, str]:
    """Return what waypoints add to what a stack can prove, each with "" or the reason why not.

    `config` is the mesh's, `version` Istio's; `lacking` says why none can be made.
    """
    unlogged = lacking or istiolog.unlogged(config)
    known = re.match(r"(\d+)\.(\d+)", version)
    told = known is None or (int(known[1]), int(known[2])) >= _TOLD_SINCE
    untold = f"waypoints of Istio {version} tell an application nothing of who called it: they do since 1.30"
    return {
        "l7-authz": unlogged,
        "identity": lacking or ("" if told else untold),
        "dotted-accounts": unlogged,
        "authorization-dry-run": unlogged or ("" if istiolog.is_ours(config) else istiolog.NO_DRY_RUNS),
        "waypoint": lacking,
        "direct-calls": ONE_BETWEEN,
    }
