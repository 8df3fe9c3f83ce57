# SPDX-License-Identifier: Apache-2.0
"""The component `calico`: Calico as CNI, by its operator's charts or as it is found; what it enforces, and how that is read.

Values and names are checked against the charts of v3.32.1 and the operator v1.42.3 that they install.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztconform.model import Manifest
from ztconform.settings import Settings
from ztconform.stacks import charts, networkpolicy, undoing
from ztconform.stacks.component import Composition, Findings, Found, Kernel, Objects, Role, Site, Step
from ztconform.stacks.dual import NEEDS as DUAL
from ztconform.stacks.dual import NOT_PROBED, is_dual
from ztconform.stacks.kernel import VXLAN, WIREGUARD

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.profile import FlowLog
    from ztconform.kube.ready import Goal

CRD_CHART, CHART = "calico-crds", "calico"
NAMESPACE, BY_MANIFEST = "calico-system", "kube-system"  # of an operator's Calico, and of one without
CRDS = ("installations.operator.tigera.io", "felixconfigurations.crd.projectcalico.org")
_OPERATOR = "/apis/operator.tigera.io/v1"
# Status of the operator -> the object that asks for what it is about; the last three may be switched off.
_PARTS = {"calico": "installations", "apiserver": "apiservers", "goldmane": "goldmanes", "whisker": "whiskers"}
# The operator's charts keep Calico's objects in the first; the second is the public API, and with other charts the only one.
_APIS = ("/apis/crd.projectcalico.org/v1", "/apis/projectcalico.org/v3")
_SERVED = "/apis/apiregistration.k8s.io/v1/apiservices/v3.projectcalico.org"
FLOWS = ("goldmane", "whisker")
UNSERVED = "Calico's own kinds are not served: its API server (apiServer.enabled) does that"
_STAGED = ("stagednetworkpolicies", "stagedglobalnetworkpolicies", "stagedkubernetesnetworkpolicies")
# Set by Calico on each node that has a key (libcalico-go, lib/backend/k8s/conversion/constants.go).
_WIREGUARD_KEY = "projectcalico.org/WireguardPublicKey"

_DATAPLANES = {"Auto": "iptables, or nftables where kube-proxy has it", "Enabled": "nftables", "Disabled": "iptables"}

VALUES: Mapping[str, Any] = {
    "installation": {
        "controlPlaneReplicas": 1,
        "calicoNetwork": {
            "bgp": "Disabled",
            # A pod starts once its policies are in force, or after so many seconds.
            "linuxPolicySetupTimeoutSeconds": 5,
        },
    },
    **{name: {"enabled": False} for name in FLOWS},  # by the chart, which would ask for them too early
}


class Calico:
    """Answer for Calico."""

    name = "calico"
    role: Role = "cni"
    summary = "Calico by its operator, VXLAN: NetworkPolicy, with Goldmane and Whisker beside it"
    memory = 1300

    def kind_needs(self, stack: Composition) -> Mapping[str, Any]:
        """Return that kind installs no CNI."""
        dual = DUAL["networking"] if "dual" in stack.options else {}
        return {"networking": {"disableDefaultCNI": True, **dual}}

    def kernel(self, stack: Composition) -> tuple[Kernel, ...]:
        """Return what tunnels and encryption need."""
        return (VXLAN, WIREGUARD) if "wireguard" in stack.options else (VXLAN,)

    def steps(self, stack: Composition, settings: Settings, site: Site) -> Sequence[Step]:
        """Return the chart of its definitions, and the operator's with what it is to install: its flow log once its API is there.

        Asked for it earlier, the operator fails until then, and tries again after twice as long each time: minutes were seen.
        """
        from ztconform.kube.ready import Condition, Goal  # noqa: PLC0415 - the extra may be missing

        served = Condition(path=_SERVED, type="Available", given=f"{_OPERATOR}/apiservers/default")
        told = flow_log(undoing.read(settings.values[CHART]) if CHART in settings.values else {})
        return (
            charts.chart(CRD_CHART, settings),
            Goal(what="Calico's definitions", crds=CRDS, cluster=False),
            charts.chart(CHART, settings, VALUES, values(stack, site), _mirrored(settings)),
            Goal(what="Calico's API", conditions=(served,), cluster=False),
            Objects(component=CHART, what="Calico's flow log", make=lambda: told, mark=json.dumps(told), once=True),
        )

    def promises(self, stack: Composition) -> Mapping[str, str]:
        """Return what our chart's settings add."""
        return features({"wireguardEnabled": "wireguard" in stack.options}, dual="dual" in stack.options, logged="", served="")

    def goal(self, stack: Composition) -> "Goal":
        """Return Calico's parts, of an operator's or of another installation, and what the operator says of itself."""
        from ztconform.kube.ready import Condition, Goal, Want  # noqa: PLC0415 - the extra may be missing

        return Goal(
            what="Calico",
            wants=(
                Want(kind="deployment", namespace="tigera-operator", name="tigera-operator", optional=True),
                Want(kind="daemonset", namespace=NAMESPACE, name="calico-node", elsewhere=BY_MANIFEST),
                Want(kind="deployment", namespace=NAMESPACE, name="calico-kube-controllers", elsewhere=BY_MANIFEST),
                Want(kind="deployment", namespace=NAMESPACE, name="calico-typha", elsewhere=BY_MANIFEST, optional=True),
            ),
            conditions=tuple(
                Condition(path=f"{_OPERATOR}/tigerastatuses/{name}", type="Available", given=f"{_OPERATOR}/{of}/default")
                for name, of in _PARTS.items()
            ),
            annotations=(_WIREGUARD_KEY,) if "wireguard" in stack.options else (),
        )

    def found(self, connection: "Connection") -> Found | None:
        """Return by what Calico is known: by its agents; Canal's, which only enforce for another CNI, have another name."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        for namespace in (NAMESPACE, BY_MANIFEST):
            if agents := inventory.rollout(connection, "daemonset", namespace, "calico-node"):
                evidence = f"daemonset {namespace}/calico-node ({agents.images[0]})"
                return Found(evidence=evidence, options=options(_felix(connection), dual=is_dual(connection)))
        return None

    def demand(self, connection: "Connection") -> None:
        """Demand nothing: Calico's policies see all labels."""

    def findings(self, connection: "Connection", settings: Settings, stack: Composition, kind: str) -> Findings:
        """Return what Calico's own objects say that it does, as far as they may be read."""
        felix = _felix(connection)
        state = _spec(_read(connection, "clusterinformations/default"))
        staged = [item for kind in _STAGED for item in _items(_read(connection, kind))]
        dual, logged = is_dual(connection), _unlogged(connection)
        served = "" if _is_served(connection) else UNSERVED
        return Findings(
            dialects=("kubernetes",) if served else ("kubernetes", "calico"),
            features=features(felix, dual=dual, logged=logged, served=served),
            versions=versions(state, felix, _items(_read(connection, "ippools"))),
            signatures=networkpolicy.SIGNATURES,
            notes=notes(state, felix, [str(item["metadata"]["name"]) for item in staged]),
            flows=None if logged else _flows,
        )

    def status(self, connection: "Connection") -> str:
        """Return what the operator says, and what keeps Calico's pods from running."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        lines = []
        for item in _items(inventory.found(connection, f"{_OPERATOR}/tigerastatuses")):
            for one in (item.get("status") or {}).get("conditions") or []:
                said = " ".join(str(one.get("message") or "").split())
                lines.append(f"tigerastatus {item['metadata']['name']}: {one.get('type')} is {one.get('status')} {said}")
        for namespace in ("tigera-operator", NAMESPACE, BY_MANIFEST):
            lines += map(str, inventory.troubles(connection, namespace, "k8s-app"))
        return "".join(f"{line}\n" for line in lines)


def flow_log(theirs: Mapping[str, Any]) -> Sequence[Manifest]:
    """Return what has the operator install Goldmane and Whisker, as the user's own values for its chart want them, or not."""
    asked = {name: found if isinstance(found := theirs.get(name), Mapping) else {} for name in FLOWS}
    return [
        {
            "apiVersion": "operator.tigera.io/v1",
            "kind": name.capitalize(),
            "metadata": {"name": "default"},
            "spec": {key: value for key, value in asked[name].items() if key != "enabled"},
        }
        for name in FLOWS
        if asked[name].get("enabled") is not False
    ]


