# SPDX-License-Identifier: Apache-2.0
"""What Istio (sidecar, and ambient with a waypoint) and Linkerd do with one request, read off manifests naively.

Each stops at every form that our manifests do not use. Sources: istio.io/latest/docs/ambient/usage/l4-policy (who enforces what,
and as whom a caller arrives), istio/istio 1.30.3 pilot/pkg/serviceregistry/ambient/authorization.go (HTTP rules at ztunnel),
linkerd.io/2-edge/reference/authorization-policy and features/server-policy, linkerd2-proxy linkerd/http/route (paths).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import authorization_oracle
from policy_oracle import selector_matches
from rbac_walk import Request

from ztconform.lab.inventory import LabPod

Manifest = Mapping[str, Any]
Verdict = Literal["allowed", "mtls", "l7"]
WAYPOINT = "spiffe://cluster.local/ns/shop/sa/waypoint"
ROOT = "istio-system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Hold one request to a pod."""

    target: LabPod
    port: int
    account: str  # "namespace/name" by the certificate; "" for a caller without one
    tcp: bool = False  # no HTTP is spoken on this port
    method: str = "GET"
    path: str = "/"
    by_service: bool = True  # False: to the pod's address
    in_mesh: bool = True  # False: past the caller's own proxy, or without one

    @property
    def request(self) -> Request:
        """Return the call as Istio's proxies see it."""
        namespace, _, name = self.account.partition("/")
        spiffe = f"spiffe://cluster.local/ns/{namespace}/sa/{name}" if self.account else ""
        return Request(spiffe_id=spiffe, method=self.method, path=self.path, port=self.port)


# Istio


def sidecar(manifests: Sequence[Manifest], call: Call) -> Verdict:
    """Return what the target's sidecar does; the caller's sends plaintext to an address that is no Service's."""
    if call.in_mesh and not call.by_service:
        call = replace(call, account="")
    if plaintext_refused(manifests, call):
        return "mtls"
    mine = authorization_oracle.applying(_authorizations(manifests), call.target, ROOT)
    passes, _ = authorization_oracle.allowed(mine, call.request, tcp=call.tcp, domain="cluster.local")
    return "allowed" if passes else "l7"


def waypoint(manifests: Sequence[Manifest], call: Call) -> Verdict:
    """Return what the Service's waypoint does, and then the target's ztunnel, to which the caller is the waypoint."""
    authorizations = _authorizations(manifests)
    through = call.by_service and call.in_mesh
    if through:
        mine = [each for each in authorizations if call.target.workload.name in _services(each)]
        passes, _ = authorization_oracle.allowed(mine, call.request, tcp=call.tcp, domain="cluster.local")
        if not passes:
            return "l7"
    elif plaintext_refused(manifests, call):
        return "mtls"
    arrives = replace(call.request, spiffe_id=WAYPOINT) if through else call.request
    selecting = [each for each in authorizations if "targetRefs" not in each["spec"]]
    mine = authorization_oracle.applying(selecting, call.target, ROOT)
    passes, _ = authorization_oracle.allowed(mine, arrives, tcp=True, domain="cluster.local")  # ztunnel knows no HTTP
    return "allowed" if passes else "l7"


def plaintext_refused(manifests: Sequence[Manifest], call: Call) -> bool:
    """Return whether PeerAuthentication refuses a caller without a certificate; a workload's comes before its namespace's."""
    mine = [m for m in manifests if m["kind"] == "PeerAuthentication" and m["metadata"]["namespace"] == call.target.ref.namespace]
    for spec in sorted((m["spec"] for m in mine), key=lambda spec: "selector" not in spec):
        if selector_matches(spec.get("selector"), call.target.labels):
            modes = {int(port): below["mode"] for port, below in spec.get("portLevelMtls", {}).items()}
            return not call.account and modes.get(call.port, spec["mtls"]["mode"]) == "STRICT"
    return False


def _authorizations(manifests: Sequence[Manifest]) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == "AuthorizationPolicy"]


def _services(policy: Manifest) -> list[str]:
    return [each["name"] for each in policy["spec"].get("targetRefs", ()) if (each["group"], each["kind"]) == ("", "Service")]


# Linkerd


def linkerd(manifests: Sequence[Manifest], call: Call, default: str) -> Verdict:
    """Return what the target's proxy does; `default` is its default inbound policy."""
    by_kind = {kind: [m for m in manifests if m["kind"] == kind] for kind in {m["kind"] for m in manifests}}
    servers = [s for s in by_kind.get("Server", ()) if _is_served(s, call)]
    if not servers:
        return "allowed" if _by_access(default, call) else "l7"
    (server,) = servers  # of two that overlap Linkerd takes the older, which no manifest can say
    admitted = _by_access(server["spec"]["accessPolicy"], call)
    admitted = admitted or _authorized(by_kind, call, "Server", server["metadata"]["name"])
    routes = [r for r in by_kind.get("HTTPRoute", ()) if r["spec"]["parentRefs"][0]["name"] == server["metadata"]["name"]]
    if routes and not call.tcp:
        matching = max(((rank, r["metadata"]["name"]) for r in routes for rank in _ranks(r, call)), default=None)
        if matching is None:
            return "l7"  # 404, whoever asks
        admitted = admitted or _authorized(by_kind, call, "HTTPRoute", matching[1])
    return "allowed" if admitted else "l7"


def overlapping(manifests: Sequence[Manifest], call: Call) -> list[str]:
    """Return the Servers of a call's target and port, by name."""
    return sorted(s["metadata"]["name"] for s in manifests if s["kind"] == "Server" and _is_served(s, call))


def _is_served(server: Manifest, call: Call) -> bool:
    spec = server["spec"]
    own = server["metadata"]["namespace"] == call.target.ref.namespace
    return own and spec["port"] == call.port and selector_matches(spec["podSelector"], call.target.labels)


def _by_access(policy: str, call: Call) -> bool:
    return {"deny": False, "all-unauthenticated": True, "audit": True, "all-authenticated": bool(call.account)}[policy]


def _authorized(by_kind: Mapping[str, Sequence[Manifest]], call: Call, kind: str, name: str) -> bool:
    for policy in by_kind.get("AuthorizationPolicy", ()):
        target = policy["spec"]["targetRef"]
        if (target["group"], target["kind"], target["name"]) != ("policy.linkerd.io", kind, name):
            continue
        (needed,) = policy["spec"]["requiredAuthenticationRefs"]
        (known,) = [m for m in by_kind[needed["kind"]] if m["metadata"]["name"] == needed["name"]]
        accounts = [f"{known['metadata']['namespace']}/{ref['name']}" for ref in known["spec"]["identityRefs"]]
        if call.account in accounts:
            return True
    return False


def _ranks(route: Manifest, call: Call) -> Iterator[tuple[int, int]]:
    """Yield how closely each match of a route that fits does so: the kind of path match, and how much of the path it is."""
    asked = call.path.partition("?")[0]
    for rule in route["spec"]["rules"]:
        for each in rule["matches"]:
            if each.get("method", call.method) != call.method:
                continue
            value = each["path"]["value"]
            match each["path"]["type"]:
                case "Exact" if asked == value:
                    yield 2, len(value)
                case "RegularExpression" if re.fullmatch(value, asked):
                    yield 1, len(asked)
                case "PathPrefix" if value == "/":
                    yield 0, 1
