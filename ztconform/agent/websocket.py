# SPDX-License-Identifier: Apache-2.0
"""How a WebSocket is opened and spoken, on either side (RFC 6455): one text message there, one back; no sockets.

The HTTP answer that opens it is read by `readers`, the request by `httpserver`. Whatever the bytes are, they end in messages or
in a close, never in an exception.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from typing import TYPE_CHECKING, NamedTuple

from .readers import SWITCHING, Answer, HttpReader
from .wire import MAX_LINE, answer_line, read_answer_line, read_request_line, request_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .wire import Mark

CONTINUATION, TEXT, BINARY = 0, 1, 2
CLOSE, PING, PONG = 8, 9, 10
VERSION = "13"
NORMAL, PROTOCOL_ERROR, UNACCEPTABLE, TOO_BIG = 1000, 1002, 1003, 1009  # why a connection is closed
_CONTROL = 8  # opcodes from here on stand between the pieces of a message
_FINAL = MASKED = 0x80
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_SIZE = 16


class _Broken(Exception):
    """Carry the code with which a connection is closed."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Message(NamedTuple):
    """Hold a message, or one control frame."""

    opcode: int
    data: bytes


class Messages:
    """Put frames together again to messages."""

    __slots__ = ("_buffer", "_masked", "_opcode", "_parts", "code")

    def __init__(self, masked: bool) -> None:
        """Take frames that are masked, as a client's are, or else refuse those that are."""
        self._masked = masked
        self._buffer = b""
        self._opcode = 0  # of the message whose first pieces are there
        self._parts = b""
        self.code = 0  # why the bytes are no messages

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes and return the messages that are complete; after a failure nothing is taken any more."""
        self._buffer += data
        messages: list[Message] = []
        try:
            while not self.code and self._take(messages):
                pass
        except _Broken as error:
            self.code = error.code
        return messages

    def _take(self, messages: list[Message]) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        first, second = buffer[0], buffer[1]
        if first & 0x70 or bool(second & MASKED) != self._masked:
            raise _Broken(PROTOCOL_ERROR)
        length, at = second & 0x7F, 2
        if length > 125:
            at = 4 if length == 126 else 10
            length = int.from_bytes(buffer[2:at], "big")
        mask = b""
        if self._masked:
            mask = buffer[at : at + 4]
            at += 4
        if len(buffer) < at:
            return False
        if length > MAX_LINE:
            raise _Broken(TOO_BIG)
        if len(buffer) < at + length:
            return False
        data = buffer[at : at + length]
        self._buffer = buffer[at + length :]
        self._join(first, _masked(data, mask) if mask else data, messages)
        return True

    def _join(self, first: int, data: bytes, messages: list[Message]) -> None:
        opcode = first & 0x0F
        if opcode >= _CONTROL:
            if opcode not in (CLOSE, PING, PONG) or not first & _FINAL or len(data) > 125:
                raise _Broken(PROTOCOL_ERROR)
            messages.append(Message(opcode, data))
            return
        if opcode > BINARY or (opcode == CONTINUATION) != bool(self._opcode):
            raise _Broken(PROTOCOL_ERROR)
        self._opcode = self._opcode or opcode
        self._parts += data
        if len(self._parts) > MAX_LINE:
            raise _Broken(TOO_BIG)
        if first & _FINAL:
            messages.append(Message(self._opcode, self._parts))
            self._opcode, self._parts = 0, b""


class WebSocketReader:
    """Collect the answer to a handshake, send the nonce in a message behind it, and collect the message that comes back."""

    __slots__ = ("_http", "_key", "_messages", "_nonce", "_problem", "body", "closed", "reply")

    reusable = False

    def __init__(self, nonce: str, key: str) -> None:
        self._nonce = nonce
        self._key = key
        self._http = HttpReader("GET")
        self._messages: Messages | None = None  # None: the handshake is not over
        self._problem = ""
        self.reply = b""
        self.body: bytes | None = None  # of the message
        self.closed = ""

    @property
    def server(self) -> str:
        return self._http.server

    def feed(self, data: bytes) -> bool:
        self.reply = b""
        if self._messages is None:
            if not self._http.feed(data):
                return False
            if self._http.status != SWITCHING:
                return True
            if self._http.header("sec-websocket-accept") != accept_key(self._key):
                self._problem = "answer does not accept the WebSocket's key"
                return True
            self._messages = Messages(masked=False)
            self.reply = encode(TEXT, request_line(self._nonce), secrets.token_bytes(4))
            data = self._http.rest
        return self._read(self._messages, data)

    def end(self) -> bool:
        return self._messages is None and self._http.end()

    def answer(self) -> Answer:
        """Return what the answer was worth."""
        if self._messages is None:
            answer = self._http.answer()
            return answer._replace(detail=self._problem) if self._problem else answer
        if self.closed:
            return Answer(self.closed, status=SWITCHING, server=self.server, closed=True)
        message = self.body or b""
        return Answer(self._problem, read_answer_line(message), message.decode("latin-1"), SWITCHING, self.server)

    def _read(self, messages: Messages, data: bytes) -> bool:
        for opcode, content in messages.feed(data):
            if opcode == PING:
                self.reply += encode(PONG, content, secrets.token_bytes(4))
            elif opcode == CLOSE:
                code = int.from_bytes(content[:2], "big") if len(content) >= 2 else "without a code"
                self.closed = f"WebSocket close {code}"
                return True
            elif opcode != PONG:
                self.body = content
                return True
        if messages.code:
            self._problem = "answer's frames are malformed"
        return bool(messages.code)


class WebSocketSession:
    """Answer each message of a connection that was HTTP before with a mark; anything but our lines closes it."""

    __slots__ = ("_messages", "_record", "closing")

    def __init__(self, record: Callable[[str], Mark]) -> None:
        self._record = record
        self._messages = Messages(masked=True)
        self.closing = False

    def feed(self, data: bytes) -> bytes:
        out = []
        for opcode, content in self._messages.feed(data):
            if opcode == CLOSE:
                self.closing = True
                out.append(encode(CLOSE, content[:2]))
                break
            if opcode == PING:
                out.append(encode(PONG, content))
            elif opcode != PONG:
                nonce = read_request_line(content)
                mark = self._record(nonce)
                if not nonce:
                    self.closing = True
                    out.append(_close(UNACCEPTABLE))
                    break
                out.append(encode(TEXT, answer_line(mark)))
        if self._messages.code and not self.closing:
            self.closing = True
            out.append(_close(self._messages.code))
        return b"".join(out)


def new_key() -> str:
    """Return a client's key."""
    return base64.b64encode(secrets.token_bytes(_KEY_SIZE)).decode("ascii")


