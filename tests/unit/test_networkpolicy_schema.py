# SPDX-License-Identifier: Apache-2.0
"""Every field of the published NetworkPolicy schema is enforced, or refused with one line that names it; none is ignored."""

import copy
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from truth_tables import NODES, inventory_of

from ztconform.errors import Rejected
from ztconform.lab.inventory import Inventory
from ztconform.lab.isolation import compile_node
from ztconform.lab.networkpolicy import parse_policy
from ztconform.lab.ruleset import Table
from ztconform.model import Port, Ref, Topology, Workload

PORTS = (Port(number=80, name="http"), Port(number=81, name="admin"))
INVENTORY: Inventory = inventory_of(
    Topology(
        namespaces={"shop": {"team": "shop"}, "other": {"team": "other"}},
        workloads=tuple(
            Workload(ref=Ref(namespace, app), labels={"app": app}, ports=PORTS)
            for namespace in ("shop", "other")
            for app in ("a", "b")
        ),
    )
)
LABELLED = {"matchLabels": {"app": "a"}}
EXPRESSION = {"key": "app", "operator": "In", "values": ["a"]}
BLOCK = {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24"]}


def base(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "shop", "labels": {"a": "b"}, "annotations": {"a": "b"}}
    whole = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}
    return {**whole, "spec": {"podSelector": LABELLED, **spec}}


