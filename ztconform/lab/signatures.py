# SPDX-License-Identifier: Apache-2.0
"""How a denial looks in the lab, layer by layer; whoever denies logs it, so that none counts without a cause."""

from ztconform.evidence import Signature
from ztconform.mesh import sidecar
from ztconform.model import Stage

_ANY_STAGE: frozenset[Stage] = frozenset({"connect", "request"})

SIGNATURES = (
    Signature(name="DROP", layer="l34", kinds=sidecar.TCP, signal="timeout", stages=frozenset[Stage]({"connect"}), caused=True),
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
        kinds=frozenset({"udp", "dns", *sidecar.TCP}),
        signal="icmp",
        stages=_ANY_STAGE,
        detail=r"3/(9|10|13)|1/1",
        caused=True,
    ),
    *sidecar.SIGNATURES,
    Signature(name="TLS", layer="mtls", kinds=sidecar.TCP, signal="tls-alert", stages=sidecar.TALKING, caused=True),
)

# Where SPIRE issues identities: no entry is for the process that asks, or the server has banned the agent that it asks. An agent
# that is gone for another reason looks like the second and has logged no ban.
_FETCHING: frozenset[Stage] = frozenset({"identity"})
_NO_ENTRY = "PERMISSION_DENIED no identity issued"
SPIRE_SIGNATURES = (
    Signature(
        name="NOSVID", layer="identity", kinds=sidecar.TCP, signal="no-identity", stages=_FETCHING, detail=_NO_ENTRY, caused=True
    ),
    Signature(
        name="BANNED",
        layer="identity",
        kinds=sidecar.TCP,
        signal="no-identity",
        stages=_FETCHING,
        detail=r"UNAVAILABLE.*",
        caused=True,
    ),
)
