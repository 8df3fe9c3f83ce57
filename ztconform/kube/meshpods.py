# SPDX-License-Identifier: Apache-2.0
"""What makes our objects part of a mesh: labels and annotations of pods, an attacker's second container, what ports speak.

What a mesh asks for is told by its `Mesh`; whether its proxy was really added is checked here too, since a webhook fails open.
"""

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from ztconform.errors import ClusterError
from ztconform.kube.profile import SVID_FOLDER, SVID_VOLUME, Area, Mesh
from ztconform.model import Ref, Workload

PAST = "past"  # the container whose user the mesh does not capture
OWN_FILES = frozenset({"own", "expired"})  # certificates that are read from the pod's own files
# Seconds that the SVID of a pod lives that is to show an expired one: renewed at half of that, so a good one is always there.
BRIEF = 16

Object = dict[str, Any]


def pod_security(mesh: Mesh | None) -> str:
    """Return the Pod Security level of a namespace of ours."""
    return "restricted" if mesh is None else mesh.pod_security


def fitted(pod: Object, workload: Workload, mesh: Mesh, past_command: list[str]) -> Object:
    """Return a pod as the mesh wants it: meshed, with a way past its proxy where its probes need one, or expressly left bare."""
    pod = deepcopy(pod)
    metadata, spec = pod["metadata"], pod["spec"]
    if not workload.meshed:
        metadata["labels"] |= mesh.bare_labels
        return pod
    metadata["labels"] |= mesh.meshed_labels
    metadata["annotations"] = {**metadata.get("annotations", {}), **mesh.annotations}
    if mesh.identity_header:
        *command, told = spec["containers"][0]["command"]
        spec["containers"][0]["command"] = [*command, json.dumps({**json.loads(told), "identity": mesh.identity_header})]
    if not workload.past_proxy or not mesh.proxy:
        return pod
    past = deepcopy(spec["containers"][0])
    past |= {"name": PAST, "command": past_command, "ports": []}
    past["securityContext"] |= {"runAsUser": mesh.proxy_uid, "runAsGroup": mesh.proxy_uid}
    del past["readinessProbe"]
    if OWN_FILES & set(workload.past_proxy):
        metadata["annotations"] |= mesh.svid_annotations(BRIEF if "expired" in workload.past_proxy else 0)
        spec["volumes"].append({"name": SVID_VOLUME, "emptyDir": {"medium": "Memory"}})
        past["volumeMounts"].append({"name": SVID_VOLUME, "mountPath": SVID_FOLDER, "readOnly": True})
    spec["containers"].append(past)
    return pod


def spoken(service: Object, workload: Workload, mesh: Mesh) -> Object:
    """Return a Service whose ports say what they speak, by which the mesh knows how to read them; and behind what waypoint.

    The headless one leaves out the ports that are in no Service: what the mesh knows of them would be more than in real life.
    """
    apps = {(port.number, port.protocol): port.app for port in workload.ports}
    hidden = {(port.number, port.protocol) for port in workload.ports if port.service is None}
    ports = []
    for port in service["spec"]["ports"]:
        key = (port["targetPort"], port["protocol"])
        if key not in hidden:
            app = mesh.app_protocols.get(apps[key])
            ports.append({**port, "appProtocol": app} if app else port)
    metadata = service["metadata"]
    if mesh.waypoint is not None and workload.waypoint and service["spec"].get("clusterIP") != "None":
        metadata = {**metadata, "labels": {**metadata["labels"], **mesh.waypoint.service_labels}}
    return {**service, "metadata": metadata, "spec": {**service["spec"], "ports": ports}}


def waypointed(workloads: Iterable[Workload]) -> frozenset[str]:
    """Return the namespaces that want a waypoint: those with a meshed workload that is called through one."""
    return frozenset(w.ref.namespace for w in workloads if w.meshed and w.waypoint)


def uncaptured(workload: Workload, mesh: Mesh | None) -> Workload | None:
    """Return who sends past a node's proxy for a workload: a pod like its own that is left out of the mesh, and serves nothing.

    In a captured pod nobody can, who may not change its network: a sidecar lets its own user pass, and ztunnel nobody.
    """
    if mesh is None or mesh.proxy or not (workload.meshed and workload.past_proxy):
        return None
    return replace(workload, meshed=False, past_proxy=())


def stolen(workload: Workload) -> list[Workload]:
    """Return who holds the certificates of other accounts that a workload's probes show: pods that really run under them.

    Each has the thief's labels, and serves nothing.
    """
    found = []
    for cert in workload.past_proxy:
        namespace, slash, account = cert.partition("/")
        if slash:
            ref = Ref(namespace or workload.ref.namespace, workload.ref.name)
            found.append(Workload(ref=ref, labels=workload.labels, service_account=account, meshed=True, past_proxy=("own",)))
    return found


def area(namespace: str, real: str, domain: str, workloads: Iterable[Workload], mesh: Mesh) -> Area:
    """Return a namespace as the mesh is told of it, with the accounts that impostors claim to be."""
    pinned = {
        name: f"spiffe://{mesh.trust_domain}/ns/{real}/sa/{workload.service_account}"
        for workload in workloads
        if workload.ref.namespace == namespace and workload.svid_account
        for name in (workload.ref.name, f"{workload.ref.name}-headless")
    }
    return Area(namespace=real, domain=domain, pinned=pinned)


def not_captured(pod: Mapping[str, Any], workload: Workload, mesh: Mesh | None) -> str:
    """Return what a pod lacks that its node's proxy is to capture; raises ClusterError for one that it should not."""
    if mesh is None or mesh.proxy:
        return ""
    key, value = mesh.redirected
    metadata = pod["metadata"]
    captured = (metadata.get("annotations") or {}).get(key) == value
    name = f"pod {metadata['namespace']}/{metadata['name']}"
    if captured and not workload.meshed:
        raise ClusterError(f"{name} is captured by {mesh.name}, although it is labelled not to be")
    return "" if captured or not workload.meshed else f"{name} is not captured: {mesh.name}'s CNI plugin did not act"


def demand_injection(pod: Mapping[str, Any], workload: Workload, mesh: Mesh | None) -> None:
    """Raise ClusterError where a pod has no proxy and should, or has one and should not."""
    if mesh is None or not mesh.proxy:
        return
    spec, metadata = pod["spec"], pod["metadata"]
    names = {c["name"] for c in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]}
    name = f"{metadata['namespace']}/{metadata['name']}"
    if workload.meshed and mesh.proxy not in names:
        raise ClusterError(
            f"pod {name} was not given its proxy, the container {mesh.proxy}: {mesh.name}'s injection webhook did not act, "
            "and it fails open; look at the webhook's selectors and at the control plane's log"
        )
    if not workload.meshed and mesh.proxy in names:
        raise ClusterError(f"pod {name} was given a proxy of {mesh.name}, although it is labelled to have none")
