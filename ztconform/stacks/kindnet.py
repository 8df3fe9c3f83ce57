# SPDX-License-Identifier: Apache-2.0
"""The component `kindnet`: the CNI that kind brings; what it enforces, and how it is known.

Since kind 0.24 it enforces NetworkPolicy (kube-network-policies over NFQUEUE, which is fail-open): the canary has the last word.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztconform.settings import Settings
from ztconform.stacks import networkpolicy
from ztconform.stacks.component import Composition, Findings, Found, Kernel, Role, Site, Step
from ztconform.stacks.dual import NEEDS as DUAL
from ztconform.stacks.dual import NOT_PROBED, is_dual

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.ready import Goal

NAMESPACE, DAEMON_SET = "kube-system", "kindnet"
FAIL_OPEN = "kindnet queues packets to a program that judges them, and lets them pass where that does not run (fail-open)"


class Kindnet:
    """Answer for kindnet."""

    name = "kindnet"
    role: Role = "cni"
    summary = "kindnet, the CNI that kind brings: NetworkPolicy"
    memory = 150

    def kind_needs(self, stack: Composition) -> Mapping[str, Any]:
        """Return nothing: kind installs it by itself."""
        return DUAL if "dual" in stack.options else {}

    def kernel(self, stack: Composition) -> tuple[Kernel, ...]:
        """Return nothing that a link can tell: NFQUEUE is none, and the canary shows whether it is there."""
        return ()

    def steps(self, stack: Composition, settings: Settings, site: Site) -> Sequence[Step]:
        """Return nothing: it is there as soon as the cluster is."""
        return ()

    def promises(self, stack: Composition) -> Mapping[str, str]:
        """Return what a kindnet of both families adds."""
        return {"dual-stack": NOT_PROBED} if "dual" in stack.options else {}

    def goal(self, stack: Composition) -> "Goal":
        """Return its agents."""
        from ztconform.kube.ready import Goal, Want  # noqa: PLC0415 - the extra may be missing

        return Goal(what="kindnet", wants=(Want(kind="daemonset", namespace=NAMESPACE, name=DAEMON_SET),))

    def found(self, connection: "Connection") -> Found | None:
        """Return by what kindnet is known: by its agents."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        agents = inventory.rollout(connection, "daemonset", NAMESPACE, DAEMON_SET)
        if agents is None:
            return None
        options = frozenset({"dual"}) if is_dual(connection) else frozenset[str]()
        return Found(evidence=f"daemonset {NAMESPACE}/{DAEMON_SET} ({agents.images[0]})", options=options)

    def demand(self, connection: "Connection") -> None:
        """Demand nothing."""

    def findings(self, connection: "Connection", settings: Settings, stack: Composition, kind: str) -> Findings:
        """Return what is known of kindnet."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        agents = inventory.rollout(connection, "daemonset", NAMESPACE, DAEMON_SET)
        image = agents.images[0] if agents else ""
        return Findings(
            dialects=("kubernetes",),
            features={"dual-stack": NOT_PROBED} if is_dual(connection) else {},
            versions={"kindnet": inventory.tag(image) or image or "unknown"},
            signatures=networkpolicy.SIGNATURES,
            notes=(FAIL_OPEN,),
        )

    def status(self, connection: "Connection") -> str:
        """Return what keeps its pods from running."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing

        return "".join(f"{trouble}\n" for trouble in inventory.troubles(connection, NAMESPACE, "app=kindnet"))


COMPONENT = Kindnet()
