# SPDX-License-Identifier: Apache-2.0
"""What components make themselves: keys, definitions, signatures, what a kernel is asked; and how features are joined."""

import base64
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ztconform import stacks
from ztconform.errors import ClusterError, UsageError
from ztconform.evidence import Signature
from ztconform.kube.docker import Docker
from ztconform.kube.helm import Chart
from ztconform.lab import linktrial
from ztconform.settings import Settings
from ztconform.stacks import (
    calico,
    charts,
    composed,
    gatewayapi,
    images,
    installing,
    interplay,
    kernel,
    linkerdkeys,
    meshsignatures,
    pins,
    spire,
)
from ztconform.stacks.component import Findings, Objects
from ztconform.stacks.kubernetes import KubernetesStack

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)


def test_linkerds_issuer_is_an_intermediate_that_its_anchor_signed_and_may_sign_leaves_alone() -> None:
    anchor_pem, issuer_pem, key = linkerdkeys.issue(NOW)
    anchor, issuer = x509.load_pem_x509_certificate(anchor_pem), x509.load_pem_x509_certificate(issuer_pem)
    issuer.verify_directly_issued_by(anchor)
    anchor.verify_directly_issued_by(anchor)
    assert ["CN=root.linkerd.cluster.local", "CN=identity.linkerd.cluster.local"] == [
        one.subject.rfc4514_string() for one in (anchor, issuer)
    ]
    constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (True, 0) == (constraints.ca, constraints.path_length)
    public = issuer.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert "secp256r1" == public.curve.name  # Linkerd takes ECDSA alone
    assert key.startswith(b"-----BEGIN EC PRIVATE KEY-----")
    assert issuer.not_valid_before_utc < NOW < issuer.not_valid_after_utc <= anchor.not_valid_after_utc


def test_linkerds_keys_are_other_ones_each_time_and_are_never_told_to_a_kept_cluster() -> None:
    first, second = linkerdkeys.make(), linkerdkeys.make()
    assert first[2]["data"]["tls.key"] != second[2]["data"]["tls.key"]
    assert ["Namespace", "ConfigMap", "Secret"] == [one["kind"] for one in first]
    assert {"ca.crt", "tls.crt", "tls.key"} == set(first[2]["data"])
    assert first[1]["data"]["ca-bundle.crt"] == base64.b64decode(first[2]["data"]["ca.crt"]).decode()
    (objects,) = [one for one in installing.objects(steps("cilium+linkerd", Settings())) if one.component == "linkerd"]
    assert (True, "") == (objects.once, objects.mark)


def steps(name: str, settings: Settings) -> Any:
    found = stacks.find(name)
    assert isinstance(found, KubernetesStack)
    return found.steps(settings)


def test_sidecars_and_linkerd_ask_for_no_definitions_of_gateway_api_and_waypoints_do(tmp_path: Path) -> None:
    def asked(name: str, settings: Settings) -> list[str]:
        return [one.component for one in installing.objects(steps(name, settings)) if one.component == gatewayapi.KEY]

    given = Settings(charts={gatewayapi.KEY: tmp_path})
    assert [[], [], [gatewayapi.KEY]] == [
        asked(name, Settings()) for name in ("cilium+istio", "cilium+linkerd", "cilium+istio:ambient")
    ]
    assert [[gatewayapi.KEY]] * 2 == [asked(name, given) for name in ("cilium+istio", "cilium+linkerd")]


def test_sidecars_need_no_istio_cni() -> None:
    assert ["istio-base", "istiod"] == [c.component for c in installing.charts(steps("kindnet+istio", Settings()))]


CRD = "kind: CustomResourceDefinition\nmetadata: {name: a}\n"


