# SPDX-License-Identifier: Apache-2.0
"""What the lab's DNS answers: A and AAAA of a zone that may change at any time, by UDP and TCP.

Which names there are is for whoever owns the zone; messages are in `dns`. What was asked with a nonce is kept by the witness.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from . import dns
from .listeners import ANY, Listeners
from .wire import AgentError
from .witness import Witness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .wire import OpenSocket

_OURS = ("cluster.local", "outside.test")  # where a name that the zone lacks does not exist; elsewhere we cannot know
_LENGTH_PREFIX = 2


class Nameserver:
    """Answer DNS for one pod."""

    def __init__(
        self,
        pod: str,
        open_socket: OpenSocket,
        port: int = 53,
        zone: Mapping[str, Sequence[str]] | None = None,
        addresses: Sequence[str] = ANY,
    ) -> None:
        self._open_socket = open_socket
        self._port = port
        self._addresses = tuple(addresses)
        self._listeners: Listeners | None = None
        self._zone: dict[str, tuple[str, ...]] = {}
        self.witness = Witness(pod)
        self.replace(zone or {})

    @property
    def boot(self) -> str:
        """Return the ID under which this server remembers."""
        return self.witness.boot

    def replace(self, zone: Mapping[str, Sequence[str]]) -> None:
        """Answer from this zone (name to addresses of either family) from now on; raises AgentError for what DNS cannot say."""
        fresh = {}
        for name, addresses in zone.items():
            try:
                dns.encode_name(name)
                fresh[_key(name)] = tuple(str(ipaddress.ip_address(address)) for address in addresses)
            except ValueError as error:
                raise AgentError(f"zone of {self.witness.pod}, name {name!r}: {error}") from error
        self._zone = fresh

    def start(self) -> None:
        """Listen, in the running loop; raises AgentError, and then listens nowhere."""
        if self._listeners is not None:
            raise AgentError(f"{self.witness.pod} serves already")
        self._listeners = listeners = Listeners(self._open_socket, self._addresses)
        try:
            listeners.receive(self._port, self._answer_datagram)
            listeners.listen(self._port, lambda peer: _FrameSession(self, peer))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close every socket; what was seen stays known."""
        if self._listeners is not None:
            self._listeners.close()
            self._listeners = None

    def sightings(self, since: int = 0) -> list[list[Any]]:
        """Return [nonce, boot, sequence, identity] for every sequence above `since`."""
        return self.witness.sightings(since)

    def answer(self, message: bytes, peer: str, stream: bool) -> bytes:
        """Return the answer to a message, b"" for one that must not be answered."""
        try:
            query = dns.read_query(message)
            dns.encode_name(query.name)
        except dns.DnsError:
            self.witness.record("", "DNS", "", peer)
            return dns.build_failure(message, dns.FORMERR)
        mark = self.witness.record(query.nonce, "DNS", query.name, peer)
        rcode, addresses = self._find(query)
        limit = dns.TCP_SIZE if stream else min(query.size or dns.PLAIN_UDP_SIZE, dns.UDP_SIZE)
        return dns.build_answer(query, rcode, addresses, mark.encode(), limit)

    def _answer_datagram(self, data: bytes, peer: str) -> bytes:
        return self.answer(data, peer, stream=False)

    def _find(self, query: dns.Query) -> tuple[int, list[str]]:
        if query.opcode:
            return dns.NOTIMP, []
        key = _key(query.name)
        if query.dns_class != dns.CLASS_IN:
            return dns.REFUSED, []
        if key not in self._zone:
            ours = any(key == suffix or key.endswith("." + suffix) for suffix in _OURS)
            return (dns.NXDOMAIN if ours else dns.REFUSED), []
        version = {dns.A: 4, dns.AAAA: 6}.get(query.type)
        return dns.NOERROR, [text for text in self._zone[key] if version == (6 if ":" in text else 4)]


class _FrameSession:
    """Answer the length-prefixed messages of one TCP connection."""

    __slots__ = ("_buffer", "_nameserver", "_peer", "closing")

    def __init__(self, nameserver: Nameserver, peer: str) -> None:
        self._nameserver = nameserver
        self._peer = peer
        self._buffer = bytearray()
        self.closing = False

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        out = bytearray()
        while len(self._buffer) >= _LENGTH_PREFIX:
            end = _LENGTH_PREFIX + int.from_bytes(self._buffer[:_LENGTH_PREFIX], "big")
            if len(self._buffer) < end:
                break
            answer = self._nameserver.answer(bytes(self._buffer[_LENGTH_PREFIX:end]), self._peer, stream=True)
            del self._buffer[:end]
            if not answer:
                self.closing = True
                break
            out += len(answer).to_bytes(_LENGTH_PREFIX, "big") + answer
        return bytes(out)


def _key(name: str) -> str:
    return name.rstrip(".").lower()
