# SPDX-License-Identifier: Apache-2.0
"""Hosts outside the cluster network: a container each, beside nodes that are containers themselves, with the agent in it.

One of them may be the test host, which is no container: what it sends is left to `northsouth`. A container's own address is
docker's to give. One that stands in for a well-known address (cloud metadata) has it besides, and the nodes get a route to it,
which goes again with the container.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_fixed

from ztconform.errors import ClusterError, UsageError
from ztconform.kube import agentpyz, docker, liveness, objects
from ztconform.kube.labels import Labels
from ztconform.kube.nodes import Nodes
from ztconform.kube.northsouth import NorthSouthPipe, address_towards
from ztconform.kube.pipes import OnData, OnEnd, Pipe, ProcessPipe
from ztconform.kube.pods import KubePod
from ztconform.model import OUTSIDE, TEST_HOST, Ref, Workload
from ztconform.settings import Settings

THIS = Ref(OUTSIDE, TEST_HOST)
NETWORK = "kind"  # on which kind puts its nodes
_START = 60.0  # seconds: an image may have to be pulled
_AGAIN = 0.2  # seconds before an agent that does not answer yet is asked again


class Outside(Protocol):
    """Start, reach and stop hosts outside."""

    def start(self, workloads: Sequence[Workload]) -> list[KubePod]:
        """Start outsiders and return them with their addresses; raises ClusterError or UsageError, with none of them left."""

    def lead(self, outsiders: Iterable[KubePod], pods: Iterable[KubePod]) -> None:
        """See to it that these outsiders reach these pods by their addresses; raises ClusterError."""

    def stop(self, outsiders: Iterable[KubePod]) -> None:
        """Remove outsiders; raises ClusterError."""

    def pipe(self, pod: KubePod, command: Sequence[str], on_data: OnData, on_end: OnEnd) -> Pipe:
        """Run a command in an outsider."""

    def render(self, pod: KubePod, command: Sequence[str]) -> Sequence[str]:
        """Return the words of a shell command that runs one in an outsider."""


def outside(kind: str, settings: Settings, nodes: Nodes, labels: Labels) -> Outside:
    """Return where outsiders of this cluster stand; raises UsageError for a place that --ztc-outsider cannot name."""
    place, _, network = settings.outsider.partition(":")
    if settings.outsider and (place != "docker" or not network):
        raise UsageError(f"--ztc-outsider {settings.outsider}: give docker:NETWORK, a docker network that the nodes are on too")
    if not (kind or network):
        return NoOutside("no host outside this cluster is known: name one by --ztc-outsider docker:NETWORK")
    node = next(iter(nodes.addresses))
    image = docker.run(["inspect", "--format", "{{.Config.Image}}", node])
    return DockerOutside(nodes, labels, settings.pods.agent_image, image, network or NETWORK)


class DockerOutside:
    """Run outsiders beside the nodes of a cluster that are containers themselves."""

    def __init__(self, nodes: Nodes, labels: Labels, image: str, node_image: str, network: str) -> None:
        """`node_image` brings the tools for addresses and routes, which the agent's image need not have."""
        self._network = network
        self._nodes = nodes
        self._labels = labels
        self._image = image
        self._node_image = node_image
        self._routes: dict[Ref, str] = {}
        self._led: dict[str, dict[str, str]] = {}  # container -> pods' addresses that it has own routes to -> by which node

    def start(self, workloads: Sequence[Workload]) -> list[KubePod]:
        """Start the outsiders and return them with their addresses; raises ClusterError, with none of them left."""
        started: list[KubePod] = []
        with ThreadPoolExecutor(max(len(workloads), 1)) as pool:
            futures = [pool.submit(self._start, workload) for workload in workloads]
        try:
            for future in futures:
                started.append(future.result())
        except BaseException:
            self.stop([*started, *(self._named(w) for w in workloads)])
            raise
        return started

    def _named(self, workload: Workload, addresses: tuple[str, ...] = ()) -> KubePod:
        worker = f"-{self._labels.worker}" if self._labels.worker else ""
        real = Ref(OUTSIDE, f"ztc-{self._labels.run}{worker}-{workload.ref.name}")
        return KubePod(ref=workload.ref, real=real, workload=workload, node=None, addresses=addresses, serves=True)

    def _start(self, workload: Workload) -> KubePod:
        if workload.ref == THIS:
            return self._this_host(workload)
        name = self._named(workload).real.name
        docker.run(["rm", "--force", "--volumes", name], within=_START)
        labels = liveness.this_process().labels(self._labels.run)
        command = objects.serving(str(workload.ref), workload)
        docker.run(
            [
                *("create", "--name", name, "--hostname", name, "--network", self._network, "--init"),
                *(f"--label={key}={value}" for key, value in labels.items()),
                *("--entrypoint", command[0], self._image, *command[1:]),
            ],
            within=_START,
        )
        with TemporaryDirectory() as folder:
            packed = Path(folder) / Path(objects.COMMAND[-1]).parent.name
            packed.mkdir()
            (packed / agentpyz.NAME).write_bytes(agentpyz.pack())
            docker.run(["cp", str(packed), f"{name}:/"], within=_START)
        docker.run(["start", name], within=_START)
        try:
            return self._ready(name, workload)
        except ClusterError:
            if docker.runs(name):
                raise
            raise ClusterError(f"the outsider {name} has ended: {docker.last_words(name) or 'it does not say why'}") from None

    def _ready(self, name: str, workload: Workload) -> KubePod:
        found = json.loads(docker.run(["inspect", name], within=_START))[0]
        address = str(found["NetworkSettings"]["Networks"][self._network]["IPAddress"])
        if not address:
            raise ClusterError(f"the outsider {name} has no address on docker's network {self._network}")
        self._connect(name, address, workload)
        self._await_agent(name, workload)
        own = (workload.fixed_address,) if workload.fixed_address else ()
        return self._named(workload, own or (address,))

    def _this_host(self, workload: Workload) -> KubePod:
        if workload.ports or workload.fixed_address:
            raise UsageError(f"outsider {workload.ref.name} is the test host itself: it serves no port, and has its own address")
        node = next(iter(self._nodes.addresses.values()))
        try:
            return self._named(workload, (address_towards(node),))
        except OSError as error:
            raise ClusterError(f"the test host has no route to the node at {node}: {error.strerror or error}") from None

    def _connect(self, name: str, address: str, workload: Workload) -> None:
        """Give the container routes to the pods and to nobody else, and the nodes one to the address that it stands in for."""
        lines = [
            f"ip route replace {network} via {self._nodes.addresses[node]}"
            for node, networks in self._nodes.pod_networks.items()
            for network in networks
            if ":" not in network
        ]
        # What no route leads to would be sent to docker's gateway, and be answered by whoever has that address behind it (seen).
        lines.append("ip route replace unreachable default")
        if workload.fixed_address:
            lines.append(f"ip address replace {workload.fixed_address}/32 dev lo")
        self._configure(name, lines)
        if workload.fixed_address:
            for node in self._nodes.addresses:
                docker.run(
                    ["exec", node, "ip", "route", "replace", f"{workload.fixed_address}/32", "via", address], within=_START
                )
            self._routes[workload.ref] = workload.fixed_address

    def _configure(self, name: str, lines: Sequence[str]) -> None:
        inside = ["run", "--rm", "--network", f"container:{name}", "--cap-add", "NET_ADMIN", "--entrypoint", "sh"]
        docker.run([*inside, self._node_image, "-c", " && ".join(lines)], within=_START)

    def _await_agent(self, name: str, workload: Workload) -> None:
        """Wait until the agent takes orders: docker calls a container started before anything in it runs."""
        orders = objects.orders_command(str(workload.ref), workload)  # with no input, it greets and ends
        again = Retrying(
            retry=retry_if_exception_type(ClusterError),
            stop=lambda state: stop_before_delay(_START)(state) or not docker.runs(name),
            wait=wait_fixed(_AGAIN),
            reraise=True,
        )
        again(docker.run, ["exec", name, *orders], within=_START)

    def lead(self, outsiders: Iterable[KubePod], pods: Iterable[KubePod]) -> None:
        """Give outsiders a route to each pod that is not in its node's range: a CNI may give addresses by ranges of its own."""
        via = astray(pods, self._nodes)
        for name in {pod.real.name for pod in outsiders if pod.ref != THIS} if via else ():
            led = self._led.setdefault(name, {})
            if new := dict(sorted(via.items() - led.items())):
                self._configure(name, [f"ip route replace {address}/32 via {node}" for address, node in new.items()])
                led |= new

    def stop(self, outsiders: Iterable[KubePod]) -> None:
        """Remove outsiders and the routes to them; raises ClusterError."""
        outsiders = [pod for pod in outsiders if pod.ref != THIS]
        for pod in outsiders:
            self._led.pop(pod.real.name, None)
            fixed = self._routes.pop(pod.ref, None)
            for node in self._nodes.addresses if fixed else ():
                docker.run(["exec", node, "ip", "route", "del", f"{fixed}/32"], within=_START)
        if outsiders:
            docker.run(["rm", "--force", "--volumes", *sorted({pod.real.name for pod in outsiders})], within=_START)

    def pipe(self, pod: KubePod, command: Sequence[str], on_data: OnData, on_end: OnEnd) -> Pipe:
        """Run a command in an outsider; the test host takes orders in this process."""
        if pod.ref == THIS:
            return NorthSouthPipe(on_data=on_data, on_end=on_end)
        return ProcessPipe(["docker", "exec", "--interactive", pod.real.name, *command], on_data=on_data, on_end=on_end)

    def render(self, pod: KubePod, command: Sequence[str]) -> Sequence[str]:
        """Return the words of a shell command that runs one in an outsider."""
        if pod.ref == THIS:
            return [sys.executable, "-m", "ztconform.agent", *command[len(objects.COMMAND) :]]
        return ["docker", "exec", pod.real.name, *command]


