# SPDX-License-Identifier: Apache-2.0
"""The mesh's control plane: has identities issued, and keeps what Envoy is told in step with the lab's state.

Envoy itself, and the capture of pods, are in the lab's child process (`ztconform.lab.meshing`), which is asked over its channel;
who issues is an `issuing.Issuer`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ztconform.errors import ClusterError
from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.compile import mesh_services, meshed_pods, principal
from ztconform.lab.mesh.envoy import find
from ztconform.lab.mesh.issuing import FORGERIES, Issuer
from ztconform.lab.mesh.resources import Resources, key, resources
from ztconform.lab.mesh.tls import BUNDLE, CLIENT_ALPN, CLIENT_ALPN_H2, bundle, identity
from ztconform.lab.process import Channel
from ztconform.lab.servicenat import Vip
from ztconform.lab.state import State
from ztconform.mesh.svid import Svid
from ztconform.model import Probe, Provider, Ref


class MeshControl:
    """Hold the identities that were issued, and what Envoy was told last."""

    def __init__(self, prober: Channel, issuer: Issuer, beside: Sequence[str] = ()) -> None:
        """Have `issuer` say who is who; `beside` are paths that the child's own file system must not hide."""
        self._prober = prober
        self.issuer = issuer
        self._beside = beside
        self._directory = ""  # Envoy's; "" while there is none
        self._namespaces: dict[str, str] = {}  # device -> path of the network namespace, as Envoy opens it
        self._issued: dict[str, Svid] = {}  # device -> what the pod holds
        self._forged: dict[tuple[str, str], Svid] = {}  # what attackers show, by certificate and own identity
        self._told: Resources | None = None
        self._trust_domain = ""
        self._trusted: Mapping[str, str] = {}
        self._unregistered: frozenset[Ref] = frozenset()  # workloads

    def capture(self, pods: Sequence[LabPod]) -> None:
        """Redirect what enters and leaves these pods to Envoy; raises ClusterError where it is not installed."""
        if not pods:
            return
        if not self._directory:
            self._directory = self._prober.ask("mesh-open", binary=find(), beside=list(self._beside))["directory"]
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
        secrets = self._secrets(state, [p.pod for p in pods])
        # A pod that was issued nothing stays captured and has no proxy: whatever it sends or is sent meets nobody.
        known = [p for p in pods if p.pod.device in self._issued]
        new = resources(known, mesh_services(state, vips), state.mesh, self._directory)
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

    def hold(self, provider: Provider, unregistered: frozenset[Ref]) -> None:
        """Have the identity provider in a state, and these workloads unknown to it, from the next `tell` on."""
        self.issuer.turn(provider)
        self._unregistered = unregistered

    def _secrets(self, state: State, pods: Sequence[LabPod]) -> dict[str, Any]:
        if state.mesh.trust_domain != self._trust_domain:
            self._trust_domain = state.mesh.trust_domain
            self._issued.clear()
        return self._issue(state, pods, [pod.device for pod in pods if pod.device not in self._issued])

    def _issue(self, state: State, pods: Sequence[LabPod], due: Collection[str]) -> dict[str, Any]:
        """Have new SVIDs issued to those of all meshed pods that are due, and return the secrets that have changed by that."""
        wanted = {p.device: self._id_of(state, p) for p in pods if p.workload not in self._unregistered}
        issued = self.issuer.issue(state.mesh.trust_domain, wanted, [device for device in due if device in wanted])
        new = {d: svid for d, svid in issued.items() if d not in self._issued or svid.serial != self._issued[d].serial}
        self._issued |= new
        names = {p.device: key(p.ref) for p in pods}
        found = {names[d]: identity(names[d], svid.chain_pem, svid.key_pem) for d, svid in new.items()}
        trusted = self.issuer.trusted()
        if trusted != self._trusted:
            self._trusted = trusted
            found[BUNDLE] = bundle(trusted)
        return found

    def _id_of(self, state: State, pod: LabPod) -> str:
        account = state.workloads[pod.workload].svid_account or pod.service_account
        return _spiffe(state, pod.ref.namespace, account)

    def rotate(self, state: State, pods: Sequence[LabPod]) -> Mapping[Ref, Svid]:
        """Give pods new SVIDs and return what they hold when it is in force; no connection is cut."""
        meshed = [p for p in state.pods.values() if p.device in self._namespaces]
        secrets = self._issue(state, meshed, [p.device for p in pods])
        self._prober.ask("mesh-tell", secrets=secrets, listeners=None, clusters=None, authorization={})
        return {pod.ref: self._issued[pod.device] for pod in pods}

    def due(self, state: State) -> list[LabPod]:
        """Return the pods whose SVIDs have lived half of their life."""
        now = datetime.now(UTC)
        old = {device for device, svid in self._issued.items() if now - svid.issued >= timedelta(seconds=svid.lifetime / 2)}
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
        if probe.cert == "own" and self.issuer.live:
            return tls  # it is fetched when the probe is sent
        svid = self._shown(state, probe.cert or "", source)
        return {**tls, "chain": svid.chain_pem, "key": svid.key_pem}

    def fetches(self, probe: Probe) -> bool:
        """Return whether a probe asks the identity provider for its SVID at the moment at which it is sent."""
        return self.issuer.live and probe.cert == "own"

    def _shown(self, state: State, cert: str, source: LabPod) -> Svid:
        """Return the certificate that an attacker shows, the same one each time: probes on one connection have one."""
        own = _spiffe(state, source.ref.namespace, source.service_account)
        found = self._forged.get((cert, own))
        if found is not None and (cert == "expired" or found.not_after > datetime.now(UTC) + timedelta(seconds=60)):
            return found
        claimed = own
        if cert not in ("own", "partner", *FORGERIES):
            namespace, _, account = cert.rpartition("/")
            claimed = _spiffe(state, namespace or source.ref.namespace, account)
        self._forged[cert, own] = svid = self.issuer.shown(cert, claimed)
        return svid

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