def values(stack: Composition, site: Site) -> Mapping[str, Any]:
    """Return pools of the cluster's own ranges, and what a stack's options add."""
    pool = {"encapsulation": "VXLAN", "natOutgoing": "Enabled", "nodeSelector": "all()"}
    found: dict[str, Any] = {"installation": {"calicoNetwork": {"ipPools": [{"cidr": cidr, **pool} for cidr in site.pods]}}}
    if "wireguard" in stack.options:
        found["defaultFelixConfiguration"] = {"enabled": True, "wireguardEnabled": True}
        if "dual" in stack.options:
            found["defaultFelixConfiguration"]["wireguardEnabledV6"] = True
    return found


def options(felix: Mapping[str, Any], *, dual: bool) -> frozenset[str]:
    """Return the options of a stack with which a Calico of this FelixConfiguration runs."""
    on = {"dual": dual, "wireguard": felix.get("wireguardEnabled") is True}
    return frozenset(option for option, there in on.items() if there)


def features(felix: Mapping[str, Any], *, dual: bool, logged: str, served: str) -> Mapping[str, str]:
    """Return what this Calico adds to, or takes away from, what NetworkPolicy proves.

    `logged` says why its flows cannot be read, `served` why its own kinds cannot be applied; "" where they can.
    """
    found = {
        "audit-mode": "Calico has no audit mode; it stages policies",
        "deny-priority": served,
        "dns-policy": "open-source Calico has no rules for names",
        "flow-log": logged,
        "staged-policy": served or logged,
    }
    if felix.get("wireguardEnabled") is True:
        found["encryption"] = "Calico's encryption (wireguard) is not proved yet"
        found["strict-encryption"] = "Calico has no strict mode: what goes to a node without a key is sent in plaintext"
    if dual:
        found["dual-stack"] = NOT_PROBED
    return found


