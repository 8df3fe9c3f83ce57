# SPDX-License-Identifier: Apache-2.0
"""How a denial looks under ztunnel and Linkerd: at the server's proxy, and at a client's own, which hides a dropped packet.

Each must have a cause: a proxy's log or its metrics say that it denied, or the CNI's log that it dropped what the client's proxy
sent. A close, a reset or a 503 alone may be the application's or a proxy's trouble, and then is INCONCLUSIVE.
"""

from ztconform.evidence import Signature
from ztconform.mesh.sidecar import RBAC, TALKING, TCP, answer, closed, grpc

_ALERT = Signature(name="TLS", layer="mtls", kinds=TCP, signal="tls-alert", stages=TALKING, caused=True)

# ztunnel on each node closes what it denies, and what it cannot reach after about 10 s (ztunnel#1229). A waypoint is an Envoy.
AMBIENT = (
    answer("403I", "l7", 403, RBAC),
    grpc("403I", "l7", 7, RBAC),
    closed("ZT", "l7"),
    closed("ZT", "mtls"),
    answer("ZT", "mtls", 503),
    answer("ZT", "l7", 503),
    closed("ZT", "l34"),
    answer("503UF", "l34", 503),
    _ALERT,
)

# Linkerd's proxy answers 403, 404 where a Server has routes and none of them matches, and closes what is no HTTP. As a client it
# answers 503 or 504 for a server that it cannot reach, in fail-fast after 3 s and for a while after it can be reached again.
LINKERD = (
    answer("403L", "l7", 403),
    answer("403L", "mtls", 403),
    answer("404L", "l7", 404),
    grpc("403L", "l7", 7),
    grpc("403L", "mtls", 7),
    closed("TCPL", "l7"),
    closed("TCPL", "mtls"),
    _ALERT,
    answer("503L", "l34", 503),
    answer("504L", "l34", 504),
    grpc("503L", "l34", 14),
    closed("TCPL", "l34"),
)
