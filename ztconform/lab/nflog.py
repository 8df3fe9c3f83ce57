# SPDX-License-Identifier: Apache-2.0
"""Which packets the rules with a `Log` statement saw: one event each, read from an NFLOG group of one network namespace.

What a prefix means is left to the compiler that wrote it. The event is queued before the packet's verdict is reached, so
that `drain` after an attempt has every event of it; what the kernel could not queue shows as `lost`, never as silence.
"""

import errno
import socket
import struct
from dataclasses import dataclass
from typing import Literal

from ztconform.errors import ClusterError
from ztconform.lab import netlink, nfexpression

# linux/netfilter/nfnetlink.h, nfnetlink_log.h
NFNL_SUBSYS_ULOG = 4
NFULNL_MSG_PACKET, NFULNL_MSG_CONFIG = 0, 1
NFULA_PAYLOAD, NFULA_PREFIX, NFULA_SEQ = 9, 10, 12
NFULA_CFG_CMD, NFULA_CFG_MODE, NFULA_CFG_NLBUFSIZ, NFULA_CFG_QTHRESH, NFULA_CFG_FLAGS = 1, 2, 3, 5, 6
NFULNL_CFG_CMD_BIND = 1
NFULNL_COPY_PACKET = 2
NFULNL_CFG_F_SEQ = 1
# linux/in6.h
IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT, IPPROTO_DSTOPTS = 0, 43, 44, 60

_PROTOCOL = {number: name for name, number in nfexpression.IPPROTO.items()}
_COPIED = 128  # bytes of a packet: the longest IPv4 header, or an IPv6 header with extensions, and the ports
_BUFFER = 8 << 20  # bytes wanted; without the host's root the limit is net.core.rmem_max
_MASK = 0xFFFFFFFF
_SETTINGS = (
    (NFULA_CFG_CMD, struct.pack("!B", NFULNL_CFG_CMD_BIND), "its use"),
    (NFULA_CFG_MODE, struct.pack("!IBx", _COPIED, NFULNL_COPY_PACKET), "copying of packets"),
    (NFULA_CFG_FLAGS, struct.pack("!H", NFULNL_CFG_F_SEQ), "sequence numbers"),
    (NFULA_CFG_QTHRESH, struct.pack("!I", 1), "delivery at once"),
    # The smallest: a buffer grows to its event but is never trimmed, and with the default only a fourth as many events fit.
    (NFULA_CFG_NLBUFSIZ, struct.pack("!I", 1), "buffer size"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Report one packet that met a `Log` statement."""

    prefix: str
    proto: str  # "tcp", "udp", "sctp", else the protocol's number
    src: str
    sport: int  # 0: a protocol without ports, or a later fragment
    dst: str
    dport: int
    family: Literal[4, 6]


class NfLog:
    """Listen to one NFLOG group of a network namespace.

    A socket holds some 500 events where net.core.rmem_max is the usual 208 KiB, so drain it while many probes are sent.
    Raises ClusterError where the kernel cannot log or somebody listens to the group already.
    """

    def __init__(self, netns_fd: int, group: int) -> None:
        self.lost = False  # stays true: from then on the absence of an event proves nothing
        self._next = 0  # the kernel counts from 0 when a group is bound, so that a loss before the first event shows too
        kernel = netlink.Netlink(netns_fd, netlink.NETLINK_NETFILTER)
        self._socket = kernel.socket
        netlink.enlarge(self._socket, "RCVBUF", _BUFFER)
        try:
            kernel.batch([_setting(group, number, value, what) for number, value, what in _SETTINGS])
        except ClusterError:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return a descriptor that is readable while there are events."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def drain(self) -> list[Drop]:
        """Return the events since the last call, in order, without waiting."""
        drops: list[Drop] = []
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return drops
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise ClusterError(f"the flow log cannot be read: {error.strerror}") from error
                self.lost = True
                continue
            for kind, _, _, start, end in netlink.frames(data):
                if kind == NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET:
                    drops += self._event(dict(netlink.attributes(data, start + 4, end)))

    def _event(self, found: dict[int, bytes]) -> list[Drop]:
        sequence = int.from_bytes(found.get(NFULA_SEQ, b""), "big")
        self.lost = self.lost or NFULA_SEQ not in found or sequence != self._next
        self._next = (sequence + 1) & _MASK
        drop = _parse(found.get(NFULA_PREFIX, b"").rstrip(b"\0").decode(errors="replace"), found.get(NFULA_PAYLOAD, b""))
        if drop is None:
            self.lost = True  # an event that cannot be read is no better than one that did not come
            return []
        return [drop]


def _setting(group: int, number: int, value: bytes, what: str) -> netlink.Message:
    body = struct.pack("!BBH", 0, 0, group) + netlink.attribute(number, value)
    return netlink.Message(NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG, 0, body, f"NFLOG group {group}: {what}")


def _parse(prefix: str, packet: bytes) -> Drop | None:
    """Return the event of a packet that begins with its IP header; None for what is no IP packet."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        later = int.from_bytes(packet[6:8], "big") & 0x1FFF
        protocol, transport = packet[9], b"" if later else packet[(packet[0] & 15) * 4 :]
        addresses = [socket.inet_ntop(socket.AF_INET, packet[at : at + 4]) for at in (12, 16)]
    elif version == 6 and len(packet) >= 40:
        protocol, transport = _beyond_extensions(packet)
        addresses = [socket.inet_ntop(socket.AF_INET6, packet[at : at + 16]) for at in (8, 24)]
    else:
        return None
    sport, dport = struct.unpack_from("!HH", transport) if protocol in _PROTOCOL and len(transport) >= 4 else (0, 0)
    return Drop(
        prefix=prefix,
        proto=_PROTOCOL.get(protocol, str(protocol)),
        src=addresses[0],
        sport=sport,
        dst=addresses[1],
        dport=dport,
        family=4 if version == 4 else 6,
    )


def _beyond_extensions(packet: bytes) -> tuple[int, bytes]:
    """Return the transport protocol of an IPv6 packet and its header, which is empty in a later fragment."""
    protocol, at = packet[6], 40
    while protocol in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT, IPPROTO_DSTOPTS) and len(packet) >= at + 8:
        if protocol == IPPROTO_FRAGMENT:
            if int.from_bytes(packet[at + 2 : at + 4], "big") >> 3:
                return packet[at], b""
            protocol, at = packet[at], at + 8
        else:
            protocol, at = packet[at], at + (packet[at + 1] + 1) * 8
    return protocol, packet[at:]
