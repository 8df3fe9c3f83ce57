# SPDX-License-Identifier: Apache-2.0
"""What a probe speaks TLS with, what a refusal of it is called, and whose certificate came back.

How a handshake goes over a socket is for `tlsexchange`. Nothing is verified here: the probe is the attacker, and who answers it
is told and not judged.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import ssl
import tempfile
from functools import lru_cache
from typing import TYPE_CHECKING

from . import svidfiles
from .der import elements, inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .spec import Tls

_CONTEXTS = 256  # kept; making one costs a millisecond, and loading its key another
# OpenSSL names an alert that was received by the protocol version that has it: "tlsv13 alert certificate required".
_ALERT = re.compile(r"(?:sslv3|tlsv1|tlsv13|ssl/tls) alert ([a-z0-9 ]+)")
_UNSAID = {"tlsv1 unrecognized name", "tlsv1 unsupported extension", "tlsv1 certificate unobtainable"}  # alerts without the word
_SUBJECT_ALT_NAME = b"\x06\x03\x55\x1d\x11"  # OBJECT IDENTIFIER 2.5.29.17
_SEQUENCE, _EXTENSIONS, _OCTETS, _URI = 0x30, 0xA3, 0x04, 0x86


def client_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a client; raises OSError (which ssl.SSLError is) and ValueError for PEM that cannot be used."""
    chain, key = tls.chain, tls.key
    if tls.folder is not None:
        chain, key = (svidfiles.outlived if tls.outlived else svidfiles.held)(tls.folder)
    return _context(chain, key, tls.alpn)


@lru_cache(maxsize=_CONTEXTS)
def _context(chain: str | None, key: str | None, alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if chain is not None and key is not None:
        with _file(f"{chain}\n{key}\n".encode("ascii")) as path:
            context.load_cert_chain(path, password=b"")  # else an encrypted key would ask at the terminal
    return context


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Name a file that holds the content: OpenSSL's interface in Python takes keys from files alone."""
    with contextlib.ExitStack() as stack:
        descriptor = _memory_file()
        if descriptor is None:
            descriptor, path = tempfile.mkstemp()
            stack.callback(os.unlink, path)
        else:
            path = f"/proc/self/fd/{descriptor}"
        stack.callback(os.close, descriptor)
        os.write(descriptor, content)
        yield path


def _memory_file() -> int | None:
    try:
        descriptor = os.memfd_create("ztc", os.MFD_CLOEXEC)
    except (AttributeError, OSError):  # a Python built for an older C library; a kernel or sandbox without it
        return None
    if os.path.exists(f"/proc/self/fd/{descriptor}"):
        return descriptor
    os.close(descriptor)  # no /proc here
    return None


def alert_name(error: ssl.SSLError) -> str:
    """Return the name of the alert that an error is about, "" if it is about none that was received."""
    text = f"{error.reason or ''} {error.args[-1] if error.args else ''}".lower().replace("_", " ")
    if any(said in text for said in _UNSAID):
        return next(said for said in _UNSAID if said in text).partition(" ")[2].replace(" ", "_")
    found = _ALERT.search(text)
    return "_".join(found.group(1).split()) if found is not None else ""


def describe(tls: ssl.SSLObject) -> str:
    """Return the version, the protocol agreed on, and the server's certificate: the URI that it names, and its digest."""
    said = [tls.version() or ""]
    protocol = tls.selected_alpn_protocol()
    if protocol:
        said.append(f"alpn={protocol}")
    certificate = tls.getpeercert(True)
    if certificate:
        said += [f"uri={uri}" for uri in subject_uris(certificate)]
        said.append(f"sha256={hashlib.sha256(certificate).hexdigest()}")
    return " ".join(said)


def subject_uris(certificate: bytes) -> list[str]:
    """Return the URIs among a certificate's subject alternative names, in its order; none for what is no certificate."""
    for _, extension in elements(inside(certificate, _SEQUENCE, _SEQUENCE, _EXTENSIONS, _SEQUENCE)):
        if extension.startswith(_SUBJECT_ALT_NAME):
            return [value.decode("latin-1") for tag, value in elements(inside(extension, _OCTETS, _SEQUENCE)) if tag == _URI]
    return []
