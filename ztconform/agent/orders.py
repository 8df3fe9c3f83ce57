# SPDX-License-Identifier: Apache-2.0
"""By which way orders reach an agent process: its standard input, or a socket that `attach` joins to one.

What the orders are is in `channel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from typing import TYPE_CHECKING

from .attach import address_of
from .channel import MAX_REQUEST, Channel, Life
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .prober import Prober
    from .server import Server


async def take_orders(server: Server, prober: Prober) -> None:
    """Serve and take orders on standard input until it ends; raises AgentError."""
    reader, write, close = await _standard()
    server.start()
    life = Life()
    channel = asyncio.ensure_future(Channel(prober, server, _greeted(server, write), life).run(reader))
    ended = asyncio.ensure_future(life.wait())
    await asyncio.wait({channel, ended}, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if channel.done():
        channel.result()
    close()


async def open_socket(server: Server, prober: Prober) -> None:
    """Serve and take orders of whoever attaches, until SIGTERM or the order to exit; raises AgentError."""
    life = Life()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, life.terminate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(prober, server, _greeted(server, writer.write), life)
        # Who attached will see that the connection has ended, and why does not matter to the others.
        with contextlib.suppress(AgentError, OSError):
            await channel.run(reader)
        writer.close()

    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(address_of(server.witness.pod))
    except OSError as error:
        raise AgentError(f"{server.witness.pod} has an agent already in this network namespace: {error}") from error
    try:
        server.start()  # before anybody can attach: who is greeted may rely on it
        orders = await asyncio.start_unix_server(serve, sock=listener, limit=MAX_REQUEST)
        await life.wait()
        orders.close()
    finally:
        listener.close()


def _greeted(server: Server, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
    write(json.dumps({"ready": True, "boot": server.boot}).encode("ascii") + b"\n")
    return write


async def _standard() -> tuple[asyncio.StreamReader, Callable[[bytes], None], Callable[[], None]]:
    """Return standard input as a reader, and how to write to and close standard output; raises AgentError."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_REQUEST)
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
        transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout.buffer)
    except (OSError, ValueError) as error:
        raise AgentError(f"orders come by pipes or sockets, and standard input or output is neither: {error}") from error
    return reader, transport.write, transport.close
