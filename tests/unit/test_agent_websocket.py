# SPDX-License-Identifier: Apache-2.0
"""How WebSockets are opened and spoken by probes and servers; live on loopback."""

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agent_servers import serving
from hypothesis import given
from hypothesis import strategies as st

from ztconform.agent import websocket
from ztconform.agent.httpserver import HttpSession, Reply
from ztconform.agent.prober import Prober
from ztconform.agent.spec import SpecError, read_spec
from ztconform.agent.websocket import CLOSE, CONTINUATION, PING, PONG, TEXT, Message, Messages, WebSocketReader, WebSocketSession
from ztconform.agent.wire import Mark, answer_line, read_answer_line

HTTP, STRANGE = 18580, 18584
PORTS = ({"number": HTTP, "protocol": "TCP", "app": "http"},)
MARK = Mark("shop/payment", "boot", 1, "abc", "", "", "")
HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
MASK = b"\x01\x02\x03\x04"


@contextlib.contextmanager
def strange_server(address: str, answer: Callable[[bytes], bytes], *frames: bytes) -> Iterator[list[bytes]]:
    """Answer one handshake in a thread, then send frames, and collect what comes."""
    listener = socket.create_server((address, STRANGE))
    came: list[bytes] = []

    def work() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(2)
                connection.sendall(answer(connection.recv(65536)))
                for frame in frames:
                    came.append(connection.recv(65536))
                    connection.sendall(frame)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield came
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def accept(request: bytes) -> bytes:
    (key,) = re.findall(rb"Sec-WebSocket-Key: (\S+)", request)
    head = "HTTP/1.1 101 Switching Protocols\r\nServer: envoy\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return f"{head}Sec-WebSocket-Accept: {websocket.accept_key(key.decode())}\r\n\r\n".encode()


def probe(address: str, port: int = STRANGE, **fields: Any) -> dict[str, Any]:
    async def scenario() -> dict[str, Any]:
        prober = Prober(socket.socket)
        try:
            return await prober.probe(
                {"kind": "websocket", "address": address, "port": port, "nonce": "abc", "timeout": 3, **fields}
            )
        finally:
            prober.close()

    return asyncio.run(scenario())


def told(observation: dict[str, Any]) -> tuple[str, str, str]:
    return observation["signal"], observation["stage"], observation["detail"]


def test_the_key_is_answered_as_in_the_rfc() -> None:
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==")