def versions(state: Mapping[str, Any], felix: Mapping[str, Any], pools: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """Return the facts of a Calico that a report states, by its ClusterInformation, FelixConfiguration and pools."""
    modes = sorted({mode for pool in pools for mode in _modes(pool.get("spec") or {})})
    return {
        "calico": str(state.get("calicoVersion") or "unknown"),
        "calico dataplane": "eBPF" if felix.get("bpfEnabled") is True else _DATAPLANES[str(felix.get("nftablesMode") or "Auto")],
        "calico encapsulation": ", ".join(modes) or "unknown",
        "calico encryption": "wireguard" if felix.get("wireguardEnabled") is True else "none",
    }


def notes(state: Mapping[str, Any], felix: Mapping[str, Any], staged: Sequence[str]) -> tuple[str, ...]:
    """Return what a reader must know of a Calico that does not enforce as usual."""
    found = []
    if state.get("datastoreReady") is False:
        found.append("Calico's datastore is locked (datastoreReady: false): new policies are not put in force")
    if felix.get("chainInsertMode") == "Append":
        found.append("Calico appends its rules (chainInsertMode: Append): rules of others come first and may let traffic pass")
    if staged:
        shown = ", ".join(sorted(staged)[:5]) + (", ..." if len(staged) > 5 else "")
        found.append(f"Calico has {len(staged)} staged policies, which deny nothing: {shown}")
    return tuple(found)


def _modes(pool: Mapping[str, Any]) -> list[str]:
    on = {"VXLAN": pool.get("vxlanMode"), "IPIP": pool.get("ipipMode")}
    return [name for name, mode in on.items() if mode not in (None, "", "Never")] or ["none"]


def _unlogged(connection: "Connection") -> str:
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    there = all(inventory.rollout(connection, "deployment", NAMESPACE, name) for name in FLOWS)
    return "" if there else f"Calico's flows are known by Goldmane and Whisker, and {NAMESPACE} does not have both"


def _is_served(connection: "Connection") -> bool:
    from ztconform.kube import kinds  # noqa: PLC0415 - the extra may be missing

    return any(kind.group == "projectcalico.org" for kind in kinds.served(connection))


def _flows(connection: "Connection") -> "FlowLog":
    from ztconform.kube import goldmane  # noqa: PLC0415 - the extra may be missing

    return goldmane.find(connection, NAMESPACE)


def _felix(connection: "Connection") -> Mapping[str, Any]:
    return _spec(_read(connection, "felixconfigurations/default"))


def _read(connection: "Connection", what: str) -> Mapping[str, Any] | None:
    from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

    return next((found for api in _APIS if (found := inventory.found(connection, f"{api}/{what}")) is not None), None)


def _spec(found: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return (found or {}).get("spec") or {}


def _items(found: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    return (found or {}).get("items") or []


def _mirrored(settings: Settings) -> Mapping[str, Any]:
    # The operator puts its own paths ("calico/node") behind this registry.
    if registry := settings.pods.image_registry:
        return {"installation": {"registry": f"{registry}/"}, "tigeraOperator": {"registry": registry}}
    return {}


COMPONENT = Calico()
