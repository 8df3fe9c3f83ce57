# SPDX-License-Identifier: Apache-2.0
"""The filters that a sidecar's chains are made of, in the form that Envoy reads: proxies, filter state, log.

Which connection meets which of them is for `inbound` and `outbound`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ztconform.lab.mesh.view import Normalization
from ztconform.mesh import logentry

LOG_FILE = "access.log"
_TYPES = "type.googleapis.com/envoy."
# Beside what the log's reader needs: for a person who reads the log itself.
_LOGGED = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
}
# pilot/pkg/networking/core/httpconnectionmanager: meshConfig.pathNormalization
_PATHS: Mapping[Normalization, Mapping[str, Any]] = {
    "NONE": {"normalize_path": False},
    "BASE": {"normalize_path": True},
    "MERGE_SLASHES": {"normalize_path": True, "merge_slashes": True},
    "DECODE_AND_MERGE_SLASHES": {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
    },
}


def typed(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a message that names its own type."""
    return {"@type": _TYPES + kind, **fields}


def extension(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    """Return an extension with its configuration."""
    return {"name": name, "typed_config": typed(kind, **fields)}


ORIGINAL_DST = extension("envoy.filters.listener.original_dst", "extensions.filters.listener.original_dst.v3.OriginalDst")
TLS_INSPECTOR = extension("envoy.filters.listener.tls_inspector", "extensions.filters.listener.tls_inspector.v3.TlsInspector")
HTTP_INSPECTOR = extension("envoy.filters.listener.http_inspector", "extensions.filters.listener.http_inspector.v3.HttpInspector")


def any_address(port: int, netns: str) -> dict[str, Any]:
    """Return a port on every address, of both families, of a network namespace."""
    address = {"address": "::", "ipv4_compat": True, "port_value": port, "network_namespace_filepath": netns}
    return {"socket_address": address}


def ports_predicate(ports: Iterable[int]) -> dict[str, Any]:
    """Return the listener filter predicate that holds for these destination ports; not for none."""
    rules = [{"destination_port_range": {"start": port, "end": port + 1}} for port in sorted(ports)]
    return rules[0] if len(rules) == 1 else {"or_match": {"rules": rules}}


def file_source(directory: str, name: str) -> dict[str, Any]:
    """Return where a resource of its own comes from: a file that Envoy reads again whenever another is moved in its place.

    No watched_directory: with it every move of any file would have every subscription read its own again.
    """
    return {"path_config_source": {"path": f"{directory}/{name}"}, "resource_api_version": "V3"}


def access_log(directory: str, side: logentry.Side, pod: str) -> list[dict[str, Any]]:
    """Return a logger to the one file of the mesh."""
    fields = {"side": side, "pod": pod, **_LOGGED, **logentry.FORMAT}
    log = extension(
        "envoy.access_loggers.file",
        "extensions.access_loggers.file.v3.FileAccessLog",
        path=f"{directory}/{LOG_FILE}",
        log_format={"json_format": fields, "omit_empty_values": True},
    )
    return [log]


def http_proxy(
    *,
    routes: Mapping[str, Any],
    log: list[dict[str, Any]],
    paths: Normalization,
    before: Iterable[Mapping[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return an HTTP connection manager; `before` are the filters in front of the router."""
    router = extension("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")
    return extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        codec_type="AUTO",
        route_config={"validate_clusters": False, "ignore_port_in_host_matching": True, **routes},
        http_filters=[*before, router],
        upgrade_configs=[{"upgrade_type": "websocket"}],
        stream_idle_timeout="0s",
        use_remote_address=False,
        access_log=log,
        **_PATHS[paths],
        **more,
    )


def tcp_proxy(cluster: str, log: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a proxy of bytes."""
    return extension(
        "envoy.filters.network.tcp_proxy",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix="tcp",
        cluster=cluster,
        access_log=log,
    )


def state(key: str, text: str, *, shared: bool = True) -> dict[str, Any]:
    """Return filter state of Envoy's own kind, unset where the text is empty; shared, it follows to the upstream connection."""
    value: dict[str, Any] = {
        "object_key": key,
        "format_string": {"text_format_source": {"inline_string": text}},
        "skip_if_empty": True,
    }
    return {**value, "shared_with_upstream": "ONCE"} if shared else {**value, "factory_key": "envoy.string"}


def discovered(name: str, kind: str, directory: str) -> dict[str, Any]:
    """Return a filter whose configuration comes from a file of its own; all chains that name it share it."""
    source = file_source(directory, discovered_file(name))
    return {"name": name, "config_discovery": {"config_source": source, "type_urls": [_TYPES + kind]}}


def discovered_file(name: str) -> str:
    """Return the name of that file, within Envoy's directory."""
    return f"ecds.{name}.json"
