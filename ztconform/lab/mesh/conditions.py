# SPDX-License-Identifier: Apache-2.0
"""How the conditions of a rule read as Envoy's RBAC v3: a permission and a principal, in the JSON form of the proto.

Which conditions hold on which kind of port is left to `rbac`. The forms are those of Istio 1.30 (pilot/pkg/security/authz):
values are alternatives, `*` demands presence, a `*` at one end makes a suffix or prefix, everything else is literal.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from typing import Any

from ztconform.lab.mesh.authorizationpolicy import Attribute, Condition
from ztconform.lab.mesh.trustdomain import expanded_domain, expanded_principal
from ztconform.lab.mesh.values import is_template

Json = dict[str, Any]

HTTP_ONLY: frozenset[Attribute] = frozenset(("host", "method", "path", "request.headers"))

_TEMPLATE = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
_SPIFFE = "spiffe://"
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")


@dataclass(frozen=True, slots=True)
class Scope:
    """Say what names in a policy are relative to: its own namespace, and the mesh's trust domains, the local one first."""

    namespace: str
    trust_domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Words:
    """Name the boolean operators, which the proto calls differently on its two sides."""

    all_of: str
    any_of: str
    members: str
    none_of: str


_OF_PERMISSION = _Words("and_rules", "or_rules", "rules", "not_rule")
_OF_PRINCIPAL = _Words("and_ids", "or_ids", "ids", "not_id")


def permission(conditions: Iterable[Condition]) -> Json:
    """Return what the conditions demand of the request or connection itself."""
    parts = [(each, _PERMISSIONS[each.attribute]) for each in conditions if each.attribute in _PERMISSIONS]
    return _all(_OF_PERMISSION, [part for each, build in parts for part in _parts(_OF_PERMISSION, each, build)])


def principal(conditions: Iterable[Condition], scope: Scope) -> Json:
    """Return what the conditions demand of who sends the request; Istio counts its headers among that."""
    parts = [(each, partial(_of_sender, each, scope)) for each in conditions if each.attribute not in _PERMISSIONS]
    return _all(_OF_PRINCIPAL, [part for each, build in parts for part in _parts(_OF_PRINCIPAL, each, build)])


def _of_sender(condition: Condition, scope: Scope, value: str) -> list[Json]:
    if condition.attribute == "request.headers":
        return [{"header": _header(condition.header, value)}]
    return _PRINCIPALS[condition.attribute](value, scope)


def _parts(words: _Words, condition: Condition, build: Callable[[str], list[Json]]) -> list[Json]:
    parts: list[Json] = []
    if condition.values:
        parts.append({words.any_of: {words.members: [part for value in condition.values for part in build(value)]}})
    if condition.not_values:
        unwanted = [part for value in condition.not_values for part in build(value)]
        parts.append({words.none_of: {words.any_of: {words.members: unwanted}}})
    return parts


def _all(words: _Words, parts: list[Json]) -> Json:
    return {words.all_of: {words.members: parts}} if parts else {"any": True}


def _string(value: str, *, ignore_case: bool = False) -> Json:
    """Return a StringMatcher; Envoy refuses an empty prefix or suffix, so that presence is a match of its own."""
    case: Json = {"ignore_case": True} if ignore_case else {}
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        return {"suffix": value[1:], **case}
    if value.endswith("*"):
        return {"prefix": value[:-1], **case}
    return {"exact": value, **case}


def _header(name: str, value: str, *, ignore_case: bool = False) -> Json:
    if value == "*":
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": _string(value, ignore_case=ignore_case)}


def _path(value: str) -> Json:
    """Return a match on the path without its query; in a template {*} is one segment and {**} any number."""
    if is_template(value):
        template = value.replace("{*}", "*").replace("{**}", "**")
        return {"uri_template": {"name": "uri-template", "typed_config": {"@type": _TEMPLATE, "path_template": template}}}
    return {"url_path": {"path": _string(value)}}


def _block(value: str) -> Json:
    network = ip_network(value)
    return {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}


def _authenticated(name: Json) -> Json:
    """Return a match on the client's certificate, which a plaintext client never meets."""
    return {"authenticated": {"principal_name": name}}


def _regex(expression: str) -> Json:
    return _authenticated({"safe_regex": {"regex": expression}})  # matches whole names


def _quoted(text: str) -> str:
    """Return RE2 for a literal: unquoted, the `.` of a name would match any character (CVE-2026-39350)."""
    return _META.sub(lambda found: f"\\{found[0]}", text)


def _principals(value: str, scope: Scope) -> list[Json]:
    return [_principal(name) for name in expanded_principal(value, scope.trust_domains)]


def _principal(value: str) -> Json:
    if value == "*":
        return _regex(".+")
    if value.startswith("*"):
        return _regex(f"{_SPIFFE}.*{_quoted(value[1:])}")
    return _authenticated(_string(f"{_SPIFFE}{value}"))


def _namespaces(value: str, _scope: Scope) -> list[Json]:
    name = ".*".join(_quoted(part) for part in value.split("*"))
    return [_regex(f".*/ns/{name}/.*")]


def _accounts(value: str, scope: Scope) -> list[Json]:
    namespace, slash, name = value.rpartition("/")
    if not slash:
        namespace = scope.namespace
    return [_regex(f"{_SPIFFE}.+/ns/{_quoted(namespace)}/(.+/|)sa/{_quoted(name)}(/.+)?")]


def _domains(value: str, scope: Scope) -> list[Json]:
    return [_domain(name) for name in expanded_domain(value, scope.trust_domains)]


def _domain(value: str) -> Json:
    if value == "*":
        return _authenticated({"prefix": _SPIFFE})
    if "*" not in value:
        return _authenticated({"prefix": f"{_SPIFFE}{value}/"})
    before, _, behind = value.partition("*")
    return _regex(f"{_SPIFFE}{_quoted(before)}[^/]*{_quoted(behind)}/.*")


_PERMISSIONS: Mapping[Attribute, Callable[[str], list[Json]]] = {
    "host": lambda value: [{"header": _header(":authority", value, ignore_case=True)}],  # with the port, if the caller names one
    "method": lambda value: [{"header": _header(":method", value)}],
    "path": lambda value: [_path(value)],
    "destination.port": lambda value: [{"destination_port": int(value)}],
    "destination.ip": lambda value: [{"destination_ip": _block(value)}],
    "connection.sni": lambda value: [{"requested_server_name": _string(value)}],
}
_PRINCIPALS: Mapping[Attribute, Callable[[str, Scope], list[Json]]] = {
    "source.principal": _principals,
    "source.namespace": _namespaces,
    "source.serviceAccount": _accounts,
    "source.trustDomain": _domains,
    "source.ip": lambda value, _scope: [{"direct_remote_ip": _block(value)}],  # of the connection, whatever a header claims
}
