# SPDX-License-Identifier: Apache-2.0
"""Wherever a dialect names a namespace, its manifests name the one in the cluster; the same word anywhere else is left alone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ztconform import resources
from ztconform.kube import renaming
from ztconform.kube.names import Names, private

CALICO, CILIUM, ISTIO = "projectcalico.org/v3", "cilium.io/v2", "security.istio.io/v1"
LINKERD, CLUSTER = "policy.linkerd.io/v1alpha1", "policy.networking.k8s.io/v1alpha2"
NAMES = private({"shop": {}, "shop-twin": {}}, "1a2b3c-0")
SHOP, TWIN = "shop-1a2b3c-0", "shop-twin-1a2b3c-0"


def files() -> list[Path]:
    return sorted((resources.folder("manifests") / "policies").glob("*/*.yaml"))


def manifests() -> list[Any]:
    return [
        pytest.param(document, id=f"{path.parent.name}/{path.stem}-{n}")
        for path in files()
        for n, document in enumerate(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    ]


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of a manifest, keys included, with its path."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield path, str(key)
            yield from texts(below, f"{path}.{key}")
    elif isinstance(value, list):
        for below in value:
            yield from texts(below, path)
    elif isinstance(value, str):
        yield path, value


@pytest.mark.parametrize("manifest", manifests())
def test_a_manifest_of_ours_says_shop_nowhere_any_more_but_in_a_longer_name(manifest: dict[str, Any]) -> None:
    renamed = NAMES.manifest(manifest)
    # A workload's address is filled in before: there is no placeholder left when names are.
    left = [(path, re.sub(r"\$\{[^}]*\}", "", text)) for path, text in texts(renamed)]
    assert [] == [(path, text) for path, text in left if re.search(r"(?<![\w-])shop(-twin)?(?![\w-])", text)]
    assert [(path, text) for path, text in texts(manifest) if re.search(r"(?<![\w-])shop(?![\w-])", text)], "it said so before"


@pytest.mark.parametrize("manifest", manifests())
def test_an_object_has_a_namespace_or_a_name_that_no_other_run_has(manifest: dict[str, Any]) -> None:
    metadata = NAMES.manifest(manifest)["metadata"]
    assert metadata.get("namespace") == SHOP or metadata["name"].endswith("-1a2b3c-0")


@pytest.mark.parametrize("manifest", [each for each in manifests() if "namespace" not in each.values[0]["metadata"]])
def test_an_object_of_the_whole_cluster_selects_pods_of_one_namespace_by_its_name(manifest: dict[str, Any]) -> None:
    subject = NAMES.manifest(manifest)["spec"]["subject"]
    namespaces = subject.get("namespaces") or subject["pods"]["namespaceSelector"]
    assert {"matchLabels": {"kubernetes.io/metadata.name": SHOP}} == namespaces


# A manifest's spec in which "@shop" and "@shop-twin" are the namespaces; the same words without "@" are anything else.
PLACES = [
    (CILIUM, "fromEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': '@shop', 'k8s:app': shop}}]"),
    (
        CILIUM,
        "endpointSelector: {matchLabels: {io.kubernetes.pod.namespace: '@shop-twin', 'any:io.kubernetes.pod.namespace': x}}",
    ),
    (CILIUM, "matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: In, values: ['@shop', kube-system]}]"),
    (CILIUM, "matchLabels: {'k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name': '@shop'}"),
    (CILIUM, "matchLabels: {'k8s:io.cilium.k8s.namespace.labels.team': shop, namespace: shop}"),
    (CILIUM, "matchExpressions: [{key: team, operator: In, values: [shop]}]"),
    (CILIUM, "toServices: [{k8sService: {serviceName: shop, namespace: '@shop'}}]"),
    (CILIUM, "toFQDNs: [{matchName: world.@shop.svc.cluster.local}, {matchPattern: '*.@shop-twin.svc.cluster.local'}]"),
    (CILIUM, "dns: [{matchName: shop.example.com}, {matchName: www.shop.svcs}, {matchPattern: '*.*.svc.cluster.local'}]"),
    (CALICO, "namespaceSelector: projectcalico.org/name == '@shop' && team == 'shop'"),
    (CALICO, """namespaceSelector: kubernetes.io/metadata.name in {"@shop", "kube-system", '@shop-twin'} || !has(shop)"""),
    (CALICO, "selector: projectcalico.org/namespace not in {'@shop'} && app!='shop'"),
    (CALICO, "notSelector: \"projectcalico.org/name!='@shop'\""),
    (CALICO, """selector: note == "projectcalico.org/name == 'shop'" && projectcalico.org/name contains 'shop'"""),
    (CALICO, "source: {services: {name: shop, namespace: '@shop'}, serviceAccounts: {names: [shop], selector: app == 'shop'}}"),
    (ISTIO, "source: {principals: [cluster.local/ns/@shop/sa/shop, '*/ns/@shop-twin/sa/x', 'cluster.local/ns/shop*', '*']}"),
    (ISTIO, "source: {namespaces: ['@shop', kube-system], notNamespaces: ['@shop-twin'], notPrincipals: [td/ns/@shop/sa/a]}"),
    (ISTIO, "source: {serviceAccounts: ['@shop/audit.reader', shop], notServiceAccounts: ['@shop-twin/shop']}"),
    (ISTIO, "operation: {hosts: [payment.@shop.svc.cluster.local, shop], paths: [/ns/shop/sa, /shop], methods: [shop]}"),
    (ISTIO, "when: [{key: source.namespace, values: ['@shop'], notValues: ['@shop-twin']}]"),
    (ISTIO, "when: [{key: source.principal, values: [td/ns/@shop/sa/a]}, {key: 'request.headers[x]', values: [shop]}]"),
    (ISTIO, "targetRefs: [{kind: Gateway, name: shop, namespace: '@shop'}]"),
    (ISTIO, "selector: {matchLabels: {hosts: a.shop.svc, namespace: shop}}"),
    (
        LINKERD,
        "identities: [checkout.@shop.serviceaccount.identity.linkerd.cluster.local, '*.@shop-twin.serviceaccount.identity.x']",
    ),
    (LINKERD, "targetRef: {kind: Namespace, name: '@shop'}"),
    (LINKERD, "requiredAuthenticationRefs: [{kind: ServiceAccount, name: shop, namespace: '@shop'}]"),
    (LINKERD, "identityRefs: [{kind: ServiceAccount, name: shop}, {kind: Namespace, name: '@shop-twin'}]"),
    (LINKERD, "parentRefs: [{kind: Server, name: shop, namespace: '@shop'}]"),
    (CLUSTER, "subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: '@shop', team: shop}}}"),
    (CLUSTER, "{to: [{domainNames: [world.@shop.svc.cluster.local, shop.io]}], name: shop}"),
]


@pytest.mark.parametrize(("version", "text"), PLACES)
def test_a_namespace_is_renamed_wherever_the_dialect_names_one_and_nowhere_else(version: str, text: str) -> None:
    said = yaml.safe_load(text.replace("@", ""))
    real = yaml.safe_load(text.replace("@shop-twin", TWIN).replace("@shop", SHOP))
    manifest = {"apiVersion": version, "kind": "AnyKind", "metadata": {"name": "shop", "namespace": "shop"}, "spec": said}
    assert {**manifest, "metadata": {"name": "shop", "namespace": SHOP}, "spec": real} == NAMES.manifest(manifest)


@pytest.mark.parametrize("version", ["networking.k8s.io/v1", "v1", "example.org/v1"])
def test_the_words_of_one_dialect_mean_nothing_in_another(version: str) -> None:
    spec = {name: ["shop", "cluster.local/ns/shop/sa/a"] for fields in renaming._FIELDS.values() for name in fields}
    manifest = {"apiVersion": version, "kind": "AnyKind", "metadata": {"name": "a"}, "spec": spec}
    assert manifest == NAMES.manifest(manifest)


def test_the_selector_of_a_service_is_no_namespace() -> None:
    spec = {"selector": {"app": "shop", "namespace": "shop"}, "ports": [{"name": "shop"}]}
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": "shop"}, "spec": spec}
    assert {**manifest, "metadata": {"name": "shop", "namespace": SHOP}} == NAMES.manifest(manifest)


@pytest.mark.parametrize(("group", "kind"), sorted(renaming.CLUSTER_SCOPED))
def test_what_belongs_to_no_namespace_has_a_name_of_its_own_in_each_run_and_is_known_by_its_own_again(
    group: str, kind: str
) -> None:
    manifest = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": "no-legacy"}, "spec": {}}
    assert "no-legacy-1a2b3c-0" == NAMES.manifest(manifest)["metadata"]["name"]
    assert "no-legacy" == NAMES.policy("no-legacy-1a2b3c-0")
    assert manifest == Names().manifest(manifest)  # a case file's names are literal
    assert "no-legacy" == Names().policy("no-legacy")


def test_a_policy_of_a_namespace_is_known_by_the_name_that_the_case_gives_it() -> None:
    assert "shop/no-legacy" == NAMES.policy(f"{SHOP}/no-legacy")
    assert "kube-system/no-legacy" == NAMES.policy("kube-system/no-legacy")
    assert "somebody-elses" == NAMES.policy("somebody-elses")


GROUPS = [CALICO, CILIUM, ISTIO, LINKERD, CLUSTER, "networking.k8s.io/v1", "v1"]
KEYS = st.sampled_from([*renaming.LABELS, *(f for fields in renaming._FIELDS.values() for f in fields), "key", "values", "kind"])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.integers()
    | st.text()
    | st.sampled_from(["Namespace", "source.principal", "a.b.svc.c", "td/ns/a/sa/b", "a == 'b'"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), below, max_size=4),
    max_leaves=12,
)


@given(version=st.sampled_from(GROUPS), spec=JSON)
def test_any_manifest_can_be_renamed_and_without_new_names_stays_as_it_is(version: str, spec: Any) -> None:
    manifest = {"apiVersion": version, "kind": "AnyKind", "metadata": {"name": "a", "namespace": "b"}, "spec": spec}
    assert manifest == Names().manifest(manifest)
    assert {**manifest, "metadata": {"name": "a", "namespace": "b"}} == private({"nowhere-else": {}}, "x").manifest(manifest)
