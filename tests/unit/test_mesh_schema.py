# SPDX-License-Identifier: Apache-2.0
"""Every field of the published schemas of both kinds is enforced, or refused with one line that names it; none is ignored."""

import copy
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mesh_pods import lab_pod

from ztconform.errors import Rejected
from ztconform.lab.mesh.authorizationpolicy import parse_authorization_policy
from ztconform.lab.mesh.modes import modes
from ztconform.lab.mesh.peerauthentication import parse_peer_authentication
from ztconform.lab.mesh.rbac import authorization
from ztconform.lab.mesh.view import MeshConfig
from ztconform.model import Port

Changed = tuple[str, str, dict[str, Any], dict[str, Any]]

PEER, AUTHORIZATION = "PeerAuthentication", "AuthorizationPolicy"
PODS = [lab_pod(namespace, name, Port(number=80), Port(number=81)) for namespace in ("shop", "other") for name in ("a", "b")]
LABELLED = {"matchLabels": {"app": "a"}}


def base(kind: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "shop"}
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": {"selector": LABELLED, **spec}}


def change(kind: str, path: str, manifest: dict[str, Any], value: Any) -> Changed:
    """Return a kind, a schema path, a manifest, and the manifest with that field changed; [] and {} stand for the first entry."""
    changed = copy.deepcopy(manifest)
    steps: list[Any] = []
    for step in path.split("."):
        steps.append(step.rstrip("[]{}"))
        steps += [0] if step.endswith("[]") else [None] if step.endswith("{}") else []
    place: Any = changed
    for step in steps[:-1]:
        place = place[next(iter(place)) if step is None else step]
    place[next(iter(place)) if steps[-1] is None else steps[-1]] = value
    return kind, path, manifest, changed


def selector(kind: str, manifest: dict[str, Any]) -> Iterator[Changed]:
    yield change(kind, "spec", manifest, {})
    yield change(kind, "spec.selector", manifest, {})
    yield change(kind, "spec.selector.matchLabels", manifest, {"app": "b"})
    yield change(kind, "spec.selector.matchLabels{}", manifest, "b")


def values(path: str, name: str, first: str, second: str, around: str) -> Iterator[Changed]:
    """Yield a change of a list of values, of one of them, and of both in the negation; `around` holds the list."""
    for each in (name, f"not{name[0].upper()}{name[1:]}"):
        fields = {each: [first], "key": "source.namespace"} if around == "when" else {each: [first]}
        one = fields if around == "when" else {{"from": "source", "to": "operation"}[around]: fields}
        manifest = base(AUTHORIZATION, rules=[{around: [one]}])
        yield change(AUTHORIZATION, f"{path}.{each}", manifest, [first, second])
        yield change(AUTHORIZATION, f"{path}.{each}[]", manifest, second)


def rule() -> Iterator[Changed]:
    """Yield a change of every field of a rule."""
    source: dict[str, Any] = {"source": {"namespaces": ["x"]}}
    operation: dict[str, Any] = {"operation": {"ports": ["80"]}}
    when: dict[str, Any] = {"key": "source.namespace", "values": ["x"]}
    whole = base(AUTHORIZATION, rules=[{"from": [source], "to": [operation], "when": [when]}])
    path = "spec.rules[]"
    yield change(AUTHORIZATION, "spec.rules", whole, [])
    yield change(AUTHORIZATION, path, whole, {})
    yield change(AUTHORIZATION, f"{path}.from", whole, [{"source": {"namespaces": ["y"]}}])
    yield change(AUTHORIZATION, f"{path}.from[]", whole, {"source": {"principals": ["x"]}})
    yield change(AUTHORIZATION, f"{path}.from[].source", whole, {"ipBlocks": ["10.0.0.1"]})
    yield change(AUTHORIZATION, f"{path}.to", whole, [{"operation": {"ports": ["81"]}}])
    yield change(AUTHORIZATION, f"{path}.to[]", whole, {"operation": {"hosts": ["x"]}})
    yield change(AUTHORIZATION, f"{path}.to[].operation", whole, {"methods": ["x"]})
    yield change(AUTHORIZATION, f"{path}.when", whole, [])
    yield change(AUTHORIZATION, f"{path}.when[]", whole, {"key": "source.principal", "values": ["x"]})
    yield change(AUTHORIZATION, f"{path}.when[].key", whole, "source.principal")
    for name, first, second in (
        ("principals", "x", "y"),
        ("namespaces", "x", "y"),
        ("serviceAccounts", "x", "y"),
        ("trustDomains", "x", "y"),
        ("ipBlocks", "10.0.0.1", "10.0.0.1/8"),
    ):
        yield from values(f"{path}.from[].source", name, first, second, "from")
    for name, first, second in (("hosts", "x", "y"), ("ports", "80", "81"), ("methods", "x", "y"), ("paths", "/x", "/y")):
        yield from values(f"{path}.to[].operation", name, first, second, "to")
    yield from values(f"{path}.when[]", "values", "x", "y", "when")


