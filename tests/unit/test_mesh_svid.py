# SPDX-License-Identifier: Apache-2.0
"""An SVID is what the SPIFFE specification asks for and chains to its own root; a forgery fails in one attribute alone."""

import datetime
import math
import time
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from ztconform.errors import UsageError
from ztconform.mesh.svid import Authority, Svid

CHECKOUT = "spiffe://cluster.local/ns/shop/sa/checkout"
NOW = 1_800_000_000.25  # seconds; a fraction, since certificates have none


def leaf(svid: Svid) -> x509.Certificate:
    (certificate,) = x509.load_pem_x509_certificates(svid.chain_pem.encode())
    return certificate


def root(authority: Authority) -> x509.Certificate:
    (certificate,) = x509.load_pem_x509_certificates(authority.bundle_pem.encode())
    return certificate


def identities(svid: Svid, trusted: Authority, at: float) -> list[str]:
    """Return the names that cryptography's own verifier reads from a client that it trusts."""
    when = datetime.datetime.fromtimestamp(at, datetime.UTC)
    verifier = PolicyBuilder().store(Store([root(trusted)])).time(when).build_client_verifier()
    return [name.value for name in verifier.verify(leaf(svid), []).subjects or ()]


def extension(certificate: x509.Certificate, kind: type) -> tuple[bool, object]:
    found = certificate.extensions.get_extension_for_class(kind)
    return found.critical, found.value


@pytest.fixture
def authority() -> Authority:
    return Authority("cluster.local", clock=lambda: NOW)


# What the X.509-SVID specification (SPIFFE), RFC 5280 and Istio say of a leaf.
LEAF: list[tuple[str, Callable[[x509.Certificate], object], object]] = [
    ("version 3", lambda c: c.version, x509.Version.v3),
    ("an empty subject", lambda c: list(c.subject), []),
    (
        "exactly one URI, critical beside an empty subject",
        lambda c: extension(c, x509.SubjectAlternativeName),
        (True, x509.SubjectAlternativeName([x509.UniformResourceIdentifier(CHECKOUT)])),
    ),
    (
        "it is no authority",
        lambda c: extension(c, x509.BasicConstraints),
        (True, x509.BasicConstraints(ca=False, path_length=None)),
    ),
    (
        "it signs handshakes, and neither certificates nor revocations",
        lambda c: extension(c, x509.KeyUsage),
        (True, x509.KeyUsage(True, False, False, False, False, False, False, False, False)),
    ),
    (
        "it is for clients and for servers",
        lambda c: set(c.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value),
        {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH},
    ),
    ("its key is on P-256", lambda c: c.public_key().curve.name, "secp256r1"),
    ("two minutes dated back", lambda c: c.not_valid_before_utc.timestamp(), math.floor(NOW - 120)),
    ("an hour by default", lambda c: c.not_valid_after_utc.timestamp(), math.ceil(NOW + 3600)),
]


@pytest.mark.parametrize(("what", "read", "wanted"), LEAF, ids=[what for what, _, _ in LEAF])
def test_a_leaf_is_an_x509_svid(
    authority: Authority, what: str, read: Callable[[x509.Certificate], object], wanted: object
) -> None:
    assert wanted == read(leaf(authority.issue(CHECKOUT)))


def test_the_root_is_a_signing_certificate_of_its_trust_domain_and_of_no_path_in_it(authority: Authority) -> None:
    certificate = root(authority)
    assert (True, x509.BasicConstraints(ca=True, path_length=0)) == extension(certificate, x509.BasicConstraints)
    assert (True, x509.KeyUsage(False, False, False, False, False, True, True, False, False)) == extension(
        certificate, x509.KeyUsage
    )
    _, names = extension(certificate, x509.SubjectAlternativeName)
    assert ["spiffe://cluster.local"] == names.get_values_for_type(x509.UniformResourceIdentifier)


