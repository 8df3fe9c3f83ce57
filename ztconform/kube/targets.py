# SPDX-License-Identifier: Apache-2.0
"""To which address and port an attempt is really sent on Kubernetes, as the agent reads it; sending is left to `cluster`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ztconform.cluster import Resolver
from ztconform.controls import request_of
from ztconform.errors import ClusterError, UsageError
from ztconform.kube.certificates import Certificates
from ztconform.kube.identities import in_cluster
from ztconform.kube.names import Names
from ztconform.kube.nodes import Nodes
from ztconform.kube.pods import KubePod
from ztconform.kube.rounds import NONCE
from ztconform.model import OUTSIDE, Attempt, Probe, Ref
from ztconform.proof.pins import Pins, search
from ztconform.proof.plan import service_of
from ztconform.timeouts import KUBERNETES

_DNS = 53
# What a client's own proxy would try again by itself, were it not for a header of Envoy's, which it does not pass on
# (config/http/http_filters/router_filter, x-envoy-max-retries).
_NO_RETRIES = ["x-envoy-max-retries", "0"]
_REQUEST_ID = ["x-request-id", NONCE]  # by which a log of Istio's default format knows a request
_OVER_HTTP = ("http", "http2", "grpc", "websocket")
Service = Mapping[str, Any]


class Targets:
    """Turn attempts into the agent's terms; its pins are those of one case."""

    def __init__(
        self,
        names: Names,
        resolver: Resolver,
        domain: str,
        pod: Callable[[Ref], KubePod | None],
        service: Callable[[Ref], Service],
        nodes: Nodes,
        certificates: Certificates | None = None,
        *,
        request_id: bool = False,
    ) -> None:
        self._certificates, self._request_id = certificates, request_id
        self._names = names
        self._resolver = resolver
        self._domain = domain
        self._pod = pod
        self._service = service
        self._nodes = nodes
        self.pins = Pins()

    def spec(self, attempt: Attempt) -> dict[str, Any]:
        """Return what the agent sends for an attempt, but for its nonce; raises UsageError for what no pod can send."""
        probe = attempt.probe
        shows = probe.cert is not None or probe.past_proxy
        if shows and self._certificates is None:
            raise UsageError(f"row {attempt.row}: no mesh runs here, and so no proxy to pass by and no certificate to show")
        request = request_of(attempt, KUBERNETES)
        request["headers"] = [[name, in_cluster(value, self._names)] for name, value in request["headers"]]
        spec: dict[str, Any] = {
            **request,
            **self._address(probe),
        }
        source = self._pod(probe.source)
        if self._certificates is not None and source is not None:
            if probe.cert is not None or probe.kind == "tls":
                spec["tls"] = self._certificates.tls(probe, source)
            if probe.kind in _OVER_HTTP:
                captured = source.workload.meshed and not probe.past_proxy
                spec["headers"] += [*([_NO_RETRIES] if captured else []), *([_REQUEST_ID] if self._request_id else [])]
        if "name" in spec or probe.kind == "dns":
            spec["search"] = search(self._names.to_real(probe.source.namespace), self._domain)
            spec["resolver"] = [self._resolver.address, _DNS]
        return spec

    def _address(self, probe: Probe) -> dict[str, Any]:
        if probe.kind == "dns":
            return {"address": self._resolver.address, "port": _DNS}
        if probe.address == "pod" or probe.target.namespace == OUTSIDE:
            if probe.address in ("name", "node", "other-node"):
                what = "name" if probe.address == "name" else "node port"
                raise UsageError(f"{probe.target}: a host outside has no {what} in this cluster")
            pod = self._there(probe.target)
            return {"address": _of_family(pod.addresses, probe.family, str(pod.ref)), "port": probe.port}
        service = service_of(probe)
        declared = self._service(service)["spec"]
        if probe.address in ("node", "other-node"):
            return {"address": self._entry(probe), "port": self._number(declared, probe, "nodePort")}
        headless = declared.get("clusterIP") == "None"
        port = probe.port if headless else self._number(declared, probe, "port")
        if not headless and probe.address == "service":
            known = declared.get("clusterIPs") or [declared["clusterIP"]]
            return {"address": _of_family(known, probe.family, f"Service {service}"), "port": port}
        pinned = self.pins.of(probe)
        if headless and probe.address != "name" and pinned is not None:
            return {"address": pinned, "port": port}
        return {"name": f"{service.name}.{self._names.to_real(service.namespace)}", "port": port, "family": probe.family}

    def _there(self, ref: Ref) -> KubePod:
        pod = self._pod(ref)
        if pod is None:
            raise ClusterError(f"{ref} is not there any more")
        return pod

    def _entry(self, probe: Probe) -> str:
        """Return the address of the node by which a probe enters."""
        pod = self._there(probe.target)
        used = self._nodes.used
        home = used[pod.node] if pod.node is not None else ""
        # Where the externalTrafficPolicy is Local, only the node where the pod is answers.
        entries = [home] if probe.address == "node" else [name for name in (*used, *self._nodes.addresses) if name != home]
        if not entries:
            raise UsageError(f"{probe.target} is on the cluster's one node, and there is no other to enter by")
        return _of_family([self._nodes.addresses[entries[0]]], probe.family, f"node {entries[0]}")

    def _number(self, declared: Mapping[str, Any], probe: Probe, called: str) -> int:
        """Return the number by which a Service calls the workload's port: its "port", or the "nodePort" of every node."""
        pod = self._pod(probe.target)
        named = {p.name: p.number for p in pod.workload.ports if p.protocol == probe.transport} if pod is not None else {}
        for port in declared.get("ports") or []:
            target = port.get("targetPort", port["port"])
            if port.get("protocol", "TCP") == probe.transport and probe.port in (target, named.get(target)):
                if not port.get(called):
                    raise UsageError(f"Service {service_of(probe)} has no node port: its type is {declared.get('type')}")
                return int(port[called])
        raise UsageError(f"Service {service_of(probe)} has no port that leads to {probe.target}:{probe.port}")


def _of_family(addresses: Sequence[str], family: int, what: str) -> str:
    found = next((a for a in addresses if (":" in a) == (family == 6)), None)
    if found is None:
        raise UsageError(f"{what} has no IPv{family} address in this cluster")
    return found
