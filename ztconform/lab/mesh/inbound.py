# SPDX-License-Identifier: Apache-2.0
"""What a meshed pod's proxy demands of who comes in: one listener, whose filter chains are Istio's for each port and mode.

Which mode is in force is for `modes`, who may do what for `authorization`, and how connections get here for `capture`.

    mode         declared HTTP port       declared TCP port             any other port
    STRICT       TLS                      TLS                           TLS: HTTP if a sidecar says so, else TCP
    PERMISSIVE   sidecar TLS, plaintext   sidecar TLS, plaintext, TLS   as both; HTTP where a plaintext client speaks it
    DISABLE      plaintext                plaintext                     plaintext; HTTP where the client speaks it

"TLS" asks for a certificate of the trust domain, "sidecar TLS" is the same for who offers a sidecar's ALPN, and the TLS at the
end of PERMISSIVE is an application's own, passed on as it is. What meets no chain is closed (filter_chain_not_found). The table
is that of pilot/pkg/networking/core/listener_inbound.go and its filter chain match options.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ztconform.lab.mesh import filters, tls, upstreams
from ztconform.lab.mesh.authorization import chain_filters
from ztconform.lab.mesh.capture import INBOUND_PORT
from ztconform.lab.mesh.view import MeshConfig, MeshedPod, Mode

SERVER_NAME = "istio-envoy"
_SIDECAR_HTTP = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
_SIDECAR_TCP = ("istio-peer-exchange", "istio")
_SIDECAR = (*_SIDECAR_TCP, *_SIDECAR_HTTP)
_SNIFFED_HTTP = ("http/1.0", "http/1.1", "h2c")

_Speaks = Literal["http", "tcp", "any"]
_Port = tuple[int | None, _Speaks, Mode]  # None: every port that is not named


@dataclass(frozen=True, slots=True)
class _Chain:
    """Say which connections of a port meet a chain, and what it does with them."""

    name: str
    transport: Literal["tls", "raw_buffer"]
    mtls: bool
    http: bool
    alpn: tuple[str, ...] = ()


_STRICT: dict[_Speaks, tuple[_Chain, ...]] = {
    "http": (_Chain("mtls", "tls", True, True),),
    "tcp": (_Chain("mtls", "tls", True, False),),
    "any": (_Chain("mtls-http", "tls", True, True, _SIDECAR_HTTP), _Chain("mtls", "tls", True, False)),
}
_DISABLE: dict[_Speaks, tuple[_Chain, ...]] = {
    "http": (_Chain("plaintext", "raw_buffer", False, True),),
    "tcp": (_Chain("plaintext", "raw_buffer", False, False),),
    "any": (
        _Chain("plaintext-http", "raw_buffer", False, True, _SNIFFED_HTTP),
        _Chain("plaintext", "raw_buffer", False, False),
    ),
}
_FOREIGN_TLS = _Chain("tls", "tls", False, False)
_PERMISSIVE: dict[_Speaks, tuple[_Chain, ...]] = {
    "http": (_Chain("mtls", "tls", True, True, _SIDECAR), *_DISABLE["http"]),
    "tcp": (_Chain("mtls", "tls", True, False, _SIDECAR), _FOREIGN_TLS, *_DISABLE["tcp"]),
    "any": (
        _Chain("mtls-http", "tls", True, True, _SIDECAR_HTTP),
        _Chain("mtls", "tls", True, False, _SIDECAR_TCP),
        _FOREIGN_TLS,
        *_DISABLE["any"],
    ),
}
_CHAINS: dict[Mode, dict[_Speaks, tuple[_Chain, ...]]] = {"STRICT": _STRICT, "PERMISSIVE": _PERMISSIVE, "DISABLE": _DISABLE}


def listener(pod: str, meshed: MeshedPod, config: MeshConfig, directory: str) -> dict[str, Any]:
    """Return a pod's inbound listener."""
    ports: list[_Port] = [(None, "any", meshed.default_mode), *_ports(meshed)]
    log = filters.access_log(directory, "inbound-connection", str(meshed.pod.ref))
    return filters.typed(
        "config.listener.v3.Listener",
        name=f"{pod}|inbound",
        stat_prefix="inbound",
        traffic_direction="INBOUND",
        address=filters.any_address(INBOUND_PORT, meshed.netns),
        listener_filters=_inspectors(ports),
        # Istio's protocolDetectionTimeout: none. A client that says nothing waits for itself.
        listener_filters_timeout="0s",
        # As Istio has it: of a thousand connections at once the first would otherwise wait until the last is accepted.
        max_connections_to_accept_per_socket_event=1,
        filter_chains=[
            _filter_chain(pod, meshed, config, directory, port, chain)
            for port, speaks, mode in ports
            for chain in _CHAINS[mode][speaks]
        ],
        access_log=log,
    )


