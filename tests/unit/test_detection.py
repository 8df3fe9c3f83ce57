# SPDX-License-Identifier: Apache-2.0
"""Which stack a cluster runs, what it says of itself, and when it is ready, by objects recorded from charts; see data/objects.

A real Cilium is asked in tests/kube.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any

import pytest
import recorded
import yaml

from ztconform import stacks
from ztconform.catalogue import FEATURES
from ztconform.kube import inventory, ready
from ztconform.kube.client import Connection
from ztconform.settings import Settings
from ztconform.stacks import composition, detect, istio
from ztconform.stacks.component import Site
from ztconform.stacks.composed import ComposedStack

V4, BOTH = recorded.node("10.244.0.0/24"), recorded.node("10.244.0.0/24", "fd00:10:244::/64")
ISTIO = ("istiod",)
AMBIENT = ("istiod", "istio-cni", "ztunnel")
GATEWAYS = ("istio-ingressgateway", "istio-egressgateway")
LINKERD = ("linkerd-control-plane", "linkerd-viz")
CILIUM_CONFIG = ("ConfigMap", "cilium-config")


def changed(there: list[recorded.Object], kind: str, name: str, **data: str) -> list[recorded.Object]:
    """Return the objects with other settings in one of them."""
    found = deepcopy(there)
    for one in found:
        if (one["kind"], one["metadata"]["name"]) == (kind, name):
            one.setdefault("data" if kind == "ConfigMap" else "spec", {}).update(data)
    return found


def without(there: list[recorded.Object], *kinds: str) -> list[recorded.Object]:
    return [one for one in there if one["kind"] not in kinds]


def stack_of(name: str) -> ComposedStack:
    found = stacks.find(name)
    assert isinstance(found, ComposedStack)
    return found


def has(names: Sequence[str], *more: recorded.Object) -> AbstractContextManager[Connection]:
    return recorded.serving([*recorded.objects(*names), *(more or (V4,))])


@pytest.mark.parametrize(
    ("names", "node", "stack"),
    [
        (("cilium",), V4, "cilium"),
        (("kindnet",), V4, "kindnet"),
        (("kindnet",), BOTH, "kindnet:dual"),
        (("calico",), V4, "calico"),
        (("calico",), BOTH, "calico:dual"),
        (("calico", *ISTIO), V4, "calico+istio"),
        (("cilium", *ISTIO), V4, "cilium+istio"),
        (("cilium", *ISTIO, *GATEWAYS), V4, "cilium+istio+gateway"),
        (("cilium", *ISTIO, GATEWAYS[0]), V4, "cilium+istio"),
        (("cilium", *AMBIENT), V4, "cilium+istio:ambient"),
        (("kindnet", *AMBIENT), V4, "kindnet+istio:ambient"),
        (("calico", *LINKERD), V4, "calico+linkerd"),
        (("cilium", "linkerd-control-plane"), V4, "cilium+linkerd"),
        (("calico", "spire"), V4, "calico+spire"),
        (("calico", *ISTIO, "spire"), V4, "calico+istio"),
        ((), V4, "custom"),
        (ISTIO, V4, "custom"),
    ],
)
def test_a_stack_is_known_by_the_workloads_of_its_components(names: Sequence[str], node: recorded.Object, stack: str) -> None:
    with has(names, node) as connection:
        assert stack == detect.of(connection).stack


@pytest.mark.parametrize(
    ("settings", "stack"),
    [
        ({"enable-wireguard": "true"}, "cilium:wireguard"),
        ({"kube-proxy-replacement": "true"}, "cilium:kpr"),
        ({"enable-ipv6": "true"}, "cilium:dual"),
        ({"enable-ipv6": "true", "enable-ipv4": "false"}, "cilium"),
        ({"enable-ipsec": "true"}, "cilium"),
    ],
)
def test_ciliums_options_are_known_by_its_settings(settings: dict[str, str], stack: str) -> None:
    there = changed(recorded.objects("cilium"), *CILIUM_CONFIG, **settings)
    with recorded.serving([*there, V4]) as connection:
        assert stack == detect.of(connection).stack


def test_calicos_encryption_is_known_by_its_felix_configuration_and_not_at_all_where_that_may_not_be_read() -> None:
    there = [*recorded.objects("calico"), V4]
    next(one for one in there if one["kind"] == "FelixConfiguration")["spec"]["wireguardEnabled"] = True
    with recorded.serving(there) as connection:
        assert "calico:wireguard" == detect.of(connection).stack
    with recorded.serving(there, lambda path: "projectcalico" in path) as connection:
        assert "calico" == detect.of(connection).stack


def test_calico_without_an_operator_is_known_too() -> None:
    there = [one for one in recorded.objects("calico") if one["kind"] in ("DaemonSet", "Deployment")]
    for one in there:
        one["metadata"]["namespace"] = "kube-system"
    with recorded.serving([*there, V4]) as connection:
        assert "calico" == detect.of(connection).stack
        assert [] == ready.missing(connection, stack_of("calico").goal(provisioned=False))


@pytest.mark.parametrize("names", [("cilium",), ("calico",), ISTIO, LINKERD, ("spire",)])
def test_what_an_uninstall_leaves_is_no_stack(names: Sequence[str]) -> None:
    left = without(recorded.objects(*names), "DaemonSet", "Deployment", "StatefulSet")
    with recorded.serving([*left, V4]) as connection:
        assert "custom" == detect.of(connection).stack


def test_a_revision_of_istio_in_another_namespace_is_known_and_its_own_settings_are_read() -> None:
    there = recorded.objects("cilium", "istiod")
    for one in there:
        if one["metadata"]["name"] in ("istiod", "istio"):
            one["metadata"] |= {"namespace": "mesh", "name": f"{one['metadata']['name']}-canary"}
            if one["kind"] == "ConfigMap":
                one["data"]["mesh"] = "trustDomain: other.example\naccessLogFile: /dev/stdout\n"
    with recorded.serving([*there, V4]) as connection:
        assert "cilium+istio" == detect.of(connection).stack
        profile = stack_of("cilium+istio").profile(connection, Settings(), "")
    assert "other.example" == profile.versions["istio trust domain"]


@pytest.mark.parametrize(
    ("stack", "names"),
    [
        ("cilium", ("cilium",)),
        ("kindnet", ("kindnet",)),
        ("calico", ("calico",)),
        ("cilium+istio", ("cilium", *ISTIO)),
        ("cilium+istio:ambient", ("cilium", *AMBIENT)),
        ("cilium+istio+gateway", ("cilium", *ISTIO, *GATEWAYS)),
        ("calico+linkerd", ("calico", *LINKERD)),
        ("calico+spire", ("calico", "spire")),
    ],
)
def test_a_stack_tells_of_itself_answers_for_every_feature_and_is_ready(stack: str, names: Sequence[str]) -> None:
    one = stack_of(stack)
    goal = one.goal(provisioned=False)
    with has(names) as connection:
        assert "" == one.absence(connection)
        one.demand(connection)
        profile = one.profile(connection, Settings(), "")
        lacks = [lack.text for lack in ready.missing(connection, goal)]
        assert isinstance(one.status(connection), str)
    assert set() == FEATURES - profile.features.keys()
    assert [f"the custom resource {crd} is not served" for crd in goal.crds] == lacks  # definitions are not recorded
    assert [] == [name for name in composition.parse(stack).parts if name not in ("gateway",) and name not in profile.versions]
    assert {"kubernetes"} <= set(profile.dialects)
    assert "unknown" not in {profile.versions[name] for name in one.stack.parts if name != "gateway"}


@pytest.mark.parametrize(
    ("stack", "names", "why"),
    [
        ("cilium+istio", ("cilium",), "it has no istio"),
        ("calico", ("cilium",), "it has no calico"),
        ("cilium:wireguard", ("cilium",), "what runs there is not wireguard"),
        ("cilium+istio:ambient", ("cilium", *ISTIO), "what runs there is not ambient"),
        ("cilium+istio+gateway", ("cilium", *ISTIO), "it has no gateway"),
    ],
)
def test_a_cluster_that_lacks_a_part_or_an_option_is_not_of_that_stack(stack: str, names: Sequence[str], why: str) -> None:
    with has(names) as connection:
        assert why == stack_of(stack).absence(connection)


def permissive(**spec: Any) -> recorded.Object:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "istio-system", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("policies", "mode", "noted"),
    [
        ([permissive(mtls={"mode": "STRICT"})], "STRICT", False),
        ([permissive(mtls={"mode": "PERMISSIVE"})], "PERMISSIVE", True),
        ([permissive(mtls={"mode": "STRICT"}, selector={"matchLabels": {"a": "b"}})], "PERMISSIVE", True),
        ([permissive()], "PERMISSIVE", True),
        ([permissive(mtls={"mode": "DISABLE"})], "DISABLE", True),
        ([], "unknown (PeerAuthentications may not be read)", False),
    ],
)
def test_istios_default_for_plaintext_is_a_finding(policies: list[recorded.Object], mode: str, noted: bool) -> None:
    with has(("cilium", *ISTIO), V4, *policies) as connection:
        profile = stack_of("cilium+istio").profile(connection, Settings(), "")
        ours = stack_of("cilium+istio").profile(connection, Settings(), "ztc-a")
    assert mode == profile.versions["istio mtls default"]
    assert noted is any("takes plaintext" in note for note in profile.notes)
    assert not any("takes plaintext" in note for note in ours.notes)  # which is how our own stacks begin


def of_waypoints(accepted: str) -> recorded.Object:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "istio-waypoint"},
        "status": {"conditions": [{"type": "Accepted", "status": accepted}]},
    }


def test_ambient_judges_requests_where_there_is_a_class_for_waypoints() -> None:
    for more, missing in (([of_waypoints("True")], ""), ([], "there is no GatewayClass istio-waypoint")):
        with has(("cilium", *AMBIENT), V4, *more) as connection:
            features = stack_of("cilium+istio:ambient").profile(connection, Settings(), "").features
        assert all(missing in features[name] for name in ("l7-authz", "identity", "waypoint"))
        assert bool(missing) == bool(features["waypoint"])


@pytest.mark.parametrize(
    ("inbound", "words"),
    [("deny", []), ("cluster-authenticated", []), ("all-unauthenticated", ["takes plaintext"]), ("audit", ["denies nothing"])],
)
def test_linkerds_inbound_default_is_a_finding(inbound: str, words: list[str]) -> None:
    there = recorded.objects("cilium", *LINKERD)
    config = next(one for one in there if one["metadata"]["name"] == "linkerd-config")
    values = yaml.safe_load(config["data"]["values"])
    values["proxy"]["defaultInboundPolicy"] = inbound
    config["data"]["values"] = yaml.safe_dump(values)
    with recorded.serving([*there, V4]) as connection:
        profile = stack_of("cilium+linkerd").profile(connection, Settings(), "")
    assert inbound == profile.versions["linkerd inbound default"]
    notes = [note for note in profile.notes if "inbound default" in note]
    assert len(words) == len(notes)
    assert all(word in note for word, note in zip(words, notes, strict=True))
    assert profile.mesh is not None
    assert (inbound == "deny") is profile.mesh.closed


@pytest.mark.parametrize(
    ("kind", "spec", "word"),
    [
        ("ClusterInformation", {"datastoreReady": False}, "datastore is locked"),
        ("FelixConfiguration", {"chainInsertMode": "Append"}, "chainInsertMode: Append"),
    ],
)
def test_a_calico_that_does_not_enforce_as_usual_is_a_finding(kind: str, spec: dict[str, Any], word: str) -> None:
    there = changed(recorded.objects("calico"), kind, "default", **spec)
    with recorded.serving([*there, V4]) as connection:
        (note,) = stack_of("calico").profile(connection, Settings(), "").notes
    assert word in note


def test_calicos_staged_policies_are_a_finding() -> None:
    staged = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "StagedNetworkPolicy",
        "metadata": {"name": "default.try", "namespace": "shop"},
        "spec": {},
    }
    with has(("calico",), V4, staged) as connection:
        (note,) = stack_of("calico").profile(connection, Settings(), "").notes
    assert "Calico has 1 staged policies, which deny nothing: default.try" == note


def lacks(stack: str, there: list[recorded.Object]) -> list[str]:
    goal = stack_of(stack).goal(provisioned=False)
    with recorded.serving(there) as connection:
        return [lack.text for lack in ready.missing(connection, goal) if "custom resource" not in lack.text]


def test_calico_is_ready_when_its_operator_says_so_of_every_part_that_is_asked_for() -> None:
    there = [*recorded.objects("calico"), V4]
    whisker = {"apiVersion": "operator.tigera.io/v1", "kind": "Whisker", "metadata": {"name": "default"}}
    assert [] == lacks("calico", there)  # no Whisker, no Goldmane, no API server was asked for, and typha is not there
    assert ["tigerastatuses/whisker: not there"] == lacks("calico", [*there, whisker])
    status = next(one for one in there if one["kind"] == "TigeraStatus")
    status["status"]["conditions"] = [{"type": "Available", "status": "False", "message": "waiting for\n nodes"}]
    assert ["tigerastatuses/calico is not Available: waiting for nodes"] == lacks("calico", there)
    status["status"]["conditions"] = []
    assert ["tigerastatuses/calico does not say yet whether it is Available"] == lacks("calico", there)


def test_calicos_encryption_is_ready_when_every_node_has_a_key() -> None:
    there = recorded.objects("calico")
    key = "projectcalico.org/WireguardPublicKey"
    assert [f"node one has no {key} yet"] == lacks("calico:wireguard", [*there, V4])
    assert [] == lacks("calico:wireguard", [*there, recorded.node("10.244.0.0/24", **{key: "abc="})])


def test_a_mesh_is_ready_when_its_webhook_is_trusted() -> None:
    webhook: recorded.Object = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "istio-sidecar-injector"},
        "webhooks": [{"name": "a", "clientConfig": {"caBundle": "YQ=="}}, {"name": "b", "clientConfig": {}}],
    }
    there = [*recorded.objects("cilium", *ISTIO), V4, webhook]
    assert ["the webhook istio-sidecar-injector has no certificate yet"] == lacks("cilium+istio", there)
    webhook["webhooks"][1]["clientConfig"]["caBundle"] = "YQ=="
    assert [] == lacks("cilium+istio", there)


def test_a_new_ambient_mesh_is_awaited_until_it_has_its_class_of_waypoints() -> None:
    site = Site(cluster="ztc", pods=("10.244.0.0/16",))
    steps = istio.COMPONENT.steps(composition.parse("cilium+istio:ambient"), Settings(run="run"), site)
    goal = next(step for step in steps if isinstance(step, ready.Goal) and step.conditions)
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gatewayclasses.gateway.networking.k8s.io"},
    }
    for more, missing in (
        ([], ["gatewayclasses/istio-waypoint: not there"]),
        ([of_waypoints("False")], ["gatewayclasses/istio-waypoint is not Accepted"]),
        ([of_waypoints("True")], []),
    ):
        with recorded.serving([crd, *more]) as connection:
            assert missing == [lack.text for lack in ready.missing(connection, goal)]


def test_a_part_that_is_not_there_is_what_is_lacking() -> None:
    assert ["deployment */istiod: not there"] == lacks("cilium+istio", [*recorded.objects("cilium"), V4])
    assert ["daemonset kube-system/kindnet: not there"] == lacks("kindnet", [V4])
    there = [one for one in recorded.objects("cilium", *AMBIENT) if one["metadata"]["name"] != "ztunnel"]
    assert ["daemonset */ztunnel: not there"] == lacks("cilium+istio:ambient", [*there, V4])


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("starting\nno such file\n\n", "no such file"),
        (
            "starting\npanic: len out of range [recovered]\n\npanic: again\ngoroutine 1\n\tcache.go:276 +0xc7\n",
            "panic: len out of range",
        ),
        ("fatal error: concurrent map writes\n\ngoroutine 7\n", "fatal error: concurrent map writes"),
        ("don't panic: all is well\nbye", "bye"),
    ],
)
def test_of_a_crash_the_line_is_told_that_says_why(log: str, line: str) -> None:
    assert inventory.of_crash(log).startswith(line)
    assert bool(line) == bool(inventory.of_crash(log))


def test_why_an_operator_is_not_available_is_told_wherever_it_says_so() -> None:
    there = recorded.objects("calico")
    status = next(one for one in there if one["kind"] == "TigeraStatus")
    degraded = {"type": "Degraded", "status": "True", "message": "Error creating resource: projectcalico.org/v3 is not served"}
    status["status"]["conditions"] = [{"type": "Available", "status": "False", "reason": "Unknown"}, degraded]
    goal = stack_of("calico").goal(provisioned=False)
    with recorded.serving([*there, V4]) as connection:
        (lack,) = ready.missing(connection, goal)
        assert "tigerastatuses/calico is not Available: Error creating resource: projectcalico.org/v3 is not served" == lack.text
        status["status"]["conditions"] = [{"type": "Available", "status": "False", "reason": "Unknown"}]
        (lack,) = ready.missing(connection, goal)
        assert "tigerastatuses/calico is not Available: Unknown" == lack.text
