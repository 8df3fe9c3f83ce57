# SPDX-License-Identifier: Apache-2.0
"""What HTTP/2 and gRPC probes meet, what servers answer them, and that no bytes break either; live on loopback."""

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agent_servers import serving
from hypothesis import given, settings
from hypothesis import strategies as st

from ztconform.agent import frames, hpack, http2, huffman
from ztconform.agent.http2client import GrpcReader, Http2Reader
from ztconform.agent.http2server import Http2Reply, Http2Session, read_request
from ztconform.agent.prober import Prober
from ztconform.agent.spec import read_spec
from ztconform.agent.wire import Mark, answer_line, grpc_message, read_grpc_message

H2, GRPC, STRANGE = 18280, 18281, 18284
PORTS = ({"number": H2, "protocol": "TCP", "app": "http2"}, {"number": GRPC, "protocol": "TCP", "app": "grpc"})
SETTINGS = frames.settings()
REQUEST = [(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a")]
MARK = Mark("shop/payment", "boot", 1, "abc", "", "", "")


@contextlib.contextmanager
def strange_server(address: str, *answers: bytes) -> Iterator[None]:
    """Accept one connection after the other in a thread; on each, send an answer per piece that comes, and then close."""
    listener = socket.create_server((address, STRANGE))

    def work() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    for answer in answers:
                        connection.recv(65536)
                        connection.sendall(answer)
                    connection.settimeout(0.5)
                    while connection.recv(65536):
                        pass

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def probe(address: str, kind: str = "http2", port: int = STRANGE, **fields: Any) -> dict[str, Any]:
    async def scenario() -> dict[str, Any]:
        prober = Prober(socket.socket)
        try:
            return await prober.probe({"kind": kind, "address": address, "port": port, "nonce": "abc", "timeout": 5, **fields})
        finally:
            prober.close()

    return asyncio.run(scenario())


def told(observation: dict[str, Any]) -> tuple[str, str, str]:
    return observation["signal"], observation["stage"], observation["detail"]


def answer(status: int, body: bytes = b"", *fields: tuple[str, str]) -> bytes:
    head = frames.headers(1, hpack.encode([(":status", str(status)), ("server", "envoy"), *fields]), not body)
    return head + (frames.frame(frames.DATA, frames.END_STREAM, 1, body) if body else b"")


def trailers(*fields: tuple[str, str]) -> bytes:
    return frames.headers(1, hpack.encode(fields), True)


@pytest.mark.parametrize(
    ("kind", "port", "path", "detail", "status"),
    [
        ("http2", H2, "/x?y=1", "", 200),
        ("http2", H2, "/status/403", "", 403),
        ("grpc", GRPC, "/shop.Payment/Charge", "grpc-status 0", 200),
    ],
)
def test_an_agents_answer_names_its_pod(address: str, kind: str, port: int, path: str, detail: str, status: int) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            prober = Prober(socket.socket)
            spec = {"kind": kind, "address": address, "port": port, "path": path, "nonce": "abc", "headers": [["X-A", "b"]]}
            seen = await prober.probe(spec)
            assert ("answered", "done", detail, status) == (*told(seen), seen["status"])
            assert ("shop/payment", server.boot, "ztc-agent") == (seen["backend"], seen["boot"], seen["server"])
            method = "POST" if kind == "grpc" else "GET"
            assert f'"nonce":"abc","path":"{path}","method":"{method}"' in seen["body"]
            assert [["abc", server.boot, 1, None]] == server.sightings()
            prober.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("method", "path", "status"), [("HEAD", "/", 200), ("GET", "/status/204", 204)])
def test_an_answer_without_content_carries_the_mark_in_a_header(address: str, method: str, path: str, status: int) -> None:
    async def scenario() -> None:
        with serving(address, PORTS):
            prober = Prober(socket.socket)
            seen = await prober.probe({"kind": "http2", "address": address, "port": H2, "method": method, "path": path})
            assert ("", status, "", "shop/payment") == (seen["detail"], seen["status"], seen["body"], seen["backend"])
            prober.close()

    asyncio.run(scenario())


def test_identities_come_through_http2_and_grpc(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            prober = Prober(socket.socket)
            headers = [["X-Forwarded-Client-Cert", "URI=spiffe://forged"], ["x-forwarded-client-cert", "By=b;URI=spiffe://true"]]
            for kind, port in (("http2", H2), ("grpc", GRPC)):
                await prober.probe({"kind": kind, "address": address, "port": port, "path": "/a.B/C", "headers": headers})
            assert ["spiffe://true"] * 2 == [identity for *_, identity in server.sightings()]
            prober.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([SETTINGS + answer(403, b"RBAC: access denied")], (403, "RBAC: access denied")),
        ([SETTINGS, answer(200)], (200, "")),
        ([SETTINGS + answer(103)[:-1] + b"", b""], None),
        ([SETTINGS + frames.headers(1, hpack.encode([(":status", "100")]), False) + answer(404)], (404, "")),
        ([SETTINGS + answer(200, b"x")[:-10], answer(200, b"x")[-10:]], (200, "x")),
    ],
)
def test_an_answer_that_is_not_ours_is_told_with_its_status_and_no_backend(
    address: str, answers: list[bytes], expected: tuple[int, str] | None
) -> None:
    with strange_server(address, *answers):
        seen = probe(address)
    if expected is None:
        assert ("closed", "request", "EOF") == told(seen)
    else:
        assert ("answered", "done", "answer carries no mark of an agent", "") == (*told(seen), seen["backend"])
        assert (*expected, "envoy") == (seen["status"], seen["body"], seen["server"])


