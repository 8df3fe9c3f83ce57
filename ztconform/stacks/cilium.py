# SPDX-License-Identifier: Apache-2.0
"""The stack `cilium`: Cilium as CNI, from its chart on kind or as it is found; what it enforces, and how that is read from it.

Its flow log is read by `ztconform.kube.hubble`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztconform.errors import ClusterError
from ztconform.settings import Settings
from ztconform.stacks import networkpolicy, pins
from ztconform.stacks.kubernetes import KubernetesStack

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.helm import Chart
    from ztconform.kube.profile import FlowLog, Profile
    from ztconform.kube.ready import Goal

COMPONENT = "cilium"
SELECTED_BY = ("app", "role", "tier")  # labels of the shop's and the canary's pods
NAMESPACE = "kube-system"
CRDS = ("ciliumnetworkpolicies.cilium.io", "ciliumidentities.cilium.io", "ciliumendpoints.cilium.io")

# Two options leave room for a mesh: other CNI plugins may chain behind Cilium, and sockets are balanced for the host alone.
VALUES: Mapping[str, Any] = {
    "ipam": {"mode": "kubernetes"},
    "operator": {"replicas": 1},
    "image": {"pullPolicy": "IfNotPresent"},
    "hubble": {"relay": {"enabled": True}},
    "cni": {"exclusive": False},
    "socketLB": {"hostNamespaceOnly": True},
}
# An image that was loaded from an archive has a tag and no digest.
NO_DIGESTS: Mapping[str, Any] = {
    "image": {"useDigest": False},
    "operator": {"image": {"useDigest": False}},
    "envoy": {"image": {"useDigest": False}},
    "hubble": {"relay": {"image": {"useDigest": False}}},
}


class CiliumStack(KubernetesStack):
    """Start Cilium."""

    name = "cilium"
    summary = "Cilium on kind or on an existing cluster (--ztc-context): NetworkPolicy, with Hubble as witness"

    def charts(self, settings: Settings) -> Sequence["Chart"]:
        """Return Cilium's chart: the pinned one, or the user's."""
        from ztconform.kube.helm import Chart  # noqa: PLC0415 - the extra may be missing
        from ztconform.kube.kindconfig import merge  # noqa: PLC0415 - likewise

        pin = pins.load().charts[COMPONENT]
        file = settings.values.get(COMPONENT)
        return (
            Chart(
                component=COMPONENT,
                namespace=pin.namespace,
                name=pin.name,
                repository=pin.repository,
                version=pin.version,
                path=settings.charts.get(COMPONENT),
                values=merge(VALUES, NO_DIGESTS) if settings.load_images else VALUES,
                files=(file,) if file else (),
            ),
        )

    def goal(self, *, provisioned: bool) -> "Goal":
        """Return Cilium's parts; on kind the cluster too, which is not ready without a CNI."""
        from ztconform.kube.ready import Goal, Want  # noqa: PLC0415 - the extra may be missing

        return Goal(
            wants=(
                Want(kind="daemonset", namespace=NAMESPACE, name="cilium"),
                Want(kind="deployment", namespace=NAMESPACE, name="cilium-operator"),
                Want(kind="daemonset", namespace=NAMESPACE, name="cilium-envoy", optional=True),
                Want(kind="deployment", namespace=NAMESPACE, name="hubble-relay", optional=True),
            ),
            crds=CRDS,
            cluster=provisioned,
        )

    def absence(self, connection: "Connection") -> str:
        """Return why a cluster does not run Cilium; "" if it does."""
        return "" if evidence(connection) else f"it has no daemonset {NAMESPACE}/cilium"

    def demand(self, connection: "Connection") -> None:
        """Raise ClusterError where Cilium's identities leave out labels that policies of ours select by."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        config = inventory.config_map(connection, NAMESPACE, "cilium-config") or {}
        if lost := left_out(config.get("labels", ""), SELECTED_BY):
            raise ClusterError(
                f"Cilium's identities leave out the labels {', '.join(lost)} (labels in the ConfigMap cilium-config), so that "
                "policies cannot select pods by them; add them there"
            )

    def profile(self, connection: "Connection", settings: Settings, kind: str) -> "Profile":
        """Return what Cilium's own settings say that it does."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing
        from ztconform.kube.profile import Profile  # noqa: PLC0415 - likewise

        config = inventory.config_map(connection, NAMESPACE, "cilium-config") or {}
        agent = inventory.rollout(connection, "daemonset", NAMESPACE, "cilium")
        image = agent.images[0] if agent else ""
        return Profile(
            stack=self.name,
            dialects=("kubernetes",),
            features=features(settings, kind, config),
            versions={"kubernetes": inventory.kubernetes_version(connection), **versions(image, config)},
            signatures=networkpolicy.SIGNATURES,
            notes=notes(config),
            kind=kind,
            flows=_flows if _on(config, "enable-hubble") else None,
        )

    def status(self, connection: "Connection") -> str:
        """Return Cilium's settings, the state of its parts, and what keeps its pods from running."""
        from ztconform.kube import inventory, ready  # noqa: PLC0415 - the extra may be missing

        lines = [lack.text for lack in ready.missing(connection, self.goal(provisioned=True))]
        for selector in ("k8s-app=cilium", "io.cilium/app=operator"):
            lines += map(str, inventory.troubles(connection, NAMESPACE, selector))
        config = inventory.config_map(connection, NAMESPACE, "cilium-config") or {}
        lines += [f"{key}: {value}" for key, value in sorted(config.items())]
        return "".join(f"{line}\n" for line in lines)


