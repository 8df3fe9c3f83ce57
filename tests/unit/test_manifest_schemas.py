# SPDX-License-Identifier: Apache-2.0
"""Every manifest that we ship is one that an API server would take as it is, to the last field, whichever dialect it is in."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifest_schemas import Schemas, documents, kind_of, manifests_in, strict
from truth_tables import inventory_of

from ztconform import placeholders, policies, resources
from ztconform.cluster import Resolver
from ztconform.kube.policies import agrees
from ztconform.model import Pod
from ztconform.shop import shop

# Kinds that the folder need not have a schema of, and why; where it has one, it counts.
EXCUSED = {
    "policy.networking.k8s.io/v1alpha2/ClusterNetworkPolicy": "its CRD is an add-on of its own, whose schema the folder may lack"
}
RESOLVER = Resolver(address="10.96.0.10", namespace="kube-system", labels={"k8s-app": "kube-dns"}, port=53)
PODS = [
    Pod(ref=each.ref, workload=each.workload, node=each.node, addresses=(each.v4, each.v6))
    for each in inventory_of(shop().topology).pods
]
# Whose keys are data: labels and annotations are anybody's, and port numbers no names of fields.
MAPS_OF_DATA = ("labels", "annotations", "matchLabels", "portLevelMtls")
Path_ = tuple[str | int, ...]


def files() -> list[Path]:
    ours = (resources.folder("manifests") / "policies").rglob("*.yaml")
    return sorted([*ours, *resources.folder("examples").rglob("*.yaml")])


def shipped() -> list[Any]:
    """Return every manifest that we ship, placeholders filled in, as a parameter of a test."""
    found = []
    for path in files():
        if path.name == "gaps.yaml":
            continue
        parsed = [each for document in documents(path.read_text(encoding="utf-8")) for each in manifests_in(document)]
        name = f"{path.parent.name}/{path.name}"
        found += [pytest.param(placeholders.render(each, PODS, RESOLVER), id=f"{name}-{n}") for n, each in enumerate(parsed)]
    return found


SHIPPED = shipped()


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    folder = os.environ.get("ZTC_TEST_SCHEMAS")
    if not folder:
        pytest.skip("schemas not given: nothing validated")
    return Schemas(Path(folder))


def known(schemas: Schemas, manifest: Mapping[str, Any]) -> None:
    """Skip where a kind has no schema and is excused; where it is not, whoever validates fails."""
    kind = kind_of(manifest)
    if kind not in schemas and kind in EXCUSED:
        pytest.skip(f"not validated, there is no schema of {kind}: {EXCUSED[kind]}")


def objects(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the path of every mapping whose keys are fields."""
    if isinstance(value, Mapping):
        yield path
        for key, below in value.items():
            if key not in MAPS_OF_DATA:
                yield from objects(below, (*path, key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for n, below in enumerate(value):
            yield from objects(below, (*path, n))


def at(manifest: Any, path: Path_) -> Any:
    for step in path:
        manifest = manifest[step]
    return manifest


def load(intent: str, dialect: str, n: int = 0) -> Any:
    (found,) = [each.values[0] for each in SHIPPED if each.id == f"{intent}/{dialect}.yaml-{n}"]
    return copy.deepcopy(found)


def test_there_are_manifests_of_every_dialect_and_of_the_examples() -> None:
    names = {str(each.id).rpartition("-")[0] for each in SHIPPED}
    assert set(policies.DIALECTS) <= {name.partition("/")[2].removesuffix(".yaml") for name in names}
    assert "examples/default-deny-with-dns.ztc.yaml" in names  # whose manifests stand in the case file
    assert "examples/permissive-to-strict.ztc.yaml" in names  # and here in its steps


@pytest.mark.parametrize("manifest", SHIPPED)
def test_a_manifest_is_valid_to_the_last_field(schemas: Schemas, manifest: Any) -> None:
    known(schemas, manifest)
    assert [] == schemas.wrongs(manifest)


@pytest.mark.parametrize("manifest", SHIPPED)
def test_a_field_that_is_not_there_is_refused_wherever_it_stands(schemas: Schemas, manifest: Any) -> None:
    known(schemas, manifest)
    for path in objects(manifest):
        changed = copy.deepcopy(manifest)
        at(changed, path)["tpyo"] = "x"
        assert any("tpyo" in wrong for wrong in schemas.wrongs(changed)), path


@pytest.mark.parametrize("manifest", SHIPPED)
def test_a_manifest_leaves_nothing_to_the_api_servers_defaults(schemas: Schemas, manifest: Any) -> None:
    """What is read back is compared with what was sent, and a field that was added on the way would be a difference."""
    known(schemas, manifest)
    assert agrees(manifest["spec"], schemas.filled_in(manifest)["spec"])


TYPOS = [
    # intent, dialect, document, where, what is there instead
    ("default-deny-all", "kubernetes", 0, ("spec", "policyTypes"), "Ingress"),
    ("payment-ports", "kubernetes", 0, ("spec", "ingress", 0, "ports", 0, "protocol"), "tcp"),
    ("payment-ports", "kubernetes", 0, ("spec", "ingress", 0, "ports", 1, "endPort"), "7001"),
    ("payment-ports", "cilium", 0, ("spec", "ingress", 0, "toPorts", 0, "ports", 0, "port"), 8080),
    ("payment-ports", "cilium", 0, ("spec", "ingress", 0, "toPorts", 0, "ports", 0, "protocol"), "HTTP"),
    ("payment-from-listed-hosts", "cilium", 0, ("spec", "ingress", 0, "fromCIDRSet", 0, "except"), "10.0.0.0/8"),
    ("payment-ports", "calico", 0, ("spec", "ingress", 0, "action"), "allow"),
    ("payment-ports", "calico", 0, ("spec", "types"), ["Ingress", "Ingress"]),
    ("payment-only-from-checkout-staged", "calico", 0, ("spec", "stagedAction"), "Stage"),
    ("payments-by-checkout", "istio", 0, ("spec", "action"), "Allow"),
    ("payments-by-checkout", "istio", 0, ("spec", "rules", 0, "to", 0, "operation", "methods"), "POST"),
    ("shop-strict", "istio", 0, ("spec", "mtls", "mode"), "strict"),
    ("payments-by-checkout", "istio-waypoint", 0, ("spec", "targetRefs", 0, "name"), ""),
    ("payments-by-checkout", "istio-waypoint", 1, ("spec", "rules", 0, "from", 0, "source", "principals"), {}),
    ("payments-by-checkout", "linkerd", 1, ("spec", "rules", 0, "matches", 0, "method"), "post"),
    ("payments-by-checkout", "linkerd", 1, ("spec", "rules", 0, "matches", 0, "path", "type"), "Regex"),
    ("payments-by-checkout", "linkerd", 2, ("spec", "identityRefs"), []),
    ("default-deny-egress", "cluster-network-policy", 0, ("spec", "priority"), 1001),
    ("default-deny-egress", "cluster-network-policy", 0, ("spec", "egress", 0, "action"), "Allow"),
]


@pytest.mark.parametrize(("intent", "dialect", "n", "path", "value"), TYPOS)
def test_a_wrong_value_is_refused_with_its_field(
    schemas: Schemas, intent: str, dialect: str, n: int, path: Path_, value: Any
) -> None:
    manifest = load(intent, dialect, n)
    known(schemas, manifest)
    assert at(manifest, path) != value
    at(manifest, path[:-1])[path[-1]] = value
    assert any(wrong.startswith(".".join(map(str, path))) for wrong in schemas.wrongs(manifest))


@pytest.mark.parametrize(
    ("intent", "dialect", "n", "path"),
    [
        ("payments-by-checkout", "linkerd", 3, ("spec", "requiredAuthenticationRefs")),
        ("payments-by-checkout", "linkerd", 0, ("spec", "podSelector")),
        ("payment-ports", "calico", 0, ("spec", "ingress", 0, "action")),
        ("payment-ports", "cilium", 0, ("metadata",)),
        ("default-deny-egress", "cluster-network-policy", 0, ("spec", "tier")),
    ],
)
def test_a_field_that_is_missing_is_refused(schemas: Schemas, intent: str, dialect: str, n: int, path: Path_) -> None:
    manifest = load(intent, dialect, n)
    known(schemas, manifest)
    del at(manifest, path[:-1])[path[-1]]
    assert [] != schemas.wrongs(manifest)


def test_a_kind_without_a_schema_fails_unless_it_is_excused(schemas: Schemas) -> None:
    manifest = {**load("shop-strict", "istio"), "kind": "PeerAuthorization"}
    known(schemas, manifest)
    with pytest.raises(KeyError, match=r"security.istio.io/v1/PeerAuthorization"):
        schemas.wrongs(manifest)


def test_nothing_is_excused_that_we_do_not_ship() -> None:
    assert set(EXCUSED) <= {kind_of(each.values[0]) for each in SHIPPED}


@pytest.mark.parametrize("path", files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_key_stands_twice(path: Path) -> None:
    documents(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text", ["a: 1\na: 1\n", "a: {b: 1, c: 2, b: 3}\n", "- {1: x, 1: y}\n", "a: 1\n---\nb: [{c: 1, c: 2}]\n"]
)
def test_a_key_that_stands_twice_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="stands twice"):
        documents(text)


def test_what_a_schema_says_of_a_mapping_decides_whether_its_keys_are_fields() -> None:
    field = {"type": "string"}
    assert strict({"properties": {"a": field}})["additionalProperties"] is False
    assert strict({"items": {"properties": {"a": field}}})["items"]["additionalProperties"] is False
    nested = strict({"additionalProperties": {"properties": {"a": field}}})
    assert nested["additionalProperties"]["additionalProperties"] is False
    assert "additionalProperties" not in strict({"type": "object"})
    assert "additionalProperties" not in strict({"properties": {"a": field}, "x-kubernetes-preserve-unknown-fields": True})
    assert {"required": ["a"]} == strict({"properties": {}, "oneOf": [{"required": ["a"]}]})["oneOf"][0]