@pytest.mark.parametrize(
    ("answers", "signal", "detail"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "answered", "answer is not HTTP/2"),
        ([b"\x15\x03\x01\x00\x02\x02\x46" + b"x" * 20], "answered", "answer is not HTTP/2"),
        ([SETTINGS + b"\xff" * 9], "answered", "answer is not HTTP/2: FRAME_SIZE_ERROR: a frame of 16777215 bytes"),
        ([SETTINGS + frames.headers(1, b"\x80", True)], "answered", "COMPRESSION_ERROR: no field has the index 0"),
        ([SETTINGS + frames.frame(frames.PUSH_PROMISE, 4, 1, b"0000")], "answered", "PROTOCOL_ERROR: a push"),
        ([SETTINGS + frames.headers(3, b"\x88", True)], "answered", "PROTOCOL_ERROR: stream 3 was never opened"),
        ([SETTINGS + frames.headers(1, hpack.encode([("a", "b")]), True)], "answered", "not HTTP/2: no status"),
        ([SETTINGS + frames.frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08")], "closed", "RST_STREAM CANCEL"),
        ([SETTINGS + frames.frame(frames.RST_STREAM, 0, 1, b"\0\0\0\xff")], "closed", "RST_STREAM error 255"),
        ([SETTINGS + frames.frame(frames.GOAWAY, 0, 0, bytes(7) + b"\x0b")], "closed", "GOAWAY ENHANCE_YOUR_CALM"),
        ([SETTINGS + frames.frame(frames.GOAWAY, 0, 0, b"\0\0\0\1" + bytes(4)) + answer(200)], "answered", "no mark"),
        ([SETTINGS], "closed", "EOF"),
    ],
)
def test_what_becomes_of_a_request_is_told_in_the_words_of_http2(
    address: str, answers: list[bytes], signal: str, detail: str
) -> None:
    with strange_server(address, *answers):
        seen = probe(address)
    assert (signal, "done" if signal == "answered" else "request", "") == (seen["signal"], seen["stage"], seen["backend"])
    assert seen["detail"].endswith(detail) or detail in seen["detail"]


OK = (":status", "200"), ("content-type", "application/grpc")


@pytest.mark.parametrize(
    ("answers", "detail", "backend"),
    [
        (
            [frames.headers(1, hpack.encode(OK), False) + frames.frame(0, 0, 1, grpc_message(answer_line(MARK))), ("0", "")],
            "grpc-status 0",
            "shop/payment",
        ),
        (
            [trailers(*OK, ("grpc-status", "7"), ("grpc-message", "RBAC: access%20denied"))],
            "grpc-status 7 RBAC: access denied",
            "",
        ),
        ([frames.headers(1, hpack.encode(OK), False), ("14", "")], "grpc-status 14", ""),
        ([frames.headers(1, hpack.encode(OK), False), ("0", "")], "grpc-status 0, answer carries no mark of an agent", ""),
        (
            [
                frames.headers(1, hpack.encode(OK), False)
                + frames.frame(0, 0, 1, grpc_message(answer_line(MARK._replace(nonce="other")))),
                ("0", ""),
            ],
            "grpc-status 0, answer carries another nonce",
            "",
        ),
        ([answer(403, b"denied")], "answer has no grpc-status", ""),
    ],
)
def test_a_call_is_told_by_its_grpc_status(address: str, answers: list[Any], detail: str, backend: str) -> None:
    pieces = [piece if isinstance(piece, bytes) else trailers(("grpc-status", piece[0])) for piece in answers]
    with strange_server(address, SETTINGS + b"".join(pieces)):
        seen = probe(address, "grpc", path="/a.B/C")
    assert ("answered", "done", detail, backend) == (*told(seen), seen["backend"])
    assert (403 if "no grpc" in detail else 200) == seen["status"]


def test_one_grpc_message_is_read_and_nothing_else_is() -> None:
    assert b"abc" == read_grpc_message(grpc_message(b"abc"))
    for wrong in (b"", b"\0\0\0\0", b"\1\0\0\0\0", grpc_message(b"a")[:-1], grpc_message(b"a") * 2):
        assert read_grpc_message(wrong) is None


def request_fields(**fields: Any) -> list[tuple[str, str]]:
    spec = read_spec({"kind": "http2", "address": "::1", "port": 80, **fields})
    reader = {"http2": Http2Reader, "grpc": GrpcReader}[spec.kind](spec, "abc")
    server = http2.Connection(client=False)
    (head, *_) = server.feed(reader.first())
    assert isinstance(head, http2.Head)
    return head.fields


def test_headers_keep_their_order_in_lower_case_and_ours_are_added_where_they_lack() -> None:
    assert [
        (":method", "PUT"), (":scheme", "http"), (":path", "/a//%2F\xe9"), (":authority", "[::1]:80"),
        ("x-b", "1"), ("x-b", "2"), ("user-agent", "me"), ("x-ztc-nonce", "abc"),
    ] == request_fields(method="PUT", path="/a//%2F\xe9", headers=[["X-B", "1"], ["x-b", "2"], ["User-Agent", "me"]])  # fmt: skip
    fields = dict(request_fields(headers=[["Host", "shop"]], tls={}))
    assert ("shop", "https", None) == (fields["host"], fields[":scheme"], fields.get(":authority"))
    call = dict(request_fields(kind="grpc", host="shop"))
    assert ("POST", "shop", "application/grpc", "trailers") == (
        call[":method"], call[":authority"], call["content-type"], call["te"]
    )  # fmt: skip


class Peers:
    """Connect a client's and a server's state machine by their bytes alone."""

    def __init__(self, respond: Callable[[bytes], Http2Reply]) -> None:
        self.client = http2.Connection(client=True)
        self.session = Http2Session(lambda _request: respond)
        self.events: list[Any] = []

    def run(self) -> None:
        """Carry bytes to and fro until neither side has more to say."""
        while data := self.client.take():
            self.events += self.client.feed(self.session.feed(data))

    def content(self, stream: int) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, http2.Content) and event.stream == stream)


