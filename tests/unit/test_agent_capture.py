# SPDX-License-Identifier: Apache-2.0
"""Which packets a capture takes, by a reading of its BPF program of our own, and what becomes of them."""

import asyncio
import json
import os
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.agent.capture import LONGEST, capture, pcap, program
from ztconform.agent.channel import Channel
from ztconform.agent.prober import Prober
from ztconform.agent.wire import AgentError

OURS, ALSO, OTHER, THIRD = "10.244.1.7", "10.244.0.9", "172.18.0.3", "10.244.1.8"
UDP, TCP, IP_IN_IP = 17, 6, 4
ADDRESSES = st.sampled_from([OURS, ALSO, OTHER, THIRD])


def ipv4(source: str, target: str, protocol: int, payload: bytes, options: int = 0) -> bytes:
    length = 20 + 4 * options + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45 + options, 0, length, 0, 0, 64, protocol, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(target) + bytes(4 * options) + payload


def udp(port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload


def tunnelled(port: int, inner: bytes, ethertype: int = 0x0800) -> bytes:
    return udp(port, bytes(8) + bytes(12) + ethertype.to_bytes(2, "big") + inner)


def taken(packet: bytes, *addresses: str, ethertype: int = 0x0800) -> bool:
    """Return what the kernel would do, instruction by instruction."""
    instructions = program([socket.inet_aton(address) for address in addresses])
    a = x = at = 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        if code in (0x20, 0x30, 0x40, 0x48):
            place = k + (x if code in (0x40, 0x48) else 0)
            width = {0x20: 4, 0x30: 1, 0x40: 4, 0x48: 2}[code]
            if k == 0xFFFFF000:
                a = ethertype
            elif place + width > len(packet):
                return False
            else:
                a = int.from_bytes(packet[place : place + width], "big")
        elif code == 0xB1:
            x = 4 * (packet[k] & 0xF)
        elif code in (0x01, 0x07, 0x87, 0x04):
            x, a = {0x01: (k, a), 0x07: (a, a), 0x87: (x, x), 0x04: (x, a + k)}[code]
        elif code == 0x15:
            at += if_true if a == k else if_false
        elif code == 0x06:
            return k > 0
        else:
            raise AssertionError(f"instruction {code:#x}")


PLAIN = ipv4(ALSO, OURS, TCP, b"x" * 40)
STRANGE = ipv4(OTHER, THIRD, TCP, b"x" * 40)


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (PLAIN, True),
        (ipv4(OURS, OTHER, TCP, b""), True),
        (STRANGE, False),
        (ipv4(OTHER, THIRD, UDP, tunnelled(8472, PLAIN)), True),
        (ipv4(OTHER, THIRD, UDP, tunnelled(4789, PLAIN)), True),
        (ipv4(OTHER, THIRD, UDP, tunnelled(6081, PLAIN)), True),
        (ipv4(OTHER, THIRD, UDP, tunnelled(8472, PLAIN), options=2), True),
        (ipv4(OTHER, THIRD, UDP, tunnelled(8472, STRANGE)), False),
        (ipv4(OTHER, THIRD, UDP, tunnelled(8473, PLAIN)), False),
        (ipv4(OTHER, THIRD, UDP, tunnelled(8472, PLAIN, ethertype=0x86DD)), False),
        (ipv4(OTHER, THIRD, TCP, tunnelled(8472, PLAIN)), False),
        (ipv4(OTHER, THIRD, IP_IN_IP, PLAIN), True),
        (ipv4(OTHER, THIRD, IP_IN_IP, STRANGE), False),
        (ipv4(OTHER, THIRD, UDP, udp(51871, b"sealed" * 20)), False),
        (ipv4(OTHER, THIRD, UDP, udp(8472, b"short")), False),
        (ipv4(OTHER, THIRD, TCP, socket.inet_aton(OURS) * 20), False),
    ],
)
def test_a_packet_is_taken_by_the_addresses_that_it_is_really_from_or_to(packet: bytes, wanted: bool) -> None:
    assert wanted is taken(packet, OURS)


def test_what_is_no_ipv4_is_not_read_as_if_it_were() -> None:
    assert taken(PLAIN, OURS)
    assert not taken(PLAIN, OURS, ethertype=0x0806)


@given(
    source=ADDRESSES, target=ADDRESSES, about=st.lists(ADDRESSES, min_size=1, max_size=90), protocol=st.sampled_from([TCP, UDP])
)
def test_any_of_many_addresses_takes_a_packet_and_no_other_does(
    source: str, target: str, about: list[str], protocol: int
) -> None:
    assert bool({source, target} & set(about)) is taken(ipv4(source, target, protocol, bytes(60)), *about)


def test_a_capture_file_holds_each_packet_with_its_time() -> None:
    whole = pcap([(1.5, b"abc"), (2.25, b"")])
    assert (0xA1B2C3D4, 2, 4, 101) == (*struct.unpack("<IHH", whole[:8]), struct.unpack("<I", whole[20:24])[0])
    assert struct.pack("<IIII", 1, 500_000, 3, 3) + b"abc" + struct.pack("<IIII", 2, 250_000, 0, 0) == whole[24:]


@pytest.mark.parametrize("seconds", [0, -1, LONGEST + 1])
def test_a_capture_has_an_end(seconds: float) -> None:
    with pytest.raises(AgentError, match=f"at most 60 seconds, not {seconds}"):
        capture("127.0.0.1", [OURS], seconds)


def ordered(**fields: Any) -> dict[str, Any]:
    """Return what an agent answers to an order."""

    async def ask() -> dict[str, Any]:
        answers: list[bytes] = []
        prober = Prober(socket.socket)
        reader = asyncio.StreamReader()
        payload = json.dumps({"id": 1, **fields}).encode()
        reader.feed_data(b"%d\n" % len(payload) + payload)
        running = asyncio.ensure_future(Channel(prober, None, answers.append).run(reader))
        while not answers:
            await asyncio.sleep(0.001)
        reader.feed_eof()
        await running
        prober.close()
        return dict(json.loads(answers[0]))

    return asyncio.run(ask())


def test_without_an_address_nothing_at_all_is_captured() -> None:
    answer = ordered(op="capture", interface="127.0.0.1", addresses=[], seconds=1)
    assert "takes nobody else's packets" in answer["error"]


def test_what_is_no_address_is_answered_as_such() -> None:
    assert "cannot be captured" in ordered(op="capture", interface="127.0.0.1", addresses=["fd00::1"], seconds=1)["error"]


def test_without_the_privilege_or_the_interface_the_answer_says_so() -> None:
    answer = ordered(op="capture", interface="192.0.2.77", addresses=[OURS], seconds=1)
    assert ("no interface here has the address 192.0.2.77" if os.geteuid() == 0 else "cannot be captured") in answer["error"]
