# SPDX-License-Identifier: Apache-2.0
"""Who a meshed pod is: X.509-SVIDs of one trust domain under a root that lives in memory alone, and an attacker's forgeries.

Which account a pod may run as, and when a certificate is renewed, is for the mesh to say.
"""

import datetime
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, assert_never

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ztconform.errors import UsageError

Forgery = Literal["foreign-ca", "expired", "foreign-domain"]

FOREIGN_DOMAIN = "foreign.example"  # never "cluster.local", which Istio reads as the local domain whatever its name
BACKDATE = 120.0  # seconds by which Istio dates NotBefore back, for clocks that are behind
_ROOT_LIFE = 10 * 365 * 86400  # seconds; as long as Istio's self-signed root
_EXPIRED_SINCE = 600  # seconds; beyond any leeway for clocks

# SPIFFE-ID 1.0, sections 2.1 and 2.2: what a trust domain and a segment of a path may hold, and the longest of each.
_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_ID = re.compile(r"spiffe://(?P<domain>[a-z0-9._-]{1,255})(?P<path>(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._-]+)+)")
_LONGEST_ID = 2048  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Svid:
    """Hold one X.509-SVID with its private key."""

    spiffe_id: str
    chain_pem: str  # the leaf alone: the root signs it, and is in every bundle
    key_pem: str
    serial: str  # hexadecimal in whole bytes, as Envoy prints it
    not_before: datetime.datetime
    not_after: datetime.datetime
    issued: datetime.datetime  # later than not_before: a lifetime is counted from here

    @property
    def lifetime(self) -> float:
        """Return the seconds from issue to expiry."""
        return (self.not_after - self.issued).total_seconds()


class Authority:
    """Sign for one trust domain; the root is made anew, and nothing of it is ever written."""

    def __init__(self, trust_domain: str, *, clock: Callable[[], float] = time.time) -> None:
        """Make a root; `clock` is seconds since the epoch. Raises UsageError for what is no trust domain."""
        if not _DOMAIN.fullmatch(trust_domain):
            raise UsageError(f"trust domain {trust_domain!r}: change it to 1 to 255 lower case letters, digits, '.', '-' and '_'")
        self.trust_domain = trust_domain
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._root = _root(trust_domain, self._key, int(clock()))
        self._authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        self.bundle_pem = self._root.public_bytes(Encoding.PEM).decode()

    def issue(self, spiffe_id: str, ttl: float = 3600.0, *, backdate: float = BACKDATE) -> Svid:
        """Return a new SVID with a key of its own, valid for at least `ttl` seconds from now and less than a second longer.

        Raises UsageError for what is no SPIFFE ID of a workload in this trust domain.
        """
        if domain_of(spiffe_id) != self.trust_domain:
            raise UsageError(f"{spiffe_id} is not in the trust domain {self.trust_domain}, which alone this authority speaks for")
        now = self._clock()
        return self._sign(spiffe_id, now, now - backdate, now + ttl)

    def foreign(self) -> "Authority":
        """Return an authority that says it is this one: the same names and trust domain, and a root that nobody trusts."""
        return Authority(self.trust_domain, clock=self._clock)

    def forge(self, forgery: Forgery, spiffe_id: str) -> Svid:
        """Return an SVID that claims this identity and differs from a good one in the named attribute alone.

        "foreign-domain" is signed by our own root, and has the same path in another trust domain.
        """
        domain = domain_of(spiffe_id)
        match forgery:
            case "foreign-ca":
                return self.foreign().issue(spiffe_id)
            case "expired":
                now = self._clock()
                return self._sign(spiffe_id, now, now - _EXPIRED_SINCE - 3600, now - _EXPIRED_SINCE)
            case "foreign-domain":
                now = self._clock()
                elsewhere = spiffe_id.replace(f"spiffe://{domain}/", f"spiffe://{FOREIGN_DOMAIN}/", 1)
                return self._sign(elsewhere, now, now - BACKDATE, now + 3600)
            case _:
                assert_never(forgery)

    def _sign(self, spiffe_id: str, now: float, begin: float, end: float) -> Svid:
        key = ec.generate_private_key(ec.SECP256R1())
        # Certificates count whole seconds: rounded outwards, so that a lifetime of one second is no lifetime of none.
        not_before, not_after = _instant(math.floor(begin)), _instant(math.ceil(end))
        serial = x509.random_serial_number()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._root.subject)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_LEAF_USAGE, critical=True)
            .add_extension(_LEAF_PURPOSES, critical=False)
            .add_extension(_uri(spiffe_id), critical=True)  # RFC 5280 4.2.1.6: critical where the subject is empty
            .add_extension(self._authority_key, critical=False)
        )
        return Svid(
            spiffe_id=spiffe_id,
            chain_pem=builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode(),
            key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            serial=serial.to_bytes((serial.bit_length() + 7) // 8, "big").hex(),
            not_before=not_before,
            not_after=not_after,
            issued=_instant(now),
        )


def _root(trust_domain: str, key: ec.EllipticCurvePrivateKey, now: int) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain[:64])])  # RFC 5280: at most 64 characters
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_instant(now - 86400))
        .not_valid_after(_instant(now + _ROOT_LIFE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_ROOT_USAGE, critical=True)
        .add_extension(_uri(f"spiffe://{trust_domain}"), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def _uri(spiffe_id: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])


def _instant(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def domain_of(spiffe_id: str) -> str:
    """Return the trust domain of a workload's SPIFFE ID; raises UsageError for what is none."""
    found = _ID.fullmatch(spiffe_id)
    if found is None or len(spiffe_id) > _LONGEST_ID:
        raise UsageError(
            f"{spiffe_id[:200]!r} is no workload's SPIFFE ID; change it to spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"
        )
    return found["domain"]


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,  # ECDSA keys encipher none
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


_LEAF_USAGE, _ROOT_USAGE = _usage(signs=False), _usage(signs=True)
_LEAF_PURPOSES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
