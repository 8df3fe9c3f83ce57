# SPDX-License-Identifier: Apache-2.0
"""What a probe that speaks TLS itself says of what it met: every signal, live on loopback, against OpenSSL's server."""

import asyncio
import contextlib
import datetime
import functools
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztconform.agent import tls
from ztconform.agent.prober import Prober
from ztconform.agent.spec import SpecError, read_spec
from ztconform.agent.wire import Mark, answer_line, read_request_line

x509 = pytest.importorskip("cryptography.x509", reason="cryptography makes the certificates of these tests")
ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")

PACKAGE = Path(__file__).resolve().parents[2] / "ztconform" / "agent"
PORT = 18384
SERVER_ID = "spiffe://cluster.local/ns/shop/sa/payment"
CLIENT_ID = "spiffe://cluster.local/ns/shop/sa/checkout"
HOUR = datetime.timedelta(hours=1)
BOTH_VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)


class Pair(NamedTuple):
    """Hold a certificate and its key, in PEM."""

    chain: str
    key: str


class Authority:
    """Sign certificates."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._certificate = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self.pem = _pem(self._certificate.sign(self._key, hashes.SHA256()))

    def issue(self, uri: str, ends: datetime.timedelta = HOUR) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([]), key, ends)
        names = [x509.DNSName("x"), x509.UniformResourceIdentifier(uri)]
        signed = builder.add_extension(x509.SubjectAlternativeName(names), True).sign(self._key, hashes.SHA256())
        form = serialization.PrivateFormat.PKCS8
        private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        return Pair(_pem(signed), private.decode())

    def _builder(self, subject: Any, key: Any, ends: datetime.timedelta = HOUR) -> Any:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        return builder.not_valid_before(now - 2 * HOUR).not_valid_after(now + ends)


def _pem(certificate: Any) -> str:
    return str(certificate.public_bytes(serialization.Encoding.PEM).decode())


@functools.lru_cache
def authority(name: str) -> Authority:
    return Authority(name)


@functools.lru_cache
def server_pair() -> Pair:
    return authority("ours").issue(SERVER_ID)


@functools.lru_cache
def client(kind: str) -> dict[str, Any]:
    """Return the tls field of a client that is ours, foreign, expired, or without a certificate."""
    if kind == "none":
        return {}
    issuer = authority("foreign" if kind == "foreign" else "ours")
    pair = issuer.issue(CLIENT_ID, -HOUR if kind == "expired" else HOUR)
    return {"chain": pair.chain, "key": pair.key}


@contextlib.contextmanager
def accepting(address: str, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Accept connections in a thread and let `answer` speak."""
    listener = socket.create_server((address, PORT), backlog=1024)

    def work() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError, ValueError):  # ssl's for a handshake that was cut off
                    connection.settimeout(5)
                    answer(connection)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def server_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, demand: bool = True, tickets: int = 2) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tls._file((server_pair().chain + server_pair().key).encode()) as path:
        context.load_cert_chain(path)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata=authority("ours").pem)
    context.verify_mode = ssl.CERT_REQUIRED if demand else ssl.CERT_NONE
    context.num_tickets = tickets
    context.set_alpn_protocols(["istio", "h2"])
    return context


def line_server(context: ssl.SSLContext) -> Callable[[socket.socket], None]:
    """Answer one line over TLS, naming the client by its certificate."""

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as shaken:
            nonce = read_request_line(shaken.recv(4096))
            names = dict(shaken.getpeercert() or {}).get("subjectAltName", ())
            shaken.sendall(answer_line(Mark("shop/payment", "boot", 1, nonce, str(names), "TCP", "")))
            shaken.recv(1)

    return answer


def probe(address: str, kind: str = "tcp", **fields: Any) -> dict[str, Any]:
    async def scenario() -> dict[str, Any]:
        prober = Prober(socket.socket)
        try:
            return await prober.probe({"kind": kind, "address": address, "port": PORT, "timeout": 5, **fields})
        finally:
            prober.close()

    return asyncio.run(scenario())


