# SPDX-License-Identifier: Apache-2.0
"""How the agent of a pod, or of a host outside, is reached; what is said to it is left to `links`."""

from collections.abc import Callable

from ztconform.kube import objects
from ztconform.kube.client import Connection
from ztconform.kube.link import OpenPipe
from ztconform.kube.outside import Outside
from ztconform.kube.pipes import ExecPipe, OnData, OnEnd, Pipe
from ztconform.kube.pods import KubePod


def opener(connection: Connection, outside: Outside) -> Callable[[KubePod], OpenPipe]:
    """Return what opens a pipe to a pod's agent: by exec in the container that it runs in, or to a host outside."""

    def to(pod: KubePod) -> OpenPipe:
        command = objects.attach_command(str(pod.ref))

        def open_pipe(on_data: OnData, on_end: OnEnd) -> Pipe:
            if pod.node is None:
                return outside.pipe(pod, command, on_data, on_end)
            where = (pod.real.namespace, pod.real.name)
            return ExecPipe(connection, where, pod.container, command, on_data=on_data, on_end=on_end)

        return open_pipe

    return to
