# SPDX-License-Identifier: Apache-2.0
"""What stands in a manifest for an address or for the cluster's resolver, and what it becomes once pods have addresses.

    ${host:NS/WORKLOAD}       the IPv4 address of its pod, as /32         ${host6:NS/WORKLOAD}     the IPv6 address, as /128
    ${net:N:NS/WORKLOAD}      the IPv4 network of N bits around it        ${net6:N:NS/WORKLOAD}    the same for IPv6
    ${dns:namespace} ${dns:label:KEY} ${dns:port} ${dns:address}          where the cluster's resolver really is
    ${dns:port-string}        its port where a manifest wants a string, as Cilium's do

A host outside the cluster is outsider/NAME. When to render is for the proof protocol to say.
"""

import contextlib
import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, assert_never

from ztconform.errors import UsageError
from ztconform.model import OUTSIDE, Manifest, Pod, Ref, of_manifest

Path = tuple[str | int, ...]

_PLACEHOLDER = re.compile(r"\$\{([^}]*)(\}?)")
_HOST = re.compile(r"host(6?):([^:/]+)/([^:/]+)", re.ASCII)
_NET = re.compile(r"net(6?):([0-9]{1,3}):([^:/]+)/([^:/]+)", re.ASCII)
_DNS = re.compile(r"dns:(namespace|port|port-string|address)", re.ASCII)
_LABEL = re.compile(r"dns:label:([^:]+)", re.ASCII)
_FORMS = (
    "host:NS/NAME, host6:NS/NAME, net:BITS:NS/NAME, net6:BITS:NS/NAME, dns:namespace, dns:label:KEY, dns:port, dns:port-string, "
    "dns:address"
)