def told(observation: dict[str, Any]) -> tuple[str, str, str]:
    return observation["signal"], observation["stage"], observation["detail"]


@BOTH_VERSIONS
@pytest.mark.parametrize("tickets", [0, 2])
def test_a_client_with_a_certificate_of_the_right_authority_is_answered(
    address: str, version: ssl.TLSVersion, tickets: int
) -> None:
    with accepting(address, line_server(server_context(version, tickets=tickets))):
        seen = probe(address, tls=client("ours"), nonce="abc")
    assert ("answered", "done", "", "shop/payment") == (*told(seen), seen["backend"])
    assert CLIENT_ID in seen["body"]


@BOTH_VERSIONS
@pytest.mark.parametrize("settle", [0, 0.03])
@pytest.mark.parametrize("kind", ["tcp", "http", "http2", "tls"])
@pytest.mark.parametrize(
    ("who", "alert"),
    [
        ("foreign", "unknown_ca"),
        ("expired", "certificate_expired"),
        ("none", "certificate_required"),
    ],
)
def test_a_certificate_that_the_server_refuses_is_an_alert_by_its_name(
    address: str, version: ssl.TLSVersion, settle: float, kind: str, who: str, alert: str
) -> None:
    if version == ssl.TLSVersion.TLSv1_2 and who == "none":
        alert = "handshake_failure"  # which is how TLS 1.2 says it
    if kind == "tls":
        settle = 1  # nothing else would wait for it
    with accepting(address, line_server(server_context(version))):
        seen = probe(address, kind, tls={**client(who), "settle": settle})
    assert ("tls-alert", "tls", alert) == told(seen)


@pytest.mark.parametrize(("offered", "agreed"), [(["x", "h2"], " alpn=h2 "), ([], ""), (["x"], "")])
def test_the_protocols_offered_are_those_of_the_spec(address: str, offered: list[str], agreed: str) -> None:
    with accepting(address, line_server(server_context())):
        seen = probe(address, "tls", tls={**client("ours"), "alpn": offered})
    assert ("answered", bool(agreed)) == (seen["signal"], " alpn=" in seen["detail"])
    assert agreed in seen["detail"]


def alert_of(code: int) -> bytes:
    return b"\x15\x03\x03\x00\x02\x02" + bytes((code,))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (40, "handshake_failure"),
        (42, "bad_certificate"),
        (45, "certificate_expired"),
        (46, "certificate_unknown"),
        (48, "unknown_ca"),
        (49, "access_denied"),
        (51, "decrypt_error"),
        (70, "protocol_version"),
        (112, "unrecognized_name"),
        (116, "certificate_required"),
        (120, "no_application_protocol"),
    ],
)
def test_every_alert_has_the_name_of_its_rfc(address: str, code: int, name: str) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(alert_of(code))

    with accepting(address, refuse):
        assert ("tls-alert", "tls", name) == told(probe(address, tls={}))


