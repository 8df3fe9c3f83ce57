# SPDX-License-Identifier: Apache-2.0
"""How a meshed pod's proxy sends on what its application dials: mTLS to whoever is known to take it, else as it came.

The clusters are in `upstreams`; that the application's connections come here is for `capture`.

A ClusterIP is known by its address, whatever the request's Host says. A headless Service with HTTP is known by the Host alone:
who dials a pod's address with that address as Host is passed through in plaintext, as by Istio's PassthroughCluster. A headless
Service with TCP has nothing but its pods' addresses to be known by; so only one that a user declared is, for by its own headless
Service (`services.HEADLESS_SUFFIX`) every pod would be, and nobody would ever reach one in plaintext.

For one HTTP port a pod has one filter chain, whose routes tell the Services apart: a chain for each Service would make of fifty
pods 2,500 connection managers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ztconform.lab.mesh import filters, upstreams
from ztconform.lab.mesh.capture import OUTBOUND_PORT
from ztconform.lab.mesh.upstreams import takes_mtls
from ztconform.lab.mesh.view import Endpoint, MeshConfig, MeshedPod, MeshService

_SNIFFED_HTTP = ("http/1.0", "http/1.1", "h2c")
_H2_APPS = ("http2", "grpc")
_NAMESPACE = "ztconform"  # of our own metadata and filter state
_DIALLED = f"{_NAMESPACE}.dialled"
_ACCOUNTS, _SNI, _ALPN = (
    f"envoy.network.{key}" for key in ("upstream_subject_alt_names", "upstream_server_name", "application_protocols")
)


@dataclass(frozen=True, slots=True)
class Outbound:
    """Hold a pod's outbound listener, and the clusters that it needs beside the plaintext one."""

    listener: dict[str, Any]
    clusters: tuple[dict[str, Any], ...]


def outbound(pod: str, meshed: MeshedPod, services: Sequence[MeshService], config: MeshConfig, directory: str) -> Outbound:
    """Return how a pod's connections leave."""
    compiler = _Compiler(pod, meshed, config, directory)
    chains = compiler.chains(services)
    inspected = {service.port for service in services if service.headless and service.app != "tcp"}
    inspectors = [filters.ORIGINAL_DST]
    if inspected:
        inspectors.append({**filters.HTTP_INSPECTOR, "filter_disabled": {"not_match": filters.ports_predicate(inspected)}})
    listener = filters.typed(
        "config.listener.v3.Listener",
        name=f"{pod}|outbound",
        stat_prefix="outbound",
        traffic_direction="OUTBOUND",
        address=filters.any_address(OUTBOUND_PORT, meshed.netns),
        listener_filters=inspectors,
        listener_filters_timeout="0s",
        max_connections_to_accept_per_socket_event=1,
        filter_chains=chains,
        default_filter_chain={"name": "passthrough", "filters": compiler.tcp(upstreams.plaintext_name(pod))},
    )
    return Outbound(listener, tuple(compiler.clusters.values()))