def test_definitions_are_read_from_a_file_or_a_folder_and_nothing_else_is_applied(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{CRD}---\nkind: Kustomization\n---\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("kind: ValidatingAdmissionPolicy\nmetadata: {name: b}\n", encoding="utf-8")
    assert ["a", "b"] == [one["metadata"]["name"] for one in gatewayapi.read(tmp_path)]
    assert ["a"] == [one["metadata"]["name"] for one in gatewayapi.read(tmp_path / "a.yaml")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Pod\nmetadata: {name: a}\n", "no custom resource definition in it"),
        ("a: [", "is not YAML"),
        ("", "no custom resource"),
    ],
)
def test_a_file_without_definitions_is_a_usage_error_before_anything_is_created(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    (objects,) = installing.objects(steps("cilium+istio", Settings(charts={gatewayapi.KEY: path})))
    with pytest.raises(UsageError, match=said) as caught:
        objects.check()
    assert "\n" not in str(caught.value)


def test_definitions_that_cannot_be_had_name_the_options_that_help() -> None:
    settings = Settings(chart_repositories={gatewayapi.KEY: "http://127.0.0.1:9/{version}/x.yaml"})
    (objects,) = [one for one in installing.objects(steps("kindnet+istio:ambient", settings)) if one.component == gatewayapi.KEY]
    with pytest.raises(ClusterError, match=r"^http://127.0.0.1:9/v1.5.1/x.yaml cannot be had .*--ztc-chart gateway-api=PATH"):
        objects.check()


HERE = Docker(version="28", cgroup=2, memory=1, kernel=__import__("platform").release())


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_the_kernel_is_asked_by_making_a_link_and_says_why_it_cannot() -> None:
    assert (False, "") == linktrial.try_link("veth")
    assert "a link of the type veth can be made" == kernel.demand(kernel.Kernel(what="veth", link="veth", cure=""), HERE)
    refused = linktrial.try_link("ztc-none")
    assert refused.refused
    assert "Operation not supported" in refused.why
    with pytest.raises(ClusterError) as caught:
        kernel.demand(kernel.Kernel(what="Nothing", link="ztc-none", cure="take another"), HERE)
    assert f"this machine's kernel ({HERE.kernel}) has no Nothing (" in str(caught.value)
    assert str(caught.value).endswith("): take another")
    assert "\n" not in str(caught.value)


def test_of_another_machines_kernel_nothing_is_known() -> None:
    there = Docker(version="28", cgroup=2, memory=1, kernel="0.1-other")
    assert "not known: Docker runs on another kernel (0.1-other)" == kernel.demand(kernel.WIREGUARD, there)


def test_what_a_component_adds_a_later_one_does_not_take_away() -> None:
    base = {"l34": "", "mtls": "no mesh", "pod-ipblock": ""}
    told = [
        Findings(features={"pod-ipblock": "not with this CNI"}),
        Findings(features={"mtls": ""}),
        Findings(features={"mtls": "not with this one"}),
    ]
    assert {"l34": "", "mtls": "", "pod-ipblock": "not with this CNI"} == composed.features(base, told)


@pytest.mark.parametrize("some", [meshsignatures.AMBIENT, meshsignatures.LINKERD])
def test_no_mesh_is_believed_without_a_cause(some: tuple[Signature, ...]) -> None:
    assert {True} == {signature.caused for signature in some}
    assert {"l34", "mtls", "l7"} == {signature.layer for signature in some}


@pytest.mark.parametrize(
    ("name", "told", "preferred"),
    [
        ("cilium+istio", [("kubernetes", "cilium"), ("istio",)], ["kubernetes", "istio", "cilium"]),
        ("cilium", [("kubernetes", "cilium")], ["kubernetes", "cilium"]),
        ("calico+linkerd", [("kubernetes", "calico"), ("linkerd",)], ["kubernetes", "linkerd", "calico"]),
    ],
)
def test_what_is_laid_over_a_cni_speaks_before_the_cnis_own_dialect(
    name: str, told: list[tuple[str, ...]], preferred: list[str]
) -> None:
    stack = stacks.find(name)
    assert isinstance(stack, composed.ComposedStack)
    assert preferred == list(dict.fromkeys(composed.dialects(stack.parts, [Findings(dialects=one) for one in told])))


def test_interplay_leaves_a_cni_without_a_mesh_alone() -> None:
    assert {} == interplay.values("cilium", stacks.composition.parse("cilium:dual"))
    assert {} != interplay.values("cilium", stacks.composition.parse("cilium+linkerd"))
    assert () == interplay.steps(stacks.composition.parse("cilium+istio"))
    assert () == interplay.steps(stacks.composition.parse("calico+istio:ambient"))
    (probes,) = interplay.steps(stacks.composition.parse("cilium+istio:ambient"))
    assert isinstance(probes, Objects)
    assert [{"fromCIDR": ["169.254.7.127/32"]}] == probes.make()[0]["spec"]["ingress"]
    assert {"egress": False, "ingress": False} == probes.make()[0]["spec"]["enableDefaultDeny"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(charts={"istio": Path("a")}), "--ztc-chart istio=a: no stack installs that; there is: calico, calico-crds"),
        (Settings(values={"gateway-api": Path("a")}), "--ztc-values gateway-api=a: no stack installs that"),
        (Settings(chart_versions={"x": "1"}), "--ztc-chart-version x=1: no stack"),
        (
            Settings(charts={"istiod": Path("a")}, chart_versions={"istiod": "1.2.3"}),
            "--ztc-chart-version istiod=1.2.3: --ztc-chart says already where that chart is",
        ),
    ],
)
def test_an_option_about_a_chart_that_no_stack_has_is_refused_and_one_of_another_stack_is_not(
    settings: Settings, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        charts.check(settings)
    assert str(caught.value).startswith(said)
    charts.check(Settings(charts={"cilium": Path("a")}))


def test_version_and_repository_of_a_chart_are_replaced_one_by_one() -> None:
    settings = Settings(chart_versions={"istiod": "1.31.0"}, chart_repositories={"istiod": "oci://mirror.example/charts"})
    found = {chart.component: chart for chart in installing.charts(steps("kindnet+istio", settings))}
    assert ["oci://mirror.example/charts/istiod", "--version", "1.31.0"] == list(found["istiod"].source)
    assert ["base", "--repo", "https://blob.istio.io/istio-release/charts", "--version", "1.30.3"] == list(
        found["istio-base"].source
    )


@pytest.mark.parametrize(("ttl", "text"), [(None, "600s"), (120.0, "120s")])
def test_svids_of_our_own_stacks_live_for_minutes_or_as_the_user_says(ttl: float | None, text: str) -> None:
    def values(name: str, key: str) -> Chart:
        return next(one for one in installing.charts(steps(name, Settings(svid_ttl=ttl))) if one.component == key)

    assert text == values("cilium+istio", "istiod").values["meshConfig"]["defaultConfig"]["proxyMetadata"]["SECRET_TTL"]
    assert text == values("cilium+istio:ambient", "ztunnel").values["env"]["SECRET_TTL"]
    assert text == values("cilium+linkerd", "linkerd-control-plane").values["identity"]["issuer"]["issuanceLifetime"]
    assert text == values("calico+spire", "spire").values["spire-server"]["defaultX509SvidTTL"]


@pytest.mark.parametrize(
    ("conf", "domain"),
    [
        ('{"server": {"trust_domain": "a.example"}}', "a.example"),
        ("", "unknown"),
        ('{"server": []}', "unknown"),
        ("[]", "unknown"),
    ],
)
def test_spires_trust_domain_is_read_from_its_server(conf: str, domain: str) -> None:
    assert domain == spire.trust_domain({"server.conf": conf})


def test_a_stacks_images_are_the_nodes_our_pods_and_each_chart_s_once() -> None:
    found = images.of(stacks.find("cilium+istio+gateway"), Settings())  # type: ignore[arg-type]  # on kind
    known = pins.load()
    assert (known.node, known.agent) == found[:2]
    assert sorted([*known.charts["cilium"].images, "docker.io/istio/pilot:1.30.3", "docker.io/istio/proxyv2:1.30.3"]) == sorted(
        found[2:]
    )
    assert len(set(found)) == len(found)


def test_what_an_injector_pulls_is_of_the_version_that_the_user_chose(tmp_path: Path) -> None:
    program = tmp_path / "helm"
    program.write_text("#!/bin/sh\n[ $1 = version ] && echo v4.0.0\nexit 0\n", encoding="utf-8")  # renders nothing
    program.chmod(0o755)
    settings = Settings(helm_bin=str(program), chart_versions={"istiod": "1.31.0"})
    found = images.of(stacks.find("kindnet+istio"), settings)  # type: ignore[arg-type]  # on kind
    assert ("docker.io/istio/proxyv2:1.31.0",) == found[2:]


@pytest.mark.parametrize(
    ("theirs", "asked"),
    [
        ({}, {"Goldmane": {}, "Whisker": {}}),
        ({"whisker": {"enabled": False}}, {"Goldmane": {}}),
        ({"goldmane": {"enabled": False}, "whisker": {"enabled": False}}, {}),
        ({"whisker": {"enabled": True, "notifications": "Disabled"}}, {"Goldmane": {}, "Whisker": {"notifications": "Disabled"}}),
        ({"goldmane": None}, {"Goldmane": {}, "Whisker": {}}),
    ],
)
def test_calicos_flow_log_is_asked_for_as_the_users_values_want_it(theirs: dict[str, Any], asked: dict[str, Any]) -> None:
    assert asked == {manifest["kind"]: manifest["spec"] for manifest in calico.flow_log(theirs)}
