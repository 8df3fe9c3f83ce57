# SPDX-License-Identifier: Apache-2.0
"""How the denials of a sidecar look that is an Envoy: a real Istio's, and the lab's; each is logged, and counts with its cause.

Which TLS alert counts is left to each: the lab logs its own, Istio's proxies do not.
"""

from ztconform.evidence import Signature
from ztconform.model import Kind, Layer, Stage

# What a mesh of such sidecars, whose log can be read, lets be proved: in the lab as with Istio.
FEATURES = (
    *("mtls", "l7-authz", "identity", "identity-pinning", "dotted-accounts"),
    *("client-tls", "plaintext-by-address", "authorization-dry-run"),
)

HTTP: frozenset[Kind] = frozenset({"http", "http2", "websocket"})
GRPC: frozenset[Kind] = frozenset({"grpc"})
TCP: frozenset[Kind] = frozenset({"tcp", "tls", *GRPC, *HTTP})
TALKING: frozenset[Stage] = frozenset({"tls", "request"})
_DONE: frozenset[Stage] = frozenset({"done"})
RBAC = "RBAC: access denied"  # Envoy's words, as HTTP body and as gRPC message


def answer(name: str, layer: Layer, status: int, body: str = "") -> Signature:
    """Return a denial that is an answer of HTTP."""
    return Signature(name=name, layer=layer, kinds=HTTP, signal="answered", stages=_DONE, status=status, body=body, caused=True)


def grpc(name: str, layer: Layer, code: int, message: str = "") -> Signature:
    """Return a denial that is a status of gRPC."""
    detail = rf"grpc-status {code}\b.*{message}"
    return Signature(name=name, layer=layer, kinds=GRPC, signal="answered", stages=_DONE, detail=detail, caused=True)


def closed(name: str, layer: Layer) -> Signature:
    """Return a denial that closes or resets a connection which stands."""
    return Signature(name=name, layer=layer, kinds=TCP, signal="closed", stages=TALKING, caused=True)


SIGNATURES = (
    # A captured client's own proxy accepts its connection, and answers for the server when the packets are dropped, or closes.
    answer("503UF", "l34", 503),
    closed("RST", "l34"),
    answer("403I", "l7", 403, RBAC),
    grpc("403I", "l7", 7, RBAC),
    # A path that the server's proxy will not normalize, refused before any policy is asked.
    answer("400", "l7", 400),
    closed("EOF", "l7"),
    closed("RST", "mtls"),
    # A client's own proxy that refuses the server's certificate, or hears that its own was refused.
    answer("503", "mtls", 503),
)
