# SPDX-License-Identifier: Apache-2.0
"""What a probe is asked to send, checked: every field known, of its type, and expressible on the wire.

Sending is for `prober`. An unknown field is refused; one that its kind has no use for (a method for UDP) is checked all the same.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, NamedTuple

from . import dns
from .wire import read_nonce

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

KINDS = ("tcp", "udp", "http", "http2", "grpc", "websocket", "tls", "dns")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OVER_HTTP = ("http", "http2", "grpc", "websocket")
_OF_CONNECTIONS = {"tls", "raw", "mark", "connection"}
_REUSING = ("http", "http2", "grpc")
_NO_LINE = re.compile(r"[\r\n\x00]")


class SpecError(ValueError):
    """Say which field of a spec cannot be sent."""


class Tls(NamedTuple):
    """Hold how a probe speaks TLS itself; nobody's certificate is verified."""

    chain: str | None = None  # PEM: the client's certificate, and those behind it
    key: str | None = None  # PEM
    folder: str | None = None  # in place of both: where the pod's proxy keeps its own, read when the probe is sent
    outlived: bool = False  # of those in the folder the first that was seen, once it has expired
    alpn: tuple[str, ...] = ("istio",)
    server_name: str | None = None
    settle: float = 0.03  # seconds after a handshake of TLS 1.3 in which the server may still refuse the certificate


class Spec(NamedTuple):
    """Hold what to send, where to, and how long to wait."""

    kind: str
    port: int
    address: str = ""  # "" where `name` is given
    attempt: str = ""
    nonce: str = ""
    timeout: float = 3.0  # seconds, from the first packet (the resolution's, where there is one) to the complete answer
    method: str = "GET"
    path: str = "/"  # raw, latin-1; the name to ask for with kind "dns"
    headers: tuple[tuple[str, str], ...] = ()
    host: str | None = None
    bind: str | None = None
    name: str = ""  # dial by this name in place of `address`
    resolver: tuple[str, int] = ("", 0)
    search: tuple[str, ...] = ()
    family: int = 4  # which addresses a name is asked for
    retry: bool = False  # send a datagram again where nothing comes; only for probes that are expected to pass
    tls: Tls | None = None  # kind "tls" has the defaults where this is None
    raw: str | None = None  # latin-1; kind "http" sends it with its {nonce} replaced, and `method` says how to read the answer
    mark: int | None = None  # SO_MARK of the TCP connection; that of a name's resolution has none
    connection: str = ""  # probes of one call with the same name go over one connection, each when the last was answered


_FIELDS = frozenset(Spec._fields)


def read_spec(fields: Mapping[str, Any]) -> Spec:
    """Return the spec in a JSON object; raises SpecError."""
    if not fields.keys() <= _FIELDS:
        raise SpecError(f"unknown field {min(fields.keys() - _FIELDS)!r}")
    known = dict(fields)
    for name in ("kind", "port"):
        if name not in known:
            raise SpecError(f"field {name!r} is missing")
    for name in ("headers", "resolver", "search"):
        if name in known:
            known[name] = _frozen(name, known[name])
    if "tls" in known and known["tls"] is not None:
        known["tls"] = _read_tls(known["tls"])
    spec = Spec(**known)
    _check_types(spec)
    _check_target(spec)
    if fields.keys() & _OF_CONNECTIONS or spec.kind == "websocket":
        _check_connection(spec)
    if spec.kind in _OVER_HTTP:
        _check_http(spec)
    return spec


def _frozen(name: str, value: Any) -> tuple[Any, ...]:
    if value is None:
        return Spec._field_defaults[name]  # type: ignore[no-any-return]  # typeshed has them as Any
    if not isinstance(value, (list, tuple)):
        raise SpecError(f"{name} is not a list")
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)


def _check_types(spec: Spec) -> None:
    if spec.kind not in KINDS:
        raise SpecError(f"kind {spec.kind!r} is none of {', '.join(KINDS)}")
    for name in ("address", "attempt", "nonce", "method", "path", "name"):
        if not isinstance(getattr(spec, name), str):
            raise SpecError(f"{name} is not text")
    if spec.nonce and not read_nonce(spec.nonce):
        raise SpecError(f"nonce {spec.nonce!r} is not of 1 to 64 letters and digits")
    if not _is_port(spec.port):
        raise SpecError(f"port {spec.port!r} is not between 1 and 65535")
    if isinstance(spec.timeout, bool) or not isinstance(spec.timeout, (int, float)) or not 0 < spec.timeout <= 3600:
        raise SpecError(f"timeout {spec.timeout!r} is not between 0 and 3600 seconds")
    if not isinstance(spec.retry, bool) or spec.family not in (4, 6):
        raise SpecError(f"retry {spec.retry!r} or family {spec.family!r} is not one there is")
    if not all(isinstance(suffix, str) for suffix in spec.search):
        raise SpecError("search is not a list of names")


