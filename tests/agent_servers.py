# SPDX-License-Identifier: Apache-2.0
"""A pod's server on loopback, for the tests that send it probes."""

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ztconform.agent.server import Server


@contextlib.contextmanager
def serving(address: str, ports: Sequence[Mapping[str, Any]]) -> Iterator[Server]:
    """Serve these ports of shop/payment at one address, in the running loop, for as long as the block lasts."""
    server = Server("shop/payment", socket.socket, ports, [address])
    server.start()
    try:
        yield server
    finally:
        server.stop()
