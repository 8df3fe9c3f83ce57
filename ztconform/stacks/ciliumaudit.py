# SPDX-License-Identifier: Apache-2.0
"""Cilium's policy audit mode, of single pods: what their policies would deny is let through, and logged with the verdict AUDIT.

It is an option of a pod's endpoint (https://docs.cilium.io/en/v1.19/security/policy-creation/, "Enable Policy Audit Mode
(Specific Endpoint)"): it ends with the pod, and no other pod's policies are touched.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
    for pod, node in pods.items():
        if node not in agents:
            raise ClusterError(f"no agent of Cilium runs on node {node}, and so pod {pod} cannot be audited")
        option = f"PolicyAuditMode={'Enabled' if on else 'Disabled'}"
        command = ("cilium-dbg", "endpoint", "config", f"cep-name:{pod.namespace}/{pod.name}", option)
        output(connection, (NAMESPACE, agents[node]), "cilium-agent", command, _SECONDS)
