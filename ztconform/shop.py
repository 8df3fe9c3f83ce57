# SPDX-License-Identifier: Apache-2.0
"""The sample shop that every scenario is played in: five workloads, their twins in another namespace, hosts outside."""

from dataclasses import dataclass, replace

from ztconform.model import OUTSIDE, PRIVILEGED, TEST_HOST, Manifest, Port, Ref, Topology, Workload
from ztconform.rows import Peer

NAMESPACE, TWIN = "shop", "shop-twin"
METADATA_ADDRESS = "169.254.169.254"  # of the big clouds' metadata services; here always a host of our own

_HTTP = Port(number=8080, name="http", service=80)
_PRODUCTS_PORTS = (
    _HTTP,
    Port(number=8081, name="http2", app="http2", service=8081),
    Port(number=9091, name="grpc", app="grpc", service=9091),
)
_PAYMENT_PORTS = (
    _HTTP,
    Port(number=9090, name="metrics", service=9090),
    Port(number=9191, name="debug"),  # in no Service, as such ports are
    *(Port(number=n, name=f"ledger-{n}", app="tcp", service=n) for n in (6999, 7000, 7001, 7002)),
    Port(number=7001, name="events", protocol="UDP", app="udp", service=7001),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """Hold the shop's peers and the topology that deploys them."""

    topology: Topology
    frontend: Peer
    products: Peer
    payment: Peer
    payment_by_node: Peer  # by its node's port, which keeps the caller's address
    payment_by_other_node: Peer  # by the port of a node where it is not, which forwards
    checkout: Peer
    legacy: Peer  # a client from before the mesh
    attacker: Peer  # meshed; its probes may leave past its own proxy, with a certificate of their choice
    impostor: Peer  # answers at an endpoint declared for payment's account, with another account's SVID
    uninjected: Peer  # checkout's labels and account, without a sidecar
    auditor: Peer  # a client whose account is "audit.reader"
    dotless_auditor: Peer  # ... "auditxreader", which an unquoted dot would match
    longer_auditor: Peer  # ... "audit.reader-2", which a match without an end would take
    twin_frontend: Peer  # same labels and account as frontend, in another namespace
    twin_payment: Peer
    twin_checkout: Peer
    host: Peer  # a client on its node's own network
    other_dns: Peer  # a pod that really listens on port 53 and is not the cluster's resolver
    resolver: Peer
    world: Peer  # an outsider
    excepted: Peer  # another address outside, in the same network as `world`
    test_host: Peer  # this machine; it listens nowhere
    metadata: Peer  # an outsider at the cloud metadata address


def _workload(namespace: str, name: str, ports: tuple[Port, ...] = (_HTTP,), *, meshed: bool = True) -> Workload:
    tier = "web" if name == "frontend" else "backend"
    labels = {"app": name, "tier": tier}
    if name == "checkout":
        labels["role"] = "caller"
    return Workload(ref=Ref(namespace, name), ports=ports, labels=labels, service_account=name, meshed=meshed)


def _outsider(name: str, address: str = "") -> Workload:
    ports = (Port(number=80 if address else 8080, name="http"),)
    return Workload(ref=Ref(OUTSIDE, name), ports=ports, fixed_address=address)


def _node_port(name: str, policy: str) -> Manifest:
    """Return a Service that leads from a port of the nodes to payment, with an externalTrafficPolicy."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "NodePort",
            "externalTrafficPolicy": policy,
            "selector": {"app": "payment"},
            "ports": [{"name": "http", "port": _HTTP.service, "targetPort": _HTTP.number}],
        },
    }


def shop() -> Shop:
    """Return the sample shop."""
    workloads = {
        "frontend": _workload(NAMESPACE, "frontend"),
        "products": _workload(NAMESPACE, "products", _PRODUCTS_PORTS),
        "payment": _workload(NAMESPACE, "payment", _PAYMENT_PORTS),
        "checkout": _workload(NAMESPACE, "checkout"),
        "legacy": _workload(NAMESPACE, "legacy", meshed=False),
        "attacker": _workload(NAMESPACE, "attacker"),
        "impostor": replace(_workload(NAMESPACE, "impostor"), service_account="payment", svid_account="impostor"),
        "uninjected": replace(
            _workload(NAMESPACE, "uninjected", meshed=False),
            labels={"app": "checkout", "tier": "backend"},
            service_account="checkout",
        ),
        "auditor": replace(_workload(NAMESPACE, "auditor", ()), service_account="audit.reader"),
        "dotless_auditor": replace(_workload(NAMESPACE, "audit-dotless", ()), service_account="auditxreader"),
        "longer_auditor": replace(_workload(NAMESPACE, "audit-longer", ()), service_account="audit.reader-2"),
        "twin_frontend": _workload(TWIN, "frontend"),
        "twin_payment": _workload(TWIN, "payment", _PAYMENT_PORTS),
        "twin_checkout": _workload(TWIN, "checkout"),
        "other_dns": _workload(
            TWIN,
            "other-dns",
            (
                Port(number=53, name="dns", protocol="UDP", app="udp", service=53),
                Port(number=53, name="dns-tcp", app="tcp", service=53),
            ),
            meshed=False,
        ),
        "host": Workload(ref=Ref(PRIVILEGED, "host"), host_network=True),
    }
    outsiders = {
        "world": _outsider("world"),
        "excepted": _outsider("excepted"),
        "test_host": Workload(ref=Ref(OUTSIDE, TEST_HOST)),
        "metadata": _outsider("metadata", METADATA_ADDRESS),
    }
    topology = Topology(
        namespaces={NAMESPACE: {"team": "shop"}, TWIN: {"team": "twin"}},
        workloads=tuple(workloads.values()),
        outsiders=tuple(outsiders.values()),
        services=(_node_port("payment-local", "Local"), _node_port("payment-anywhere", "Cluster")),
    )
    # The resolver is the cluster's own; only its name and ports are known here.
    dns = Workload(
        ref=Ref("kube-system", "kube-dns"),
        ports=(Port(number=53, name="dns", protocol="UDP", app="udp", service=53),),
    )
    peers = {name: Peer(w) for name, w in {**workloads, **outsiders}.items()}
    return Shop(
        topology=topology,
        resolver=Peer(dns),
        payment_by_node=replace(peers["payment"], address="node", via=Ref(NAMESPACE, "payment-local")),
        payment_by_other_node=replace(peers["payment"], address="other-node", via=Ref(NAMESPACE, "payment-anywhere")),
        **peers,
    )