def astray(pods: Iterable[KubePod], nodes: Nodes) -> dict[str, str]:
    """Return the addresses of pods that are not in their node's range, each with the address of that node."""
    return {
        address: nodes.addresses[nodes.used[pod.node]]
        for pod in pods
        if pod.node is not None and not pod.workload.host_network
        for address in pod.addresses
        if ":" not in address and not _is_in(address, nodes.pod_networks.get(nodes.used[pod.node], ()))
    }


def _is_in(address: str, networks: Iterable[str]) -> bool:
    return any(ip_address(address) in ip_network(network) for network in networks)


class NoOutside:
    """Have no outsiders, and say why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def start(self, workloads: Sequence[Workload]) -> list[KubePod]:
        """Return nothing for nothing; raises UsageError for any outsider that is asked for."""
        if workloads:
            raise UsageError(f"outsider {workloads[0].ref.name}: {self._why}")
        return []

    def lead(self, outsiders: Iterable[KubePod], pods: Iterable[KubePod]) -> None:
        """Do nothing: there are none."""

    def stop(self, outsiders: Iterable[KubePod]) -> None:
        """Do nothing: there are none."""

    def pipe(self, pod: KubePod, command: Sequence[str], on_data: OnData, on_end: OnEnd) -> Pipe:
        """Raise ClusterError: there is nobody."""
        raise ClusterError(f"outsider {pod.ref.name}: {self._why}")

    def render(self, pod: KubePod, command: Sequence[str]) -> Sequence[str]:
        """Return nothing to run."""
        return []