@pytest.mark.parametrize(
    ("answer", "reset", "detail"),
    [
        (b"", False, "EOF"),
        (b"", True, "ECONNRESET"),
        (b"\x16\x03\x03\x00\x10\x02", False, "EOF"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False, "answer is not TLS"),
        (b"\x16\x03\x03\x00\x04\x63\x00\x00\x00", False, "unexpected_message"),
    ],
)
def test_an_end_or_nonsense_in_the_handshake_is_closed(address: str, answer: bytes, reset: bool, detail: str) -> None:
    def break_off(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with accepting(address, break_off):
        for kind in ("tls", "http"):
            assert ("closed", "tls", detail) == told(probe(address, kind, tls={}))


def test_a_server_that_says_nothing_to_a_hello_is_a_timeout_in_tls(address: str) -> None:
    with socket.create_server((address, PORT)):
        assert ("timeout", "tls", "") == told(probe(address, "tls", timeout=0.8))


@pytest.mark.parametrize("settled", [False, True])
def test_an_end_behind_the_handshake_belongs_to_the_stage_that_was_reached(address: str, settled: bool) -> None:
    context = server_context(tickets=0)

    def close(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as shaken:
            if settled:
                shaken.recv(4096)

    with accepting(address, close):
        seen = probe(address, tls={**client("ours"), "settle": 0.01 if settled else 2})
    assert ("closed", "request" if settled else "tls", "EOF") == told(seen)


@BOTH_VERSIONS
def test_a_handshake_alone_tells_version_protocol_and_whose_certificate_came(address: str, version: ssl.TLSVersion) -> None:
    with accepting(address, line_server(server_context(version, tickets=0))):
        seen = probe(address, "tls", tls=client("ours"))
    digest = hashes.Hash(hashes.SHA256())
    digest.update(ssl.PEM_cert_to_DER_cert(server_pair().chain))
    expected = f"{version.name.replace('_', '.')} alpn=istio uri={SERVER_ID} sha256={digest.finalize().hex()}"
    assert ("answered", "done", expected, None, "") == (*told(seen), seen["status"], seen["backend"])


@pytest.mark.parametrize(("tickets", "waits"), [(0, True), (2, False)])
def test_a_request_waits_for_an_alert_until_a_ticket_shows_that_none_comes(address: str, tickets: int, waits: bool) -> None:
    with accepting(address, line_server(server_context(tickets=tickets))):
        seen = probe(address, tls={**client("ours"), "settle": 0.8})
    assert "answered" == seen["signal"]
    assert waits == (seen["ended"] - seen["sent"] >= 0.8)


@pytest.mark.parametrize(("name", "sent"), [(None, None), ("outbound_.80_._.payment", "outbound_.80_._.payment")])
def test_the_server_name_is_sent_as_given_or_not_at_all(address: str, name: str | None, sent: str | None) -> None:
    names: list[str | None] = []
    context = server_context(demand=False)
    context.sni_callback = lambda _socket, came, _context: names.append(came)
    with accepting(address, line_server(context)):
        probe(address, tls={"server_name": name})
    assert [sent] == names


def http_server(context: ssl.SSLContext, answer: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as shaken:
            came = b""
            while b"\r\n\r\n" not in came[-4:]:
                came += shaken.recv(65536)
            shaken.sendall(answer)

    return serve


def test_a_large_request_and_answer_pass_in_records(address: str) -> None:
    body = b"x" * 300_000
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with accepting(address, http_server(server_context(), head + body)):
        seen = probe(address, "http", tls=client("ours"), headers=[["x-long", "y" * 2_000_000]])
    assert ("answered", 200, "x" * 512) == (seen["signal"], seen["status"], seen["body"])


def test_a_body_that_ends_with_the_connection_ends_with_its_tls_too(address: str) -> None:
    with accepting(address, http_server(server_context(), b"HTTP/1.1 200 OK\r\n\r\nbody")):
        seen = probe(address, "http", tls=client("ours"))
    assert ("answered", 200, "body") == (seen["signal"], seen["status"], seen["body"])


def test_pem_that_cannot_be_used_is_not_run_and_says_why(address: str) -> None:
    ours, foreign = client("ours"), client("foreign")
    for fields in ({"chain": "x", "key": "y"}, {"chain": ours["chain"], "key": foreign["key"]}, {"chain": "\xe9", "key": "x"}):
        seen = probe(address, tls=fields)
        assert ("not-run", "tls") == told(seen)[:2]
        assert seen["detail"].startswith("tls: ")


def test_a_key_leaves_no_file_behind(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are no files in memory, and one on disk has to do."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for memory in (True, False):
        if not memory:
            monkeypatch.delattr(os, "memfd_create")
        tls._context.cache_clear()
        before = len(os.listdir("/proc/self/fd"))
        context = tls.client_context(read_tls(client("ours")))
        assert before == len(os.listdir("/proc/self/fd"))
        assert [] == list(tmp_path.iterdir())
        assert context is tls.client_context(read_tls(client("ours"))), "made once"


def read_tls(fields: dict[str, Any]) -> Any:
    return read_spec({"kind": "tls", "address": "127.0.0.1", "port": 1, "tls": fields}).tls


@pytest.mark.parametrize(
    ("fields", "clause"),
    [
        ({"tls": []}, "tls is not an object"),
        ({"tls": {"more": 1}}, "tls is not an object"),
        ({"tls": {"chain": "x"}}, "both or not at all"),
        ({"tls": {"chain": 1, "key": 1}}, "tls.chain"),
        ({"tls": {"server_name": 1}}, "tls.server_name"),
        ({"tls": {"alpn": "istio"}}, "tls.alpn"),
        ({"tls": {"alpn": [""]}}, "tls.alpn"),
        ({"tls": {"alpn": [1]}}, "tls.alpn"),
        ({"tls": {"settle": -1}}, "tls.settle"),
        ({"tls": {"settle": "1"}}, "tls.settle"),
        ({"tls": {}, "kind": "udp"}, "kind udp takes neither mark nor tls"),
        ({"tls": {}, "kind": "dns", "path": "x"}, "kind dns takes neither mark nor tls"),
    ],
)
def test_tls_that_cannot_be_spoken_is_refused_by_its_field(fields: dict[str, Any], clause: str) -> None:
    with pytest.raises(SpecError, match=clause):
        read_spec({"kind": "tcp", "address": "127.0.0.1", "port": 1, **fields})


@given(st.binary(max_size=300), st.integers(0, 2000), st.binary(max_size=8))
def test_no_bytes_break_the_reader_of_certificates(garbage: bytes, at: int, cut: bytes) -> None:
    certificate = ssl.PEM_cert_to_DER_cert(server_pair().chain)
    assert [SERVER_ID] == tls.subject_uris(certificate)
    tls.subject_uris(garbage)
    tls.subject_uris(certificate[:at] + cut + certificate[at + len(cut) :])


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=200))
def test_no_bytes_break_a_handshake(data: bytes) -> None:
    address = f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.252"

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"\x16\x03\x03" + data)

    with accepting(address, answer):
        assert probe(address, "tls", timeout=2)["signal"] in ("closed", "tls-alert")


def test_a_probe_by_tls_leaves_no_open_file(address: str) -> None:
    async def scenario() -> None:
        prober = Prober(socket.socket)
        spec = {"kind": "tls", "address": address, "port": PORT, "timeout": 5, "tls": client("ours")}
        await prober.probe(spec)
        before = len(os.listdir("/proc/self/fd"))
        await prober.probe_all([spec, {**spec, "tls": client("foreign")}, {**spec, "kind": "tcp", "timeout": 0.5}] * 5)
        deadline = time.monotonic() + 2  # the server's sides are closed by its thread
        while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert before >= len(os.listdir("/proc/self/fd"))
        prober.close()

    with accepting(address, line_server(server_context(tickets=0))):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("who", "signal", "detail"), [("none", "tls-alert", "certificate_required"), ("ours", "answered", "TLSv1.3 alpn=")]
)
def test_a_handshake_is_told_alike_on_the_oldest_python_there_is(address: str, who: str, signal: str, detail: str) -> None:
    python = next((found for minor in range(8, 11) if (found := shutil.which(f"python3.{minor}"))), None)
    if python is None or subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("no Python 3.8 to 3.10 on this machine: the agent ran on this one alone")
    spec = {"kind": "tls", "address": address, "port": PORT, "timeout": 5, "tls": {**client(who), "settle": 2}}
    with accepting(address, line_server(server_context())):
        command = [python, "-E", "-m", "agent", "probe", json.dumps(spec)]
        done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=30, check=True)
    seen = json.loads(done.stdout)
    assert (signal, True) == (seen["signal"], seen["detail"].startswith(detail))
