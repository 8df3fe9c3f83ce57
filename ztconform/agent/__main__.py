# SPDX-License-Identifier: Apache-2.0
"""The agent as a command in a pod: `probe` sends one probe from here, `serve` serves and takes orders.

    python -m ztconform.agent probe '{"kind": "http", "address": "127.0.0.1", "port": 8080}'
    python -m ztconform.agent serve '{"pod": "shop/payment", "ports": [{"number": 8080, "protocol": "TCP", "app": "http"}]}'
    python -m ztconform.agent serve '{"pod": "shop/payment", "orders": "socket"}'
    python -m ztconform.agent attach '{"pod": "shop/payment"}'

Each command imports what it needs alone. Orders and answers are those of `channel`. Serving ends with standard input; or, where
orders come by a socket of the pod's network namespace, which `attach` joins to its own standard input and output as often as it
is run, with SIGTERM.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

_USAGE = "usage: python -m ztconform.agent probe|serve|attach JSON"
_SERVE_FIELDS = {"pod", "ports", "addresses", "health", "orders", "identity"}
_ORDERS = ("stdin", "socket")
_EXIT_USAGE = 2
_EXIT_COULD_NOT_RUN = 3


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    commands = {"probe": _probe, "serve": _serve, "attach": _attach}
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
    try:
        why = commands[arguments[0]](fields)
    except KeyboardInterrupt:
        return _EXIT_COULD_NOT_RUN
    if why:
        print(f"ztconform agent: {why}", file=sys.stderr)
    return _EXIT_COULD_NOT_RUN if why else 0


def _probe(fields: dict[str, Any]) -> str:
    return _run(_send, fields)


def _serve(fields: dict[str, Any]) -> str:
    return _run(_take_orders, fields)


def _attach(fields: dict[str, Any]) -> str:
    from .attach import attach

    if fields.keys() != {"pod"} or not isinstance(fields["pod"], str):
        return "attach takes the pod's name"
    return attach(fields["pod"])


def _run(work: Callable[[dict[str, Any]], Coroutine[Any, Any, None]], fields: dict[str, Any]) -> str:
    """Run work in a loop, and return why it could not be done, or ""."""
    import asyncio

    from .files import raise_limit
    from .wire import AgentError

    raise_limit()
    try:
        asyncio.run(work(fields))
    except AgentError as error:
        return str(error)
    return ""


async def _send(fields: dict[str, Any]) -> None:
    import socket

    from .prober import Prober

    prober = Prober(socket.socket)
    print(json.dumps(await prober.probe(fields), indent=2))
    prober.close()


async def _take_orders(fields: dict[str, Any]) -> None:
    import socket

    from .orders import open_socket, take_orders
    from .prober import Prober
    from .server import Server
    from .wire import AgentError

    if not fields.keys() <= _SERVE_FIELDS or "pod" not in fields:
        raise AgentError(f"serve takes {', '.join(sorted(_SERVE_FIELDS))}, and needs pod, not {', '.join(sorted(fields))}")
    orders = fields.get("orders", "stdin")
    if orders not in _ORDERS:
        raise AgentError(f"orders come by {' or '.join(_ORDERS)}, not by {orders!r}")
    options = {name: fields[name] for name in ("addresses", "health", "identity") if name in fields}
    server = Server(fields["pod"], socket.socket, fields.get("ports", ()), **options)
    prober = Prober(socket.socket)
    try:
        await (take_orders if orders == "stdin" else open_socket)(server, prober)
    finally:
        prober.close()
        server.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
