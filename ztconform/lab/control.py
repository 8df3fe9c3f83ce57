# SPDX-License-Identifier: Apache-2.0
"""The inner end of a channel: reads one JSON line, does the operation, answers with one JSON line."""

import asyncio
import json
import socket
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ztconform.agent.wire import AgentError
from ztconform.errors import ClusterError

Operation = Callable[[Mapping[str, Any]], Awaitable[Any]]
_LONGEST_LINE = 1 << 28  # a round of 100,000 probes


async def serve(sock: socket.socket, operations: Mapping[str, Operation]) -> None:
    """Answer operations in the order asked until the other end closes."""
    reader, writer = await asyncio.open_connection(sock=sock, limit=_LONGEST_LINE)
    while line := await reader.readline():
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"ok": await operations[request.pop("op")](request)}
        except (ClusterError, AgentError) as error:
            answer = {"error": ["cluster", str(error)]}
        except Exception as error:  # boundary: the other process has to learn of our bug, and the traceback is all there is
            where = traceback.format_exc().strip().splitlines()[-3:]
            answer = {"error": ["internal", f"the lab failed: {error!r} ({' '.join(where)}); please report"]}
        writer.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
        await writer.drain()


async def hello(_: Mapping[str, Any]) -> dict[str, Any]:
    """Say that the process is up."""
    return {}
