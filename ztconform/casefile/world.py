# SPDX-License-Identifier: Apache-2.0
"""What exists at each point of a case, as far as its file says so soundly; the readers change it step by step."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ztconform.casefile.problems import Place, suggestion
from ztconform.model import OUTSIDE, Manifest, Port, Ref, Workload

# The cluster's own, in every case; its real port, address and labels are for the cluster to say.
RESOLVER = Workload(
    ref=Ref("kube-system", "kube-dns"),
    ports=(Port(number=53, name="dns", protocol="UDP", app="udp", service=53),),
)

Key = tuple[str, str, str, str]  # API group, kind, namespace, name


@dataclass(slots=True)
class World:
    """Hold what runs and what is applied; a workload that is declared, but not soundly, is None."""

    namespaces: dict[str, Mapping[str, str]] = field(default_factory=dict)
    root_namespace: str = ""  # where mesh-wide policies may live without being declared; "" without a mesh
    running: dict[Ref, Workload | None] = field(default_factory=dict)
    outsiders: dict[Ref, Workload | None] = field(default_factory=dict)
    terminating: set[Ref] = field(default_factory=set)
    ended: dict[Ref, str] = field(default_factory=dict)  # ref -> "does not run any more: steps[1] removes it"
    reusable: set[Ref] = field(default_factory=set)  # ended, and nobody has taken over the addresses
    later: dict[Ref, str] = field(default_factory=dict)  # ref -> "steps[2]", which starts it
    services: dict[Ref, bool] = field(default_factory=dict)  # True: headless
    applied: dict[Key, Manifest] = field(default_factory=dict)
    # False: some name could not be read, so that one which is not found may still be there.
    names_sound: bool = True
    misplaced: set[str] = field(default_factory=set)  # names of workloads whose namespace is wrong: the right one may be meant
    objects_sound: bool = True  # False: the same for objects, because some manifest could not be read

    def start(self, ref: Ref, workload: Workload | None) -> None:
        """Let a workload run, with its own Service where it has one."""
        self.running[ref] = workload
        self.ended.pop(ref, None)
        self.reusable.discard(ref)
        if workload is None or any(port.service is not None for port in workload.ports):
            self.services.setdefault(ref, False)

    def end(self, ref: Ref, how: str) -> None:
        """Let a workload end; its addresses are free."""
        self.running.pop(ref, None)
        self.terminating.discard(ref)
        self.ended[ref] = how
        self.reusable.add(ref)

    def find(self, place: Place, text: str) -> Workload | None:
        """Return the workload or outsider that "namespace/name" stands for now, or report that there is none."""
        ref = to_ref(text)
        if ref == RESOLVER.ref:
            return RESOLVER
        known = {**self.running, **self.outsiders}
        if ref not in known and self._certain(ref):
            place.fault(self._missing(ref))
        return known.get(ref)

    def find_running(self, place: Place, text: str) -> Ref | None:
        """Return the running workload that "namespace/name" stands for, or report why it cannot be changed."""
        ref = to_ref(text)
        if ref == RESOLVER.ref:
            place.fault(f"{ref} is the cluster's own")
        elif ref in self.running:
            return ref
        elif self._certain(ref):
            place.fault(f"{ref} is a host outside, which cannot be changed" if ref in self.outsiders else self._missing(ref))
        return None

    def replicas(self) -> dict[Ref, int]:
        """Return how many pods each workload and outsider has now."""
        return {ref: workload.replicas if workload else 1 for ref, workload in {**self.running, **self.outsiders}.items()}

    def _certain(self, ref: Ref) -> bool:
        return self.names_sound and ref.name not in self.misplaced

    def _missing(self, ref: Ref) -> str:
        if ref in self.ended:
            return f"{ref} {self.ended[ref]}"
        if ref in self.later:
            return f"{ref} does not run yet: {self.later[ref]} starts it"
        if ref.namespace == OUTSIDE:
            return f"no outsider '{ref.name}'" + suggestion(str(ref), [str(one) for one in self.outsiders])
        return f"no workload '{ref}'" + suggestion(str(ref), [str(one) for one in {**self.running, **self.outsiders}])


def to_ref(text: str) -> Ref:
    """Return what "namespace/name" or "outsider/name" names."""
    namespace, _, name = text.partition("/")
    return Ref(OUTSIDE if namespace == "outsider" else namespace, name)