def change(path: str, manifest: dict[str, Any], value: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return a schema path, a manifest, and the manifest with that one field changed; [] and {} stand for the first entry."""
    changed = copy.deepcopy(manifest)
    steps: list[Any] = []
    for step in path.split("."):
        steps.append(step.rstrip("[]{}"))
        steps += [0] if step.endswith("[]") else [] if not step.endswith("{}") else [None]
    place: Any = changed
    for step in steps[:-1]:
        place = place[next(iter(place)) if step is None else step]
    place[next(iter(place)) if steps[-1] is None else steps[-1]] = value
    return path, manifest, changed


def selector(
    path: str, manifest: dict[str, Any], expression: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield a change of every field of a LabelSelector: `manifest` has matchLabels there, `expression` matchExpressions."""
    yield change(path, manifest, {"matchLabels": {"app": "b", "team": "b"}})
    yield change(f"{path}.matchLabels", manifest, {"app": "b"})
    yield change(f"{path}.matchLabels{{}}", manifest, "b")
    yield change(f"{path}.matchExpressions", expression, [])
    yield change(f"{path}.matchExpressions[]", expression, {"key": "app", "operator": "Exists"})
    yield change(f"{path}.matchExpressions[].key", expression, "tier")
    yield change(f"{path}.matchExpressions[].operator", expression, "NotIn")
    yield change(f"{path}.matchExpressions[].values", expression, ["a", "b"])
    yield change(f"{path}.matchExpressions[].values[]", expression, "b")


def rule(direction: str, peers: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield a change of every field of an ingress or egress rule."""

    def one(**fields: Any) -> dict[str, Any]:
        return base(policyTypes=["Ingress", "Egress"], **{direction: [fields]})

    path, peer = f"spec.{direction}[]", f"spec.{direction}[].{peers}[]"
    yield change(f"spec.{direction}", one(), [])
    yield change(path, one(), {"ports": [{"port": 80}]})
    yield change(f"{path}.ports", one(ports=[{"port": 80}]), [])
    yield change(f"{path}.ports[]", one(ports=[{"port": 80}]), {"port": 81})
    yield change(f"{path}.ports[].port", one(ports=[{"port": 80}]), "admin")
    yield change(f"{path}.ports[].endPort", one(ports=[{"port": 80}]), 90)
    yield change(f"{path}.ports[].protocol", one(ports=[{"port": 80}]), "SCTP")
    yield change(f"{path}.{peers}", one(**{peers: [{"podSelector": {}}]}), [])
    yield change(peer, one(**{peers: [{"podSelector": {}}]}), {"namespaceSelector": {}})
    yield change(f"{peer}.ipBlock", one(**{peers: [{"ipBlock": BLOCK}]}), {"cidr": "10.244.0.0/16"})
    yield change(f"{peer}.ipBlock.cidr", one(**{peers: [{"ipBlock": BLOCK}]}), "10.244.0.0/15")
    yield change(f"{peer}.ipBlock.except", one(**{peers: [{"ipBlock": BLOCK}]}), [])
    yield change(f"{peer}.ipBlock.except[]", one(**{peers: [{"ipBlock": BLOCK}]}), "10.244.0.0/24")
    by_labels: dict[str, Any] = {"podSelector": LABELLED}
    by_expression: dict[str, Any] = {"podSelector": {"matchExpressions": [EXPRESSION]}}
    yield from selector(f"{peer}.podSelector", one(**{peers: [by_labels]}), one(**{peers: [by_expression]}))
    by_labels = {"namespaceSelector": {"matchLabels": {"team": "shop"}}}
    by_expression = {"namespaceSelector": {"matchExpressions": [{**EXPRESSION, "key": "team", "values": ["shop"]}]}}
    yield from selector(f"{peer}.namespaceSelector", one(**{peers: [by_labels]}), one(**{peers: [by_expression]}))


ENFORCED = [
    change("apiVersion", base(), "networking.k8s.io/v2"),
    change("kind", base(), "Pod"),
    change("metadata", base(), {"name": "p", "namespace": "other"}),
    change("metadata.name", base(ingress=[{}]), "q"),  # in the comments, which name the policy that admits
    change("metadata.namespace", base(), "other"),
    change("metadata.labels", base(), {"a": "not a label"}),  # checked; they enforce nothing in Kubernetes either
    change("metadata.labels{}", base(), "not a label"),
    change("metadata.annotations", base(), {"not an annotation": ""}),
    change("metadata.annotations{}", base(), 1),
    change("spec", base(), {}),
    change("spec.policyTypes", base(), ["Egress"]),
    change("spec.policyTypes[]", base(policyTypes=["Ingress"]), "Egress"),
    *selector("spec.podSelector", base(), base(podSelector={"matchExpressions": [EXPRESSION]})),
    *rule("ingress", "from"),
    *rule("egress", "to"),
]

# A field below one of these is refused with it.
REFUSED: dict[str, Any] = {
    "metadata.creationTimestamp": "2026-01-01T00:00:00Z",
    "metadata.deletionGracePeriodSeconds": 30,
    "metadata.deletionTimestamp": "2026-01-01T00:00:00Z",
    "metadata.finalizers": ["a.io/b"],
    "metadata.generateName": "p-",
    "metadata.generation": 1,
    "metadata.managedFields": [{}],
    "metadata.ownerReferences": [{}],
    "metadata.resourceVersion": "1",
    "metadata.selfLink": "/",
    "metadata.uid": "u",
}


def schema_paths() -> list[str]:
    """Return every field path of the schema, lists as NAME[] and mappings of data as NAME{}."""
    folder = os.environ.get("ZTC_TEST_SCHEMAS")
    if not folder:
        pytest.skip("schemas not given: nothing validated")
    document = json.loads((Path(folder) / "kubernetes.json").read_text(encoding="utf-8"))
    schemas = document["components"]["schemas"]
    return list(walk(schemas, schemas[document["root"]], ""))


def walk(schemas: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    known = {
        "$ref",
        "allOf",
        "properties",
        "items",
        "additionalProperties",
        "type",
        "default",
        "enum",
        "required",
        "format",
        "oneOf",
    }
    assert not {key for key in schema if key not in known and not key.startswith("x-kubernetes-") and key != "description"}, path
    for part in [schemas[ref.rpartition("/")[2]] for ref in [schema.get("$ref")] if ref] + list(schema.get("allOf", [])):
        yield from walk(schemas, part, path)
    for name, field in schema.get("properties", {}).items():
        below = f"{path}.{name}".lstrip(".")
        yield below
        yield from walk(schemas, field, below)
    for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if keyword in schema:
            yield path + mark
            yield from walk(schemas, schema[keyword], path + mark)


def unaccounted(paths: list[str]) -> list[str]:
    """Return the fields that are neither enforced nor refused by the tables above."""
    enforced = {path for path, _, _ in ENFORCED}
    return [
        path
        for path in paths
        if path not in enforced
        and not any(path == each or path.startswith((f"{each}.", f"{each}[", f"{each}{{")) for each in REFUSED)
    ]


def compile_all(manifest: Mapping[str, Any]) -> list[Table]:
    return [compile_node(node, INVENTORY, [parse_policy(manifest)]) for node in range(NODES)]


def test_every_field_of_the_schema_is_enforced_or_refused() -> None:
    paths = schema_paths()
    assert len(paths) > 90
    assert [] == unaccounted(paths)


def test_a_field_that_a_new_schema_brings_is_noticed() -> None:
    new = ["spec.ingress[].action", "metadata.uidOfOwner", "spec.egress[].to[].nodeSelector", "status"]
    assert new == unaccounted([*schema_paths(), *new])


def test_nothing_is_accounted_for_that_the_schema_does_not_have() -> None:
    assert set() == ({path for path, _, _ in ENFORCED} | set(REFUSED)) - set(schema_paths())


@pytest.mark.parametrize(("path", "first", "second"), ENFORCED, ids=lambda value: value if isinstance(value, str) else "")
def test_an_enforced_field_makes_a_difference(path: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    before = compile_all(first)
    try:
        after = compile_all(second)
    except Rejected as refused:
        name = path.rstrip("[]{}").rpartition(".")[2].rstrip("[]{}")
        assert not path.startswith("spec.")  # there a valid value has to change the rules
        assert name in refused.where
        assert str(refused).isprintable()
    else:
        assert before != after


@pytest.mark.parametrize("path", REFUSED)
def test_a_refused_field_is_named_in_one_line(path: str) -> None:
    _, _, manifest = change(path, base(), REFUSED[path])
    with pytest.raises(Rejected) as caught:
        parse_policy(manifest)
    assert f"NetworkPolicy shop/p: {path}" == caught.value.where
    assert str(caught.value).isprintable()
