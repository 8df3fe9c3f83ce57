# SPDX-License-Identifier: Apache-2.0
"""What one line of Envoy's access log says, and the format in which it is to be written.

Whose probe a line is about is for `accesslog` to find.
"""

import ipaddress
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from ztconform.model import Ref

Side = Literal["inbound-request", "inbound-connection", "outbound-request", "outbound-connection"]
Address = tuple[str, int]

# The JSON log format that is read here; beside it every logger adds its "side" and its "pod" ("namespace/name").
FORMAT: Mapping[str, str] = MappingProxyType(
    {
        "start": "%START_TIME(%s.%6f)%",
        "nonce": "%REQ(X-ZTC-NONCE)%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "terminated": "%CONNECTION_TERMINATION_DETAILS%",
        "tls_failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
        "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
        "chain": "%FILTER_CHAIN_NAME%",
        "remote": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
        "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "upstream_local": "%UPSTREAM_LOCAL_ADDRESS%",
        "upstream": "%UPSTREAM_HOST%",
        "tls": "%DOWNSTREAM_TLS_VERSION%",
        "peer": "%DOWNSTREAM_PEER_URI_SAN%",
        "serial": "%DOWNSTREAM_PEER_SERIAL%",
        "http_rbac": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%",
        "tcp_rbac": "%DYNAMIC_METADATA(envoy.filters.network.rbac)%",
    }
)

_SIDES: frozenset[str] = frozenset(get_args(Side))
_OTHERS = frozenset({"start", "http_rbac", "tcp_rbac"})
_ADDRESSES = frozenset({"remote", "local", "upstream_local", "upstream"})
_SHADOW = re.compile(r"(?P<prefix>(?:istio_|istio_dry_run_)?(?P<of>allow|audit|deny)_)shadow_engine_result")


@dataclass(frozen=True, slots=True, order=True)
class Shadow:
    """Hold what the shadow rules of one RBAC filter made of a request."""

    of: Literal["allow", "audit", "deny"]
    denied: bool
    rule: str  # Envoy's name of the rule that matched; "" where none did


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Hold one line of the log; "" and None stand for what Envoy had no value for."""

    side: Side
    pod: Ref  # whose proxy this is
    start: float  # seconds since the epoch, of the request or of the connection
    nonce: str
    details: str
    terminated: str
    tls_failure: str
    upstream_failure: str
    chain: str
    remote: Address | None
    local: Address | None  # where the client wanted to go, not where it was captured
    upstream_local: Address | None
    upstream: Address | None
    tls: str  # version; "" for plaintext
    peer: str
    serial: str
    shadows: tuple[Shadow, ...]  # in the order of their filters' names


def read(line: bytes) -> Entry | None:
    """Return what a line says, or None for what is no entry: never an exception, whatever the bytes."""
    said = parsed(line)
    return None if said is None else entry(said)


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the object that a line is in JSON, or None for any other: never an exception, whatever the bytes."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def entry(said: Mapping[str, Any]) -> Entry | None:
    """Return what the fields of a line say, or None where it says too little: its side, its pod and when it began."""
    side, start = said.get("side"), _number(said.get("start"))
    namespace, _, name = _text(said.get("pod")).partition("/")
    if not (isinstance(side, str) and side in _SIDES and math.isfinite(start) and namespace and name):
        return None
    read: dict[str, Any] = {key: (address if key in _ADDRESSES else _text)(said.get(key)) for key in FORMAT.keys() - _OTHERS}
    shadows = (*_shadows(said.get("http_rbac")), *_shadows(said.get("tcp_rbac")))
    return Entry(side=cast(Side, side), pod=Ref(namespace, name), start=start, shadows=tuple(sorted(shadows)), **read)


def _shadows(metadata: object) -> Iterator[Shadow]:
    """Yield what each filter noted: PREFIX_shadow_engine_result, and PREFIX_shadow_effective_policy_id where a rule matched."""
    said = metadata if isinstance(metadata, dict) else {}
    for key in said:
        found = _SHADOW.fullmatch(key)
        if found is not None:
            rule = _text(said.get(f"{found['prefix']}shadow_effective_policy_id"))
            yield Shadow(cast(Any, found["of"]), said[key] == "denied", rule)


def _text(value: object) -> str:
    return value if isinstance(value, str) and value != "-" else ""


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, (str, int, float)) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def address(value: object) -> Address | None:
    """Return what "host:port" says, an IPv6 host in brackets; None for anything else."""
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        return (plain(host.removeprefix("[").removesuffix("]")), int(port)) if port.isascii() and port.isdigit() else None
    except ValueError:
        return None


def plain(address: str) -> str:
    """Return an address in its shortest form, an IPv4 one behind a dual-stack listener as IPv4."""
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
