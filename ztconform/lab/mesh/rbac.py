# SPDX-License-Identifier: Apache-2.0
"""Which RBAC filters a pod's proxy gets from the AuthorizationPolicies of the mesh, for its HTTP ports and for the others.

How conditions read is left to `conditions`, and where the filters stand among others to the listeners. The rules are those
of Istio 1.30 (pilot/pkg/security/authz/builder): AUDIT, then DENY, then ALLOW; one entry a rule, named after its policy.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh.authorizationpolicy import Action, AuthorizationPolicy, Condition, Rule
from ztconform.lab.mesh.conditions import HTTP_ONLY, Json, Scope, permission, principal
from ztconform.lab.mesh.view import Authorization, MeshConfig, RbacFilter

Port = Literal["http", "tcp"]

_ORDER: tuple[Action, ...] = ("AUDIT", "DENY", "ALLOW")
_NEVER: Json = {"permissions": [{"not_rule": {"any": True}}], "principals": [{"not_id": {"any": True}}]}
_SHADOW_PREFIXES: dict[str, str] = {"audit": "istio_audit_", "deny": "istio_dry_run_deny_", "allow": "istio_dry_run_allow_"}
_EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"


def authorization(pod: LabPod, policies: Sequence[AuthorizationPolicy], config: MeshConfig) -> Authorization:
    """Return the filters that judge what comes to a pod."""
    mine = applying(pod, policies, config)
    return Authorization(http=_filters(mine, config, "http"), tcp=_filters(mine, config, "tcp"))


def applying(pod: LabPod, policies: Iterable[AuthorizationPolicy], config: MeshConfig) -> list[AuthorizationPolicy]:
    """Return the policies that select a pod: of its own namespace, and of the root namespace, which reach into every other."""
    namespaces = (pod.ref.namespace, config.root_namespace)
    return [each for each in policies if each.ref.namespace in namespaces and each.selector.matches(pod.labels)]


def rule_name(policy: AuthorizationPolicy, number: int) -> str:
    """Return the name under which Istio files a rule; a denial in the access log bears it."""
    return f"ns[{policy.ref.namespace}]-policy[{policy.ref.name}]-rule[{number}]"


def http_config(each: RbacFilter) -> Json:
    """Return the typed_config of the HTTP filter."""
    return {"@type": f"{_EXTENSIONS}.http.rbac.v3.RBAC", **_rules(each)}


def network_config(each: RbacFilter) -> Json:
    """Return the typed_config of the network filter."""
    return {"@type": f"{_EXTENSIONS}.network.rbac.v3.RBAC", "stat_prefix": "tcp.", **_rules(each)}


def shadow_prefix(each: RbacFilter) -> str:
    """Return what precedes `shadow_effective_policy_id` in the metadata that shadow rules leave for the access log.

    All filters of a connection write into one namespace, envoy.filters.http.rbac or envoy.filters.network.rbac, whatever
    they are called themselves. Of several rules that match, Envoy notes the first by name.
    """
    return _SHADOW_PREFIXES[each.name]


def _rules(each: RbacFilter) -> Json:
    found: Json = {}
    if each.rules is not None:
        found["rules"] = each.rules
    if each.shadow_rules is not None:
        found |= {"shadow_rules": each.shadow_rules, "shadow_rules_stat_prefix": shadow_prefix(each)}
    return found


def _filters(policies: Sequence[AuthorizationPolicy], config: MeshConfig, port: Port) -> tuple[RbacFilter, ...]:
    found = []
    for action in _ORDER:
        chosen = [each for each in policies if each.action == action]
        # Istio's AUDIT rules are in force, under an action that lets everything pass; as shadow rules they do not let less
        # pass, and the access log can name the one that matched.
        shadow = [each for each in chosen if each.dry_run or action == "AUDIT"]
        enforced = [each for each in chosen if not each.dry_run and action != "AUDIT"]
        if chosen:
            rules, shadow_rules = (_rbac(action, each, config, port) for each in (enforced, shadow))
            found.append(RbacFilter(name=action.lower(), rules=rules, shadow_rules=shadow_rules))
    return tuple(found)


def _rbac(action: Action, policies: Sequence[AuthorizationPolicy], config: MeshConfig, port: Port) -> Json | None:
    """Return one rule set; an ALLOW set that has lost all its rules still denies everything."""
    if not policies:
        return None
    entries: dict[str, Json] = {}
    for policy in policies:
        scope = Scope(policy.ref.namespace, (config.trust_domain,))
        for number, rule in enumerate(policy.rules):
            entry = _entry(rule, scope, action, port)
            if entry:
                entries[rule_name(policy, number)] = entry
        if not policy.rules:
            entries[rule_name(policy, 0)] = _NEVER
    return {"action": "LOG" if action == "AUDIT" else action, "policies": entries}


def _entry(rule: Rule, scope: Scope, action: Action, port: Port) -> Json | None:
    """Return a rule's entry, or None for an ALLOW rule that can match nothing: on a TCP port one that speaks of HTTP.

    The condition that speaks of HTTP is dropped from every other rule, so that DENY denies more rather than less.
    """
    sources, operations = rule.sources or ((),), rule.operations or ((),)
    if port == "tcp":
        every = [each for group in (*sources, *operations, rule.when) for each in group]
        if action == "ALLOW" and any(each.attribute in HTTP_ONLY for each in every):
            return None
    return {
        "permissions": [permission(_on(port, (*each, *rule.when))) for each in operations],
        "principals": [principal(_on(port, (*each, *rule.when)), scope) for each in sources],
    }


def _on(port: Port, conditions: Iterable[Condition]) -> list[Condition]:
    return [each for each in conditions if port == "http" or each.attribute not in HTTP_ONLY]
