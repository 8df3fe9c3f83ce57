# SPDX-License-Identifier: Apache-2.0
"""What goes over a node's wire to or from a few addresses, as pcap; the kernel hands over those packets and nobody else's.

A packet in a tunnel (VXLAN, Geneve without options, IP in IP) is known by the addresses inside, where they can be read. Who may
be looked at is left to whoever asks, and a privilege to look at all, CAP_NET_RAW, to the pod.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import select
import socket
import struct
from time import monotonic, time
from typing import TYPE_CHECKING

from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Tuple

    Instruction = Tuple[int, int, int, int]  # code, jump if true, jump if false, operand
    Packet = Tuple[float, bytes]  # when it was read, and from its IP header on

LONGEST = 60.0  # seconds
MOST = 1 << 22  # bytes of packets
_BUFFER = 1 << 24  # bytes asked for; the kernel cuts it to rmem_max

# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h, linux/sockios.h: not in Python's socket module.
_ETH_P_ALL, _ETH_P_IP = 0x0003, 0x0800
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_ATTACH_FILTER = 26
_SIOCGIFADDR = 0x8915
_PROTOCOL = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL: the packet's EtherType

# linux/bpf_common.h. A load beyond the packet's end drops it.
_LOAD_WORD, _LOAD_BYTE, _LOAD_WORD_AT_X, _LOAD_HALF_AT_X = 0x20, 0x30, 0x40, 0x48
_SET_X, _HEADER_LENGTH_TO_X, _X_TO_A, _A_TO_X = 0x01, 0xB1, 0x87, 0x07
_ADD, _JUMP_IF, _RETURN = 0x04, 0x15, 0x06
_WHOLE, _NOTHING = 0x40000, 0

_SOURCE, _DESTINATION, _TRANSPORT = 12, 16, 9  # offsets in an IPv4 header
_IP_IN_IP, _UDP = 4, 17
_TUNNELS = (4789, 6081, 8472)  # UDP ports of VXLAN, Geneve, and VXLAN as Linux and Cilium have it
_TUNNEL = 8 + 8 + 14  # bytes of UDP, VXLAN or Geneve, and Ethernet
_INNER_TYPE = _TUNNEL - 2

_LINKTYPE_RAW = 101  # packets begin with their IP header


def capture(interface: str, addresses: Sequence[str], seconds: float) -> dict[str, Any]:
    """Return {"pcap": base64, "lost": packets, "full": whether more came than is kept} once so many seconds are over.

    `interface` is an address that the interface has. Raises AgentError for what cannot be captured.
    """
    if not 0 < seconds <= LONGEST:
        raise AgentError(f"a capture takes more than 0 and at most {LONGEST:.0f} seconds, not {seconds}")
    try:
        instructions = program([socket.inet_aton(address) for address in addresses])
        # Of protocol 0 it hears nothing until it is bound, and by then it has its filter.
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
            _attach(sock, instructions)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            sock.bind((_named(sock, interface), _ETH_P_ALL))
            packets, full = _read(sock, monotonic() + seconds)
            _, lost = struct.unpack("II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    except OSError as error:
        raise AgentError(f"packets of {', '.join(addresses)} cannot be captured: {error}") from error
    return {"pcap": base64.b64encode(pcap(packets)).decode("ascii"), "lost": lost, "full": full}


def program(addresses: Sequence[bytes]) -> list[Instruction]:
    """Return the classic BPF program that takes IPv4 packets to or from one of these addresses; raises AgentError for none."""
    if not addresses:
        raise AgentError("a capture needs the addresses that it is about: it takes nobody else's packets")
    tunnel = [
        *_demand(_UDP),
        (_LOAD_HALF_AT_X, 0, 0, 2),
        *_demand(*_TUNNELS),
        (_LOAD_HALF_AT_X, 0, 0, _INNER_TYPE),
        *_demand(_ETH_P_IP),
        (_X_TO_A, 0, 0, 0),
        (_ADD, 0, 0, _TUNNEL),
        (_A_TO_X, 0, 0, 0),
    ]
    return [
        (_LOAD_WORD, 0, 0, _PROTOCOL),
        *_demand(_ETH_P_IP),
        (_SET_X, 0, 0, 0),
        *_take(addresses),
        (_HEADER_LENGTH_TO_X, 0, 0, 0),
        (_LOAD_BYTE, 0, 0, _TRANSPORT),
        (_JUMP_IF, len(tunnel), 0, _IP_IN_IP),
        *tunnel,
        *_take(addresses),
        (_RETURN, 0, 0, _NOTHING),
    ]


def pcap(packets: Sequence[Packet]) -> bytes:
    """Return IP packets, each with its time, as a file that every reader of captures reads."""
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _WHOLE, _LINKTYPE_RAW)
    records = [struct.pack("<IIII", int(at), int(at % 1 * 1e6), len(data), len(data)) + data for at, data in packets]
    return head + b"".join(records)


def _take(addresses: Sequence[bytes]) -> Iterator[Instruction]:
    """Take the packet if the IPv4 header at X has one of these addresses as source or destination."""
    for offset in (_SOURCE, _DESTINATION):
        yield (_LOAD_WORD_AT_X, 0, 0, offset)
        for address in addresses:
            yield (_JUMP_IF, 0, 1, int.from_bytes(address, "big"))
            yield (_RETURN, 0, 0, _WHOLE)


def _demand(*values: int) -> Iterator[Instruction]:
    """Drop the packet if what was loaded is none of these values."""
    for at, value in enumerate(values):
        yield (_JUMP_IF, len(values) - at, 0, value)
    yield (_RETURN, 0, 0, _NOTHING)


def _attach(sock: socket.socket, instructions: Sequence[Instruction]) -> None:
    room = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(instructions), ctypes.addressof(room)))


def _named(sock: socket.socket, address: str) -> str:
    """Return the name of the interface that has an IPv4 address; raises AgentError where none has it."""
    for _, name in socket.if_nameindex():
        try:
            found = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode("ascii")))
        except OSError:
            continue  # it has no IPv4 address
        if socket.inet_ntoa(found[20:24]) == address:
            return name
    raise AgentError(f"no interface here has the address {address}")


def _read(sock: socket.socket, until: float) -> tuple[list[Packet], bool]:
    packets: list[Packet] = []
    size = 0
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while monotonic() < until:
        if not poll.poll(max(0.0, until - monotonic()) * 1e3):
            continue
        data = sock.recv(_WHOLE)
        if size + len(data) > MOST:
            return packets, True
        packets.append((time(), data))
        size += len(data)
    return packets, False
