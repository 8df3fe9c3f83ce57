# SPDX-License-Identifier: Apache-2.0
"""Which names the lab's DNS server knows, and their addresses.

Search lists, which make `svc` and `svc.ns` of the full names, are the resolver's of each pod; answering is the server's.
"""

from collections.abc import Iterable, Mapping

from ztconform.lab.inventory import Inventory
from ztconform.lab.servicenat import Vip
from ztconform.lab.services import Service, endpoints
from ztconform.model import Ref

CLUSTER_DOMAIN = "cluster.local"
OUTSIDE_DOMAIN = "outside.test"


def zone(services: Iterable[Service], vips: Mapping[Ref, Vip], inventory: Inventory) -> Mapping[str, tuple[str, ...]]:
    """Return addresses, IPv4 before IPv6, by full name in lower case without a trailing dot.

    A name that exists without an address, as of a headless Service without endpoints, has an empty tuple (NODATA, not NXDOMAIN).
    """
    found: dict[str, tuple[str, ...]] = {}
    for service in services:
        if service.headless:
            pods = endpoints(service, inventory)
            addresses = (*(pod.v4 for pod in pods if pod.v4), *(pod.v6 for pod in pods if pod.v6))
        else:
            addresses = (vips[service.ref].v4, vips[service.ref].v6)
        found[f"{service.ref.name}.{service.ref.namespace}.svc.{CLUSTER_DOMAIN}".lower()] = addresses
    for pod in inventory.pods:
        if pod.node is None:
            found[f"{pod.ref.name}.{OUTSIDE_DOMAIN}".lower()] = tuple(address for address in (pod.v4, pod.v6) if address)
    return found
