# SPDX-License-Identifier: Apache-2.0
"""What a line of ztunnel's access log says, as its text and as its JSON; pure.

Fields are those of ztunnel's release-1.30: src/proxy/metrics.rs, and src/telemetry.rs for the two formats. It knows connections
and no requests, and so no nonce: a client's by the address and port that it left from. A node's ztunnel speaks for all its pods.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ztconform.mesh.logentry import Address, address, parsed
from ztconform.model import Layer, Ref

# pilot/pkg/serviceregistry/ambient/authorization.go and pilot/pkg/model/authentication.go: what a PeerAuthentication comes to.
_STRICT, _CONVERTED = "istio_converted_static_strict", "converted_peer_authentication_"

_REJECTED = "connection closed due to policy rejection: "  # src/proxy.rs
_BY = "explicitly denied by: "
_REFUSED = "http status: 401"  # to the client's ztunnel: src/proxy/inbound.rs answers so for a policy's rejection alone
_UNREACHED = ("connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008", "connection failed: ")
_OPENED = "connection opened"  # at the level debug only: how it ended is not known yet

_TEXT = re.compile(r"[^\t]*\t\w+\taccess[^\t]*\t(?P<message>[^\t]*)\t(?P<fields>.*)")
_FIELD = re.compile(r'(?P<name>[\w.]+)=(?P<value>"(?:[^"\\]|\\.)*"|\S*)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Say which policy refused a connection."""

    layer: Layer
    policy: Ref | None = None  # as it is in the cluster; None: not named, for none of those that there are allowed it


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Hold how one connection ended; "" and None stand for what it does not say."""

    pod: Ref  # whose ztunnel this is
    inward: bool  # came in to the pod, and did not leave it
    client: Address | None  # who connected, as far as the packet says
    server: Address | None  # whom the client wanted
    via: Address | None = None  # where the packets went: of a tunnel its port 15008
    error: str = ""

    @property
    def plaintext(self) -> bool:
        """Return whether it was sent outside a tunnel."""
        return self.server == self.via

    @property
    def refused(self) -> bool:
        """Return whether a client's ztunnel heard that a policy of the server's refused its connection."""
        return not self.inward and self.error.startswith(_REFUSED)

    @property
    def unreached(self) -> bool:
        """Return whether a client's ztunnel could not connect."""
        return not self.inward and self.error.startswith(_UNREACHED)

    @property
    def rejection(self) -> Rejection | None:
        """Return which policy of the server's refused it, None where none did."""
        if not self.inward or not self.error.startswith(_REJECTED):
            return None
        said = self.error.removeprefix(_REJECTED)
        if not said.startswith(_BY):
            return Rejection(layer="l7") if said.startswith("allow policies exist") else None
        namespace, _, name = said.removeprefix(_BY).partition("/")
        if name == _STRICT:
            return Rejection(layer="mtls")
        if name.startswith(_CONVERTED):
            return Rejection(layer="mtls", policy=Ref(namespace, name.removeprefix(_CONVERTED)))
        return Rejection(layer="l7", policy=Ref(namespace, name))


def read(line: bytes, pod: Ref, addresses: Collection[str]) -> Line | None:
    """Return what a line says of a pod's connections, None where it is of another pod's, or none: never an exception."""
    said = _of_json(line) if line.startswith(b"{") else _of_text(line)
    if said is None or said.get("direction") not in ("inbound", "outbound") or said.get("message") == _OPENED:
        return None
    inward = said["direction"] == "inbound"
    client, via = address(said.get("src.addr")), address(said.get("dst.addr"))
    own = via if inward else client
    if own is None or own[0] not in addresses:
        return None
    return Line(
        pod=pod,
        inward=inward,
        client=client,
        server=address(said.get("dst.hbone_addr")) or via,
        via=via,
        error=str(said.get("error") or ""),
    )


def _of_json(line: bytes) -> Mapping[str, Any] | None:
    said = parsed(line)
    return said if said is not None and said.get("scope") == "access" else None


def _of_text(line: bytes) -> Mapping[str, Any] | None:
    found = _TEXT.fullmatch(line.decode("utf-8", "replace").rstrip())
    if found is None:
        return None
    fields = {one["name"]: _value(one["value"]) for one in _FIELD.finditer(found["fields"])}
    return {**fields, "message": found["message"]}


def _value(text: str) -> str:
    """Return a field's value: one with quotes is escaped as Rust does, which is as JSON does but for the rarest."""
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1]
