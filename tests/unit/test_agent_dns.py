# SPDX-License-Identifier: Apache-2.0
"""What the lab's nameserver answers and how probes find names; live on loopback."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.agent import dns
from ztconform.agent.lookup import candidates
from ztconform.agent.nameserver import Nameserver
from ztconform.agent.prober import Prober
from ztconform.agent.server import Server
from ztconform.agent.wire import AgentError

DNS, HTTP = 18253, 18280
SEARCH = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]
MANY = [f"10.0.{at // 250}.{1 + at % 250}" for at in range(300)]


def zone(address: str) -> dict[str, list[str]]:
    return {
        "payment.shop.svc.cluster.local": [address, "fd00::1"],
        "Payment.Twin.svc.cluster.local.": ["10.0.0.2"],
        "www.outside.test": ["198.51.100.7"],
        "many.shop.svc.cluster.local": MANY,
    }


@contextlib.contextmanager
def naming(address: str) -> Iterator[Nameserver]:
    nameserver = Nameserver("kube-system/dns", socket.socket, DNS, zone(address), [address])
    nameserver.start()
    try:
        yield nameserver
    finally:
        nameserver.stop()


def asked(address: str, *specs: dict[str, Any]) -> list[dict[str, Any]]:
    """Send probes, one after the other, past a nameserver."""

    async def scenario() -> list[dict[str, Any]]:
        prober = Prober(socket.socket)
        try:
            return [await prober.probe({"port": DNS, "address": address, "timeout": 2, **spec}) for spec in specs]
        finally:
            prober.close()

    return asyncio.run(scenario())


def with_nameserver(address: str, *specs: dict[str, Any]) -> list[dict[str, Any]]:
    async def scenario() -> list[dict[str, Any]]:
        with naming(address):
            prober = Prober(socket.socket)
            seen = [await prober.probe({"port": DNS, "address": address, "timeout": 2, **spec}) for spec in specs]
            prober.close()
            return seen

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "search", "family", "rcode_and_body"),
    [
        ("payment.shop", SEARCH, 6, ("NOERROR", "fd00::1")),
        ("payment.twin", SEARCH, 4, ("NOERROR", "10.0.0.2")),
        ("PAYMENT.Twin.svc.cluster.local.", SEARCH, 4, ("NOERROR", "10.0.0.2")),
        ("payment.twin", SEARCH, 6, ("NOERROR", "")),
        ("payment.twin.svc.cluster.local.", [], 6, ("NOERROR", "")),
        ("payment.", SEARCH, 4, ("REFUSED", "")),
        ("nobody.shop.svc.cluster.local.", SEARCH, 4, ("NXDOMAIN", "")),
        ("nobody.svc.cluster.local", SEARCH, 4, ("NXDOMAIN", "")),
        ("www.outside.test", SEARCH, 4, ("NOERROR", "198.51.100.7")),
        ("nobody.outside.test", SEARCH, 4, ("NXDOMAIN", "")),
        ("example.com", SEARCH, 4, ("REFUSED", "")),
    ],
)
def test_a_dns_probe_is_answered_with_the_rcode_and_the_addresses(
    address: str, path: str, search: list[str], family: int, rcode_and_body: tuple[str, str]
) -> None:
    (seen,) = with_nameserver(address, {"kind": "dns", "path": path, "search": search, "family": family})
    assert ("answered", "done") == (seen["signal"], seen["stage"])
    assert rcode_and_body == (seen["detail"], seen["body"])
    assert "kube-system/dns" == seen["backend"]
    assert seen["source"]


def test_a_dns_probes_nonce_is_recorded_and_the_zone_can_change_while_it_serves(address: str) -> None:
    async def scenario() -> None:
        with naming(address) as nameserver:
            prober = Prober(socket.socket)
            spec = {"kind": "dns", "address": address, "port": DNS, "path": "new.cluster.local.", "nonce": "abc"}
            assert "NXDOMAIN" == (await prober.probe(spec))["detail"]
            nameserver.replace({"new.cluster.local": ["10.0.0.9"]})
            assert "10.0.0.9" == (await prober.probe({**spec, "nonce": "def"}))["body"]
            boot = nameserver.boot
            assert [["abc", boot, 1, None], ["def", boot, 2, None]] == nameserver.sightings()
            prober.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("broken", [{"a..b": ["10.0.0.1"]}, {"a": ["10.0.0"]}, {"x" * 64: []}])
def test_a_zone_that_dns_cannot_say_is_refused_with_its_name(broken: dict[str, list[str]]) -> None:
    with pytest.raises(AgentError, match=f"zone of a/b, name '{next(iter(broken))}'"):
        Nameserver("a/b", socket.socket, DNS, broken)


def test_what_does_not_fit_a_datagram_is_cut_and_asked_again_by_tcp_from_an_announced_port(address: str) -> None:
    async def scenario() -> None:
        with naming(address):
            announced: list[tuple[str, str, str, int, str, int]] = []
            prober = Prober(socket.socket, lambda *sent: announced.append(sent))
            path = "many.shop.svc.cluster.local."
            seen = await prober.probe({"kind": "dns", "address": address, "port": DNS, "path": path})
            assert " ".join(MANY).startswith(seen["body"] + " ")
            assert 500 < len(seen["body"]) <= 512
            assert ["UDP", "TCP"] == [sent[1] for sent in announced]
            assert seen["source"].endswith(f" {announced[1][3]}")
            prober.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", ["a.x", "a.y.z", "a"]),
        ("a.b.c.d.e", ["a.b.c.d.e.x", "a.b.c.d.e.y.z", "a.b.c.d.e"]),
        ("a.b.c.d.e.f", ["a.b.c.d.e.f", "a.b.c.d.e.f.x", "a.b.c.d.e.f.y.z"]),
        ("a.", ["a."]),
    ],
)
def test_a_name_of_fewer_than_five_dots_is_sought_under_the_search_list_first(name: str, expected: list[str]) -> None:
    assert expected == candidates(name, ["x", "y.z."])


def test_dialling_by_name_reaches_the_address_and_keeps_the_nonce_from_the_nameserver(address: str) -> None:
    async def scenario() -> None:
        server = Server("shop/payment", socket.socket, [{"number": HTTP, "protocol": "TCP", "app": "http"}], [address])
        server.start()
        with naming(address) as nameserver:
            announced: list[tuple[str, str, str, int, str, int]] = []
            prober = Prober(socket.socket, lambda *sent: announced.append(sent))
            spec = {"kind": "http", "name": "payment.shop", "port": HTTP, "resolver": [address, DNS], "search": SEARCH}
            seen = await prober.probe({**spec, "nonce": "abc"})
            assert ("answered", "shop/payment") == (seen["signal"], seen["backend"])
            assert f"{address} {HTTP}" == seen["peer"]
            assert [("abc", "UDP"), ("abc", "UDP"), ("abc", "TCP")] == [sent[:2] for sent in announced]
            assert [] == nameserver.sightings()
            assert ["abc"] == [nonce for nonce, *_ in server.sightings()]
            prober.close()
        server.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "family", "detail"),
    [
        ("nobody.shop.svc.cluster.local.", 4, "NXDOMAIN"),
        ("example.com", 4, "REFUSED"),
        ("payment.twin.svc.cluster.local.", 6, "no address"),
    ],
)
def test_a_name_that_is_not_found_is_a_dns_failure_with_its_rcode(address: str, name: str, family: int, detail: str) -> None:
    spec = {"kind": "http", "address": "", "name": name, "resolver": [address, DNS], "search": SEARCH, "family": family}
    (seen,) = with_nameserver(address, spec)
    assert ("dns", "dns", detail) == (seen["signal"], seen["stage"], seen["detail"])
    assert "" == seen["peer"]


def test_a_resolver_that_is_silent_or_absent_is_a_dns_failure_for_who_dials_and_a_signal_for_who_asks(address: str) -> None:
    dial = {"kind": "udp", "address": "", "name": "a", "resolver": [address, DNS], "timeout": 0.2}
    ask = {"kind": "dns", "path": "a", "timeout": 0.2}
    with socket.socket(type=socket.SOCK_DGRAM) as sink:
        sink.bind((address, DNS))
        silent = asked(address, dial, ask)
    absent = asked(address, dial, ask)
    assert [("dns", "dns", "timeout"), ("silence", "request", "")] == [(s["signal"], s["stage"], s["detail"]) for s in silent]
    assert [("dns", "dns", "refused 3/3"), ("refused", "request", "3/3")] == [
        (s["signal"], s["stage"], s["detail"]) for s in absent
    ]


@contextlib.contextmanager
def lying_nameserver(address: str, answer: Callable[[bytes], list[bytes]]) -> Iterator[None]:
    """Answer datagrams in a thread as no nameserver of ours does."""
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind((address, DNS))

    def work() -> None:
        while True:
            message, peer = sock.recvfrom(4096)
            if not message:
                return
            for reply in answer(message):
                sock.sendto(reply, peer)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        with socket.socket(type=socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (address, DNS))
        thread.join(5)
        sock.close()


def _address_answer(message: bytes, address: str) -> bytes:
    return dns.build_answer(dns.read_query(message), dns.NOERROR, [address], b"", dns.UDP_SIZE)


def test_answers_to_other_questions_and_garbage_are_passed_over(address: str) -> None:
    def answer(message: bytes) -> list[bytes]:
        others = bytes([message[0] ^ 1]) + message[1:], message.replace(b"\1a\0", b"\1b\0")
        lies = [_address_answer(other, "10.6.6.6") for other in others]
        return [b"x", message, *lies, _address_answer(message, "10.0.0.1")]

    with lying_nameserver(address, answer):
        (seen,) = asked(address, {"kind": "dns", "path": "a"})
    assert ("answered", "NOERROR", "10.0.0.1", "") == (seen["signal"], seen["detail"], seen["body"], seen["backend"])


def test_an_answer_that_is_cut_with_nobody_on_tcp_is_no_answer(address: str) -> None:
    def answer(message: bytes) -> list[bytes]:
        return [dns.build_answer(dns.read_query(message), dns.NOERROR, MANY, b"", dns.UDP_SIZE)]

    with lying_nameserver(address, answer):
        (seen,) = asked(address, {"kind": "dns", "path": "a"})
    assert ("refused", "connect") == (seen["signal"], seen["stage"])


NAMES = st.lists(st.text("abcXYZ019-_", min_size=1, max_size=63), min_size=1, max_size=3).map(".".join)


@given(NAMES, st.sampled_from([dns.A, dns.AAAA]), st.sampled_from(["", "abc"]))
def test_a_question_is_read_as_it_was_built(name: str, query_type: int, nonce: str) -> None:
    query = dns.read_query(dns.build_query(7, name, query_type, nonce))
    assert (7, name, query_type, dns.CLASS_IN, 0, nonce, 1232) == (*query[:5], query.nonce, query.size)


@given(NAMES, st.lists(st.ip_addresses(v=4).map(str), max_size=20), st.sampled_from(list(range(6))), st.binary(max_size=100))
def test_an_answer_is_read_as_it_was_built(name: str, addresses: list[str], rcode: int, mark: bytes) -> None:
    query = dns.read_query(dns.build_query(7, name, dns.A))
    answer = dns.read_answer(dns.build_answer(query, rcode, addresses, mark, dns.TCP_SIZE))
    assert dns.Answer(7, name, dns.A, dns.RCODES[rcode], False, tuple(addresses), mark) == answer


@given(st.binary(max_size=300) | st.binary(max_size=40).map(lambda tail: dns.build_query(7, "a.b", dns.A, "abc")[:-20] + tail))
def test_no_bytes_break_the_codec_or_the_nameserver(message: bytes) -> None:
    for read in (dns.read_query, dns.read_answer):
        with contextlib.suppress(dns.DnsError):
            read(message)
    nameserver = Nameserver("a/b", socket.socket, DNS, {"a.b": ["10.0.0.1"]})
    answer = nameserver.answer(message, "10.0.0.2 1", stream=False)
    assert not answer or answer[:2] == message[:2]
    assert len(answer) <= dns.UDP_SIZE + 300


def test_pointers_that_run_in_circles_end() -> None:
    header = dns.build_query(7, "a", dns.A)[:12]
    for name in (b"\xc0\x0c", b"\1a\xc0\x0c", b"\xc0\x0e\xc0\x0c", b"\x40a", b"\3ab"):
        with pytest.raises(dns.DnsError):
            dns.read_query(header + name + b"\0\1\0\1")


@pytest.mark.parametrize(
    ("message", "rcode"),
    [
        (b"\0\7\1\0\0\2" + b"\0" * 6, dns.FORMERR),
        (b"\0\7\x29\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1", dns.NOTIMP),
        (b"\0\7\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\3", dns.REFUSED),
        (b"\0\7\x81\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1", None),
        (b"\0\7\1", None),
    ],
)
def test_a_message_that_is_no_plain_question_gets_its_rcode_or_no_answer(message: bytes, rcode: int | None) -> None:
    answer = Nameserver("a/b", socket.socket, DNS, {"a": ["10.0.0.1"]}).answer(message, "10.0.0.2 1", stream=False)
    assert rcode == (answer[3] & 15 if answer else None)


def test_who_asks_without_edns_gets_no_option_and_at_most_512_bytes() -> None:
    question = b"\0\7\1\0\0\1\0\0\0\0\0\0\4many\0\0\1\0\1"
    nameserver = Nameserver("a/b", socket.socket, DNS, {"many": MANY})
    by_datagram = nameserver.answer(question, "10.0.0.2 1", stream=False)
    by_stream = nameserver.answer(question, "10.0.0.2 1", stream=True)
    assert (True, ()) == dns.read_answer(by_datagram)[4:6]
    assert (False, tuple(MANY), b"") == dns.read_answer(by_stream)[4:]
    assert len(by_datagram) <= 512


def test_many_questions_on_one_tcp_connection_are_answered_however_they_are_cut(address: str) -> None:
    async def scenario() -> None:
        with naming(address):
            reader, writer = await asyncio.open_connection(address, DNS)
            questions = [dns.build_query(at, "payment.shop.svc.cluster.local", dns.A) for at in range(3)]
            data = b"".join(len(question).to_bytes(2, "big") + question for question in questions)
            for piece in (data[:1], data[1:50], data[50:]):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            for at in range(3):
                length = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), 5), "big")
                answer = dns.read_answer(await reader.readexactly(length))
                assert (at, (address,)) == (answer.id, answer.addresses)
            writer.close()

    asyncio.run(scenario())
