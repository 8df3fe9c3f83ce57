# SPDX-License-Identifier: Apache-2.0
"""What a line of a Linkerd proxy's output says, where it logs as JSON and keeps an access log; pure.

Fields are those of linkerd2-proxy: linkerd/http/access-log, app/inbound/src/policy, app/core/src/errors/respond.rs.
A request is known in the access log by its x-request-id; why it was refused stands in other lines, by the client's address.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ztconform.mesh.logentry import Address, address, parsed, plain
from ztconform.model import Ref

ANNOTATIONS: Mapping[str, str] = {"config.linkerd.io/proxy-log-format": "json", "config.linkerd.io/access-log": "json"}

What = Literal["served", "request-denied", "connection-denied", "audited", "failed"]
_UNAUTHORIZED, _NO_ROUTE = "unauthorized request on route", "no route found for request"
_VERDICTS: Mapping[str, What] = {
    "Request denied": "request-denied",
    "Connection denied": "connection-denied",
    "Connection terminated due to policy change": "connection-denied",
    "Request allowed": "audited",  # at this level only what nothing but an audit let in
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Hold what one line says; "" and None stand for what it does not."""

    what: What
    pod: Ref  # whose proxy this is
    inward: bool = True  # came in to the pod, and did not leave it
    client: Address | None = None  # whose request or connection it was; the port is 0 where only the address is told
    port: int = 0  # of the server
    nonce: str = ""
    path: str = ""
    status: int = 0
    authenticated: bool = False  # the client showed an identity
    server: str = ""  # name of the Server that has no authorization for it, but in audit; "" for the proxy's own default
    error: str = ""
    thread: str = ""

    @property
    def refused(self) -> bool:
        """Return whether a request failed because no policy allowed it."""
        return _UNAUTHORIZED in self.error or self.unrouted

    @property
    def unrouted(self) -> bool:
        """Return whether a request failed because it is of no route that its Server has."""
        return _NO_ROUTE in self.error


def read(line: bytes, pod: Ref, addresses: Collection[str]) -> Line | None:
    """Return what a line says, None where it is none that tells of a request or a connection: never an exception."""
    said = parsed(line)
    if said is None:
        return None
    return _of_access(said, pod) if "client.addr" in said else _of_event(said, pod)


def _of_access(said: Mapping[str, Any], pod: Ref) -> Line | None:
    status = str(said.get("status") or "")
    return Line(
        what="served",
        pod=pod,
        client=address(said.get("client.addr")),
        nonce=str(said.get("trace_id") or ""),
        path=_path(said.get("uri")),
        status=int(status) if status.isdigit() else 0,
        authenticated=said.get("client.id") not in (None, "", "-"),
    )


def _of_event(said: Mapping[str, Any], pod: Ref) -> Line | None:
    fields = said.get("fields")
    spans = said.get("spans")
    if not isinstance(fields, dict) or not isinstance(spans, list):
        return None
    around: dict[str, Any] = {}
    for span in spans:
        around |= span if isinstance(span, dict) else {}
    names = {span.get("name") for span in spans if isinstance(span, dict)}
    message, thread = str(fields.get("message") or ""), str(said.get("threadId") or "")
    known: dict[str, Any] = {"pod": pod, "inward": "outbound" not in names, "port": _number(around.get("port")), "thread": thread}
    if message in _VERDICTS:
        tls = str(fields.get("tls") or fields.get("client.tls") or "")
        ours = fields.get("server.kind") == "server"
        return Line(
            what=_VERDICTS[message],
            client=address(fields.get("client")) or _host(fields.get("client.ip")),
            authenticated="client_id: Some" in tls,
            server=str(fields.get("server.name") or "") if ours else "",
            **known,
        )
    if message.endswith("request failed"):
        client = address(around.get("client.addr"))
        return Line(what="failed", client=client, path=_path(fields.get("path")), error=str(fields.get("error") or ""), **known)
    return None


def _path(uri: object) -> str:
    """Return the path of a URI, as both kinds of lines have it."""
    text = uri if isinstance(uri, str) else ""
    return re.sub(r"^[a-z]+://[^/?#]*", "", text).partition("?")[0] or "/"


def _number(value: object) -> int:
    return int(value) if isinstance(value, (int, str)) and str(value).isdigit() else 0


def _host(value: object) -> Address | None:
    try:
        return plain(str(value)), 0
    except ValueError:
        return None