@settings(max_examples=30)
@given(st.binary(max_size=10), st.integers(0, 300_000), st.integers(0, 300_000))
def test_content_larger_than_every_window_arrives_whole_both_ways(head: bytes, up: int, down: int) -> None:
    bodies: list[bytes] = []
    reply = head + b"d" * down

    def respond(body: bytes) -> Http2Reply:
        bodies.append(body)
        return Http2Reply([(":status", "200")], reply, [("end", "yes")])

    peers = Peers(respond)
    request = head + b"u" * up
    streams = [peers.client.request(REQUEST, request) for _ in range(2)]
    peers.run()
    assert [1, 3] == streams
    assert [request[:65536]] * 2 == bodies
    assert [reply] * 2 == [peers.content(stream) for stream in streams]
    assert 2 == sum(isinstance(event, http2.Head) and event.fields == [("end", "yes")] for event in peers.events)


def test_a_window_of_nothing_holds_an_answer_back_until_it_grows() -> None:
    session = Http2Session(lambda _request: lambda _body: Http2Reply([(":status", "200")], b"body"))
    closed = frames.settings((frames.INITIAL_WINDOW_SIZE, 0))
    out = session.feed(frames.PREFACE + closed + frames.headers(1, hpack.encode(REQUEST), True))
    assert b"body" not in out
    assert b"bo" in session.feed(frames.frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\2"))
    assert b"dy" in session.feed(frames.settings((frames.INITIAL_WINDOW_SIZE, 2)))


def test_a_header_block_in_many_pieces_with_padding_and_priority_is_read() -> None:
    fields = [*REQUEST, ("x-long", "y" * 40_000)]
    block = hpack.encode(fields)
    pieces = frames.headers(1, block, True)
    assert 3 == sum(frame.type in (frames.HEADERS, frames.CONTINUATION) for frame in frames.FrameBuffer().feed(pieces))
    padded = frames.frame(
        frames.HEADERS, frames.PADDED | frames.HAS_PRIORITY | frames.END_STREAM, 1, b"\3" + bytes(5) + block[:100] + b"pad"
    )
    for form in (pieces, padded + b"".join(_continued(block[100:]))):
        connection = http2.Connection(client=False)
        (head,) = connection.feed(frames.PREFACE + SETTINGS + form)
        assert isinstance(head, http2.Head)
        assert (fields, True) == (head.fields, head.end)


def _continued(rest: bytes) -> Iterator[bytes]:
    for at in range(0, len(rest), 1000):
        last = at + 1000 >= len(rest)
        yield frames.frame(frames.CONTINUATION, frames.END_HEADERS if last else 0, 1, rest[at : at + 1000])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"GET / HTTP/1.1\r\n", "PROTOCOL_ERROR: no preface"),
        (frames.PREFACE + frames.frame(frames.PING, 0, 0, bytes(8)), "SETTINGS do not come first"),
        (frames.PREFACE + frames.frame(frames.SETTINGS, frames.ACK, 0), "SETTINGS do not come first"),
        (frames.PREFACE + frames.frame(frames.SETTINGS, 0, 1), "on stream 1"),
        (frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, b"x"), "FRAME_SIZE_ERROR"),
        (frames.PREFACE + frames.settings((frames.INITIAL_WINDOW_SIZE, 1 << 31)), "FLOW_CONTROL_ERROR"),
        (frames.PREFACE + frames.settings((frames.MAX_FRAME_SIZE, 1)), "setting 5 is 1"),
        (frames.PREFACE + SETTINGS + frames.frame(frames.DATA, 0, 1, b"x"), "stream 1 was never opened"),
        (frames.PREFACE + SETTINGS + frames.headers(2, hpack.encode(REQUEST), True), "a client opens stream 2"),
        (frames.PREFACE + SETTINGS + frames.headers(0, b"", True), "on stream 0"),
        (frames.PREFACE + SETTINGS + frames.frame(frames.CONTINUATION, 4, 1), "continuation"),
        (frames.PREFACE + SETTINGS + frames.frame(frames.HEADERS, 0, 1) + SETTINGS, "interrupted"),
        (frames.PREFACE + SETTINGS + frames.frame(frames.HEADERS, 0xC, 1, b"\x09x"), "all padding"),
        (frames.PREFACE + SETTINGS + frames.frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)), "grows by nothing"),
        (frames.PREFACE + SETTINGS + frames.frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), "too large"),
        (frames.PREFACE + SETTINGS + frames.frame(frames.GOAWAY, 0, 0, b"x"), "FRAME_SIZE_ERROR"),
        (
            frames.PREFACE
            + SETTINGS
            + frames.frame(frames.HEADERS, 0, 1)
            + frames.frame(frames.CONTINUATION, 0, 1, b"x" * 9000) * 8,
            "ENHANCE_YOUR_CALM",
        ),
        (
            frames.PREFACE
            + frames.settings((frames.INITIAL_WINDOW_SIZE, 0))
            + b"".join(frames.headers(1 + 2 * at, hpack.encode(REQUEST), True) for at in range(http2.MAX_STREAMS + 1)),
            "ENHANCE_YOUR_CALM",
        ),
    ],
)
def test_bytes_that_break_the_protocol_end_the_connection_with_a_goaway(data: bytes, error: str) -> None:
    connection = http2.Connection(client=False)
    connection.feed(data)
    assert error in connection.failure
    *_, last = frames.FrameBuffer().feed(connection.take())
    assert (frames.GOAWAY, connection.failure.partition(":")[0]) == (last.type, frames.ERRORS[last.payload[7]])
    assert [] == connection.feed(frames.headers(9, hpack.encode(REQUEST), True)), "nothing is taken any more"
    session = Http2Session(lambda _request: lambda _body: Http2Reply([(":status", "200")], b"x"))
    session.feed(data)
    assert session.closing


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "GET"), (":path", "/")],
        [(":scheme", "http"), (":path", "/")],
        [(":method", "GET"), (":scheme", "http")],
        [*REQUEST, ("X", "y")],
        [*REQUEST, ("x", "y"), (":method", "GET")],
        [*REQUEST, (":path", "/other")],
        [*REQUEST, ("x", "a\r\nb: c")],
        [*REQUEST, ("connection", "close")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/ x")],
    ],
)
def test_a_malformed_request_is_reset_and_the_connection_lives_on(fields: list[tuple[str, str]]) -> None:
    assert read_request(fields) is None
    session = Http2Session(lambda _request: lambda _body: Http2Reply([(":status", "204")]))
    out = session.feed(frames.PREFACE + SETTINGS + frames.headers(1, hpack.encode(fields), True))
    assert (frames.RST_STREAM, 1) in [(frame.type, frame.stream) for frame in frames.FrameBuffer().feed(out)]
    assert not session.closing
    assert (frames.HEADERS, 3) in [
        (frame.type, frame.stream)
        for frame in frames.FrameBuffer().feed(session.feed(frames.headers(3, hpack.encode(REQUEST), True)))
    ]