class Resolver(Protocol):
    """Name the cluster's DNS as `cluster.Resolver` does, which lies above this module."""

    @property
    def address(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def port(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Network:
    workload: Ref
    version: Literal[4, 6]
    bits: int


@dataclass(frozen=True, slots=True)
class _Dns:
    what: Literal["namespace", "port", "port-string", "address", "label"]
    key: str = ""


class _Wrong(Exception):
    """What is wrong with one placeholder."""


def render(manifest: Manifest, pods: Sequence[Pod], resolver: Resolver) -> Manifest:
    """Return the manifest with every placeholder replaced; a string that is one ${dns:port} becomes a number.

    Raises UsageError naming the manifest, the field and the placeholder for one that stands for nothing, or not for one pod.
    """

    def replace(text: str, path: Path) -> str | int:
        def one(found: re.Match[str]) -> str:
            try:
                return _value(_parse(found), pods, resolver)
            except _Wrong as wrong:
                raise UsageError(f"{of_manifest(manifest)}: {_field(path)}: {found[0]}: {wrong}") from None

        done = _PLACEHOLDER.sub(one, text)
        return int(done) if text == "${dns:port}" else done

    def key(text: str, path: Path) -> None:
        raise UsageError(f"{of_manifest(manifest)}: {_field(path)}: {_IN_KEY}")

    rendered: Manifest = _map(manifest, (), replace, key)
    return rendered


def check(manifest: Manifest, replicas: Mapping[Ref, int]) -> Sequence[tuple[Path, str]]:
    """Return what is wrong with a manifest's placeholders, as field and message, before there are any pods.

    `replicas` has the number of pods of every workload and outsider that the manifest may name.
    """
    wrongs: list[tuple[Path, str]] = []

    def look(text: str, path: Path) -> str:
        for found in _PLACEHOLDER.finditer(text):
            try:
                _check_one(_parse(found), replicas)
            except _Wrong as wrong:
                wrongs.append((path, f"{found[0]}: {wrong}"))
        return text

    def key(text: str, path: Path) -> None:
        wrongs.append((path, _IN_KEY))

    _map(manifest, (), look, key)
    return wrongs


def named(manifest: Manifest) -> frozenset[Ref]:
    """Return the workloads and outsiders whose addresses a manifest holds by a placeholder; broken ones name nobody."""
    found: set[Ref] = set()

    def look(text: str, path: Path) -> str:
        for match in _PLACEHOLDER.finditer(text):
            with contextlib.suppress(_Wrong):
                parsed = _parse(match)
                if isinstance(parsed, _Network):
                    found.add(parsed.workload)
        return text

    _map(manifest, (), look, lambda text, path: None)
    return frozenset(found)


_IN_KEY = "a placeholder cannot stand in a field's name"


def _map(value: Any, path: Path, string: Callable[[str, Path], Any], key: Callable[[str, Path], None]) -> Any:
    if isinstance(value, str):
        return string(value, path) if "${" in value else value
    if isinstance(value, Mapping):
        for name in value:
            if "${" in str(name):
                key(str(name), (*path, str(name)))
        return {name: _map(below, (*path, str(name)), string, key) for name, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map(below, (*path, n), string, key) for n, below in enumerate(value)]
    return value


def _parse(found: re.Match[str]) -> _Network | _Dns:
    body, closed = found.groups()
    if not closed:
        raise _Wrong("has no closing brace")
    if match := _HOST.fullmatch(body):
        version: Literal[4, 6] = 6 if match[1] else 4
        return _Network(_ref(match[2], match[3]), version, _WIDTH[version])
    if match := _NET.fullmatch(body):
        version = 6 if match[1] else 4
        if int(match[2]) > _WIDTH[version]:
            raise _Wrong(f"an IPv{version} network has at most {_WIDTH[version]} bits")
        return _Network(_ref(match[3], match[4]), version, int(match[2]))
    if match := _LABEL.fullmatch(body):
        return _Dns("label", match[1])
    match _DNS.fullmatch(body) and body.removeprefix("dns:"):
        case "namespace" | "port" | "port-string" | "address" as what:
            return _Dns(what)
    raise _Wrong(f"no such placeholder; there are {_FORMS}")


_WIDTH: Mapping[Literal[4, 6], int] = {4: 32, 6: 128}


def _ref(namespace: str, name: str) -> Ref:
    return Ref(OUTSIDE if namespace == "outsider" else namespace, name)


def _check_one(parsed: _Network | _Dns, replicas: Mapping[Ref, int]) -> None:
    if isinstance(parsed, _Dns):
        return
    if parsed.workload not in replicas:
        near = difflib.get_close_matches(str(parsed.workload), [str(ref) for ref in replicas], n=1)
        raise _Wrong(f"no workload or outsider {parsed.workload}" + (f" (did you mean {near[0]}?)" if near else ""))
    if replicas[parsed.workload] > 1:
        raise _Wrong(f"{parsed.workload} has {replicas[parsed.workload]} pods, and it must stand for one")


def _value(parsed: _Network | _Dns, pods: Sequence[Pod], resolver: Resolver) -> str:
    if isinstance(parsed, _Dns):
        return _of_resolver(parsed, resolver)
    serving = [pod for pod in pods if pod.serves]
    replicas = {pod.workload: sum(other.workload == pod.workload for other in serving) for pod in serving}
    _check_one(parsed, replicas)
    pod = next(pod for pod in serving if pod.workload == parsed.workload)
    for address in _of_version(pod, parsed.version):
        return str(ipaddress.ip_network(f"{address}/{parsed.bits}", strict=False))
    raise _Wrong(f"{pod.ref} has no IPv{parsed.version} address")


def _of_version(pod: Pod, version: Literal[4, 6]) -> Iterator[str]:
    return (address for address in pod.addresses if ipaddress.ip_address(address).version == version)


def _of_resolver(parsed: _Dns, resolver: Resolver) -> str:
    match parsed.what:
        case "namespace":
            return resolver.namespace
        case "port" | "port-string":
            return str(resolver.port)
        case "address":
            return resolver.address
        case "label":
            if parsed.key not in resolver.labels:
                raise _Wrong(f"the resolver's pods have no such label, but {', '.join(sorted(resolver.labels)) or 'none'}")
            return resolver.labels[parsed.key]
        case _:
            assert_never(parsed.what)


def _field(path: Path) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
