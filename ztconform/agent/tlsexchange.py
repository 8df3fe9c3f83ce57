# SPDX-License-Identifier: Apache-2.0
"""What a TLS client meets on the wire: the exchange of `exchange` with a handshake before it and records around it.

What is spoken, and what an alert is called, is for `tls`.

Why nothing is sent at once behind a handshake of TLS 1.3: the client is done before the server has seen its certificate. A server
that refuses it sends an alert and closes, and a request that arrives then is answered with a reset. So a request waits until the
server has shown that it is done too, by a session ticket (RFC 8446 4.6.1), and otherwise for `settle` seconds. A reset that comes
all the same does not hide an alert that came before it: the exchange reads what lies in the socket.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

from .exchange import ANSWERED, Network, Outcome, TcpExchange
from .tls import alert_name, client_context, describe

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .readers import Reader
    from .spec import Tls

_RECORDS = (20, 21, 22, 23)  # the first byte of all that a TLS server sends
_PIECE = 65536


class TlsExchange(TcpExchange):
    """Connect, shake hands, send a request and read its answer; without a request, end with the handshake."""

    _next_stage = "tls"

    __slots__ = ("_incoming", "_outgoing", "_plain", "_settle", "_shaken", "_spoken", "_timer", "_tls")

    def __init__(self, network: Network, request: bytes, reader: Reader, done: Callable[[Outcome], None], tls: Tls) -> None:
        """Raises OSError and ValueError for a certificate, key or name that cannot be used."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = client_context(tls).wrap_bio(self._incoming, self._outgoing, server_hostname=tls.server_name)
        self._plain = request
        self._settle = tls.settle
        self._shaken = False  # whether the handshake is over on this side
        self._spoken = False  # whether the server has sent anything
        self._timer: asyncio.TimerHandle | None = None
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        super().__init__(network, self._outgoing.read(), reader, done)

    def describe(self) -> str:
        """Return what the handshake agreed on, and the server's certificate."""
        return describe(self._tls)

    def end(self, outcome: Outcome) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().end(outcome)

    def _received(self, data: bytes) -> None:
        if data and not self._spoken:
            self._spoken = True
            if data[0] not in _RECORDS:
                self.end(Outcome("closed", "tls", "answer is not TLS"))
                return
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        try:
            self._advance()
        except ssl.SSLWantReadError:
            self._flush()
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._finish()
        except ssl.SSLError as error:
            self._flush()  # our own alert, so that the server knows too
            self._fail_by(error)

    def _advance(self) -> None:
        if not self._shaken:
            self._tls.do_handshake()
            self._shaken = True
            self._flush()
            self._rest()
        while self._done is not None:
            data = self._tls.read(_PIECE)
            if not data:
                raise ssl.SSLZeroReturnError
            if self._reader.feed(data):
                self.end(ANSWERED)
            elif self._reader.reply:
                self._write(self._reader.reply)

    def _rest(self) -> None:
        if self._tls.version() != "TLSv1.3":
            self._begin()  # a server of TLS 1.2 has the last word in the handshake
        else:
            self._timer = self._network.loop.call_later(self._settle, self._begin)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._done is None or self._stage != "tls":
            return
        if not self._plain:
            self.end(ANSWERED)
            return
        self._stage = "request"
        plain, self._plain = self._plain, b""
        self._write(plain)

    def _write(self, plain: bytes) -> None:
        at = 0
        while at < len(plain):  # a record at a time
            at += self._tls.write(plain[at:])
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and self._done is not None:
            self._push(self._outgoing.read())
        if self._timer is not None and self._session_ticket():
            self._begin()

    def _session_ticket(self) -> bool:
        session = self._tls.session
        return session is not None and session.has_ticket

    def _finish(self) -> None:
        if self._stage == "request" and self._reader.end():
            self.end(ANSWERED)
        else:
            self.end(Outcome("closed", self._stage, "EOF"))

    def _fail_by(self, error: ssl.SSLError) -> None:
        alert = alert_name(error)
        if "unexpected eof" in str(error):  # how Python before 3.10 tells an EOF that OpenSSL 3 met
            self._finish()
        elif alert:
            self.end(Outcome("tls-alert", "tls", alert))
        else:
            self.end(Outcome("closed", self._stage, (error.reason or str(error)).lower()))