def left_out(filters: str, keys: Sequence[str]) -> list[str]:
    """Return which label keys a filter of Cilium keeps out of identities.

    A filter is a list of regular expressions that begin a label, "!" in front of one that excludes; with one that includes, all
    else is left out (https://docs.cilium.io/en/v1.19/operations/performance/scalability/identity-relevant-labels/).
    """
    words = [word.removeprefix("k8s:") for word in filters.split()]
    excluding = [word[1:].removeprefix("k8s:") for word in words if word.startswith("!")]
    including = [word for word in words if not word.startswith("!")]
    return [
        key
        for key in keys
        if any(re.match(word, key) for word in excluding) or (including and not any(re.match(word, key) for word in including))
    ]


def evidence(connection: "Connection") -> str:
    """Return by what Cilium is known in a cluster, "" where it does not run: by its agent, for an uninstall leaves its CRDs."""
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    agent = inventory.rollout(connection, "daemonset", NAMESPACE, "cilium")
    return f"daemonset {NAMESPACE}/cilium ({agent.images[0]})" if agent else ""


def features(settings: Settings, kind: str, config: Mapping[str, str]) -> Mapping[str, str]:
    """Return what this Cilium can prove, by its ConfigMap."""
    encrypts = encryption(config)
    changed = {
        # https://docs.cilium.io/en/stable/network/kubernetes/policy: pods have identities, and CIDR rules match none of them.
        "pod_ipblock": "Cilium does not match pods by ipBlock: they have identities of their own, not ones of an address range",
        "node_ipblock": _node_ipblock(config),
        "flow_log": ""
        if _on(config, "enable-hubble")
        else "Hubble is switched off (enable-hubble in the ConfigMap cilium-config)",
    }
    if encrypts != "none":
        changed["encryption"] = changed["strict_encryption"] = f"Cilium's encryption ({encrypts}) is not proved yet"
    if _on(config, "enable-ipv6"):
        changed["dual_stack"] = "IPv6 is not probed on real clusters yet"
    return networkpolicy.features(settings, kind, **changed)


def _node_ipblock(config: Mapping[str, str]) -> str:
    """Return why ipBlock does not match nodes by the addresses that they have in the API, or "".

    Optional since 1.15: https://docs.cilium.io/en/stable/network/kubernetes/policy.
    """
    if "nodes" not in config.get("policy-cidr-match-mode", "").split():
        return "Cilium matches no node by ipBlock: nodes have identities of their own (policy-cidr-match-mode has no nodes)"
    if config.get("routing-mode") == "tunnel":
        return (
            "a client on a node's own network sends to pods of other nodes from the address of Cilium's tunnel, not of its node"
        )
    return ""


def versions(image: str, config: Mapping[str, str]) -> Mapping[str, str]:
    """Return the facts of a Cilium that a report states, by its agent's image and its ConfigMap."""
    from ztconform.kube.inventory import tag  # noqa: PLC0415 - the extra may be missing

    routing = config.get("routing-mode") or "unknown"
    if routing == "tunnel":
        routing = f"tunnel ({config.get('tunnel-protocol') or 'vxlan'})"
    return {
        "cilium": tag(image) or image or "unknown",
        "cilium policy": config.get("enable-policy") or "default",
        "cilium policy audit mode": "on" if _on(config, "policy-audit-mode") else "off",
        "cilium routing": routing,
        "cilium encryption": encryption(config),
        "cilium kube-proxy replacement": config.get("kube-proxy-replacement") or "unknown",
    }


def notes(config: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a reader must know of a Cilium that does not enforce as usual."""
    found = []
    if _on(config, "policy-audit-mode"):
        found.append("Cilium is in policy audit mode: it logs what it would deny, and denies nothing")
    if config.get("enable-policy") == "never":
        found.append("Cilium enforces no policy: enable-policy is never")
    return tuple(found)


def encryption(config: Mapping[str, str]) -> str:
    """Return what encrypts the traffic between nodes."""
    kinds = (("wireguard", "enable-wireguard"), ("ipsec", "enable-ipsec"), ("ztunnel", "enable-ztunnel"))
    return next((name for name, key in kinds if _on(config, key)), "none")


def _flows(connection: "Connection") -> "FlowLog":
    from ztconform.kube.hubble import HubbleLog  # noqa: PLC0415 - the extra may be missing

    return HubbleLog(connection, namespace=NAMESPACE)


def _on(config: Mapping[str, str], key: str) -> bool:
    return config.get(key, "").lower() == "true"


STACK = CiliumStack()
