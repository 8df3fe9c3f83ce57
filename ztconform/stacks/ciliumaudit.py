# SPDX-License-Identifier: Apache-2.0
"""Cilium's policy audit mode, of single pods: what their policies would deny is let through, and logged with the verdict AUDIT.

It is an option of a pod's endpoint (https://docs.cilium.io/en/v1.19/security/policy-creation/, "Enable Policy Audit Mode
(Specific Endpoint)"): it ends with the pod, and no other pod's policies are touched.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztconform.errors import ClusterError
from ztconform.model import Ref

if TYPE_CHECKING:
    from ztconform.kube.client import Connection

_SECONDS = 30.0  # for one endpoint's option to be taken: its program may have to be made anew


def audit(connection: "Connection", pods: Mapping[Ref, str], on: bool) -> None:
    """Have the policies of these pods only logged, or enforced again; each is given with the name of its node.

    Raises ClusterError where an agent cannot be asked, or refuses.
    """
    from ztconform.kube.pipes import output  # noqa: PLC0415 - the extra may be missing
    from ztconform.kube.resources import Resources  # noqa: PLC0415 - likewise
    from ztconform.stacks.cilium import NAMESPACE  # noqa: PLC0415 - it imports this module

    found = Resources(connection).items(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector="k8s-app=cilium")
    agents = {agent["spec"].get("nodeName"): agent["metadata"]["name"] for agent in found}
    for node in sorted(set(pods.values())):
        mine = [pod for pod, where in pods.items() if where == node]
        if node not in agents:
            raise ClusterError(f"no agent of Cilium runs on node {node}, and so pod {mine[0]} cannot be audited")

        def ask(*words: str, agent: str = agents[node]) -> bytes:
            return output(connection, (NAMESPACE, agent), "cilium-agent", ("cilium-dbg", "endpoint", *words), _SECONDS)

        listed = json.loads(ask("list", "--output", "json"))
        for pod in mine:
            identifier = endpoint(listed, pod)
            if not identifier:
                raise ClusterError(f"Cilium has no endpoint for pod {pod} on node {node}, and so it cannot be audited")
            ask("config", identifier, f"PolicyAuditMode={'Enabled' if on else 'Disabled'}")


def endpoint(listed: Sequence[Mapping[str, Any]], pod: Ref) -> str:
    """Return by what an agent knows the endpoint of a pod, of what its `endpoint list` says; "" where it has none."""
    name = f"{pod.namespace}/{pod.name}"
    named = (one for one in listed if ((one.get("status") or {}).get("external-identifiers") or {}).get("pod-name") == name)
    return next((str(one["id"]) for one in named), "")