STRICT = {"mode": "STRICT"}
ENFORCED = [
    *selector(PEER, base(PEER, mtls=STRICT)),
    change(PEER, "spec.mtls", base(PEER, mtls=STRICT), {}),
    change(PEER, "spec.mtls.mode", base(PEER, mtls=STRICT), "DISABLE"),
    change(PEER, "spec.portLevelMtls", base(PEER, portLevelMtls={"80": STRICT}), {"81": STRICT}),
    change(PEER, "spec.portLevelMtls{}", base(PEER, portLevelMtls={"80": STRICT}), {}),
    change(PEER, "spec.portLevelMtls{}.mode", base(PEER, portLevelMtls={"80": STRICT}), "DISABLE"),
    *selector(AUTHORIZATION, base(AUTHORIZATION, rules=[{}])),
    change(AUTHORIZATION, "spec.action", base(AUTHORIZATION, rules=[{}]), "DENY"),
    *rule(),
]

# A field below one of these is refused with it.
REFUSED: dict[tuple[str, str], Any] = {
    (PEER, "status"): {},
    (AUTHORIZATION, "status"): {},
    (AUTHORIZATION, "spec.provider"): {"name": "x"},
    (AUTHORIZATION, "spec.targetRef"): {"kind": "Service", "name": "x"},
    (AUTHORIZATION, "spec.targetRefs"): [{"kind": "Service", "name": "x"}],
    (AUTHORIZATION, "spec.rules[].from[].source.remoteIpBlocks"): ["10.0.0.1"],
    (AUTHORIZATION, "spec.rules[].from[].source.notRemoteIpBlocks"): ["10.0.0.1"],
    (AUTHORIZATION, "spec.rules[].from[].source.requestPrincipals"): ["x"],
    (AUTHORIZATION, "spec.rules[].from[].source.notRequestPrincipals"): ["x"],
}


def schema_paths() -> list[tuple[str, str]]:
    """Return every field path of both schemas, lists as NAME[] and mappings of data as NAME{}; both versions have the same."""
    folder = os.environ.get("ZTC_TEST_SCHEMAS")
    if not folder:
        pytest.skip("schemas not given: nothing validated")
    resources = json.loads((Path(folder) / "istio.json").read_text(encoding="utf-8"))["resources"]
    found = []
    for kind in (PEER, AUTHORIZATION):
        stable, beta = (resources[f"security.istio.io/{version}/{kind}"]["schema"] for version in ("v1", "v1beta1"))
        paths = list(walk(stable, ""))
        assert paths == list(walk(beta, ""))
        found += [(kind, path) for path in paths]
    return found


KEYWORDS = {"properties", "items", "additionalProperties", "type", "enum", "required", "format", "pattern"}
BOUNDS = {f"{bound}{what}" for bound in ("min", "max") for what in ("Items", "Length", "Properties")}
COMBINED = {"oneOf", "anyOf", "not"}  # in these schemas they repeat, or constrain, what `properties` has


def walk(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    unknown = {key for key in schema if not key.startswith("x-kubernetes-")} - KEYWORDS - BOUNDS - COMBINED
    assert not unknown, path
    for combined in COMBINED & set(schema):
        assert '"properties"' not in json.dumps(schema[combined]), path
    for name, field in schema.get("properties", {}).items():
        below = f"{path}.{name}".lstrip(".")
        yield below
        yield from walk(field, below)
    for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if keyword in schema:
            yield path + mark
            yield from walk(schema[keyword], path + mark)


def unaccounted(paths: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the fields that are neither enforced nor refused by the tables above."""
    enforced = {(kind, path) for kind, path, _, _ in ENFORCED}
    return [
        (kind, path)
        for kind, path in paths
        if (kind, path) not in enforced
        and not any(kind == of and (path == each or path.startswith((f"{each}.", f"{each}["))) for of, each in REFUSED)
    ]


def compiled(kind: str, manifest: Mapping[str, Any]) -> list[object]:
    if kind == PEER:
        return [modes(pod, [parse_peer_authentication(manifest)], MeshConfig()) for pod in PODS]
    return [authorization(pod, [parse_authorization_policy(manifest)], MeshConfig()) for pod in PODS]


def test_every_field_of_the_schemas_is_enforced_or_refused() -> None:
    paths = schema_paths()
    assert len(paths) > 80
    assert [] == unaccounted(paths)


def test_a_field_that_a_new_schema_brings_is_noticed() -> None:
    new = [(AUTHORIZATION, "spec.rules[].from[].source.cities"), (PEER, "spec.mtls.cipher"), (PEER, "spec.targetRef")]
    assert new == unaccounted([*schema_paths(), *new])


def test_nothing_is_accounted_for_that_the_schemas_do_not_have() -> None:
    assert set() == ({(kind, path) for kind, path, _, _ in ENFORCED} | set(REFUSED)) - set(schema_paths())


@pytest.mark.parametrize(("kind", "path", "first", "second"), ENFORCED, ids=lambda value: value if isinstance(value, str) else "")
def test_an_enforced_field_makes_a_difference(kind: str, path: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    assert path
    assert compiled(kind, first) != compiled(kind, second)


@pytest.mark.parametrize(("kind", "path"), REFUSED)
def test_a_refused_field_is_named_in_one_line(kind: str, path: str) -> None:
    manifest = base(kind, **({"rules": [{"from": [{"source": {"namespaces": ["x"]}}]}]} if kind == AUTHORIZATION else {}))
    *_, manifest = change(kind, path, manifest, REFUSED[kind, path])
    with pytest.raises(Rejected) as caught:
        compiled(kind, manifest)
    assert f"{kind} shop/p: {path.replace('[]', '[0]')}" == caught.value.where
    assert str(caught.value).isprintable()
