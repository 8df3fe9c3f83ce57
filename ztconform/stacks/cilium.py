# SPDX-License-Identifier: Apache-2.0
"""The component `cilium`: Cilium as CNI, from its chart or as it is found; what it enforces, and how that is read from it.

Its flow log is read by `ztconform.kube.hubble`. Settings are checked against the chart and sources of v1.19.6.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztconform.errors import ClusterError
from ztconform.settings import Settings
from ztconform.stacks import charts, networkpolicy
from ztconform.stacks.ciliumaudit import audit
from ztconform.stacks.ciliumidentity import left_out, relabelled
from ztconform.stacks.component import Composition, Findings, Found, Kernel, Role, Site, Step
from ztconform.stacks.dual import NEEDS as DUAL
from ztconform.stacks.dual import NOT_PROBED
from ztconform.stacks.kernel import VXLAN, WIREGUARD
from ztconform.stacks.pins import mirrored

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.profile import FlowLog
    from ztconform.kube.ready import Goal

CHART = "cilium"
SELECTED_BY = ("app", "role", "tier")  # labels of the shop's and the canary's pods
NAMESPACE = "kube-system"
CRDS = ("ciliumnetworkpolicies.cilium.io", "ciliumidentities.cilium.io", "ciliumendpoints.cilium.io")

# Two options leave room for a mesh: other CNI plugins may chain behind Cilium, and sockets are balanced for the host alone.
# Agents of a small cluster need not spread their answers to a changed label of a namespace over 30 s.
VALUES: Mapping[str, Any] = {
    "ipam": {"mode": "kubernetes"},
    "operator": {"replicas": 1},
    "image": {"pullPolicy": "IfNotPresent"},
    "hubble": {"relay": {"enabled": True}},
    "cni": {"exclusive": False},
    "socketLB": {"hostNamespaceOnly": True},
    "extraConfig": {"identity-max-jitter": "1s"},
}
# An image that was loaded from an archive has a tag and no digest.
NO_DIGESTS: Mapping[str, Any] = {
    "image": {"useDigest": False},
    "operator": {"image": {"useDigest": False}},
    "envoy": {"image": {"useDigest": False}},
    "hubble": {"relay": {"image": {"useDigest": False}}},
}
# The chart's values that name an image, and the image; of the operator it is the name before its suffix ("-generic").
_IMAGES = (
    (("image",), "quay.io/cilium/cilium"),
    (("operator", "image"), "quay.io/cilium/operator"),
    (("envoy", "image"), "quay.io/cilium/cilium-envoy"),
    (("hubble", "relay", "image"), "quay.io/cilium/hubble-relay"),
)


class Cilium:
    """Answer for Cilium."""

    name = "cilium"
    role: Role = "cni"
    summary = "Cilium: NetworkPolicy, with Hubble as witness"
    memory = 900  # MiB: the agent and its Envoy on each node, operator, relay (seen: about 250 a node)

    def kind_needs(self, stack: Composition) -> Mapping[str, Any]:
        """Return that kind installs no CNI, and no kube-proxy where Cilium stands in for it."""
        needs: dict[str, Any] = {"disableDefaultCNI": True, **(DUAL["networking"] if "dual" in stack.options else {})}
        if "kpr" in stack.options:
            needs["kubeProxyMode"] = "none"
        return {"networking": needs}

    def kernel(self, stack: Composition) -> tuple[Kernel, ...]:
        """Return what tunnels and encryption need."""
        return (VXLAN, WIREGUARD) if "wireguard" in stack.options else (VXLAN,)

    def steps(self, stack: Composition, settings: Settings, site: Site) -> Sequence[Step]:
        """Return Cilium's chart: the pinned one, or the user's."""
        digests = NO_DIGESTS if settings.load_images else {}
        return (charts.chart(CHART, settings, VALUES, values(stack, site), _mirrored(settings), digests),)

    def promises(self, stack: Composition) -> Mapping[str, str]:
        """Return what our chart's settings add."""
        return features(settings_of(stack))

    def goal(self, stack: Composition) -> "Goal":
        """Return Cilium's parts; those that may be switched off are wanted where they are there."""
        from ztconform.kube.ready import Goal, Want  # noqa: PLC0415 - the extra may be missing

        return Goal(
            what="Cilium",
            wants=(
                Want(kind="daemonset", namespace=NAMESPACE, name="cilium"),
                Want(kind="deployment", namespace=NAMESPACE, name="cilium-operator"),
                Want(kind="daemonset", namespace=NAMESPACE, name="cilium-envoy", optional=True),
                Want(kind="deployment", namespace=NAMESPACE, name="hubble-relay", optional=True),
            ),
            crds=CRDS,
        )

    def found(self, connection: "Connection") -> Found | None:
        """Return by what Cilium is known: by its agent, for an uninstall leaves its CRDs."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        agent = inventory.rollout(connection, "daemonset", NAMESPACE, "cilium")
        if agent is None:
            return None
        return Found(evidence=f"daemonset {NAMESPACE}/cilium ({agent.images[0]})", options=options(_config(connection)))

    def demand(self, connection: "Connection") -> None:
        """Raise ClusterError where Cilium's identities leave out labels that policies of ours select by."""
        if lost := left_out(_config(connection).get("labels", ""), SELECTED_BY):
            raise ClusterError(
                f"Cilium's identities leave out the labels {', '.join(lost)} (labels in the ConfigMap cilium-config), so that "
                "policies cannot select pods by them; add them there"
            )

    def findings(self, connection: "Connection", settings: Settings, stack: Composition, kind: str) -> Findings:
        """Return what Cilium's own settings say that it does."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        config = _config(connection)
        agent = inventory.rollout(connection, "daemonset", NAMESPACE, "cilium")
        return Findings(
            dialects=("kubernetes", "cilium"),
            features=features(config),
            versions=versions(agent.images[0] if agent else "", config),
            signatures=networkpolicy.SIGNATURES,
            notes=notes(config),
            relabelled=relabelled(config),
            flows=_flows if _on(config, "enable-hubble") else None,
            audit=audit,
        )

    def status(self, connection: "Connection") -> str:
        """Return Cilium's settings, and what keeps its pods from running."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        lines: list[str] = []
        for selector in ("k8s-app=cilium", "io.cilium/app=operator"):
            lines += map(str, inventory.troubles(connection, NAMESPACE, selector))
        lines += [f"{key}: {value}" for key, value in sorted(_config(connection).items())]
        return "".join(f"{line}\n" for line in lines)


