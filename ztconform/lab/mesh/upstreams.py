# SPDX-License-Identifier: Apache-2.0
"""The clusters through which a pod's proxy dials: as few as possible, for every pod has its own and fifty pods are many.

Which connection takes which is for `inbound` and `outbound`; TLS is in `tls`.

A socket is made in the pod's network namespace and carries the mark that `capture` lets pass. Where to is the address that was
dialled: a Service's own is turned into a pod's by the node. Every request has a connection of its own, so that a change of
NetworkPolicy, of endpoints or of a certificate meets the next request, and no request rides on what was allowed before.
"""

from collections.abc import Iterable
from typing import Any

from ztconform.lab.mesh import tls
from ztconform.lab.mesh.capture import MARK
from ztconform.lab.mesh.filters import extension, typed
from ztconform.lab.mesh.view import Endpoint, MeshedPod

CONNECT_TIMEOUT = 0.3  # seconds, TLS included
# A proxy makes about a thousand TLS handshakes a second, and of a thousand at once nearly all would be late: requests wait for
# their turn instead, with a priority that is theirs alone, because a TCP proxy gives up where a request waits.
PACED, AT_ONCE = "HIGH", 16
_UNLIMITED = (1 << 32) - 1
_SOL_SOCKET, _SO_MARK = 1, 36
_HTTP = "extensions.upstreams.http.v3.HttpProtocolOptions"
_AS_CAME: dict[str, Any] = {"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}
_HTTP1: dict[str, Any] = {"explicit_http_config": {"http_protocol_options": {}}}
_HTTP2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}


def plaintext_name(pod: str) -> str:
    """Name a pod's cluster to whatever was dialled, as it came."""
    return f"{pod}|plaintext"


def mtls_name(pod: str, *, h2: bool = False) -> str:
    """Name a pod's cluster to other sidecars."""
    return f"{pod}|mtls-h2" if h2 else f"{pod}|mtls"


def mixed_name(pod: str, service: str, family: int) -> str:
    """Name a pod's cluster to a Service of which only some endpoints take mTLS."""
    return f"{pod}|{service}|{family}"


def plaintext(pod: str, meshed: MeshedPod) -> dict[str, Any]:
    """Return the cluster to the pod's own application, and to all that is not known to be meshed."""
    return _cluster(plaintext_name(pod), meshed, _AS_CAME, **_DIALLED)


def mtls(pod: str, meshed: MeshedPod, directory: str, *, h2: bool) -> dict[str, Any]:
    """Return the cluster to other sidecars, for HTTP/1.1 and TCP or for HTTP/2."""
    alpn, protocol = (tls.CLIENT_ALPN_H2, _HTTP2) if h2 else (tls.CLIENT_ALPN, _HTTP1)
    socket = tls.upstream(pod, directory, alpn)
    return _cluster(mtls_name(pod, h2=h2), meshed, protocol, transport_socket=socket, **_DIALLED)


def mixed(
    name: str, pod: str, meshed: MeshedPod, directory: str, endpoints: Iterable[tuple[str, Endpoint]], *, h2: bool
) -> dict[str, Any]:
    """Return the cluster to a Service of which only some endpoints take mTLS; here alone Envoy chooses, to know which it got."""
    alpn, protocol = (tls.CLIENT_ALPN_H2, _HTTP2) if h2 else (tls.CLIENT_ALPN, _HTTP1)
    return _cluster(
        name,
        meshed,
        protocol,
        type="STATIC",
        lb_policy="ROUND_ROBIN",
        load_assignment={"cluster_name": name, "endpoints": [{"lb_endpoints": [_endpoint(a, e) for a, e in endpoints]}]},
        transport_socket_matches=[
            {"name": "mtls", "match": {"mtls": True}, "transport_socket": tls.upstream(pod, directory, alpn)},
            {"name": "plaintext", "match": {}, "transport_socket": _RAW},
        ],
    )


def takes_mtls(endpoint: Endpoint) -> bool:
    """Return whether a sidecar speaks mTLS to an endpoint: it does wherever it can (auto mTLS)."""
    return endpoint.mode is not None and endpoint.mode != "DISABLE"


def _endpoint(address: str, endpoint: Endpoint) -> dict[str, Any]:
    where = {"endpoint": {"address": _address(address, endpoint.port)}}
    if not takes_mtls(endpoint):
        return where
    return {**where, "metadata": {"filter_metadata": {"envoy.transport_socket_match": {"mtls": True}}}}


_DIALLED = {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "cleanup_interval": "5s"}
_RAW = extension("envoy.transport_sockets.raw_buffer", "extensions.transport_sockets.raw_buffer.v3.RawBuffer")


def _cluster(name: str, meshed: MeshedPod, protocol: dict[str, Any], **fields: Any) -> dict[str, Any]:
    options = typed(_HTTP, common_http_protocol_options={"max_requests_per_connection": 1}, **protocol)
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _UNLIMITED)
    paced = {**limits, "priority": PACED, "max_connections": AT_ONCE}
    return typed(
        "config.cluster.v3.Cluster",
        name=name,
        connect_timeout=f"{CONNECT_TIMEOUT}s",
        circuit_breakers={"thresholds": [limits, paced]},
        upstream_bind_config=_bound(meshed.netns),
        typed_extension_protocol_options={"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        **fields,
    )


def _bound(netns: str) -> dict[str, Any]:
    mark = {"description": "SO_MARK", "level": _SOL_SOCKET, "name": _SO_MARK, "int_value": MARK, "state": "STATE_PREBIND"}
    return {
        # One source a family; Envoy takes the one of the family that it dials.
        "source_address": _address("0.0.0.0", 0, netns)["socket_address"],
        "extra_source_addresses": [{"address": _address("::", 0, netns)["socket_address"]}],
        "socket_options": [mark],
    }


def _address(address: str, port: int, netns: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"address": address, "port_value": port}
    if netns:
        found["network_namespace_filepath"] = netns
    return {"socket_address": found}
