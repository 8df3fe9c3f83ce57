# SPDX-License-Identifier: Apache-2.0
"""What a security.istio.io AuthorizationPolicy says, validated as Istio's webhook does it.

What it becomes in the proxy is left to `rbac` and `conditions`. The rules are those of Istio 1.30: the published CRD and
pkg/config/validation. What a sidecar of the lab could not enforce is refused by name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from ztconform.lab.fields import Field, shown
from ztconform.lab.mesh import values
from ztconform.lab.mesh.policyobject import DRY_RUN, read_boolean, read_object, read_workload_selector
from ztconform.lab.selectors import LabelSelector
from ztconform.model import Ref

Action = Literal["ALLOW", "DENY", "AUDIT"]
Attribute = Literal[
    "source.principal",
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.ip",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "request.headers",
    "host",
    "method",
    "path",
]


@dataclass(frozen=True, slots=True)
class Condition:
    """Demand that an attribute has one of the values (if there are any), and none of the others."""

    attribute: Attribute
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()
    header: str = ""  # name, for request.headers


@dataclass(frozen=True, slots=True)
class Rule:
    """Match whom one of the sources describes, at what one of the operations describes, where all of `when` holds."""

    sources: tuple[tuple[Condition, ...], ...] = ()  # none: everybody
    operations: tuple[tuple[Condition, ...], ...] = ()  # none: everything
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationPolicy:
    """Allow, deny or audit what one of the rules matches; an ALLOW policy without rules allows nothing."""

    ref: Ref
    selector: LabelSelector
    action: Action
    rules: tuple[Rule, ...]
    dry_run: bool = False


_RULES_MAX = 512
_SOURCES_MAX = 512
_ACCOUNTS_MAX = 16

_NO_TARGET = "is not supported: it attaches the policy to a gateway or waypoint, and the lab's mesh has sidecars only"
_NO_CUSTOM = "is not supported: an external authorizer would decide, and the lab has none"
_NO_TOKEN = "is not supported: the lab's proxies check no tokens"
_NO_REMOTE = "is not supported: the lab has no gateway that would tell a caller's original address"

_Check = Callable[[Field], str]
_CHECKS: Mapping[Attribute, _Check] = {
    "source.principal": values.text,
    "source.namespace": values.text,
    "source.serviceAccount": values.service_account,
    "source.trustDomain": values.trust_domain,
    "source.ip": values.address_block,
    "destination.ip": values.address_block,
    "destination.port": values.port,
    "connection.sni": values.text,
    "request.headers": values.text,
    "host": values.text,
    "method": values.text,
    "path": values.path,
}
_SOURCE: Mapping[str, Attribute] = {
    "principals": "source.principal",
    "namespaces": "source.namespace",
    "serviceAccounts": "source.serviceAccount",
    "trustDomains": "source.trustDomain",
    "ipBlocks": "source.ip",
}
_NOT_IN_SOURCE = {
    "requestPrincipals": _NO_TOKEN,
    "notRequestPrincipals": _NO_TOKEN,
    "remoteIpBlocks": _NO_REMOTE,
    "notRemoteIpBlocks": _NO_REMOTE,
}
_OPERATION: Mapping[str, Attribute] = {"hosts": "host", "ports": "destination.port", "methods": "method", "paths": "path"}
_KEYS = (  # of `when`, beside request.headers[NAME]
    "source.principal",
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.ip",
    "destination.ip",
    "destination.port",
    "connection.sni",
)
_NOT_KEYS = {
    "remote.ip": _NO_REMOTE,
    "request.auth.": _NO_TOKEN,
    "experimental.": "is not supported: the lab's proxies have no filter that would set such metadata",
}
_HEADER_KEY = re.compile(r"request\.headers\[([^\[\]]+)\]")
_HEADER_NAME = re.compile(r":?[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a token of RFC 9110, or a pseudo-header


def parse_authorization_policy(manifest: object) -> AuthorizationPolicy:
    """Return the policy that a manifest describes; raises Rejected for whatever Istio would refuse or the lab not enforce."""
    ref, spec, dry_run = read_object(manifest, "AuthorizationPolicy")
    refused = {"targetRef": _NO_TARGET, "targetRefs": _NO_TARGET, "provider": _NO_CUSTOM}
    fields = spec.object(("selector", "action", "rules"), refused)
    action: Action = "ALLOW"
    if "action" in fields:
        if fields["action"].value == "CUSTOM":
            fields["action"].refuse(f"CUSTOM {_NO_CUSTOM}")
        action = cast(Action, fields["action"].one_of("ALLOW", "DENY", "AUDIT"))
    rules = fields["rules"].items() if "rules" in fields else []
    if action == "DENY" and not rules:
        spec.child("rules").refuse("must not be empty in a DENY policy, which would deny nothing; for everything write [{}]")
    if len(rules) > _RULES_MAX:
        fields["rules"].refuse(f"must not hold more than {_RULES_MAX} rules")
    if dry_run and action == "AUDIT":
        dry_run.refuse(f"must not be there: {DRY_RUN} is for ALLOW and DENY only")
    return AuthorizationPolicy(
        ref=ref,
        selector=read_workload_selector(fields),
        action=action,
        rules=tuple(_read_rule(rule) for rule in rules),
        dry_run=read_boolean(dry_run) if dry_run else False,
    )


def _read_rule(field: Field) -> Rule:
    fields = field.object(("from", "to", "when"))
    for name in ("from", "to"):
        if name in fields and not fields[name].items():
            fields[name].refuse("must not be empty: for everybody or everything leave it out")
    sources = fields["from"].items() if "from" in fields else []
    if len(sources) > _SOURCES_MAX:
        fields["from"].refuse(f"must not hold more than {_SOURCES_MAX} sources")
    return Rule(
        sources=tuple(_read_source(_only(entry, "source")) for entry in sources),
        operations=tuple(_read_operation(_only(entry, "operation")) for entry in fields["to"].items()) if "to" in fields else (),
        when=tuple(_read_when(entry) for entry in fields["when"].items()) if "when" in fields else (),
    )


def _only(entry: Field, name: str) -> Field:
    fields = entry.object((name,))
    if name not in fields:
        entry.child(name).refuse("is required")
    return fields[name]


def _read_source(field: Field) -> tuple[Condition, ...]:
    fields = field.object((*_SOURCE, *map(_negated, _SOURCE)), _NOT_IN_SOURCE)
    accounts = [name for name in ("serviceAccounts", "notServiceAccounts") if name in fields]
    others = [name for name in ("principals", "notPrincipals", "namespaces", "notNamespaces") if name in fields]
    if accounts and others:
        fields[accounts[0]].refuse(f"must not stand beside {others[0]}")
    return _read_conditions(field, fields, _SOURCE)


def _read_operation(field: Field) -> tuple[Condition, ...]:
    return _read_conditions(field, field.object((*_OPERATION, *map(_negated, _OPERATION))), _OPERATION)


def _read_conditions(field: Field, fields: Mapping[str, Field], names: Mapping[str, Attribute]) -> tuple[Condition, ...]:
    """Return a condition for each attribute that is named; an empty list says nothing, as for Istio."""
    found = tuple(
        Condition(attribute, _read_values(fields.get(name), attribute), _read_values(fields.get(_negated(name)), attribute))
        for name, attribute in names.items()
    )
    found = tuple(condition for condition in found if condition.values or condition.not_values)
    if not found:
        field.refuse("must not be empty: it would match everything")
    return found


def _read_when(field: Field) -> Condition:
    fields = field.object(("key", "values", "notValues"))
    if "key" not in fields:
        field.child("key").refuse("is required")
    attribute, header = _read_key(fields["key"])
    condition = Condition(
        attribute, _read_values(fields.get("values"), attribute), _read_values(fields.get("notValues"), attribute), header
    )
    if not condition.values and not condition.not_values:
        field.refuse("must have values or notValues")
    return condition


def _read_key(field: Field) -> tuple[Attribute, str]:
    key = field.string()
    if key in _KEYS:
        return cast(Attribute, key), ""
    for prefix, reason in _NOT_KEYS.items():
        if key.startswith(prefix):
            field.refuse(f"{shown(key)} {reason}")
    header = _HEADER_KEY.fullmatch(key)
    if not header:
        field.refuse(f"{shown(key)} is no attribute: must be request.headers[NAME] or one of {', '.join(_KEYS)}")
    if not _HEADER_NAME.fullmatch(header[1]):
        field.refuse(f"{shown(header[1])} is no name of a header")
    return "request.headers", header[1].lower()


def _read_values(field: Field | None, attribute: Attribute) -> tuple[str, ...]:
    entries = field.items() if field else []
    if field and attribute == "source.serviceAccount" and len(entries) > _ACCOUNTS_MAX:
        field.refuse(f"must not hold more than {_ACCOUNTS_MAX} accounts")
    return tuple(_CHECKS[attribute](entry) for entry in entries)


def _negated(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"
