# SPDX-License-Identifier: Apache-2.0
"""What Envoy's RBAC filters do with one request, read off their JSON as the proto's documentation has it.

It knows nothing of policies, and stops at every form that it does not know.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ztconform.lab.mesh.view import RbacFilter

Json = Mapping[str, Any]

_SEGMENT = r"[A-Za-z0-9\-._~%!$&'()+,;:@=]"  # what * and ** of a URI template match, ** the slash too


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Hold one request as the proxy sees it; a connection without HTTP has method, path and host all the same, unread."""

    spiffe_id: str = ""  # "" for a client without a certificate
    method: str = "GET"
    path: str = "/"
    host: str = "b.ns1"
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    source: str = "10.244.0.1"
    destination: str = "10.244.0.9"
    port: int = 8080
    sni: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Say what became of a request, in the words of the access log."""

    allowed: bool
    details: str = ""
    shadow: Mapping[str, str] = field(default_factory=dict)  # filter -> rule that its shadow rules name


def judged(filters: Sequence[RbacFilter], request: Request) -> Verdict:
    """Return what the filters do, in their order, up to the one that denies."""
    shadow: dict[str, str] = {}
    for each in filters:
        if each.shadow_rules is not None and (named := matching(each.shadow_rules, request)):
            shadow[each.name] = named
        if each.rules is None:
            continue
        named = matching(each.rules, request)
        if each.rules["action"] not in ("ALLOW", "DENY"):
            raise AssertionError(each.rules["action"])
        if (named is None) == (each.rules["action"] == "ALLOW"):
            return Verdict(False, f"rbac_access_denied_matched_policy[{named or 'none'}]", shadow)
    return Verdict(True, "", shadow)


def matching(rules: Json, request: Request) -> str | None:
    """Return the first rule by name that matches."""
    assert {"action", "policies"} == set(rules)
    for name, entry in sorted(rules["policies"].items()):
        assert {"permissions", "principals"} == set(entry)
        assert entry["permissions"]
        assert entry["principals"]
        if any(permits(each, request) for each in entry["permissions"]) and any(
            identifies(each, request) for each in entry["principals"]
        ):
            return str(name)
    return None


def permits(permission: Json, request: Request) -> bool:
    """Return whether a request meets a permission."""
    ((kind, value),) = permission.items()
    match kind:
        case "any":
            return bool(value)
        case "and_rules":
            return all(permits(each, request) for each in _members(value, "rules"))
        case "or_rules":
            return any(permits(each, request) for each in _members(value, "rules"))
        case "not_rule":
            return not permits(value, request)
        case "header":
            return _header(value, request)
        case "url_path":
            return _text(value["path"], _path(request))
        case "uri_template":
            return _template(value["typed_config"]["path_template"], _path(request))
        case "destination_ip":
            return _inside(value, request.destination)
        case "destination_port":
            return bool(value == request.port)
        case "requested_server_name":
            return _text(value, request.sni)
        case _:
            raise AssertionError(kind)


def identifies(principal: Json, request: Request) -> bool:
    """Return whether who sends a request meets a principal."""
    ((kind, value),) = principal.items()
    match kind:
        case "any":
            return bool(value)
        case "and_ids":
            return all(identifies(each, request) for each in _members(value, "ids"))
        case "or_ids":
            return any(identifies(each, request) for each in _members(value, "ids"))
        case "not_id":
            return not identifies(value, request)
        case "authenticated":
            return bool(request.spiffe_id) and _text(value["principal_name"], request.spiffe_id)
        case "direct_remote_ip":
            return _inside(value, request.source)
        case "header":
            return _header(value, request)
        case _:
            raise AssertionError(kind)


def _members(value: Json, name: str) -> Sequence[Json]:
    assert {name} == set(value)
    assert value[name]
    members: Sequence[Json] = value[name]
    return members


def _path(request: Request) -> str:
    return re.split(r"[?#]", request.path, maxsplit=1)[0]


def _header(matcher: Json, request: Request) -> bool:
    known = {":method": request.method, ":authority": request.host, ":path": request.path, **request.headers}
    value = known.get(matcher["name"])
    if "present_match" in matcher:
        assert matcher["present_match"] is True
        return value is not None
    return value is not None and _text(matcher["string_match"], value)


def _text(matcher: Json, value: str) -> bool:
    rest = dict(matcher)
    ignore_case = rest.pop("ignore_case", False)
    ((kind, wanted),) = rest.items()
    if kind == "safe_regex":
        assert not ignore_case
        return re.fullmatch(wanted["regex"], value) is not None
    assert wanted  # Envoy refuses an empty prefix or suffix
    if ignore_case:
        wanted, value = wanted.lower(), value.lower()
    match kind:
        case "exact":
            return bool(value == wanted)
        case "prefix":
            return value.startswith(wanted)
        case "suffix":
            return value.endswith(wanted)
        case _:
            raise AssertionError(kind)


def _template(template: str, path: str) -> bool:
    forms = {"*": f"{_SEGMENT}+", "**": rf"(?:{_SEGMENT}|/)*"}
    return re.fullmatch("/".join(forms.get(part, re.escape(part)) for part in template.split("/")), path) is not None


def _inside(block: Json, address: str) -> bool:
    network = ipaddress.ip_network(f"{block['address_prefix']}/{block['prefix_len']}")
    return ipaddress.ip_address(address) in network
