# SPDX-License-Identifier: Apache-2.0
"""What the lab states of itself to a proof: what it can prove, with SPIRE and without; pure."""

import platform
import sys
from collections.abc import Mapping

from ztconform.cluster import Facts, Resolver
from ztconform.lab.mesh.control import lacking
from ztconform.lab.signatures import SIGNATURES, SPIRE_SIGNATURES
from ztconform.mesh import sidecar
from ztconform.timeouts import LAB, LAB_SPIRE

_OF_THE_NETWORK = ("l34", "direct-calls", "outsider", "dual-stack", "flow-log", "pod-ipblock")
_OF_THE_MESH = (*sidecar.FEATURES, "svid-rotation")
_LACKING = {
    "authorization-audit": "the lab's mesh speaks Istio's policies, which have no audit; they have dry runs",
    "audit-mode": "the lab's packet filter drops what a policy denies, or nothing: it audits no pod",
    "deny-priority": "NetworkPolicy, all that the lab's packet filter speaks, has no rule that denies",
    "host-network": "the lab's nodes have no network of their own that a pod could be on",
    "staged-policy": "NetworkPolicy, all that the lab's packet filter speaks, stages nothing",
    "node-port": "the lab's nodes have no ports: its Services are ClusterIP and headless ones",
}
_OF_SPIRE = ("spire", "federation", "disruption")
_WITHOUT_SPIRE = "the lab issues identities itself: the stack lab+spire has SPIRE issue them"
_NOTHING_TO_DISTURB = "the lab has no part that could be disturbed: the stack lab+spire has SPIRE"
_SPIRE_RENEWS = "SPIRE's agent renews SVIDs when their time has come, and nobody can ask it to"


def stated(resolver: Resolver, nodes: int, spire: str) -> Facts:
    """Return the facts of a lab; `spire` is the version of the SPIRE that issues its identities, "" where it does so itself."""
    return Facts(
        stack="lab+spire" if spire else "lab",
        dialects=("kubernetes", "istio"),
        features=_features(lacking(), with_spire=bool(spire)),
        versions={
            "linux": platform.release(),
            "python": ".".join(map(str, sys.version_info[:3])),
            **({"spire": spire} if spire else {}),
        },
        signatures=(*SIGNATURES, *SPIRE_SIGNATURES) if spire else SIGNATURES,
        timeouts=LAB_SPIRE if spire else LAB,
        resolver=resolver,
        nodes=tuple(f"node-{n}" for n in range(nodes)),
    )


def _features(no_mesh: str, *, with_spire: bool) -> Mapping[str, str]:
    found = dict.fromkeys(_OF_THE_NETWORK, "") | dict.fromkeys(_OF_THE_MESH, no_mesh) | _LACKING
    if with_spire:
        return found | dict.fromkeys(_OF_SPIRE, no_mesh) | {"svid-rotation": _SPIRE_RENEWS}
    return found | dict.fromkeys(_OF_SPIRE, _WITHOUT_SPIRE) | {"disruption": _NOTHING_TO_DISTURB}
