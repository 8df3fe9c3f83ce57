# SPDX-License-Identifier: Apache-2.0
"""The trust anchor and the issuer that a Linkerd of ours starts from, made anew for each cluster, and the objects that hold them.

Names and keys of the objects: the chart's README (edge-26.8.3) and pkg/issuercerts there. The anchor's own key is thrown away.
"""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from ztconform.model import Manifest

NAMESPACE = "linkerd"
ANCHOR, ISSUER = "root.linkerd.cluster.local", "identity.linkerd.cluster.local"
ROOTS, SECRET = "linkerd-identity-trust-roots", "linkerd-identity-issuer"
_LIVES = timedelta(days=365)  # longer than any kept cluster
_BEFORE = timedelta(minutes=5)  # a node's clock may be behind ours


def make() -> Sequence[Manifest]:
    """Return the namespace, the trust roots and the issuer, with new ECDSA P-256 keys."""
    anchor, issuer, key = issue(datetime.now(UTC))
    labels = {"linkerd.io/control-plane-component": "identity", "linkerd.io/control-plane-ns": NAMESPACE}
    data = {"ca.crt": anchor, "tls.crt": issuer, "tls.key": key}
    return (
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE,
                "annotations": {"linkerd.io/inject": "disabled"},
                # As `linkerd install` labels it; the last keeps the injector from its own control plane.
                "labels": {
                    "linkerd.io/is-control-plane": "true",
                    "linkerd.io/control-plane-ns": NAMESPACE,
                    "config.linkerd.io/admission-webhooks": "disabled",
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": ROOTS, "namespace": NAMESPACE, "labels": labels},
            "data": {"ca-bundle.crt": anchor.decode("ascii")},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": SECRET, "namespace": NAMESPACE, "labels": labels},
            "data": {name: base64.b64encode(value).decode("ascii") for name, value in data.items()},
        },
    )


def issue(now: datetime) -> tuple[bytes, bytes, bytes]:
    """Return a trust anchor, an issuer that it signed, and the issuer's key, as PEM."""
    from cryptography import x509  # noqa: PLC0415 - heavy, and only a new Linkerd needs it
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - likewise
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - likewise

    anchor_key, issuer_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(name: str, key: ec.EllipticCurvePrivateKey, length: int) -> x509.Certificate:
        common = [x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, one)]) for one in (name, ANCHOR)]
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        return (
            x509.CertificateBuilder()
            .subject_name(common[0])
            .issuer_name(common[1])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BEFORE)
            .not_valid_after(now + _LIVES)
            .add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
            .add_extension(
                x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(anchor_key.public_key()), critical=False)
            .sign(anchor_key, hashes.SHA256())
        )

    pem = serialization.Encoding.PEM
    private = issuer_key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    return certificate(ANCHOR, anchor_key, 1).public_bytes(pem), certificate(ISSUER, issuer_key, 0).public_bytes(pem), private
