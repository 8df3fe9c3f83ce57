# SPDX-License-Identifier: Apache-2.0
"""How a packet gets from a Service's address to one of its pods: the addresses, and an nftables table for every node.

Which pods stand behind a Service is left to `services`; NetworkPolicy, in `isolation`, sees a packet after its translation,
so that its ports and addresses are the pods'.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from ztconform.errors import UsageError
from ztconform.lab.inventory import Inventory, LabPod
from ztconform.lab.ruleset import Chain, Count, Dnat, Dport, Go, Hook, Masquerade, Net, Proto, Random, Rule, Table
from ztconform.lab.services import HEADLESS_SUFFIX, Service, ServicePort, endpoints, target_number
from ztconform.model import Ref, Transport

TABLE = "ztc_service"
VIPS_V4 = IPv4Network("10.96.0.0/16")
VIPS_V6 = IPv6Network("fd00:10:96::/112")
KUBE_DNS = Ref("kube-system", "kube-dns")

_KUBE_DNS_OFFSET = 10
_FIRST_OFFSET, _LAST_OFFSET = 256, 65_534  # the low ones are for fixed addresses, the last one is IPv4's broadcast
_PROTO: dict[Transport, Proto] = {"TCP": Proto("tcp"), "UDP": Proto("udp"), "SCTP": Proto("sctp")}
_COMMENT_MAX = 250  # bytes; all of a comment's text is ASCII


@dataclass(frozen=True, slots=True)
class Vip:
    """Hold the addresses of a Service, equal in their last 16 bits."""

    v4: str
    v6: str


def allocate(services: Iterable[Service], held: Mapping[Ref, Vip]) -> dict[Ref, Vip]:
    """Return an address pair for each Service that is not headless; one that holds a pair keeps it.

    A new Service gets the pair that its name hashes to, or the next free one: it is the same in every run, and an address
    that was given back goes to the next comer, whom clients with an old DNS answer would then reach, only by chance.
    """
    services = tuple(services)
    every = sorted(service.ref for service in services)
    for ref, following in itertools.pairwise(every):
        if ref == following:
            raise UsageError(f"Service {ref} is declared twice; a workload has Services NAME and NAME{HEADLESS_SUFFIX} by itself")
    headless = {service.ref for service in services if service.headless}
    wanted = [ref for ref in every if ref not in headless]
    found = {ref: held[ref] for ref in wanted if ref in held}
    taken = {int(IPv4Address(vip.v4)) - int(VIPS_V4.network_address) for vip in found.values()}
    if len(wanted) > _LAST_OFFSET - _FIRST_OFFSET:
        raise UsageError(f"{len(wanted)} Services are more than {VIPS_V4} has addresses for; declare fewer")
    for ref in wanted:
        if ref not in found:
            offset = _KUBE_DNS_OFFSET if ref == KUBE_DNS else _free_offset(ref, taken)
            taken.add(offset)
            found[ref] = Vip(str(VIPS_V4[offset]), str(VIPS_V6[offset]))
    return found


def _free_offset(ref: Ref, taken: set[int]) -> int:
    count = _LAST_OFFSET - _FIRST_OFFSET + 1
    start = int.from_bytes(hashlib.sha256(str(ref).encode()).digest()[:4], "big") % count
    return next(each for each in ((start + step) % count + _FIRST_OFFSET for step in range(count)) if each not in taken)


def compile_services(services: Iterable[Service], vips: Mapping[Ref, Vip], inventory: Inventory) -> Table:
    """Return the table that leads from the Services' addresses to their endpoints; the same for every node.

    What is sent to an address, or a port of it, without endpoints is dropped without an answer.
    """
    dispatch: list[Rule] = []
    chains: list[Chain] = []
    reachable: dict[Ref, LabPod] = {}
    for service in services:
        if service.headless:
            continue
        pods = endpoints(service, inventory)
        for port in service.ports:
            targets = [(pod, number) for pod in pods if (number := target_number(port, pod)) is not None]
            reachable.update((pod.ref, pod) for pod, _ in targets)
            for family, address in ((4, vips[service.ref].v4), (6, vips[service.ref].v6)):
                name = f"service-{len(chains)}"
                rules = tuple(_choices([(pod.v4 if family == 4 else pod.v6, number) for pod, number in targets]))
                if rules:
                    dispatch.append(_entrance(service.ref, port, address, name))
                    chains.append(Chain(name, rules))
    nat = Chain("translate", tuple(dispatch), Hook("nat", "prerouting", -100))
    hairpin = Chain("hairpin", tuple(_hairpins(reachable.values())), Hook("nat", "postrouting", 100))
    untranslated = tuple(Rule((Net("daddr", block),), (Count(), Go("drop")), "no endpoint") for block in (VIPS_V4, VIPS_V6))
    return Table(TABLE, (), (*chains, nat, hairpin, Chain("untranslated", untranslated, Hook("filter", "forward", -1))))


def _entrance(service: Ref, port: ServicePort, address: str, chain: str) -> Rule:
    matches = (Net("daddr", ip_network(address)), _PROTO[port.protocol], Dport(port.number, port.number))
    return Rule(matches, (Go("jump", chain),), f"{port.number}/{port.protocol} of {service}"[:_COMMENT_MAX])


def _choices(targets: Sequence[tuple[str, int]]) -> Iterator[Rule]:
    """Yield rules that choose each target equally often: one in n by the first, one in n-1 of the rest by the second ..."""
    present = [target for target in targets if target[0]]
    for index, (address, number) in enumerate(present):
        remaining = len(present) - index
        yield Rule((Random(remaining),) if remaining > 1 else (), (Dnat(address, number),))


def _hairpins(pods: Iterable[LabPod]) -> Iterator[Rule]:
    """Yield rules for a pod that reaches itself: with its own address as source it would answer itself past the translation."""
    for pod in pods:
        for address in (pod.v4, pod.v6):
            if address:
                host: IPv4Network | IPv6Network = ip_network(address)
                yield Rule((Net("saddr", host), Net("daddr", host)), (Masquerade(),), f"{pod.ref} to itself"[:_COMMENT_MAX])
