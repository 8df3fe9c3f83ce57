# SPDX-License-Identifier: Apache-2.0
"""What we create for a topology, as manifests: namespaces, accounts, the agent's ConfigMap, pods and their Services; pure.

Pods meet the Pod Security Standard `restricted`, and our namespaces enforce it; but for those on their node's own network, which
have a namespace of their own. Creating the objects is left to `deploying`.
"""

import base64
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ztconform.agent.wire import HEALTH_PORT
from ztconform.kube import agentpyz
from ztconform.kube.labels import Labels
from ztconform.model import Manifest, Port, Ref, Workload
from ztconform.settings import PodOptions

AGENT = "agent"  # the container, the ConfigMap and the volume
HEADLESS_SUFFIX = "-headless"
COMMAND = ("python3", "-IS", f"/ztconform/{agentpyz.NAME}")
_UID = 10620  # no proxy's: Istio's 1337 and Linkerd's 2102 escape capture
_PRIVILEGED_PORTS = 1024
_PSA = "pod-security.kubernetes.io"
# Until SIGTERM, which the first process of a container does not notice unless it asks for it.
_WAITING = "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, [s.SIGTERM]); s.sigwait([s.SIGTERM])"

Object = dict[str, Any]


def privileged() -> Mapping[str, str]:
    """Return the labels of a namespace that admits pods on their node's own network."""
    return {f"{_PSA}/{mode}": "privileged" for mode in ("enforce", "warn")}


