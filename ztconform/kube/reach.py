# SPDX-License-Identifier: Apache-2.0
"""How the agent of a pod or of a host outside is reached: by us for a conversation, and by a person for one probe."""

from collections.abc import Mapping, Sequence
from typing import Any

from ztconform.kube import objects
from ztconform.kube.client import Connection
from ztconform.kube.link import OpenPipe
from ztconform.kube.outside import Outside
from ztconform.kube.pipes import ExecPipe, OnData, OnEnd, Pipe
from ztconform.kube.pods import KubePod


class Reach:
    """Know the ways into one cluster and to the hosts beside it."""

    def __init__(self, connection: Connection, outside: Outside) -> None:
        self._connection = connection
        self._outside = outside

    def opener(self, pod: KubePod) -> OpenPipe:
        """Return what begins a conversation with the pod's agent."""
        command = objects.orders_command(str(pod.ref), pod.workload)

        def open_pipe(on_data: OnData, on_end: OnEnd) -> Pipe:
            if pod.node is None:
                return self._outside.pipe(pod, command, on_data, on_end)
            where = (pod.real.namespace, pod.real.name)
            return ExecPipe(self._connection, where, pod.container, command, on_data=on_data, on_end=on_end)

        return open_pipe

    def words(self, pod: KubePod, spec: Mapping[str, Any]) -> Sequence[str]:
        """Return the words of a shell command that sends one probe from the pod."""
        command = objects.probe_command(spec)
        if pod.node is None:
            return self._outside.render(pod, command)
        within = ["--context", self._connection.context, "--namespace", pod.real.namespace]
        return ["kubectl", *within, "exec", pod.real.name, "--container", pod.container, "--", *command]