def test_a_message_is_echoed_with_the_mark_and_is_one_sighting_with_its_handshake(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            prober = Prober(socket.socket)
            headers = [["x-forwarded-client-cert", "URI=spiffe://a"], ["x-more", "1"]]
            spec = {"kind": "websocket", "address": address, "port": HTTP, "path": "/chat", "headers": headers, "nonce": "abc"}
            seen = await prober.probe(spec)
            assert ("answered", "done", "", 101, "ztc-agent") == (*told(seen), seen["status"], seen["server"])
            assert ("shop/payment", server.boot) == (seen["backend"], seen["boot"])
            assert '"path":"/chat","method":"GET"' in seen["body"]
            assert [["abc", server.boot, 1, "spiffe://a"]] == server.sightings()
            prober.close()

    asyncio.run(scenario())


def test_an_answer_other_than_101_is_an_answer_with_its_status(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS):
            prober = Prober(socket.socket)
            seen = await prober.probe({"kind": "websocket", "address": address, "port": HTTP, "path": "/status/403"})
            assert ("answered", "done", "", 403, "shop/payment") == (*told(seen), seen["status"], seen["backend"])
            prober.close()

    asyncio.run(scenario())
    with strange_server(address, lambda _: b"HTTP/1.1 403 Forbidden\r\nServer: envoy\r\nContent-Length: 2\r\n\r\nno"):
        seen = probe(address)
    assert ("answered", 403, "no", "envoy", "") == (seen["signal"], seen["status"], seen["body"], seen["server"], seen["backend"])


@pytest.mark.parametrize(
    ("answer", "frame", "expected"),
    [
        (accept, websocket.encode(TEXT, answer_line(MARK)), ("answered", "done", "")),
        (accept, websocket.encode(PING, b"x") + websocket.encode(TEXT, answer_line(MARK)), ("answered", "done", "")),
        (accept, websocket.encode(TEXT, b"hello"), ("answered", "done", "answer carries no mark of an agent")),
        (accept, websocket.encode(TEXT, b"x", MASK), ("answered", "done", "answer's frames are malformed")),
        (accept, websocket.encode(CLOSE, b"\x03\xf0"), ("closed", "request", "WebSocket close 1008")),
        (accept, websocket.encode(CLOSE, b""), ("closed", "request", "WebSocket close without a code")),
        (accept, b"\x81", ("closed", "request", "EOF")),
        (
            lambda request: accept(request.replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: x")),
            b"",
            ("answered", "done", "answer does not accept the WebSocket's key"),
        ),
        (lambda _: b"HTTP/1.1 101 Ha\r\n\r\n", b"", ("answered", "done", "answer does not accept the WebSocket's key")),
        (lambda _: b"SSH-2.0\r\n", b"", ("answered", "done", "answer is not HTTP")),
        (lambda _: b"HTTP/1.1 101", b"", ("closed", "request", "EOF")),
    ],
)
def test_what_becomes_of_a_handshake_and_a_message_is_told(
    address: str, answer: Callable[[bytes], bytes], frame: bytes, expected: tuple[str, str, str]
) -> None:
    with strange_server(address, answer, *([frame] if frame else [])):
        seen = probe(address)
    assert expected == told(seen)
    assert ("shop/payment" if not expected[2] else "") == seen["backend"]


def test_a_frame_that_comes_with_the_handshakes_answer_counts(address: str) -> None:
    with strange_server(address, lambda request: accept(request) + websocket.encode(TEXT, answer_line(MARK))):
        assert ("answered", "done", "") == told(probe(address))


def test_what_a_client_sends_is_masked_and_a_ping_is_answered(address: str) -> None:
    with strange_server(address, accept, websocket.encode(PING, b"x"), websocket.encode(TEXT, b"hello")) as came:
        probe(address)
    messages = Messages(masked=True)
    assert [Message(TEXT, b"ZTC abc\n"), Message(PONG, b"x")] == messages.feed(b"".join(came))


def test_only_get_opens_a_websocket() -> None:
    with pytest.raises(SpecError, match="method 'POST' opens no WebSocket"):
        read_spec({"kind": "websocket", "address": "127.0.0.1", "port": 1, "method": "POST"})


async def talk(address: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(address, HTTP)
    writer.write(data)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HANDSHAKE, 101),
        (HANDSHAKE.replace(b"Upgrade: WebSocket\r\n", b""), 200),
        (HANDSHAKE.replace(b", Upgrade", b""), 200),
        (HANDSHAKE.replace(b"Version: 13", b"Version: 8"), 400),
        (HANDSHAKE.replace(b"dGhl", b"----"), 400),
        (HANDSHAKE.replace(b"dGhl", b""), 400),
    ],
)
def test_a_handshake_that_asks_wrongly_is_refused_or_plain(address: str, request_: bytes, status: int) -> None:
    async def scenario() -> None:
        with serving(address, PORTS):
            answer = await talk(address, request_ + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert (b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer) == (status == 101)

    asyncio.run(scenario())


def test_messages_of_one_connection_are_each_witnessed_until_one_is_not_ours(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            lines = [b"ZTC a\n", b"ZTC b", b"nonsense", b"ZTC c"]
            frames = b"".join(websocket.encode(TEXT, line, MASK) for line in lines)
            answer = await talk(
                address, HANDSHAKE + b"x-ztc-nonce: a\r\nx-forwarded-client-cert: URI=spiffe://a\r\n\r\n" + frames
            )
            messages = Messages(masked=False).feed(answer.partition(b"\r\n\r\n")[2])
            marks = [read_answer_line(data) for opcode, data in messages if opcode == TEXT]
            assert [("a", 1), ("b", 2)] == [(mark.nonce, mark.sequence) for mark in marks if mark is not None]
            assert Message(CLOSE, b"\x03\xeb") == messages[-1]
            assert [["a", server.boot, 1, "spiffe://a"], ["b", server.boot, 2, "spiffe://a"]] == server.sightings()

    asyncio.run(scenario())


def test_a_handshake_with_a_body_switches_only_behind_it() -> None:
    session = HttpSession(lambda _: Reply(101, b"", session=WebSocketSession(lambda nonce: MARK._replace(nonce=nonce))))
    assert b"" == session.feed(HANDSHAKE + b"Content-Length: 3\r\n\r\nZT")
    out = session.feed(b"C" + websocket.encode(TEXT, b"ZTC abc\n", MASK))
    head, _, frames = out.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert [Message(TEXT, answer_line(MARK))] == Messages(masked=False).feed(frames)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (websocket.encode(CLOSE, b"\x03\xe8bye", MASK), Message(CLOSE, b"\x03\xe8")),
        (websocket.encode(TEXT, b"ZTC a\n"), Message(CLOSE, b"\x03\xea")),
        (websocket.encode(TEXT, b"x" * 70_000, MASK), Message(CLOSE, b"\x03\xf1")),
        (websocket.encode(CONTINUATION, b"", MASK), Message(CLOSE, b"\x03\xea")),
        (websocket.encode(3, b"", MASK), Message(CLOSE, b"\x03\xea")),
        (websocket.encode(11, b"", MASK), Message(CLOSE, b"\x03\xea")),
        (websocket.encode(PING, b"x" * 126, MASK), Message(CLOSE, b"\x03\xea")),
        (b"\xc1\x80" + MASK, Message(CLOSE, b"\x03\xea")),
    ],
)
def test_a_close_or_a_frame_that_is_wrong_ends_the_connection_with_its_code(frame: bytes, expected: Message) -> None:
    session = WebSocketSession(lambda nonce: MARK._replace(nonce=nonce))
    assert [expected] == Messages(masked=False).feed(session.feed(frame))
    assert session.closing


