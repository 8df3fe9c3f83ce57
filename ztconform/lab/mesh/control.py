# SPDX-License-Identifier: Apache-2.0
"""The mesh's control plane: issues identities, and keeps what Envoy is told in step with the lab's state.

Envoy itself, and the capture of pods, are in the lab's child process (`ztconform.lab.meshing`), which is asked over its channel.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ztconform.errors import ClusterError
from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.compile import mesh_services, meshed_pods, principal
from ztconform.lab.mesh.envoy import find
from ztconform.lab.mesh.resources import Resources, key, resources
from ztconform.lab.mesh.tls import BUNDLE, CLIENT_ALPN, CLIENT_ALPN_H2, bundle, identity
from ztconform.lab.process import Channel
from ztconform.lab.servicenat import Vip
from ztconform.lab.state import State
from ztconform.mesh.svid import Authority, Svid
from ztconform.model import Probe, Ref

TTL = 3600.0  # seconds for which an SVID lives, where no other is asked for
FORGERIES = {"foreign-ca", "expired", "foreign-domain"}


class MeshControl:
    """Hold the authorities, the identities that were issued, and what Envoy was told last."""

    def __init__(self, prober: Channel, ttl: float = TTL) -> None:
        self._prober = prober
        self._ttl = ttl
        self._directory = ""  # Envoy's; "" while there is none
        self._namespaces: dict[str, str] = {}  # device -> path of the network namespace, as Envoy opens it
        self._authorities: dict[str, Authority] = {}
        self._issued: dict[str, Svid] = {}  # device -> what the pod holds
        self._forged: dict[tuple[str, str], Svid] = {}  # what attackers show, by certificate and own identity
        self._told: Resources | None = None
        self._trust_domain = ""

    def capture(self, pods: Sequence[LabPod]) -> None:
        """Redirect what enters and leaves these pods to Envoy; raises ClusterError where it is not installed."""
        if not pods:
            return
        if not self._directory:
            self._directory = self._prober.ask("mesh-open", binary=find())["directory"]
        paths = self._prober.ask("mesh-capture", devices=[p.device for p in pods])
        self._namespaces |= paths

    def release(self, pods: Sequence[LabPod]) -> None:
        """Forget pods that have gone."""
        devices = [p.device for p in pods if p.device in self._namespaces]
        if devices:
            self._prober.ask("mesh-release", devices=devices)
        for device in devices:
            del self._namespaces[device]
            self._issued.pop(device, None)

    def tell(self, state: State, vips: Mapping[Ref, Vip]) -> None:
        """Tell Envoy what has changed, and return when it is in force."""
        if not self._directory:
            return
        pods = meshed_pods(state, self._namespaces)
        new = resources(pods, mesh_services(state, vips), state.mesh, self._directory)
        secrets = self._secrets(state, [p.pod for p in pods])
        old = self._told
        told: dict[str, Any] = {
            "secrets": secrets,
            "listeners": new.listeners if old is None or new.listeners != old.listeners else None,
            "clusters": new.clusters if old is None or new.clusters != old.clusters else None,
            "authorization": {
                name: it for name, it in new.authorization.items() if old is None or old.authorization.get(name) != it
            },
        }
        if any(told.values()):
            self._prober.ask("mesh-tell", **told)
        self._told = new

    def _secrets(self, state: State, pods: Sequence[LabPod]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        authority = self._authority(state.mesh.trust_domain)
        if state.mesh.trust_domain != self._trust_domain:
            self._trust_domain = state.mesh.trust_domain
            self._issued.clear()
            found[BUNDLE] = bundle(authority.trust_domain, authority.bundle_pem)
        for pod in pods:
            if pod.device not in self._issued:
                found |= self._issue(state, pod)
        return found

    def _issue(self, state: State, pod: LabPod) -> dict[str, Any]:
        account = state.workloads[pod.workload].svid_account or pod.service_account
        svid = self._authority(state.mesh.trust_domain).issue(_spiffe(state, pod.ref.namespace, account), self._ttl)
        self._issued[pod.device] = svid
        return {key(pod.ref): identity(key(pod.ref), svid.chain_pem, svid.key_pem)}

    def rotate(self, state: State, pods: Sequence[LabPod]) -> Mapping[Ref, Svid]:
        """Give pods new SVIDs and return them when they are in force; no connection is cut."""
        secrets: dict[str, Any] = {}
        for pod in pods:
            secrets |= self._issue(state, pod)
        self._prober.ask("mesh-tell", secrets=secrets, listeners=None, clusters=None, authorization={})
        return {pod.ref: self._issued[pod.device] for pod in pods}

    def due(self, state: State) -> list[LabPod]:
        """Return the pods whose SVIDs have lived half of their life."""
        now = datetime.now(UTC)
        half = timedelta(seconds=self._ttl / 2)
        old = {device for device, svid in self._issued.items() if now - svid.issued >= half}
        return [pod for pod in state.pods.values() if pod.device in old]

    def holding(self, pod: LabPod) -> Svid | None:
        """Return the SVID that a pod holds."""
        return self._issued.get(pod.device)

    def client_tls(self, state: State, probe: Probe, source: LabPod) -> dict[str, Any]:
        """Return how a probe that speaks TLS itself does so: with the certificate that it asks for."""
        alpn = CLIENT_ALPN_H2 if probe.kind in ("http2", "grpc") else CLIENT_ALPN
        tls: dict[str, Any] = {"alpn": list(alpn), "server_name": None, "chain": None, "key": None}
        if probe.cert in (None, "none"):
            return tls
        svid = self._shown(state, probe.cert or "", _spiffe(state, source.ref.namespace, source.service_account), source)
        return {**tls, "chain": svid.chain_pem, "key": svid.key_pem}

    def _shown(self, state: State, cert: str, own: str, source: LabPod) -> Svid:
        """Return the certificate that an attacker shows, the same one each time: probes on one connection have one."""
        found = self._forged.get((cert, own))
        if found is not None and (cert == "expired" or found.not_after > datetime.now(UTC) + timedelta(seconds=60)):
            return found
        authority = self._authority(state.mesh.trust_domain)
        if cert == "own":
            svid = authority.issue(own)
        elif cert in FORGERIES:
            svid = authority.forge(cert, own)  # type: ignore[arg-type]  # it is one of them
        else:
            namespace, _, account = cert.rpartition("/")
            svid = authority.issue(_spiffe(state, namespace or source.ref.namespace, account))
        self._forged[cert, own] = svid
        return svid

    def _authority(self, trust_domain: str) -> Authority:
        if trust_domain not in self._authorities:
            self._authorities[trust_domain] = Authority(trust_domain)
        return self._authorities[trust_domain]

    def memory(self) -> int:
        """Return the bytes that Envoy has in memory of its own; 0 where none runs."""
        return int(self._prober.ask("mesh-memory")["bytes"]) if self._directory else 0

    def restart(self) -> None:
        """Start Envoy again, with what it was told last."""
        self._prober.ask("mesh-restart")


def lacking() -> str:
    """Return why this machine cannot run the mesh, with the cure, or ""."""
    try:
        find()
    except ClusterError as error:
        return str(error)
    return ""


def _spiffe(state: State, namespace: str, account: str) -> str:
    return f"spiffe://{principal(state, namespace, account)}"
