# SPDX-License-Identifier: Apache-2.0
"""What components need because of each other: a few values and objects, in this one place.

What each needs by itself is left to it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ztconform.model import Manifest
from ztconform.stacks.component import Composition, Objects, Step
from ztconform.stacks.composition import PARTS

# https://istio.io/latest/docs/ambient/usage/networkpolicy/: ambient gives the kubelet's probes this address, so that they pass by
# ztunnel, and Cilium, which takes them for traffic of the world, must let them in.
PROBES = "169.254.7.127/32"


def values(key: str, stack: Composition) -> Mapping[str, Any]:
    """Return what a stack adds to the values of the chart of this key, because of what else is in it."""
    meshed = any(PARTS[part] == "mesh" for part in stack.parts)
    match key:
        case "cilium" if meshed:
            # https://docs.cilium.io/en/v1.19/network/servicemesh/istio/: room for other CNI plugins, sockets balanced for the
            # host alone, and no masquerading by eBPF, which ambient's probes do not survive. L7 is left to the mesh.
            return {"cni": {"exclusive": False}, "socketLB": {"hostNamespaceOnly": True}, "bpf": {"masquerade": False}}
        case "istiod" if "dual" in stack.options:
            # https://istio.io/latest/docs/setup/additional-setup/dual-stack/
            both = {"ISTIO_DUAL_STACK": "true"}
            return {"env": both, "meshConfig": {"defaultConfig": {"proxyMetadata": both}}}
        case "linkerd-control-plane" if "dual" in stack.options:
            return {"disableIPv6": False}
        case _:
            return {}


def steps(stack: Composition) -> Sequence[Step]:
    """Return what is installed once all components are."""
    if "cilium" in stack.parts and "ambient" in stack.options:
        what = "a policy that lets the kubelet's probes into ambient pods"
        return (Objects(component="cilium", what=what, make=lambda: (probes_policy(),), mark=PROBES),)
    return ()


def probes_policy() -> Manifest:
    """Return the policy that lets the kubelet's probes into every pod, and isolates none."""
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "ztconform-ambient-probes"},
        "spec": {
            "description": "Lets kubelet's probes, which ambient gives an address of its own, into every pod",
            "enableDefaultDeny": {"egress": False, "ingress": False},
            "endpointSelector": {},
            "ingress": [{"fromCIDR": [PROBES]}],
        },
    }