def _check_target(spec: Spec) -> None:
    if spec.bind is not None and not _is_address(spec.bind):
        raise SpecError(f"bind {spec.bind!r} is not an address")
    if bool(spec.name) == bool(spec.address):
        raise SpecError("one of address and name has to be given")
    if spec.address and not _is_address(spec.address):
        raise SpecError(f"address {spec.address!r} is not an address")
    if spec.name:
        if spec.kind == "dns":
            raise SpecError("kind dns asks for its path, and takes no name")
        if len(spec.resolver) != 2 or not _is_address(spec.resolver[0]) or not _is_port(spec.resolver[1]):
            raise SpecError(f"resolver {spec.resolver!r} is not an address and a port")
    first_hop = spec.address or spec.resolver[0]
    if spec.bind is not None and (":" in spec.bind) != (":" in first_hop):
        raise SpecError(f"bind {spec.bind!r} is not of the family of {first_hop}, which it is to reach")
    if not spec.name and not spec.search and spec.kind != "dns":
        return  # there is no name to ask for
    try:
        for name in (spec.path if spec.kind == "dns" else spec.name, *spec.search):
            dns.encode_name(name)
    except dns.DnsError as error:
        raise SpecError(f"a name to ask for: {error}") from None


def _check_connection(spec: Spec) -> None:
    if spec.mark is not None and (not isinstance(spec.mark, int) or isinstance(spec.mark, bool) or not 0 < spec.mark < 1 << 31):
        raise SpecError(f"mark {spec.mark!r} is not between 1 and 2147483647")
    if spec.kind in ("udp", "dns") and (spec.mark is not None or spec.tls is not None):
        raise SpecError(f"kind {spec.kind} takes neither mark nor tls, which are a TCP connection's")
    if not isinstance(spec.connection, str):
        raise SpecError("connection is not text")
    if spec.connection and (spec.kind not in _REUSING or spec.name):
        raise SpecError(f"connection is for the kinds {', '.join(_REUSING)}, dialled by address")
    if spec.raw is not None and (spec.kind != "http" or not isinstance(spec.raw, str) or not _is_latin1(spec.raw)):
        raise SpecError("raw is latin-1 text, and for kind http")
    if spec.kind == "websocket" and spec.method != "GET":
        raise SpecError(f"method {spec.method!r} opens no WebSocket")


def _read_tls(fields: Any) -> Tls:
    if not isinstance(fields, dict) or not fields.keys() <= set(Tls._fields):
        raise SpecError(f"tls is not an object of {', '.join(Tls._fields)}")
    known = dict(fields)
    if "alpn" in known:
        known["alpn"] = tuple(known["alpn"]) if isinstance(known["alpn"], (list, tuple)) else known["alpn"]
    tls = Tls(**known)
    if not isinstance(tls.alpn, tuple) or not all(isinstance(n, str) and n.isascii() and 0 < len(n) < 256 for n in tls.alpn):
        raise SpecError("tls.alpn is not a list of names")
    for name in ("chain", "key", "server_name", "folder"):
        if not isinstance(getattr(tls, name), (str, type(None))):
            raise SpecError(f"tls.{name} is not text")
    if (tls.chain is None) != (tls.key is None):
        raise SpecError("tls.chain and tls.key are given both or not at all")
    if not isinstance(tls.outlived, bool) or (tls.folder is None and tls.outlived) or None not in (tls.folder, tls.chain):
        raise SpecError("tls.folder stands in place of tls.chain and tls.key, and tls.outlived goes with it")
    if isinstance(tls.settle, bool) or not isinstance(tls.settle, (int, float)) or not 0 <= tls.settle <= 60:
        raise SpecError(f"tls.settle {tls.settle!r} is not between 0 and 60 seconds")
    return tls


def _check_http(spec: Spec) -> None:
    if _TOKEN.fullmatch(spec.method) is None:
        raise SpecError(f"method {spec.method!r} is not a token")
    texts = [spec.path, spec.host or ""]
    for header in spec.headers:
        if not isinstance(header, tuple) or len(header) != 2 or not all(isinstance(text, str) for text in header):
            raise SpecError(f"header {header!r} is not a name and a value")
        texts += header
    for text in texts:
        if not isinstance(text, str) or _NO_LINE.search(text) is not None or not _is_latin1(text):
            raise SpecError(f"{text!r} cannot stand in a request's line")


def _is_port(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def _is_address(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in value else socket.AF_INET, value)
    except (OSError, ValueError):
        return False
    return True


def _is_latin1(text: str) -> bool:
    return text.isascii() or all(ord(character) < 256 for character in text)
