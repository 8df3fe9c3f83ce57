# SPDX-License-Identifier: Apache-2.0
"""Which objects a topology comes to as it is named, placed and meshed in this cluster; creating them is left to `deploying`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ztconform.errors import UsageError
from ztconform.kube import meshpods, objects
from ztconform.kube.labels import Labels
from ztconform.kube.names import Names
from ztconform.kube.nodes import Nodes
from ztconform.kube.pods import KubePod
from ztconform.kube.profile import Mesh
from ztconform.model import Ref, Topology, Workload
from ztconform.settings import PodOptions

Planned = tuple[KubePod, objects.Object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Hold what is the same for all that a run creates in a cluster."""

    nodes: Nodes
    labels: Labels
    options: PodOptions
    mesh: Mesh | None = None
    domain: str = "cluster.local"  # of the cluster's names
    make: Callable[..., objects.Object] = objects.pod  # the manifest of a pod


@dataclass(frozen=True, slots=True)
class Maker:
    """Make the objects of one owner."""

    around: Surroundings
    names: Names

    def namespace(self, name: str, declared: Mapping[str, str], topology: Topology) -> objects.Object:
        """Return a namespace, part of the mesh if any pod in it is."""
        mesh = self.around.mesh if any(w.meshed and w.ref.namespace == name for w in topology.workloads) else None
        return objects.namespace(
            self.names.to_real(name),
            declared,
            self.around.labels,
            self.around.options,
            level=meshpods.pod_security(mesh),
            of_mesh=mesh.namespace_labels if mesh is not None else {},
        )

    def beside(self, topology: Topology) -> list[objects.Object]:
        """Return what stands in the namespaces before the first pod: accounts, the agent, Services, and what a mesh needs there.

        Raises UsageError for a meshed workload where no mesh runs.
        """
        labels = self.around.labels
        thieves = [thief for w in topology.workloads for thief in meshpods.stolen(w)]
        accounts = {(w.ref.namespace, w.service_account) for w in (*topology.workloads, *thieves)}
        accounts |= {(w.ref.namespace, w.svid_account) for w in topology.workloads if w.svid_account}
        return [
            *(objects.agent(self.names.to_real(n), labels) for n in topology.namespaces),
            *(objects.account(Ref(self.names.to_real(n), a), labels) for n, a in sorted(accounts) if a != "default"),
            *(self.names.manifest(objects.labelled(s, labels)) for s in topology.services),
            *(o for n in sorted({w.ref.namespace for w in topology.workloads if w.meshed}) for o in self._of_mesh(n, topology)),
        ]

    def _of_mesh(self, namespace: str, topology: Topology) -> list[objects.Object]:
        mesh = self.around.mesh
        if mesh is None:
            raise UsageError(f"namespace {namespace} is to hold meshed pods, and no mesh runs here")
        area = meshpods.area(namespace, self.names.to_real(namespace), self.around.domain, topology.workloads, mesh)
        made = mesh.objects(area)
        if mesh.waypoint is not None and namespace in meshpods.waypointed(topology.workloads):
            made = (*made, *mesh.waypoint.objects(area.namespace, self.around.options))
        return [objects.labelled(manifest, self.around.labels) for manifest in made]

    def services(self, workload: Workload) -> list[objects.Object]:
        """Return a workload's own Services."""
        made = objects.services(workload, self.names.to_real(workload.ref.namespace), self.around.labels)
        mesh = self.around.mesh
        if mesh is None or not workload.meshed:
            return list(made)
        return [meshpods.spoken(service, workload, mesh) for service in made]

    def pods(self, workload: Workload, first: int, again: str) -> list[Planned]:
        """Return the pods that a workload is to have: on two nodes in turn, as in the lab, a satellite on the other one.

        `first` is the node of the first, `again` the end of their names. Raises UsageError for a node that there is not.
        """
        used = self.around.nodes.used
        places = min(len(used), 2)
        if not 0 <= first < len(used):
            raise UsageError(f"workload {workload.ref}: nodes 0 to {len(used) - 1} are used, and there is no {first}")
        placed = [(first + i) % places if workload.node is None else first for i in range(workload.replicas)]
        named = [(f"{workload.ref.name}-{i}{again}", node, True) for i, node in enumerate(placed)]
        if workload.satellite and len(set(placed)) == 1 and places > 1:
            named.append((f"{workload.ref.name}-satellite{again}", (first + 1) % places, False))
        return [self._pod(workload, Ref(workload.ref.namespace, name), node, serves=serves) for name, node, serves in named]

    def thieves(self, pod: KubePod) -> list[tuple[str, Planned]]:
        """Return the pods that send in a pod's place, each with the account whose certificate it holds, on the pod's node.

        Under "" it is one that shows none, where a pod cannot pass its own proxy.
        """
        found = []
        bare = meshpods.uncaptured(pod.workload, self.around.mesh)
        if bare is not None:
            ref = Ref(bare.ref.namespace, f"{pod.ref.name}-{meshpods.PAST}")
            found.append(("", self._pod(bare, ref, pod.node or 0, serves=False)))
        for thief in meshpods.stolen(pod.workload):
            ref = Ref(thief.ref.namespace, f"{pod.ref.name}-as-{thief.service_account}")
            account = f"{thief.ref.namespace}/{thief.service_account}"
            found.append((account, self._pod(thief, ref, pod.node or 0, serves=False)))
        return found

    def _pod(self, workload: Workload, ref: Ref, node: int, *, serves: bool) -> Planned:
        pod = KubePod(ref=ref, real=self.names.ref(ref), workload=workload, node=node, addresses=(), serves=serves)
        # An impostor runs under the account whose certificate it holds, and its Service is declared to be another's.
        runs = replace(workload, service_account=workload.svid_account or workload.service_account)
        where, around = self.around.nodes.used[node], self.around
        manifest = around.make(pod.real, ref, runs, where, around.labels, around.options, serves=serves)
        if around.mesh is not None:
            manifest = meshpods.fitted(manifest, workload, around.mesh, objects.past_serving(str(past(pod).ref)))
        return pod, manifest


def past(pod: KubePod) -> KubePod:
    """Return the agent in a pod whose probes leave past its proxy: its own, where it has none."""
    if not pod.workload.meshed:
        return pod
    return replace(pod, ref=Ref(pod.ref.namespace, f"{pod.ref.name}/{meshpods.PAST}"), container=meshpods.PAST, serves=False)
