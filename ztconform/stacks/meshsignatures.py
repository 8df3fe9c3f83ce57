# SPDX-License-Identifier: Apache-2.0
"""How a denial looks under ztunnel and Linkerd: at the server's proxy, and at a client's own, which hides a dropped packet.

Each must have a cause: a proxy's log or its metrics say that it denied, or the CNI's log that it dropped what the client's proxy
sent. A close, a reset or a 503 alone may be the application's or a proxy's trouble, and then is INCONCLUSIVE.
"""

from ztconform.model import Kind, Layer, Signature, Stage

_HTTP: frozenset[Kind] = frozenset({"http", "http2", "websocket"})
_GRPC: frozenset[Kind] = frozenset({"grpc"})
_TCP: frozenset[Kind] = frozenset({"tcp", "tls", "grpc", *_HTTP})
_TALKING: frozenset[Stage] = frozenset({"tls", "request"})
_DONE: frozenset[Stage] = frozenset({"done"})
_RBAC = "RBAC: access denied"  # Envoy's words, as HTTP body and as gRPC message


def _answer(name: str, layer: Layer, status: int, body: str = "") -> Signature:
    return Signature(name=name, layer=layer, kinds=_HTTP, signal="answered", stages=_DONE, status=status, body=body, caused=True)


def _grpc(name: str, layer: Layer, code: int, message: str = "") -> Signature:
    detail = rf"grpc-status {code}\b.*{message}"
    return Signature(name=name, layer=layer, kinds=_GRPC, signal="answered", stages=_DONE, detail=detail, caused=True)


def _closed(name: str, layer: Layer) -> Signature:
    return Signature(name=name, layer=layer, kinds=_TCP, signal="closed", stages=_TALKING, caused=True)


_ALERT = Signature(name="TLS", layer="mtls", kinds=_TCP, signal="tls-alert", stages=_TALKING, caused=True)

# ztunnel on each node closes what it denies, and what it cannot reach after about 10 s (ztunnel#1229). A waypoint is an Envoy.
AMBIENT = (
    _answer("403I", "l7", 403, _RBAC),
    _grpc("403I", "l7", 7, _RBAC),
    _closed("ZT", "l7"),
    _closed("ZT", "mtls"),
    _answer("ZT", "mtls", 503),
    _answer("ZT", "l7", 503),
    _closed("ZT", "l34"),
    _answer("503UF", "l34", 503),
    _ALERT,
)

# Linkerd's proxy answers 403, 404 where a Server has routes and none of them matches, and closes what is no HTTP. As a client it
# answers 503 or 504 for a server that it cannot reach, in fail-fast after 3 s and for a while after it can be reached again.
LINKERD = (
    _answer("403L", "l7", 403),
    _answer("403L", "mtls", 403),
    _answer("404L", "l7", 404),
    _grpc("403L", "l7", 7),
    _grpc("403L", "mtls", 7),
    _closed("TCPL", "l7"),
    _closed("TCPL", "mtls"),
    _ALERT,
    _answer("503L", "l34", 503),
    _answer("504L", "l34", 504),
    _grpc("503L", "l34", 14),
    _closed("TCPL", "l34"),
)
