# SPDX-License-Identifier: Apache-2.0
"""How a denial looks in the lab, layer by layer; whoever denies logs it, so that none counts without a cause."""

from ztconform.model import Kind, Signature, Stage

_HTTP: frozenset[Kind] = frozenset({"http", "http2", "websocket"})
_TCP: frozenset[Kind] = frozenset({"tcp", "tls", "grpc", *_HTTP})
_ANY_STAGE: frozenset[Stage] = frozenset({"connect", "request"})
_TALKING: frozenset[Stage] = frozenset({"tls", "request"})
_DONE: frozenset[Stage] = frozenset({"done"})
_RBAC = "RBAC: access denied"

SIGNATURES = (
    Signature(name="DROP", layer="l34", kinds=_TCP, signal="timeout", stages=frozenset[Stage]({"connect"}), caused=True),
    Signature(
        name="DROP",
        layer="l34",
        kinds=frozenset({"udp", "dns"}),
        signal="silence",
        stages=_ANY_STAGE,
        caused=True,
    ),
    # Administratively prohibited, and nothing else: a dead address is answered with other codes (evidence from IP_RECVERR).
    Signature(
        name="ICMP",
        layer="l34",
        kinds=frozenset({"udp", "dns", *_TCP}),
        signal="icmp",
        stages=_ANY_STAGE,
        detail=r"3/(9|10|13)|1/1",
        caused=True,
    ),
    # A captured client's own proxy accepts its connection, and answers for the server when the packets are dropped.
    Signature(name="503UF", layer="l34", kinds=_HTTP, signal="answered", stages=_DONE, status=503, caused=True),
    Signature(name="RST", layer="l34", kinds=_TCP, signal="closed", stages=_TALKING, caused=True),
    Signature(name="403I", layer="l7", kinds=_HTTP, signal="answered", stages=_DONE, status=403, body=_RBAC, caused=True),
    Signature(
        name="403I",
        layer="l7",
        kinds=frozenset({"grpc"}),
        signal="answered",
        stages=_DONE,
        detail=rf"grpc-status 7.*{_RBAC}",
        caused=True,
    ),
    # A path that the server's proxy will not normalize, refused before any policy is asked.
    Signature(name="400", layer="l7", kinds=_HTTP, signal="answered", stages=_DONE, status=400, caused=True),
    Signature(name="EOF", layer="l7", kinds=_TCP, signal="closed", stages=_TALKING, caused=True),
    Signature(name="RST", layer="mtls", kinds=_TCP, signal="closed", stages=_TALKING, caused=True),
    Signature(name="TLS", layer="mtls", kinds=_TCP, signal="tls-alert", stages=_TALKING, caused=True),
    # A client's own proxy that refuses the server's certificate, or hears that its own was refused.
    Signature(name="503", layer="mtls", kinds=_HTTP, signal="answered", stages=_DONE, status=503, caused=True),
)

# Where SPIRE issues identities: no entry is for the process that asks, or the server has banned the agent that it asks. An agent
# that is gone for another reason looks like the second and has logged no ban.
_FETCHING: frozenset[Stage] = frozenset({"identity"})
_NO_ENTRY = "PERMISSION_DENIED no identity issued"
SPIRE_SIGNATURES = (
    Signature(name="NOSVID", layer="identity", kinds=_TCP, signal="no-identity", stages=_FETCHING, detail=_NO_ENTRY, caused=True),
    Signature(
        name="BANNED", layer="identity", kinds=_TCP, signal="no-identity", stages=_FETCHING, detail=r"UNAVAILABLE.*", caused=True
    ),
)
