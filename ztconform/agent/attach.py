# SPDX-License-Identifier: Apache-2.0
"""Joins standard input and output to the agent that serves a pod; what is said is left to `channel`.

It is started for every conversation, in every client pod at once: it imports next to nothing, and so costs a tenth of an agent.
"""

from __future__ import annotations

import os
import select
import socket

_CHUNK = 65536
_STDIN, _STDOUT = 0, 1


def address_of(pod: str) -> str:
    """Return an abstract address: it belongs to the network namespace, needs no file, and ends with the process."""
    return f"\0ztconform-agent/{pod}"


def attach(pod: str) -> str:
    """Carry bytes in both directions until either end closes; return why that could not begin, or ""."""
    with socket.socket(socket.AF_UNIX) as agent:
        try:
            agent.connect(address_of(pod))
        except OSError as error:
            return f"no agent serves {pod} in this network namespace: {error.strerror}"
        poll = select.poll()
        poll.register(_STDIN, select.POLLIN)
        poll.register(agent, select.POLLIN)
        try:
            while True:
                for descriptor, _ in poll.poll():
                    data = os.read(descriptor, _CHUNK)
                    if not data:
                        return ""
                    if descriptor == _STDIN:
                        agent.sendall(data)
                    else:
                        _write(data)
        except OSError:
            return ""  # one of the ends has gone while it was written to


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(_STDOUT, data) :]
