# SPDX-License-Identifier: Apache-2.0
"""What a mesh means to one case: who sends past a proxy, which certificate is shown, and whom servers saw in the case's names."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ztconform.evidence import Sighting
from ztconform.kube.certificates import Certificates
from ztconform.kube.identities import in_case
from ztconform.kube.names import Names
from ztconform.kube.nodes import Nodes
from ztconform.kube.pods import KubePod
from ztconform.kube.policies import Policies
from ztconform.kube.profile import Mesh, Witness
from ztconform.kube.resources import Resources
from ztconform.model import Attempt, Ref


class Meshing:
    """Hold what is one case's own."""

    def __init__(self, mesh: Mesh, resources: Resources, names: Names, policies: Policies, nodes: Nodes) -> None:
        self._mesh = mesh
        self._names = names
        self.certificates = Certificates(names, mesh.trust_domain)
        self.witness: Witness = mesh.witness(resources, policies, nodes.used)

    def said(self, log: Sequence[Sighting] | None) -> Sequence[Sighting] | None:
        """Return a server's log with every identity as the case says it."""
        if log is None:
            return None
        domain, spiffe = self._mesh.trust_domain, self._mesh.spiffe
        return [s if s.identity is None else replace(s, identity=in_case(spiffe(s.identity), self._names, domain)) for s in log]


def sender(attempt: Attempt, source: KubePod | None, past: Mapping[tuple[Ref, str], KubePod]) -> Ref:
    """Return whose agent sends an attempt: the client's own, or one that no proxy captures, under the account that is shown."""
    if source is None or not attempt.probe.past_proxy:
        return attempt.probe.source
    namespace, slash, account = (attempt.probe.cert or "").partition("/")
    found = past.get((source.ref, f"{namespace or source.ref.namespace}/{account}" if slash else ""))
    return attempt.probe.source if found is None else found.ref
