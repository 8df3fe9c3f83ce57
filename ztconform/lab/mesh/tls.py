# SPDX-License-Identifier: Apache-2.0
"""How two sidecars recognize each other: TLS on both sides with SVIDs, and the secrets that carry them, as Envoy reads it.

Certificates are made by `svid`; whose identity a client expects goes with each connection, set by `outbound`.
"""

from collections.abc import Mapping
from typing import Any

from ztconform.lab.mesh.filters import extension, file_source, typed
from ztconform.mesh import alpn

BUNDLE = "bundle"
# pilot/pkg/networking/util: what a sidecar offers for HTTP, and what it answers with.
CLIENT_ALPN, CLIENT_ALPN_H2 = alpn.CLIENT, alpn.CLIENT_H2
SERVER_ALPN = ("h2", "http/1.1")


def secret_file(name: str) -> str:
    """Return the name of the file, within Envoy's directory, from which a secret comes."""
    return f"sds.{name}.json"


def downstream(pod: str, directory: str) -> dict[str, Any]:
    """Return the transport socket of a server: a client without a certificate of the trust domain gets an alert.

    No session is resumed, for in a resumed one nobody shows a certificate: an expired or foreign one would go unnoticed.
    """
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=True,
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
        common_tls_context=_common(pod, directory, SERVER_ALPN),
    )


def upstream(pod: str, directory: str, protocols: tuple[str, ...]) -> dict[str, Any]:
    """Return the transport socket of a client; the accounts that it accepts are filter state of each connection."""
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        max_session_keys=0,
        common_tls_context=_common(pod, directory, protocols),
    )


def _common(pod: str, directory: str, protocols: tuple[str, ...]) -> dict[str, Any]:
    return {
        "alpn_protocols": list(protocols),
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [{"name": pod, "sds_config": file_source(directory, secret_file(pod))}],
        "validation_context_sds_secret_config": {"name": BUNDLE, "sds_config": file_source(directory, secret_file(BUNDLE))},
    }


def identity(pod: str, chain_pem: str, key_pem: str) -> dict[str, Any]:
    """Return the secret by which a pod says who it is; inline, because certificate and key have to change in one step."""
    certificate = {"certificate_chain": {"inline_string": chain_pem}, "private_key": {"inline_string": key_pem}}
    return typed("extensions.transport_sockets.tls.v3.Secret", name=pod, tls_certificate=certificate)


def bundle(roots: Mapping[str, str]) -> dict[str, Any]:
    """Return the secret by which every pod knows trust domains: a certificate's URI must be of one, and signed by its root."""
    validator = extension(
        "envoy.tls.cert_validator.spiffe",
        "extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
        trust_domains=[{"name": name, "trust_bundle": {"inline_string": pem}} for name, pem in sorted(roots.items())],
    )
    context = {"custom_validator_config": validator}
    return typed("extensions.transport_sockets.tls.v3.Secret", name=BUNDLE, validation_context=context)
