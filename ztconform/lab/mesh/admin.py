# SPDX-License-Identifier: Apache-2.0
"""What Envoy says of itself, asked over its admin socket without ever blocking the loop that asks."""

import asyncio
from pathlib import Path

_SECONDS = 5.0
_CHUNK = 1 << 16


class Admin:
    """Ask one Envoy; every method raises OSError while nobody listens."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def ask(self, path: str, method: str = "GET") -> str:
        """Return the body of an answer."""
        return await asyncio.wait_for(self._ask(path, method), _SECONDS)

    async def _ask(self, path: str, method: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=_CHUNK)
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read(-1)
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return (_joined(body) if b"\r\ntransfer-encoding: chunked" in head.lower() else body).decode()

    async def stats(self, *names: str) -> dict[str, str]:
        """Return the statistics whose names these regular expressions match whole."""
        lines = (await self.ask(f"/stats?filter=^({_quoted('|'.join(names))})$")).splitlines()
        return {name: value.strip('"') for name, colon, value in (line.partition(": ") for line in lines) if colon}


def _quoted(expression: str) -> str:
    # `+` and `%` would be decoded on the other side, `&` would end the parameter, and a `#` never arrives.
    for character in "%+&# ":
        expression = expression.replace(character, f"%{ord(character):02X}")
    return expression


def _joined(body: bytes) -> bytes:
    """Return what chunks hold."""
    out = bytearray()
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        if not length:
            break
        out += body[:length]
        body = body[length + 2 :]
    return bytes(out)