def namespace(
    name: str,
    declared: Mapping[str, str],
    labels: Labels,
    options: PodOptions,
    *,
    level: str = "restricted",
    of_mesh: Mapping[str, str] = MappingProxyType({}),
) -> Object:
    """Return a namespace; what the topology declares of its labels wins over everything but what makes it ours.

    `level` is the Pod Security level that it enforces; what its user labels it with wins over the labels `of_mesh`.
    """
    psa = {f"{_PSA}/{mode}": level for mode in ("enforce", "warn")}
    metadata = {
        "name": name,
        "labels": {**psa, **of_mesh, **options.namespace_labels, **declared, **labels.ours()},
        "annotations": dict(options.namespace_annotations),
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def account(ref: Ref, labels: Labels) -> Object:
    """Return a ServiceAccount."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(ref, labels)}


def agent(namespace: str, labels: Labels) -> Object:
    """Return the ConfigMap that holds the agent, with its digest in a label."""
    metadata = _metadata(Ref(namespace, AGENT), labels)
    metadata["labels"][f"{labels.prefix}/agent-sha256"] = agentpyz.digest()
    packed = base64.b64encode(agentpyz.pack()).decode("ascii")
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": {agentpyz.NAME: packed}}


def serving(pod: str, workload: Workload) -> list[str]:
    """Return the command of a workload's pod, which goes by the name `pod` in what its agent says."""
    ports = [
        {"number": p.number, "protocol": p.protocol, "app": p.app} for p in workload.ports if p.listening and p.protocol != "SCTP"
    ]
    return [*COMMAND, "serve", json.dumps({"pod": pod, "ports": ports, "orders": "socket"})]


def past_serving(pod: str) -> list[str]:
    """Return the command of the agent beside a pod's own: it has no ports, and its health another number."""
    return [*COMMAND, "serve", json.dumps({"pod": pod, "orders": "socket", "health": HEALTH_PORT + 1})]


def orders_command(pod: str, workload: Workload) -> list[str]:
    """Return the command that speaks with the agent of a pod.

    On its node's own network the agent's socket would be anybody's there, and its health port another pod's too. So it runs for a
    conversation alone, and listens nowhere.
    """
    if workload.host_network:
        return [*COMMAND, "serve", json.dumps({"pod": pod, "health": 0})]
    return [*COMMAND, "attach", json.dumps({"pod": pod})]


def probe_command(spec: Mapping[str, Any]) -> list[str]:
    """Return the command that sends one probe."""
    asked = {key: value for key, value in spec.items() if value not in (None, [])}
    return [*COMMAND, "probe", json.dumps({"attempt": "repeat", **asked})]


def pod(ref: Ref, known_as: Ref, workload: Workload, node: str, labels: Labels, options: PodOptions, *, serves: bool) -> Object:
    """Return a pod of a workload on a node.

    One that does not serve has a prober alone, and a readiness gate that nobody opens: it is never an endpoint.
    """
    ports = workload.ports if serves else ()
    container = {
        "name": AGENT,
        "image": options.agent_image,
        "imagePullPolicy": "IfNotPresent",
        "command": serving(str(known_as), workload if serves else Workload(ref=workload.ref)),
        "ports": [_container_port(port) for port in ports],
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": HEALTH_PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
        "resources": {
            "requests": {"cpu": "5m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": AGENT, "mountPath": "/ztconform", "readOnly": True}],
    }
    spec: Object = {
        "containers": [container],
        "volumes": [{"name": AGENT, "configMap": {"name": AGENT}}],
        # A container that could not be started is started again; one that crashes later is known by its new boot ID.
        "restartPolicy": "OnFailure",
        "serviceAccountName": workload.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _UID,
            "runAsGroup": _UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"nodeAffinity": _on(node)},
        "tolerations": [dict(toleration) for toleration in options.tolerations],
    }
    if any(port.number < _PRIVILEGED_PORTS for port in ports):
        # The one sysctl by which a pod without capabilities serves such a port; `restricted` counts it as safe.
        sysctl = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
        spec["securityContext"]["sysctls"] = [sysctl]
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret.partition("/")[2]}]
    if workload.host_network:
        spec["hostNetwork"] = True
        container["command"] = [*COMMAND[:-1], "-c", _WAITING]
        del container["readinessProbe"]
    if not serves:
        spec["readinessGates"] = [{"conditionType": f"{labels.prefix}/serves"}]
    metadata = _metadata(ref, labels)
    metadata["labels"] = {**metadata["labels"], **workload.labels}
    if serves:
        metadata["labels"][labels.workload_key] = workload.ref.name
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def services(workload: Workload, namespace: str, labels: Labels) -> tuple[Object, ...]:
    """Return the Service of the workload's name, and the headless one beside it, as far as its ports call for them."""
    made = []
    through = [(port, port.service) for port in workload.ports if port.service is not None]
    if through:
        made.append(_service(Ref(namespace, workload.ref.name), workload, through, labels))
    if workload.ports:
        headless = _service(
            Ref(namespace, workload.ref.name + HEADLESS_SUFFIX),
            workload,
            [(port, port.number) for port in workload.ports],
            labels,
        )
        headless["spec"]["clusterIP"] = "None"
        made.append(headless)
    return tuple(made)


def labelled(manifest: Manifest, labels: Labels) -> Object:
    """Return a manifest with the labels that make the object ours."""
    metadata = dict(manifest.get("metadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels.ours()}
    return {**manifest, "metadata": metadata}


def _service(ref: Ref, workload: Workload, ports: list[tuple[Port, int]], labels: Labels) -> Object:
    declared = [
        {
            "name": port.name or f"{port.protocol.lower()}-{port.number}",
            "port": number,
            "targetPort": port.number,
            "protocol": port.protocol,
        }
        for port, number in ports
    ]
    spec = {"selector": {labels.workload_key: workload.ref.name}, "ports": declared}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(ref, labels), "spec": spec}


def _metadata(ref: Ref, labels: Labels) -> Object:
    return {"name": ref.name, "namespace": ref.namespace, "labels": dict(labels.ours())}


def _container_port(port: Port) -> Object:
    named = {"name": port.name} if port.name else {}
    return {"containerPort": port.number, "protocol": port.protocol, **named}


def _on(node: str) -> Object:
    """Return the affinity by which the scheduler puts a pod onto one node, and still respects its taints and its room."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
