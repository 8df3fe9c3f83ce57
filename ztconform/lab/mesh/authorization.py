# SPDX-License-Identifier: Apache-2.0
"""The authorization of all meshed pods as six RBAC filters, AUDIT, DENY and ALLOW for HTTP and for TCP, which every pod shares.

What one pod's filters say is made by `rbac`; which chains ask which filters is for `inbound`.

They are delivered on their own (ECDS), so that a change of policy drains no connection and holds at once for the next request on
every connection that is open. Envoy spends an inotify instance on each file that it watches, and a machine allows a user 128 of
them: six for each pod would be too many for twenty pods. So an entry is guarded by the addresses of the pods that it is for,
and stays one entry, under its own name, where several have it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ztconform.errors import InternalError
from ztconform.lab.inventory import LabPod
from ztconform.lab.mesh import rbac
from ztconform.lab.mesh.filters import discovered, typed
from ztconform.lab.mesh.view import MeshedPod, RbacFilter

Layer = Literal["http", "tcp"]
Rules = Mapping[str, Any]

_ORDER = ("audit", "deny", "allow")
_UNSELECTED = "no ALLOW policy"  # the entry by which a pod that no ALLOW policy selects is open
_TYPES = {"http": "extensions.filters.http.rbac.v3.RBAC", "tcp": "extensions.filters.network.rbac.v3.RBAC"}


def chain_filters(layer: Layer, directory: str) -> list[dict[str, Any]]:
    """Return the filters as a chain has them, in the order in which they judge."""
    return [discovered(_name(layer, each), _TYPES[layer], directory) for each in _ORDER]


def authorization(pods: Sequence[MeshedPod]) -> dict[str, Mapping[str, Any]]:
    """Return what is delivered, by name: all that a change of AuthorizationPolicy changes."""
    found: dict[str, Mapping[str, Any]] = {}
    layers: tuple[Layer, ...] = ("http", "tcp")
    for layer in layers:
        of_pods = [(pod.pod, _by_name(pod, layer)) for pod in pods]
        config = rbac.http_config if layer == "http" else rbac.network_config
        for each in _ORDER:
            enforced = _merged([(pod, own[each].rules) for pod, own in of_pods if each in own])
            shadow = _merged([(pod, own[each].shadow_rules) for pod, own in of_pods if each in own])
            merged = RbacFilter(name=each, rules=enforced, shadow_rules=shadow)
            name = _name(layer, each)
            found[name] = typed("config.core.v3.TypedExtensionConfig", name=name, typed_config=config(merged))
    return found


def _name(layer: Layer, each: str) -> str:
    return f"{layer}-{each}"


def _by_name(pod: MeshedPod, layer: Layer) -> dict[str, RbacFilter]:
    filters = pod.authorization.http if layer == "http" else pod.authorization.tcp
    names = [each.name for each in filters]
    if names != [name for name in _ORDER if name in names]:
        raise InternalError(f"pod {pod.pod.ref} has authorization filters {', '.join(names)}; there are {', '.join(_ORDER)}")
    return {each.name: each for each in filters}


def _merged(rules: Sequence[tuple[LabPod, Rules | None]]) -> dict[str, Any] | None:
    """Return one set of rules for pods that have their own each; None where none has any."""
    present = [(pod, own) for pod, own in rules if own is not None]
    if not present:
        return None
    actions = {own.get("action", "ALLOW") for _, own in present}
    if len(actions) > 1:
        raise InternalError(f"one authorization filter has the actions {', '.join(sorted(actions))}")
    entries: dict[str, tuple[Mapping[str, Any], list[LabPod]]] = {}
    for pod, own in present:
        for name, entry in own.get("policies", {}).items():
            known, pods = entries.setdefault(name, (entry, []))
            if known != entry:
                raise InternalError(f"the authorization entry {name} is not the same for {pod.ref} as for {pods[0].ref}")
            pods.append(pod)
    policies = {name: _guarded(entry, _to(pods)) for name, (entry, pods) in entries.items()}
    (action,) = actions
    if action == "ALLOW":
        others = {"not_rule": _to([pod for pod, _ in present])}
        policies[_UNSELECTED] = {"permissions": [others], "principals": [{"any": True}]}
    return {"action": action, "policies": policies}


def _guarded(entry: Mapping[str, Any], guard: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry that holds only where the guard does too."""
    permissions = [{"and_rules": {"rules": [guard, permission]}} for permission in entry["permissions"]]
    return {**entry, "permissions": permissions}


def _to(pods: Sequence[LabPod]) -> dict[str, Any]:
    """Return the permission that is met by whatever was sent to one of the pods; an inbound connection has no other address."""
    addresses = [address for pod in pods for address in (pod.v4, pod.v6) if address]
    ranges = [{"address_prefix": address, "prefix_len": 128 if ":" in address else 32} for address in addresses]
    return {"or_rules": {"rules": [{"destination_ip": each} for each in ranges]}}
