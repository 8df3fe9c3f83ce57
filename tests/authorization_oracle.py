# SPDX-License-Identifier: Apache-2.0
"""What Istio's reference of AuthorizationPolicy says of one request, read off the manifests as naively as possible.

It shares nothing with `ztconform.lab` but the description of a pod, and takes only manifests that Istio would take and SPIFFE
IDs of the form TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from rbac_walk import Request

from ztconform.lab.inventory import LabPod

Manifest = Mapping[str, Any]

HTTP_FIELDS = ("hosts", "methods", "paths")


def applying(manifests: Sequence[Manifest], pod: LabPod, root: str) -> list[Manifest]:
    """Return the policies that select a pod."""
    return [
        each
        for each in manifests
        if each["metadata"]["namespace"] in (root, pod.ref.namespace)
        and all(pod.labels.get(key) == value for key, value in _labels(each).items())
    ]


def _labels(manifest: Manifest) -> Mapping[str, str]:
    labels: Mapping[str, str] = manifest.get("spec", {}).get("selector", {}).get("matchLabels", {})
    return labels


def action(manifest: Manifest) -> str:
    return str(manifest.get("spec", {}).get("action", "ALLOW"))


def dry_run(manifest: Manifest) -> bool:
    return bool(manifest["metadata"].get("annotations", {}).get("istio.io/dry-run") == "true")


def allowed(manifests: Sequence[Manifest], request: Request, *, tcp: bool, domain: str) -> tuple[bool, set[str]]:
    """Return whether policies that all select the target allow a request, and which DENY policies match it."""
    real = [each for each in manifests if not dry_run(each)]
    denying = {_name(each) for each in real if action(each) == "DENY" and matches(each, request, tcp=tcp, domain=domain)}
    allowing = [each for each in real if action(each) == "ALLOW"]
    return not denying and (not allowing or any(matches(each, request, tcp=tcp, domain=domain) for each in allowing)), denying


def noted(manifests: Sequence[Manifest], request: Request, *, tcp: bool, domain: str) -> dict[str, set[str]]:
    """Return the policies that match and only log, by the filter that logs them."""
    found: dict[str, set[str]] = {}
    for each in manifests:
        if (action(each) == "AUDIT" or dry_run(each)) and matches(each, request, tcp=tcp, domain=domain):
            found.setdefault(action(each).lower(), set()).add(_name(each))
    return found


def _name(manifest: Manifest) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


def matches(manifest: Manifest, request: Request, *, tcp: bool, domain: str) -> bool:
    """Return whether one of a policy's rules matches."""
    own = manifest["metadata"]["namespace"]
    return any(
        _rule(rule, action(manifest), own, request, tcp=tcp, domain=domain) for rule in manifest.get("spec", {}).get("rules", [])
    )


def speaks_of_http(rule: Mapping[str, Any]) -> bool:
    """Return whether a rule has a field that only HTTP knows."""
    operations = [entry["operation"] for entry in rule.get("to", [])]
    named = {name for operation in operations for name in operation}
    headers = any(entry["key"].startswith("request.headers") for entry in rule.get("when", []))
    return headers or any(name in named or _not(name) in named for name in HTTP_FIELDS)


def _rule(rule: Mapping[str, Any], action: str, own: str, request: Request, *, tcp: bool, domain: str) -> bool:
    if tcp and action == "ALLOW" and speaks_of_http(rule):
        return False
    sources = [entry["source"] for entry in rule.get("from", [])] or [{}]
    operations = [entry["operation"] for entry in rule.get("to", [])] or [{}]
    return (
        any(_source(source, own, request, domain) for source in sources)
        and any(_operation(operation, request, tcp=tcp) for operation in operations)
        and all(_when(condition, own, request, tcp=tcp, domain=domain) for condition in rule.get("when", []))
    )


def _source(source: Mapping[str, Any], own: str, request: Request, domain: str) -> bool:
    keys = {
        "principals": "source.principal",
        "namespaces": "source.namespace",
        "serviceAccounts": "source.serviceAccount",
        "trustDomains": "source.trustDomain",
        "ipBlocks": "source.ip",
    }

    def meets(name: str, key: str) -> bool:
        return _demanded(source.get(name), source.get(_not(name)), lambda value: _has(key, value, own, request, domain))

    return all(meets(name, key) for name, key in keys.items())


def _operation(operation: Mapping[str, Any], request: Request, *, tcp: bool) -> bool:
    def has(name: str, value: str) -> bool:
        if name == "ports":
            return int(value) == request.port
        if name == "hosts":
            return pattern(value.lower(), request.host.lower())
        return pattern(value, request.method) if name == "methods" else path(value, request.path.partition("?")[0])

    def meets(name: str) -> bool:
        return _demanded(operation.get(name), operation.get(_not(name)), lambda value: has(name, value))

    return all(meets(name) for name in (("ports",) if tcp else ("ports", *HTTP_FIELDS)))


def _when(condition: Mapping[str, Any], own: str, request: Request, *, tcp: bool, domain: str) -> bool:
    key = condition["key"]
    if tcp and key.startswith("request.headers"):
        return True
    return _demanded(condition.get("values"), condition.get("notValues"), lambda value: _has(key, value, own, request, domain))


def _demanded(values: Sequence[str] | None, unwanted: Sequence[str] | None, has: Callable[[str], bool]) -> bool:
    return (not values or any(has(value) for value in values)) and not any(has(value) for value in unwanted or [])


def _has(key: str, value: str, own: str, request: Request, domain: str) -> bool:
    if key.startswith("request.headers["):
        name = key.removeprefix("request.headers[").removesuffix("]").lower()
        return name in request.headers and pattern(value, request.headers[name], presence=True)
    if key in ("source.ip", "destination.ip"):
        address = request.source if key == "source.ip" else request.destination
        return ipaddress.ip_address(address) in ipaddress.ip_network(value, strict=False)
    if key == "destination.port":
        return int(value) == request.port
    if key == "connection.sni":
        return pattern(value, request.sni)
    if not request.spiffe_id:
        return False
    principal = request.spiffe_id.removeprefix("spiffe://")
    trusted, _, namespace, _, account = principal.split("/")
    if key == "source.namespace":
        return fnmatchcase(namespace, value)
    if key == "source.serviceAccount":
        return f"{namespace}/{account}" == (value if "/" in value else f"{own}/{value}")
    if key == "source.trustDomain":
        return pattern(value, trusted)
    if value.count("/") == 4 and value.startswith("cluster.local/"):
        value = f"{domain}/{value.partition('/')[2]}"
    return pattern(value, principal)


def pattern(wanted: str, value: str, *, presence: bool = False) -> bool:
    """Return whether a value is what is wanted: exact, prefix*, *suffix, or * for anything that is there."""
    if wanted == "*":
        return presence or value != ""
    if wanted.startswith("*"):
        return value.endswith(wanted[1:])
    return value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted


def path(wanted: str, value: str) -> bool:
    """Return whether a path is what is wanted: a pattern, or a template with {*} for a segment and {**} for any number."""
    if "{*}" not in wanted and "{**}" not in wanted:
        return pattern(wanted, value)
    return _segments(wanted.split("/"), value.split("/"))


def _segments(wanted: Sequence[str], value: Sequence[str]) -> bool:
    if not wanted:
        return not value
    if not value:
        return False
    if wanted[0] == "{**}":  # one segment at least, which may be empty
        return any(_segments(wanted[1:], value[taken:]) for taken in range(1, len(value) + 1))
    return (value[0] != "" if wanted[0] == "{*}" else value[0] == wanted[0]) and _segments(wanted[1:], value[1:])


def _not(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"
