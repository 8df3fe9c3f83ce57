# SPDX-License-Identifier: Apache-2.0
"""What agents say to each other: nonces going out, marks coming back.

How bytes travel is for the servers and the exchanges; DNS messages are in `dns`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    OpenSocket = Callable[[int, int, int], socket.socket]  # family, type (with SOCK_NONBLOCK), protocol
    OnSent = Callable[[str, str, str, int, str, int], None]  # nonce, transport, source address and port, target's

NONCE_HEADER = "x-ztc-nonce"
MARK_HEADER = "x-ztc-mark"  # carries the mark where an answer has no body
SERVER_NAME = "ztc-agent"
PREFIX = b"ZTC "
# Above ip_local_port_range and above the UDP source ports of `sourceports`, so that no outgoing socket can hold it.
HEALTH_PORT = 61020
MAX_LINE = 65536
GRPC_TYPE = "application/grpc"
UNMARKED = "answer carries no mark of an agent"
FOREIGN_NONCE = "answer carries another nonce"

_GRPC_PREFIX = 5  # bytes: whether a message is compressed, and its length in four

_NONCE = re.compile(r"[0-9A-Za-z_-]{1,64}")
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class AgentError(Exception):
    """Say what kept the agent from serving: a port in use, an application it does not speak."""


class Mark(NamedTuple):
    """Hold what a server says of itself and of the request in each answer."""

    pod: str  # "namespace/name"
    boot: str
    sequence: int  # 0: the request had no nonce and was not recorded
    nonce: str
    path: str
    method: str
    peer: str  # "address port" that the server saw

    def encode(self) -> bytes:
        """Return the mark as one line of ASCII JSON."""
        fields = {
            "ztc": 1,
            "pod": self.pod,
            "boot": self.boot,
            "sequence": self.sequence,
            "nonce": self.nonce,
            "path": self.path,
            "method": self.method,
            "peer": self.peer,
        }
        return _encode(fields).encode("ascii")


def read_mark(text: str) -> Mark | None:
    """Return the mark that an answer is, or None for what no agent wrote."""
    try:
        fields = _decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.get("ztc") != 1:
        return None
    values: list[Any] = [fields.get(name) for name in Mark._fields]
    mark = Mark(*values)
    if not isinstance(mark.sequence, int) or sum(isinstance(value, str) for value in mark) != len(mark) - 1:
        return None
    return mark


def read_nonce(text: str) -> str:
    """Return the text if it can be a nonce, else ""."""
    return text if _NONCE.fullmatch(text) else ""


def authority(host: str, port: int) -> str:
    """Return what a request names as its server."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def request_line(nonce: str) -> bytes:
    """Return what a TCP or UDP probe sends."""
    return PREFIX + nonce.encode("ascii") + b"\n"


def read_request_line(line: bytes) -> str:
    """Return the nonce of a TCP or UDP probe (its end of line may be there or not), else ""."""
    if not line.startswith(PREFIX):
        return ""
    return read_nonce(line[len(PREFIX) :].rstrip(b"\r\n").decode("latin-1"))


def answer_line(mark: Mark) -> bytes:
    """Return what a TCP or UDP server answers."""
    return PREFIX + mark.encode() + b"\n"


def read_answer_line(line: bytes) -> Mark | None:
    """Return the mark of a TCP or UDP answer, or None for what no agent wrote."""
    return read_mark(line[len(PREFIX) :].decode("latin-1")) if line.startswith(PREFIX) else None


def grpc_message(content: bytes) -> bytes:
    """Return content as an uncompressed gRPC message."""
    return b"\0" + len(content).to_bytes(4, "big") + content


def read_grpc_message(data: bytes) -> bytes | None:
    """Return what the one gRPC message holds that data is; None if it is not one, or is compressed."""
    if len(data) < _GRPC_PREFIX or data[0] or int.from_bytes(data[1:_GRPC_PREFIX], "big") != len(data) - _GRPC_PREFIX:
        return None
    return data[_GRPC_PREFIX:]