class _Compiler:
    """Make chains, and note the clusters that they need."""

    def __init__(self, pod: str, meshed: MeshedPod, config: MeshConfig, directory: str) -> None:
        self._pod, self._meshed, self._config, self._directory = pod, meshed, config, directory
        self._plaintext = upstreams.plaintext_name(pod)
        self._log = filters.access_log(directory, "outbound-request", str(meshed.pod.ref))
        self._tcp_log = filters.access_log(directory, "outbound-connection", str(meshed.pod.ref))
        self.clusters: dict[str, dict[str, Any]] = {}

    def chains(self, services: Sequence[MeshService]) -> list[dict[str, Any]]:
        found = []
        http = [service for service in services if service.app != "tcp"]
        for port in sorted({service.port for service in http}):
            vips = [service for service in http if service.port == port and not service.headless]
            headless = [service for service in http if service.port == port and service.headless]
            if vips:
                found.append(self._vip_chain(port, vips))
            if headless:
                found.append(self._headless_chain(port, headless))
        for service in services:
            if service.app == "tcp" and not service.headless:
                found += self._tcp_chains(service)
            elif service.app == "tcp" and service.declared:
                found += self._tcp_endpoint_chains(service)
        return found

    def _vip_chain(self, port: int, services: Sequence[MeshService]) -> dict[str, Any]:
        addresses = [address for service in services for address in _vips(service)]
        routes = [route for service in services for route in self._vip_routes(service)]
        return {
            "name": f"{port}-services",
            "filter_chain_match": {"destination_port": port, "prefix_ranges": _hosts(addresses)},
            "filters": self._http([{"name": "services", "domains": ["*"], "routes": routes}]),
        }

    def _vip_routes(self, service: MeshService) -> Iterator[dict[str, Any]]:
        for family, address in ((4, service.v4), (6, service.v6)):
            if address:
                yield _route(self._cluster(service, family), _peer(service, service.endpoints), dialled=(address, service.port))

    def _headless_chain(self, port: int, services: Sequence[MeshService]) -> dict[str, Any]:
        hosts = [
            {"name": str(service.service), "domains": list(service.hosts), "routes": list(self._endpoint_routes(service))}
            for service in services
        ]
        passthrough = {"name": "passthrough", "domains": ["*"], "routes": [_route(self._plaintext, {})]}
        return {
            "name": f"{port}-headless",
            "filter_chain_match": {"destination_port": port, "application_protocols": list(_SNIFFED_HTTP)},
            "filters": self._http([*hosts, passthrough]),
        }

    def _endpoint_routes(self, service: MeshService) -> Iterator[dict[str, Any]]:
        for endpoint in service.endpoints:
            if takes_mtls(endpoint):
                cluster, peer = self._mtls(service), _peer(service, [endpoint])
                for address in filter(None, (endpoint.v4, endpoint.v6)):
                    yield _route(cluster, peer, dialled=(address, endpoint.port))
        yield _route(self._plaintext, {})

    def _http(self, virtual_hosts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        # What a route says of the peer becomes filter state, by which TLS knows what to demand and the pool whom to part.
        says = {_ACCOUNTS: "accounts", _SNI: "sni"}
        wanted = [filters.state(key, f"%METADATA(ROUTE:{_NAMESPACE}:{name})%") for key, name in says.items()]
        expect = filters.extension(
            "envoy.filters.http.set_filter_state", "extensions.filters.http.set_filter_state.v3.Config", on_request_headers=wanted
        )
        proxy = filters.http_proxy(
            routes={"virtual_hosts": virtual_hosts}, log=self._log, paths=self._config.path_normalization, before=[expect]
        )
        return [_connection_state([filters.state(_DIALLED, "%DOWNSTREAM_LOCAL_ADDRESS%", shared=False)]), proxy]

    def _tcp_chains(self, service: MeshService) -> Iterator[dict[str, Any]]:
        for family, address in ((4, service.v4), (6, service.v6)):
            if address:
                cluster, peer = self._cluster(service, family), _peer(service, service.endpoints)
                yield self._tcp_chain(f"{service.service}:{service.port}/{family}", [address], service.port, cluster, peer)

    def _tcp_endpoint_chains(self, service: MeshService) -> Iterator[dict[str, Any]]:
        for at, endpoint in enumerate(service.endpoints):
            if takes_mtls(endpoint):
                addresses = list(filter(None, (endpoint.v4, endpoint.v6)))
                peer = _peer(service, [endpoint])
                yield self._tcp_chain(f"{service.service}:{at}", addresses, endpoint.port, self._mtls(service), peer)

    def _tcp_chain(self, name: str, addresses: list[str], port: int, cluster: str, peer: Mapping[str, str]) -> dict[str, Any]:
        return {
            "name": name,
            "filter_chain_match": {"destination_port": port, "prefix_ranges": _hosts(addresses)},
            "filters": self.tcp(cluster, peer),
        }

    def tcp(self, cluster: str, peer: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Return the filters of a chain that passes bytes."""
        proxy = filters.tcp_proxy(cluster, self._tcp_log)
        if not peer:
            return [proxy]
        wanted = {_ACCOUNTS: peer["accounts"], _SNI: peer["sni"], _ALPN: "istio"}
        return [_connection_state([filters.state(key, text) for key, text in wanted.items()]), proxy]

    def _cluster(self, service: MeshService, family: int) -> str:
        """Return the cluster to a Service with an address of its own."""
        mtls = [takes_mtls(endpoint) for endpoint in service.endpoints]
        if not any(mtls):
            return self._plaintext
        return self._mtls(service) if all(mtls) else self._mixed(service, family)

    def _mtls(self, service: MeshService) -> str:
        h2 = service.app in _H2_APPS
        name = upstreams.mtls_name(self._pod, h2=h2)
        if name not in self.clusters:
            self.clusters[name] = upstreams.mtls(self._pod, self._meshed, self._directory, h2=h2)
        return name

    def _mixed(self, service: MeshService, family: int) -> str:
        name = upstreams.mixed_name(self._pod, f"{service.service}:{service.port}", family)
        pairs = [(endpoint.v4 if family == 4 else endpoint.v6, endpoint) for endpoint in service.endpoints]
        present = [pair for pair in pairs if pair[0]]
        h2 = service.app in _H2_APPS
        self.clusters[name] = upstreams.mixed(name, self._pod, self._meshed, self._directory, present, h2=h2)
        return name


def _peer(service: MeshService, endpoints: Iterable[Endpoint]) -> dict[str, str]:
    """Return what to demand of whoever answers: one of the endpoints' accounts; nothing where none takes mTLS."""
    accounts = sorted({f"spiffe://{endpoint.principal}" for endpoint in endpoints if takes_mtls(endpoint)})
    if not accounts:
        return {}
    name = f"{service.service.name}.{service.service.namespace}.svc.cluster.local"
    return {"accounts": ",".join(accounts), "sni": f"outbound_.{service.port}_._.{name}"}


def _route(cluster: str, peer: Mapping[str, str], dialled: tuple[str, int] | None = None) -> dict[str, Any]:
    match: dict[str, Any] = {"prefix": "/"}
    if dialled is not None:
        match["filter_state"] = [{"key": _DIALLED, "string_match": {"exact": _printed(*dialled)}}]
    way = {"cluster": cluster, "timeout": "0s", "priority": upstreams.PACED}
    route: dict[str, Any] = {"match": match, "route": way}
    if peer:
        route["metadata"] = {"filter_metadata": {_NAMESPACE: dict(peer)}}
    return route


def _connection_state(values: list[dict[str, Any]]) -> dict[str, Any]:
    return filters.extension(
        "envoy.filters.network.set_filter_state",
        "extensions.filters.network.set_filter_state.v3.Config",
        on_new_connection=values,
    )


def _vips(service: MeshService) -> list[str]:
    return list(filter(None, (service.v4, service.v6)))


def _hosts(addresses: Iterable[str]) -> list[dict[str, Any]]:
    return [{"address_prefix": address, "prefix_len": 128 if ":" in address else 32} for address in addresses]


def _printed(address: str, port: int) -> str:
    """Return an address as Envoy prints it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
