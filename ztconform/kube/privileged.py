# SPDX-License-Identifier: Apache-2.0
"""What our helpers that need their node get, and who may have one: a namespace that admits them, and a look at a node's wire.

When they are made and removed is left to `cluster`; what a capture takes, to the agent that looks.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from ztconform.errors import ClusterError, UsageError
from ztconform.kube import objects
from ztconform.kube.deploying import Deployment
from ztconform.kube.link import Link, LinkError, OpenPipe
from ztconform.kube.nodes import Nodes
from ztconform.kube.pods import KubePod
from ztconform.model import PRIVILEGED, Ref, Topology, Workload

NOTE = f"--ztc-privileged: helpers were permitted on the nodes' own network, in namespaces {PRIVILEGED}-*"
_GREETING = 15.0  # seconds
_ANSWER = 30.0  # seconds for the packets to come, once they were taken
_ONE_NODE = "no policy can keep a pod's own node out, and here our pods have one node alone"


def features(of_the_stack: Mapping[str, str], nodes: int) -> Mapping[str, str]:
    """Return a stack's features as they are on so many nodes."""
    alone = nodes < 2 and of_the_stack.get("host-network") == ""
    return {**of_the_stack, "host-network": _ONE_NODE} if alone else of_the_stack


def demand(what: str, *, permitted: bool) -> None:
    """Raise UsageError for what needs a pod on its node's own network, where such are not permitted."""
    if not permitted:
        raise UsageError(f"{what} needs a pod on its node's own network, which --ztc-privileged permits; nothing was created")


def admitted(topology: Topology, *, permitted: bool) -> Topology:
    """Return the topology with the namespace of its clients on their node's own network, where it has any.

    Raises UsageError where they are not permitted, for one that is more than a client, and for anything else in that namespace.
    """
    for workload in topology.workloads:
        if workload.host_network is not (workload.ref.namespace == PRIVILEGED):
            raise UsageError(
                f"workload {workload.ref}: clients on their node's own network, and nothing else, are in {PRIVILEGED}"
            )
        if workload.host_network:
            demand(f"workload {workload.ref}", permitted=permitted)
            if workload.ports or workload.meshed:
                raise UsageError(f"workload {workload.ref}: on its node's own network it neither serves ports nor is meshed")
    if not any(workload.host_network for workload in topology.workloads):
        return topology
    return replace(topology, namespaces={**topology.namespaces, PRIVILEGED: objects.privileged()})


def looking(*args: Any, **options: Any) -> objects.Object:
    """Return a pod as `objects.pod` makes it, with the one capability that a look at packets needs: root alone can have it."""
    made = objects.pod(*args, **options)
    made["spec"]["securityContext"] |= {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0}
    made["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] = ["NET_RAW"]
    return made


def capture(pod: KubePod, nodes: Nodes, helpers: Deployment, opener: Callable[[KubePod], OpenPipe], seconds: float) -> bytes:
    """Return what goes over the wire of a pod's node to or from the pod for so many seconds, as pcap.

    Makes the pod that looks, and leaves it to be removed with `helpers`. Raises UsageError for a pod that has no address of its
    own there, and ClusterError where packets could not be had or not all of them.
    """
    if pod.node is None or pod.workload.host_network:
        raise UsageError(f"{pod.ref} shares its address with others, whose packets are not ours to take")
    who = Ref(PRIVILEGED, f"capture-{pod.node}")
    watchman = Workload(ref=who, node=pod.node, host_network=True)
    helpers.create(Topology(namespaces={PRIVILEGED: objects.privileged()}, workloads=(watchman,)))
    (helper,) = helpers.pods_of(who)
    answer = _asked(Link(str(helper.ref), opener(helper)), nodes.addresses[nodes.used[pod.node]], pod, seconds)
    if answer["lost"] or answer["full"]:
        why = f"{answer['lost']} packets were lost" if answer["lost"] else "more came than a capture holds"
        raise ClusterError(f"the capture at {pod.ref} is not whole ({why}): send less meanwhile, or for a shorter time")
    return base64.b64decode(answer["pcap"])


def _asked(link: Link, interface: str, pod: KubePod, seconds: float) -> Mapping[str, Any]:
    addresses = [address for address in pod.addresses if ":" not in address]
    try:
        link.greeted.result(monotonic() + _GREETING)
        asked = link.ask("capture", interface=interface, addresses=addresses, seconds=seconds)
        return asked.result(monotonic() + seconds + _ANSWER)
    except LinkError as error:
        raise ClusterError(f"packets at {pod.ref} could not be had: {error}") from None
    finally:
        link.close()