def values(stack: Composition, site: Site) -> Mapping[str, Any]:
    """Return what a stack's options add to the chart's values."""
    found: dict[str, Any] = {}
    if "kpr" in stack.options:
        # Without kube-proxy the agent reaches the API server by the control plane's own name, which kind's network resolves.
        found |= {
            "kubeProxyReplacement": True,
            "k8sServiceHost": f"{site.cluster}-control-plane",
            "k8sServicePort": 6443,
        }
    if "wireguard" in stack.options:
        found["encryption"] = {"enabled": True, "type": "wireguard"}
    if "dual" in stack.options:
        found["ipv6"] = {"enabled": True}
    return found


def settings_of(stack: Composition) -> Mapping[str, str]:
    """Return the ConfigMap's settings that our values come to, of those that `features` reads."""
    on = {"enable-hubble": True, "enable-l7-proxy": True}
    on |= {"enable-ipv6": "dual" in stack.options, "enable-wireguard": "wireguard" in stack.options}
    return {key: str(value).lower() for key, value in on.items()}


def options(config: Mapping[str, str]) -> frozenset[str]:
    """Return the options of a stack with which a Cilium of these settings runs."""
    on = {
        "dual": _on(config, "enable-ipv4") and _on(config, "enable-ipv6"),
        "kpr": _on(config, "kube-proxy-replacement"),
        "wireguard": encryption(config) == "wireguard",
    }
    return frozenset(option for option, there in on.items() if there)


def features(config: Mapping[str, str]) -> Mapping[str, str]:
    """Return what this Cilium adds to, or takes away from, what NetworkPolicy proves, by its ConfigMap."""
    kinds = encryption(config)
    pending = "policies in Cilium's own dialect are not proved yet"
    found = {
        # https://docs.cilium.io/en/stable/network/kubernetes/policy: pods have identities, and CIDR rules match none of them.
        "pod-ipblock": "Cilium does not match pods by ipBlock: they have identities of their own, not ones of an address range",
        "node-ipblock": _node_ipblock(config),
        "flow-log": ""
        if _on(config, "enable-hubble")
        else "Hubble is switched off (enable-hubble in the ConfigMap cilium-config)",
        "deny-priority": "",
        "audit-mode": "" if _on(config, "enable-hubble") else "what audit mode would deny is known by Hubble alone, which is off",
        "dns-policy": pending if _on(config, "enable-l7-proxy") else "Cilium's L7 proxy, which sees names, is switched off",
        "staged-policy": "Cilium stages no single policy; its audit mode is of a whole endpoint",
    }
    if kinds != "none":
        found["encryption"] = found["strict-encryption"] = f"Cilium's encryption ({kinds}) is not proved yet"
    if _on(config, "enable-ipv6"):
        found["dual-stack"] = NOT_PROBED
    return found


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
        "cilium acts on changed labels": f"within {relabelled(config):g} s of its own choice",
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


def _mirrored(settings: Settings) -> Mapping[str, Any]:
    registry = settings.pods.image_registry
    found: dict[str, Any] = {}
    for path, image in _IMAGES if registry else ():
        place = found
        for key in path:
            place = place.setdefault(key, {})
        place["repository"] = mirrored(image, registry)
    return found


def _config(connection: "Connection") -> Mapping[str, str]:
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    return inventory.config_map(connection, NAMESPACE, "cilium-config") or {}


def _flows(connection: "Connection") -> "FlowLog":
    from ztconform.kube.hubble import HubbleLog  # noqa: PLC0415 - the extra may be missing

    return HubbleLog(connection, namespace=NAMESPACE)


def _on(config: Mapping[str, str], key: str) -> bool:
    return config.get(key, "").lower() == "true"


COMPONENT = Cilium()
