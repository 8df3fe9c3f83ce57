# SPDX-License-Identifier: Apache-2.0
"""What a probe of each kind says over TCP, who reads the answer, and over what kind of connection.

How bytes travel is for the exchanges, and what the answer proves for the judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .exchange import TcpExchange
from .http2client import GrpcReader, Http2Reader
from .readers import HttpReader, LineReader, NoReader
from .spec import Tls
from .tlsexchange import TlsExchange
from .websocket import VERSION, WebSocketReader, new_key
from .wire import NONCE_HEADER, SERVER_NAME, authority, request_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from .exchange import Network, Outcome
    from .readers import AnswerReader, Reader
    from .spec import Spec

NONCE_PLACE = "{nonce}"  # in a raw request
_WITH_CONTENT = ("POST", "PUT", "PATCH")
_DEFAULT_TLS = Tls()


def opening(spec: Spec, nonce: str, before: AnswerReader | None = None) -> tuple[bytes, AnswerReader]:
    """Return what to send first, and what reads the answer; `before` read the one before it on the same connection."""
    kind = spec.kind
    if kind == "http":
        return http_request(spec, nonce), HttpReader(spec.method)
    if kind in ("http2", "grpc"):
        reader = Http2Reader(spec, nonce, before) if kind == "http2" else GrpcReader(spec, nonce, before)
        return reader.first(), reader
    if kind == "websocket":
        key = new_key()
        return http_request(_upgrading(spec, key), nonce), WebSocketReader(nonce, key)
    if kind == "tls":
        return b"", NoReader()
    return request_line(nonce), LineReader()


def connection(network: Network, spec: Spec, request: bytes, reader: Reader, done: Callable[[Outcome], None]) -> TcpExchange:
    """Return the exchange that a spec's probe goes over; raises OSError and ValueError for TLS that cannot be spoken."""
    if spec.tls is None and spec.kind != "tls":
        return TcpExchange(network, request, reader, done)
    return TlsExchange(network, request, reader, done, spec.tls or _DEFAULT_TLS)


def http_request(spec: Spec, nonce: str) -> bytes:
    """Return the request that an HTTP/1.1 probe sends: the spec's own headers as they are, ours where it has none."""
    if spec.raw is not None:
        return spec.raw.replace(NONCE_PLACE, nonce).encode("latin-1")
    given = {name.lower() for name, _ in spec.headers} if spec.headers else ()
    lines = [f"{spec.method} {spec.path} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {spec.host if spec.host is not None else authority(spec.name or spec.address, spec.port)}")
    lines += [f"{name}: {value}" for name, value in spec.headers]
    lines.append(f"{NONCE_HEADER}: {nonce}")
    if "user-agent" not in given:
        lines.append(f"User-Agent: {SERVER_NAME}")
    if "connection" not in given:
        lines.append("Connection: keep-alive" if spec.connection else "Connection: close")
    if spec.method in _WITH_CONTENT and "content-length" not in given:
        lines.append("Content-Length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _upgrading(spec: Spec, key: str) -> Spec:
    ours = (("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION), ("Sec-WebSocket-Key", key))
    return spec._replace(headers=(*spec.headers, *ours))