def test_pings_are_answered_and_unknown_frames_read_over() -> None:
    connection = http2.Connection(client=True)
    connection.take()
    unknown = frames.frame(0xFA, 0xFF, 7, b"x") + frames.frame(frames.PRIORITY, 0, 9, bytes(5))
    connection.feed(SETTINGS + unknown + frames.frame(frames.PING, 0, 0, b"12345678") + frames.frame(frames.PING, 1, 0, bytes(8)))
    acknowledged = frames.frame(frames.SETTINGS, 1, 0), frames.frame(frames.PING, 1, 0, b"12345678")
    assert (b"".join(acknowledged), "") == (connection.take(), connection.failure)


SPECIMENS = st.sampled_from(
    [
        SETTINGS,
        frames.PREFACE,
        frames.headers(1, hpack.encode(REQUEST), False),
        frames.headers(3, b"\x82\x86\x84", True),
        frames.frame(frames.DATA, 0, 1, b"x" * 50),
        frames.frame(frames.DATA, 9, 1, b"\x02xyy"),
        frames.frame(frames.RST_STREAM, 0, 1, bytes(4)),
        frames.frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),
        frames.settings((frames.INITIAL_WINDOW_SIZE, 0)),
        frames.settings((frames.INITIAL_WINDOW_SIZE, 70000)),
        frames.frame(frames.GOAWAY, 0, 0, bytes(8)),
        frames.frame(frames.HEADERS, 0, 5, b"\x82"),
        frames.frame(frames.CONTINUATION, 4, 5, b"\x86\x84"),
    ]
)