@given(st.binary(min_size=1, max_size=40), st.lists(st.integers(1, 20), max_size=5), st.sampled_from([b"", MASK]))
def test_a_message_in_pieces_is_put_together_with_control_frames_between(data: bytes, sizes: list[int], mask: bytes) -> None:
    pieces = []
    for size in [*sizes, len(data)]:
        pieces.append(data[:size])
        data = data[size:]
    whole = b"".join(pieces)
    stream = b""
    for at, piece in enumerate(pieces):
        frame = bytearray(websocket.encode(TEXT if not at else CONTINUATION, piece, mask))
        frame[0] &= 0x7F if at < len(pieces) - 1 else 0xFF
        stream += bytes(frame) + websocket.encode(PING, b"p", mask)
    messages = Messages(bool(mask))
    came = [message for at in range(len(stream)) for message in messages.feed(stream[at : at + 1])]
    assert [Message(TEXT, whole)] == [message for message in came if message.opcode == TEXT]
    assert len(pieces) == sum(message == Message(PING, b"p") for message in came)


@pytest.mark.parametrize("size", [0, 125, 126, 65535])
def test_every_form_of_length_is_read(size: int) -> None:
    assert [Message(TEXT, b"x" * size)] == Messages(True).feed(websocket.encode(TEXT, b"x" * size, MASK))


FRAMES = st.sampled_from(
    [
        websocket.encode(TEXT, b"ZTC a\n", MASK),
        websocket.encode(TEXT, b"x"),
        websocket.encode(PING, b"", MASK),
        websocket.encode(CLOSE, b""),
        b"\x01\x80" + MASK,
    ]
)


@given(st.lists(FRAMES | st.binary(max_size=30)))
def test_no_bytes_break_a_session_or_a_reader_however_they_are_cut(pieces: list[bytes]) -> None:
    whole, cut = (WebSocketSession(lambda nonce: MARK._replace(nonce=nonce)) for _ in range(2))
    out = []
    for piece in pieces:
        if not cut.closing:
            out.append(cut.feed(piece))
    assert whole.feed(b"".join(pieces)) == b"".join(out)
    reader = WebSocketReader("abc", "dGhlIHNhbXBsZSBub25jZQ==")
    for piece in [accept(HANDSHAKE), *pieces]:
        if piece and reader.feed(piece):
            break
    reader.end()
    reader.answer()