def _ports(meshed: MeshedPod) -> Iterator[_Port]:
    """Yield what is known of single ports: those that the pod declares, and those that a policy names."""
    declared = {port.number: port.app for port in meshed.pod.ports if port.protocol == "TCP"}
    for number, mode in sorted(meshed.modes.items()):
        speaks: _Speaks = "any" if number not in declared else "tcp" if declared[number] == "tcp" else "http"
        yield number, speaks, mode
    for number in sorted(declared.keys() - meshed.modes.keys()):
        yield number, "tcp" if declared[number] == "tcp" else "http", meshed.default_mode


def _filter_chain(
    pod: str, meshed: MeshedPod, config: MeshConfig, directory: str, port: int | None, chain: _Chain
) -> dict[str, Any]:
    match: dict[str, Any] = {"transport_protocol": chain.transport}
    if chain.alpn:
        match["application_protocols"] = list(chain.alpn)
    if port is not None:
        match["destination_port"] = port
    found: dict[str, Any] = {"name": f"{port or 'other'}-{chain.name}", "filter_chain_match": match}
    if chain.mtls:
        found["transport_socket"] = tls.downstream(pod, directory)
    if chain.http:
        return {**found, "filters": [_http(pod, meshed, config, directory)]}
    judges = chain_filters("tcp", directory)
    return {**found, "filters": [*judges, filters.tcp_proxy(upstreams.plaintext_name(pod), [])]}


def _http(pod: str, meshed: MeshedPod, config: MeshConfig, directory: str) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": upstreams.plaintext_name(pod), "timeout": "0s"}}
    return filters.http_proxy(
        routes={"virtual_hosts": [{"name": "application", "domains": ["*"], "routes": [route]}]},
        log=filters.access_log(directory, "inbound-request", str(meshed.pod.ref)),
        paths=config.path_normalization,
        before=chain_filters("http", directory),
        server_name=SERVER_NAME,
        # Appended to what a sidecar brings; from a plaintext connection Envoy takes the header away.
        forward_client_cert_details="APPEND_FORWARD",
        set_current_client_cert_details={"subject": True, "uri": True, "dns": True},
    )


def _inspectors(ports: Sequence[_Port]) -> list[dict[str, Any]]:
    """Return the listener filters, each switched off on the ports where no chain asks what it finds out."""
    found = [filters.ORIGINAL_DST]
    tls_off = _without(ports, lambda chain: chain.transport == "tls")
    if tls_off is not None:
        found.append({**filters.TLS_INSPECTOR, **tls_off})
    http_off = _without(ports, lambda chain: chain.alpn == _SNIFFED_HTTP)
    if http_off is not None:
        found.append({**filters.HTTP_INSPECTOR, **http_off})
    return found


def _without(ports: Iterable[_Port], asks: Callable[[_Chain], bool]) -> dict[str, Any] | None:
    """Return the condition that switches a filter off; None where no port needs it."""
    needed = {port: any(map(asks, _CHAINS[mode][speaks])) for port, speaks, mode in ports}
    if not any(needed.values()):
        return None
    others = [port for port, need in needed.items() if port is not None and need != needed[None]]
    if not others:
        return {}
    listed = filters.ports_predicate(others)
    return {"filter_disabled": listed if needed[None] else {"not_match": listed}}