@given(st.lists(SPECIMENS | st.binary(max_size=40)), st.booleans())
def test_no_frames_break_a_session_however_they_are_cut(pieces: list[bytes], garbled: bool) -> None:
    whole, cut = (
        Http2Session(lambda _request: lambda body: Http2Reply([(":status", "200")], body + b"x" * 100)) for _ in range(2)
    )
    start = b"" if garbled else frames.PREFACE + SETTINGS
    data = start + b"".join(pieces)
    whole.feed(data)
    for at in range(0, len(data), 7):
        cut.feed(data[at : at + 7])
    assert whole.closing == cut.closing


@given(st.lists(SPECIMENS | st.binary(max_size=40)), st.booleans(), st.sampled_from(["http2", "grpc"]))
def test_no_frames_break_the_reader_of_an_answer(pieces: list[bytes], garbled: bool, kind: str) -> None:
    spec = read_spec({"kind": kind, "address": "127.0.0.1", "port": 1})
    reader = Http2Reader(spec, "abc") if kind == "http2" else GrpcReader(spec, "abc")
    for piece in ([] if garbled else [SETTINGS]) + pieces:
        if piece and reader.feed(piece):
            break
    reader.end()
    reader.answer()


RFC_7541_C = [
    (
        ["828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865",
         "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"],
        [("custom-key", "custom-value"), ("cache-control", "no-cache"), (":authority", "www.example.com")],
    ),
    (
        ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf", "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"],
        [("custom-key", "custom-value"), ("cache-control", "no-cache"), (":authority", "www.example.com")],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("blocks", "table"), RFC_7541_C, ids=["C.3", "C.4"])
def test_the_rfcs_request_examples_are_read(blocks: list[str], table: list[tuple[str, str]]) -> None:
    decoder = hpack.Decoder()
    fields = [decoder.decode(bytes.fromhex(block)) for block in blocks]
    assert [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")] == fields[0]
    assert [(":scheme", "https"), (":path", "/index.html"), (":authority", "www.example.com")] == fields[2][1:4]
    assert table == list(decoder._table)


def test_a_table_forgets_its_oldest_fields_when_it_is_full_or_made_smaller() -> None:
    decoder = hpack.Decoder()
    decoder.decode(b"".join(b"\x40\x01%c\x7f\xc9\x06%s" % (97 + at, bytes([97 + at]) * 968) for at in range(5)))
    assert list("edcb") == [name for name, _ in decoder._table]
    assert [("e", "e" * 968)] == decoder.decode(b"\x3f\xe1\x0f\xbe")  # a size of 2,048 and the newest
    assert list("ed") == [name for name, _ in decoder._table]
    decoder.decode(b"\x40\x01z\x7f\x81\x1f" + b"z" * 4096)
    assert 0 == len(decoder._table) == decoder._size, "a field larger than the table leaves it empty"


@pytest.mark.parametrize(
    "block",
    [
        "80",
        "be",
        "ff8080808001",
        "ffffffffffff",
        "40",
        "4001",
        "400161",
        "40016103",
        "0001",
        "3fe21f",
        "8220",
        "0082ffff0161",
        "008fffffffff",
        "00810000",
        "0081ff00",
    ],
)
def test_a_block_that_is_none_is_refused(block: str) -> None:
    with pytest.raises(hpack.HpackError):
        hpack.Decoder().decode(bytes.fromhex(block))


def test_a_small_block_cannot_stand_for_very_much() -> None:
    with pytest.raises(hpack.HpackError, match="more than 262144 bytes"):
        hpack.Decoder().decode(b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 10_000)


def test_the_code_is_that_of_the_rfc() -> None:
    """The digest is of all codes and lengths in RFC 7541, appendix B, as another implementation has them."""
    told = b"".join(code.to_bytes(4, "big") + bytes([length]) for code, length in huffman.codes())
    assert "0bd2ee98bea5dc75148def1cb03018a7fde04d16d4204327f1841da3942b5e4b" == hashlib.sha256(told).hexdigest()
    assert (1 << 30) - 1 == sum(1 << (30 - length) for _, length in huffman.codes()), "all but the code of the end"


@given(st.binary(max_size=200))
def test_what_is_coded_is_decoded(data: bytes) -> None:
    bits = "".join(f"{code:0{length}b}" for code, length in (huffman.codes()[byte] for byte in data))
    bits += "1" * (-len(bits) % 8)
    assert data == huffman.decode(int(bits or "0", 2).to_bytes(len(bits) // 8, "big"))


@given(st.lists(st.tuples(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255), max_size=300))))
def test_what_is_encoded_is_decoded(fields: list[tuple[str, str]]) -> None:
    assert fields == hpack.Decoder().decode(hpack.encode(fields))


@given(st.lists(st.binary(max_size=100)))
def test_no_block_raises_anything_but_its_own_error(blocks: list[bytes]) -> None:
    decoder = hpack.Decoder()
    for block in blocks:
        with contextlib.suppress(hpack.HpackError):
            decoder.decode(block)
        assert decoder._size <= hpack.MAX_TABLE


def test_100_probes_side_by_side_are_each_answered_their_own(address: str) -> None:
    async def scenario() -> None:
        with serving(address, PORTS) as server:
            prober = Prober(socket.socket)
            both = (("http2", H2), ("grpc", GRPC))
            specs = [{"kind": k, "address": address, "port": p, "path": "/a.B/C", "timeout": 10} for k, p in both] * 50
            seen = await prober.probe_all(specs)
            assert {"shop/payment"} == {each["backend"] for each in seen}
            assert {each["nonce"] for each in seen} == {nonce for nonce, *_ in server.sightings()}
            prober.close()

    asyncio.run(scenario())