def test_what_an_svid_says_of_itself_is_what_its_certificate_says(authority: Authority) -> None:
    svid = authority.issue(CHECKOUT, ttl=90)
    certificate = leaf(svid)
    assert svid.spiffe_id == CHECKOUT
    assert certificate.serial_number == int(svid.serial, 16)
    assert len(svid.serial) % 2 == 0
    assert svid.serial == svid.serial.lower()
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (svid.not_before, svid.not_after)
    key = load_pem_private_key(svid.key_pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert certificate.public_key() == key.public_key()


def test_no_two_svids_share_a_key_or_a_serial_number(authority: Authority) -> None:
    svids = [authority.issue(CHECKOUT) for _ in range(5)]
    assert 5 == len({s.serial for s in svids}) == len({s.key_pem for s in svids})


def test_an_svid_chains_to_its_own_root(authority: Authority) -> None:
    assert [CHECKOUT] == identities(authority.issue(CHECKOUT), authority, NOW)


@given(ttl=st.floats(0.5, 86400), now=st.floats(1.7e9, 1.9e9))
def test_a_lifetime_counts_from_issue_and_is_never_shorter_than_asked(ttl: float, now: float) -> None:
    svid = Authority("cluster.local", clock=lambda: now).issue(CHECKOUT, ttl)
    assert ttl - 1e-3 <= svid.lifetime < ttl + 1 + 1e-3
    assert 120 <= (svid.issued - svid.not_before).total_seconds() < 121 + 1e-3


# (what, the SVID, the seconds from now at which it is shown, what the verifier says of it)
REFUSED: list[tuple[str, Callable[[Authority], Svid], float, str]] = [
    ("by another root of the same name", lambda a: a.forge("foreign-ca", CHECKOUT), 0, "candidates exhausted"),
    ("by a foreign authority itself", lambda a: a.foreign().issue(CHECKOUT), 0, "candidates exhausted"),
    ("expired long ago", lambda a: a.forge("expired", CHECKOUT), 0, "not valid at validation time"),
    ("a second after its end", lambda a: a.issue(CHECKOUT, ttl=5), 7, "not valid at validation time"),
    ("before its beginning", lambda a: a.issue(CHECKOUT), -122, "not valid at validation time"),
]


@pytest.mark.parametrize(("what", "svid", "later", "why"), REFUSED, ids=[what for what, *_ in REFUSED])
def test_what_is_not_a_valid_svid_of_this_root_is_refused(
    authority: Authority, what: str, svid: Callable[[Authority], Svid], later: float, why: str
) -> None:
    with pytest.raises(VerificationError, match=why):
        identities(svid(authority), authority, NOW + later)


def test_an_expired_svid_was_good_while_it_lasted(authority: Authority) -> None:
    expired = authority.forge("expired", CHECKOUT)
    assert [CHECKOUT] == identities(expired, authority, expired.not_after.timestamp() - 1)


def test_a_foreign_authority_is_told_from_ours_by_its_key_alone(authority: Authority) -> None:
    foreign = authority.foreign()
    assert root(authority).subject == root(foreign).subject
    assert authority.bundle_pem != foreign.bundle_pem
    assert [CHECKOUT] == identities(foreign.issue(CHECKOUT), foreign, NOW)


def test_a_foreign_domain_is_signed_by_our_own_root(authority: Authority) -> None:
    forged = authority.forge("foreign-domain", CHECKOUT)
    assert "spiffe://foreign.example/ns/shop/sa/checkout" == forged.spiffe_id
    assert ["spiffe://foreign.example/ns/shop/sa/checkout"] == identities(forged, authority, NOW)


@pytest.mark.parametrize(
    "spiffe_id",
    [
        "spiffe://other.example/ns/shop/sa/checkout",
        "spiffe://cluster.local.evil/ns/shop/sa/checkout",
        "spiffe://cluster.local",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns/shop/sa/",
        "spiffe://cluster.local/ns//sa/checkout",
        "spiffe://cluster.local/ns/../sa/checkout",
        "spiffe://cluster.local/ns/./sa/checkout",
        "spiffe://cluster.local/ns/shop/sa/..",
        "spiffe://cluster.local/ns/shop/sa/check out",
        "spiffe://cluster.local/ns/shop/sa/%63heckout",
        "spiffe://cluster.local/ns/shop/sa/checkout\n",
        "spiffe://cluster.local:443/ns/shop/sa/checkout",
        "spiffe://user@cluster.local/ns/shop/sa/checkout",
        "https://cluster.local/ns/shop/sa/checkout",
        "cluster.local/ns/shop/sa/checkout",
        "spiffe://cluster.local/" + "a" * 2048,
        "",
    ],
)
def test_nothing_is_issued_for_what_is_no_workload_of_this_trust_domain(authority: Authority, spiffe_id: str) -> None:
    with pytest.raises(UsageError, match=r"SPIFFE ID|not in the trust domain"):
        authority.issue(spiffe_id)


@pytest.mark.parametrize("spiffe_id", ["spiffe://cluster.local/ns/shop/sa/..hidden", "spiffe://cluster.local/A.b_c-d/1"])
def test_every_name_that_the_specification_admits_gets_an_svid(authority: Authority, spiffe_id: str) -> None:
    assert [spiffe_id] == identities(authority.issue(spiffe_id), authority, NOW)


@pytest.mark.parametrize("domain", ["", "Cluster.Local", "a/b", "a b", "a:1", "a" * 256])
def test_an_authority_needs_a_trust_domain(domain: str) -> None:
    with pytest.raises(UsageError, match="trust domain"):
        Authority(domain)


@pytest.mark.parametrize("domain", ["cluster.local", "a" * 255])
def test_every_trust_domain_has_a_root(domain: str) -> None:
    authority = Authority(domain)
    assert [f"spiffe://{domain}/x"] == identities(authority.issue(f"spiffe://{domain}/x"), authority, time.time())


def test_fifty_svids_cost_less_than_60_ms() -> None:
    authority = Authority("cluster.local")

    def fifty() -> float:
        begin = time.process_time()
        for n in range(50):
            authority.issue(f"spiffe://cluster.local/ns/shop/sa/a{n}")
        return time.process_time() - begin

    assert 0.060 > min(fifty() for _ in range(3))
