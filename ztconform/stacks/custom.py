# SPDX-License-Identifier: Apache-2.0
"""The stack `custom`: whatever CNI a kind cluster gets from the user's own command, or an existing cluster has.

Nothing is known of it beforehand: that it enforces NetworkPolicy is claimed here, and the canary has the last word.
"""

import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ztconform.errors import ClusterError, UsageError
from ztconform.settings import Settings
from ztconform.stacks import networkpolicy
from ztconform.stacks.kubernetes import KubernetesStack

if TYPE_CHECKING:
    from ztconform.kube.client import Connection
    from ztconform.kube.kind import Plan
    from ztconform.kube.profile import Profile
    from ztconform.kube.ready import Goal

OPTION = "--ztc-cni-command"
_RANGES = 30.0  # seconds
_WITHIN = 900.0  # seconds; the command may pull images


class CustomStack(KubernetesStack):
    """Start a CNI that is not known."""

    name = "custom"
    summary = f"whatever CNI {OPTION} gives a kind cluster, or an existing cluster has (--ztc-context)"

    def check(self, settings: Settings) -> None:
        """Raise UsageError without a command that can be run."""
        argv(settings.cni_command, "ztc")

    def made(self, settings: Settings) -> Mapping[str, str]:
        """Return the command: what an earlier one left in a cluster cannot be known."""
        return {OPTION: settings.cni_command}

    def install(self, settings: Settings, plan: "Plan") -> None:
        """Run the user's command; its output is shown only if it fails."""
        from ztconform.kube import command, machine, ready  # noqa: PLC0415 - the extra may be missing
        from ztconform.kube.client import connect  # noqa: PLC0415 - likewise

        args = argv(settings.cni_command, plan.name)
        # Seen: kind returned half a second before the node had its range, and a CNI was configured with none.
        ready.await_ranges(connect(plan.context, plan.kubeconfig), _RANGES)
        settings.notify(f"running {shlex.join(args)}")
        # The command finds the same kind as we do.
        path = f"{machine.kind(settings.kind_bin).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        done = command.run(args, within=_WITHIN, env={"KUBECONFIG": str(plan.kubeconfig), "PATH": path})
        if done.code != 0:
            log = plan.folder / f"{plan.name}.cni.log"
            log.write_text(f"{done.out}{done.err}", encoding="utf-8")
            raise ClusterError(f"{OPTION} `{shlex.join(args)}` failed ({done.code}): {done.complaint} (all that it said: {log})")

    def goal(self, *, provisioned: bool) -> "Goal":
        """Return on kind the cluster, which is not ready without a CNI; else nothing, for nothing is known."""
        from ztconform.kube.ready import Goal  # noqa: PLC0415 - the extra may be missing

        return Goal(cluster=provisioned)

    def absence(self, connection: "Connection") -> str:
        """Return "": any cluster will do."""
        return ""

    def profile(self, connection: "Connection", settings: Settings, kind: str) -> "Profile":
        """Return what is claimed of any CNI."""
        from ztconform.kube import inventory  # noqa: PLC0415 - the extra may be missing
        from ztconform.kube.profile import Profile  # noqa: PLC0415 - likewise

        return Profile(
            stack=self.name,
            dialects=("kubernetes",),
            features=networkpolicy.features(settings, kind),
            versions={"kubernetes": inventory.kubernetes_version(connection)},
            signatures=networkpolicy.SIGNATURES,
            notes=("nothing is known of this cluster's CNI; what it claims rests on the canary alone",),
            kind=kind,
        )

    def status(self, connection: "Connection") -> str:
        """Return what is not ready, and the DaemonSets, one of which may be the CNI."""
        from ztconform.kube import inventory, ready  # noqa: PLC0415 - the extra may be missing

        lines = [lack.text for lack in ready.missing(connection, self.goal(provisioned=True))]
        lines += [f"{found} ({', '.join(found.images)})" for found in inventory.daemon_sets(connection)]
        return "".join(f"{line}\n" for line in lines)


def argv(text: str, cluster: str) -> list[str]:
    """Return the user's command for a cluster, split as a shell would and run by none; raises UsageError if it cannot be."""
    if not text.strip():
        raise UsageError(f"the stack custom needs {OPTION} 'CMD {{cluster}}', which installs a CNI, or --ztc-context")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{OPTION}: {str(error).lower()}") from None
    return [word.replace("{cluster}", cluster) for word in words]


STACK = CustomStack()
