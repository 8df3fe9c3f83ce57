# SPDX-License-Identifier: Apache-2.0
"""What a probe shows that speaks TLS itself on Kubernetes: an SVID out of its pod's files, a forgery of ours, or nothing.

A real SVID is the mesh's and stays in its pod. A forged one claims the pod's own identity, and is signed by an authority of ours.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from ztconform.errors import UsageError
from ztconform.kube.names import Names
from ztconform.kube.pods import KubePod
from ztconform.kube.profile import SVID_FOLDER
from ztconform.mesh import alpn
from ztconform.mesh.svid import FOREIGN_DOMAIN, Authority, Svid
from ztconform.model import Probe

_SOON = timedelta(seconds=60)


class Certificates:
    """Hold the forgeries of one case."""

    def __init__(self, names: Names, trust_domain: str) -> None:
        self._names = names
        self._trust_domain = trust_domain
        self._forged: dict[tuple[str, str], Svid] = {}

    def tls(self, probe: Probe, source: KubePod) -> dict[str, Any]:
        """Return how a probe speaks TLS; raises UsageError for a certificate that no pod of ours can show."""
        spoken = alpn.CLIENT_H2 if probe.kind in ("http2", "grpc") else alpn.CLIENT
        tls: dict[str, Any] = {"alpn": list(spoken)}
        cert = probe.cert or "none"
        if cert == "none":
            return tls
        if cert in ("own", "expired") or "/" in cert:
            if not probe.past_proxy or not source.workload.meshed:
                raise UsageError(f"certificate {cert}: only a meshed pod has one, and its probe shows it past its proxy")
            return {**tls, "folder": SVID_FOLDER, "outlived": cert == "expired"}
        if cert not in ("foreign-ca", "foreign-domain"):
            raise UsageError(f"certificate {cert} is none that is known")
        svid = self._forgery(cert, source)
        return {**tls, "chain": svid.chain_pem, "key": svid.key_pem}

    def _forgery(self, cert: str, source: KubePod) -> Svid:
        domain = self._trust_domain if cert == "foreign-ca" else FOREIGN_DOMAIN
        account = source.workload.service_account
        claimed = f"spiffe://{domain}/ns/{self._names.to_real(source.ref.namespace)}/sa/{account}"
        svid = self._forged.get((cert, claimed))
        # The same one each time: probes on one connection have one.
        if svid is None or svid.not_after < datetime.now(UTC) + _SOON:
            svid = self._forged[cert, claimed] = Authority(domain).issue(claimed)
        return svid
