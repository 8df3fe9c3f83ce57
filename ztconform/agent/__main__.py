# SPDX-License-Identifier: Apache-2.0
"""The agent as a command in a pod: `probe` sends one probe from here, `serve` serves and takes orders on standard input.

    python -m ztconform.agent probe '{"kind": "http", "address": "127.0.0.1", "port": 8080}'
    python -m ztconform.agent serve '{"pod": "shop/payment", "ports": [{"number": 8080, "protocol": "TCP", "app": "http"}]}'

Orders and answers are those of `channel`; serving ends with standard input.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import TYPE_CHECKING

from .channel import MAX_REQUEST, Channel
from .files import raise_limit
from .prober import Prober
from .server import Server
from .stream import Streams
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_USAGE = "usage: python -m ztconform.agent probe|serve JSON"
_SERVE_FIELDS = {"pod", "ports", "addresses", "health"}
_EXIT_USAGE = 2
_EXIT_COULD_NOT_RUN = 3


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    commands = {"probe": _probe, "serve": _serve}
    if len(arguments) != 2 or arguments[0] not in commands:
        print(_USAGE, file=sys.stderr)
        return _EXIT_USAGE
    try:
        fields = json.loads(arguments[1])
    except ValueError as error:
        print(f"{_USAGE}\n{error}", file=sys.stderr)
        return _EXIT_USAGE
    if not isinstance(fields, dict):
        print(f"{_USAGE}\nnot a JSON object: {arguments[1]}", file=sys.stderr)
        return _EXIT_USAGE
    raise_limit()
    try:
        asyncio.run(commands[arguments[0]](fields))
    except AgentError as error:
        print(f"ztconform agent: {error}", file=sys.stderr)
        return _EXIT_COULD_NOT_RUN
    except KeyboardInterrupt:
        return _EXIT_COULD_NOT_RUN
    return 0


async def _probe(fields: dict[str, Any]) -> None:
    prober = Prober(socket.socket)
    print(json.dumps(await prober.probe(fields), indent=2))
    prober.close()


async def _serve(fields: dict[str, Any]) -> None:
    if not fields.keys() <= _SERVE_FIELDS or "pod" not in fields:
        raise AgentError(f"serve takes {', '.join(sorted(_SERVE_FIELDS))}, and needs pod, not {', '.join(sorted(fields))}")
    loop = asyncio.get_running_loop()
    options = {name: fields[name] for name in ("addresses", "health") if name in fields}
    server = Server(fields["pod"], socket.socket, fields.get("ports", ()), **options)
    reader = asyncio.StreamReader(limit=MAX_REQUEST)
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
        transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout.buffer)
    except (OSError, ValueError) as error:
        raise AgentError(f"serve takes orders by pipes or sockets, and standard input or output is neither: {error}") from error
    server.start()
    prober = Prober(socket.socket)
    try:
        channel = Channel(prober, Streams(prober), server, transport.write)
        transport.write(json.dumps({"ready": True, "boot": server.boot}).encode("ascii") + b"\n")
        await channel.run(reader)
        transport.close()
    finally:
        prober.close()
        server.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