def accept_key(key: str) -> str:
    """Return the answer that shows a key was understood."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode("ascii")).digest()).decode("ascii")


def wished(headers: Mapping[str, str]) -> bool:
    """Return whether a request's headers, by their names in lower case, ask for a WebSocket."""
    tokens = [token.strip() for token in headers.get("connection", "").lower().split(",")]
    return "upgrade" in tokens and headers.get("upgrade", "").strip().lower() == "websocket"


def offered_key(headers: Mapping[str, str]) -> str:
    """Return the key of a request that asks for a WebSocket, "" where it is none or of another version."""
    key = headers.get("sec-websocket-key", "")
    try:
        right = len(base64.b64decode(key.encode("ascii"), validate=True)) == _KEY_SIZE
    except (binascii.Error, ValueError):
        return ""
    return key if right and headers.get("sec-websocket-version") == VERSION else ""


def encode(opcode: int, data: bytes, mask: bytes = b"") -> bytes:
    """Return a frame that is a whole message."""
    flag = MASKED if mask else 0
    if len(data) < 126:
        head = bytes((_FINAL | opcode, flag | len(data)))
    elif len(data) < 1 << 16:
        head = bytes((_FINAL | opcode, flag | 126)) + len(data).to_bytes(2, "big")
    else:
        head = bytes((_FINAL | opcode, flag | 127)) + len(data).to_bytes(8, "big")
    return head + mask + (_masked(data, mask) if mask else data)


def _close(code: int) -> bytes:
    return encode(CLOSE, code.to_bytes(2, "big"))


def _masked(data: bytes, mask: bytes) -> bytes:
    count = len(data)
    key = (mask * (count // 4 + 1))[:count]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(count, "big")
