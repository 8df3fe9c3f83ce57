# SPDX-License-Identifier: Apache-2.0
"""What the stacks on Kubernetes claim and why not the rest, what they install, and how a stack is known from what runs."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from ztconform import stacks
from ztconform.catalogue import FEATURES
from ztconform.errors import ClusterError, InternalError, UsageError
from ztconform.kube import inventory
from ztconform.kube.helm import Chart
from ztconform.kube.inventory import Rollout
from ztconform.settings import PodOptions, Settings
from ztconform.stacks import cilium, composed, composition, custom, detect, installing, kubernetes, networkpolicy, pins
from ztconform.stacks.component import Findings

HUBBLE = {"enable-hubble": "true"}


def of_cilium(config: Mapping[str, str]) -> Mapping[str, str]:
    return composed.features(networkpolicy.features(Settings(), "ztc-a"), [Findings(features=cilium.features(config))])


def charts_of(stack: str, settings: Settings) -> tuple[Chart, ...]:
    found = stacks.find(stack)
    assert isinstance(found, kubernetes.KubernetesStack)
    return installing.charts(found.steps(settings))


def test_every_stack_of_the_registry_is_found_by_its_own_name() -> None:
    assert ("lab", "lab+spire", *composition.LISTED, "custom") == stacks.names()
    assert list(stacks.names()) == [stacks.find(name).name for name in stacks.names()]
    assert {"lab", "lab+spire"} == {name for name in stacks.names() if not stacks.find(name).shared}


def test_the_stacks_are_listed_without_the_extras() -> None:
    program = (
        "import sys\n"
        "for name in ('kubernetes', 'pytest_kind', 'pykube', 'requests', 'tenacity', 'urllib3', 'websocket'):\n"
        "    sys.modules[name] = None\n"
        "from ztconform import stacks\n"
        "from ztconform.errors import ClusterError\n"
        "from ztconform.settings import Settings\n"
        "print([stacks.find(name).name for name in stacks.names()])\n"
        "try: stacks.find('cilium').preflight(Settings(context='a'))\n"
        "except ClusterError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "" == done.stderr
    assert [str(list(stacks.names())), "pip install 'ztconform[kind]'"] == [
        done.stdout.splitlines()[0],
        done.stdout.splitlines()[1].partition(": ")[2],
    ]


def test_a_module_of_ours_that_is_missing_is_a_bug_and_no_extra() -> None:
    with pytest.raises(ModuleNotFoundError), kubernetes.extras():
        raise ModuleNotFoundError(name="ztconform.kube.gone")
    with pytest.raises(ClusterError, match="needs the Python package pytest_kind"), kubernetes.extras():
        raise ModuleNotFoundError(name="pytest_kind")


@pytest.mark.parametrize(
    "features",
    [networkpolicy.features(Settings(), ""), networkpolicy.features(Settings(), "ztc-a"), of_cilium(HUBBLE), of_cilium({})],
)
def test_every_feature_of_the_catalogue_is_answered(features: Mapping[str, str]) -> None:
    assert set() == FEATURES - features.keys()


@pytest.mark.parametrize(
    ("settings", "kind", "reason"),
    [
        (Settings(), "ztc-a", ""),
        (Settings(outsider="ssh host"), "", ""),
        (Settings(), "", "no host outside this cluster is known: name one by --ztc-outsider"),
    ],
)
def test_an_outsider_is_there_on_kind_or_by_option(settings: Settings, kind: str, reason: str) -> None:
    features = networkpolicy.features(settings, kind)
    assert (reason, reason) == (features["outsider"], features["node-port"])


@pytest.mark.parametrize("feature", ["host-network", "packet-capture"])
def test_helpers_with_access_to_their_node_are_there_by_option_alone(feature: str) -> None:
    assert "--ztc-privileged permits" in networkpolicy.features(Settings(), "ztc-a")[feature]
    assert "" == networkpolicy.features(Settings(privileged=True), "ztc-a")[feature]


@pytest.mark.parametrize(
    ("config", "feature", "reason"),
    [
        (HUBBLE, "flow-log", ""),
        ({}, "flow-log", "Hubble is switched off"),
        ({}, "pod-ipblock", "Cilium does not match pods by ipBlock"),
        ({}, "node-ipblock", "Cilium matches no node by ipBlock"),
        ({"policy-cidr-match-mode": "nodes", "routing-mode": "native"}, "node-ipblock", ""),
        ({"policy-cidr-match-mode": "nodes", "routing-mode": "tunnel"}, "node-ipblock", "a client on a node's own network sends"),
        ({}, "l34", ""),
        ({}, "encryption", "the CNI does not encrypt what goes between nodes"),
        ({"enable-wireguard": "true"}, "encryption", "Cilium's encryption (wireguard) is not proved yet"),
        ({"enable-ipsec": "true"}, "strict-encryption", "Cilium's encryption (ipsec) is not proved yet"),
        ({}, "dual-stack", "the cluster's pods have IPv4 addresses alone"),
        ({"enable-ipv6": "true"}, "dual-stack", "IPv6 is not probed on real clusters yet"),
    ],
)
def test_what_cilium_claims_is_read_from_its_settings(config: Mapping[str, str], feature: str, reason: str) -> None:
    found = of_cilium(config)[feature]
    assert (reason == "") is (found == "")
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("image", "config", "facts"),
    [
        ("q.io/cilium:v1.19.6@sha256:ab", {}, {"cilium": "v1.19.6", "cilium encryption": "none", "cilium policy": "default"}),
        ("registry:5000/cilium@sha256:ab", {}, {"cilium": "registry:5000/cilium@sha256:ab"}),
        ("", {"enable-policy": "always"}, {"cilium": "unknown", "cilium policy": "always", "cilium policy audit mode": "off"}),
        ("", {"policy-audit-mode": "true"}, {"cilium policy audit mode": "on"}),
        ("c:v1", {"routing-mode": "tunnel", "tunnel-protocol": "geneve"}, {"cilium routing": "tunnel (geneve)"}),
        ("c:v1", {"routing-mode": "native", "enable-wireguard": "true"}, {"cilium encryption": "wireguard"}),
    ],
)
def test_ciliums_facts_are_read_from_its_image_and_settings(
    image: str, config: Mapping[str, str], facts: Mapping[str, str]
) -> None:
    versions = cilium.versions(image, config)
    assert facts == {name: versions[name] for name in facts}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, []),
        ({"policy-audit-mode": "false", "enable-policy": "default"}, []),
        ({"policy-audit-mode": "true"}, ["denies nothing"]),
        ({"enable-policy": "never"}, ["enforces no policy"]),
    ],
)
def test_a_cilium_that_does_not_enforce_is_noted(config: Mapping[str, str], words: list[str]) -> None:
    notes = cilium.notes(config)
    assert len(words) == len(notes)
    assert all(word in note for word, note in zip(words, notes, strict=True))


def test_ciliums_chart_is_the_pinned_one_unless_the_user_names_another(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").touch()
    (pinned,) = charts_of("cilium", Settings())
    assert ("https://helm.cilium.io", "1.19.6", None, ()) == (pinned.repository, pinned.version, pinned.path, pinned.files)
    mine = Settings(charts={"cilium": tmp_path}, values={"cilium": tmp_path / "v.yaml"})
    (chart,) = charts_of("cilium", mine)
    assert (tmp_path, (tmp_path / "v.yaml",)) == (chart.path, chart.files)


def test_digests_are_left_out_where_images_come_from_archives(tmp_path: Path) -> None:
    (plain,) = charts_of("cilium", Settings())
    (loaded,) = charts_of("cilium", Settings(load_images=(tmp_path,)))
    assert {"pullPolicy": "IfNotPresent"} == plain.values["image"]
    assert {"pullPolicy": "IfNotPresent", "useDigest": False} == loaded.values["image"]
    assert {"replicas": 1, "image": {"useDigest": False}} == loaded.values["operator"]
    assert plain.values.keys() | {"envoy"} == loaded.values.keys()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("./cni {cluster}", ["./cni", "ztc-a"]),
        ("run --name='{cluster} x' $HOME ; rm", ["run", "--name=ztc-a x", "$HOME", ";", "rm"]),
        ("install", ["install"]),
    ],
)
def test_a_cni_command_is_split_and_given_the_clusters_name_by_no_shell(text: str, words: list[str]) -> None:
    assert words == custom.argv(text, "ztc-a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the stack custom needs --ztc-cni-command 'CMD {cluster}', which installs a CNI, or --ztc-context"),
        ("  ", "the stack custom needs --ztc-cni-command"),
        ("a 'b", "--ztc-cni-command: no closing quotation"),
    ],
)
def test_without_a_cni_command_that_can_be_run_there_is_no_custom_stack(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        custom.STACK.check(Settings(cni_command=text))
    assert said in str(caught.value)


def daemon_set(namespace: str, name: str, image: str) -> Rollout:
    return Rollout(kind="daemonset", namespace=namespace, name=name, wanted=1, ready=1, images=(image,), selector="")


@pytest.mark.parametrize(
    ("found", "evidence"),
    [
        (daemon_set("calico-system", "calico-node", "c:v3"), "Calico: daemonset calico-system/calico-node (c:v3)"),
        (daemon_set("kube-system", "kindnet", "kindnetd:v1"), "kindnet: daemonset kube-system/kindnet (kindnetd:v1)"),
        (daemon_set("kube-system", "kube-proxy", "kube-proxy:v1"), "no daemonset of a known CNI"),
    ],
)
def test_a_cni_that_no_stack_stands_for_is_named(found: Rollout, evidence: str) -> None:
    assert evidence == detect.cni_among([daemon_set("kube-system", "kube-proxy", "p"), found])


def test_pinned_images_are_taken_where_the_user_names_none_and_from_the_mirror_that_is_named() -> None:
    known = pins.load()
    plain = kubernetes.settled(Settings())
    assert (known.node, known.agent) == (plain.kind_image, plain.pods.agent_image)
    mirror = kubernetes.settled(Settings(pods=PodOptions(image_registry="mirror.example:5000/hub/")))
    assert mirror.pods.agent_image == f"mirror.example:5000/hub/{known.agent.removeprefix('docker.io/')}"
    own = Settings(kind_image="n:1", pods=PodOptions(agent_image="a:1", image_registry="m"))
    assert own == kubernetes.settled(own)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("docker.io/library/python:3.13.5-slim-bookworm", "docker.io/library/python:latest"),
        ("docker.io/library/python:3.13.5-slim-bookworm", "docker.io/library/python"),
        ("docker.io/library/python:3.13.5-slim-bookworm", "python:3.13"),
        ('version = "1.19.6"\n', ""),
        ("[images]", "[image]"),
        ('node = "', "node = "),
    ],
)
def test_a_pin_that_pins_nothing_is_a_fault_of_ours(old: str, new: str) -> None:
    text = Path(pins.__file__).with_name("pins.toml").read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(InternalError, match=r"^pins.toml: .*please report this$"):
        pins.parse(text.replace(old, new))


def fetched(kind: str, text: str) -> Any:
    """Return what the API client makes of an object."""

    class Answer:
        data = yaml.safe_load(text)

    api = client.ApiClient()
    return api._ApiClient__deserialize(Answer.data, kind)


DAEMON_SET = """
metadata: {namespace: kube-system, name: cilium, generation: 2}
spec: {selector: {matchLabels: {k8s-app: cilium}}, template: {spec: {containers: [{name: a, image: 'c:v1'}]}}}
status:
  {observedGeneration: %d, desiredNumberScheduled: %d, numberReady: %d, updatedNumberScheduled: %d,
   currentNumberScheduled: 3, numberMisscheduled: 0}
"""


@pytest.mark.parametrize(
    ("observed", "wanted", "ready", "updated", "done"),
    [
        (2, 3, 3, 3, True),
        (1, 3, 3, 3, False),  # the controller has not seen the newest template yet
        (2, 3, 2, 3, False),
        (2, 3, 3, 2, False),  # one pod is of the template before
        (2, 0, 0, 0, False),  # selects no node: nothing runs
    ],
)
def test_a_rollout_is_done_when_every_wanted_pod_of_the_newest_template_is_ready(
    observed: int, wanted: int, ready: int, updated: int, done: bool
) -> None:
    found = inventory.rollout_of("daemonset", fetched("V1DaemonSet", DAEMON_SET % (observed, wanted, ready, updated)))
    assert done is found.done
    assert ("k8s-app=cilium", ("c:v1",)) == (found.selector, found.images)


POD = """
metadata: {namespace: kube-system, name: cilium-x}
spec: {containers: []}
status:
  conditions: [{type: PodScheduled, status: '%s', reason: Unschedulable, message: no memory}]
  containerStatuses:
  - {name: a, image: 'c:v1', imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: %s, message: said}}}
"""


@pytest.mark.parametrize(
    ("scheduled", "reason", "said"),
    [
        ("True", "ContainerCreating", []),
        ("True", "PodInitializing", []),
        ("True", "ImagePullBackOff", ["pod kube-system/cilium-x: the image c:v1 cannot be pulled"]),
        ("True", "CrashLoopBackOff", ["pod kube-system/cilium-x: CrashLoopBackOff (said)"]),
        ("False", "ContainerCreating", ["pod kube-system/cilium-x: Unschedulable (no memory)"]),
    ],
)
def test_what_keeps_a_pod_from_running_is_told(scheduled: str, reason: str, said: list[str]) -> None:
    assert said == [str(trouble) for trouble in inventory.troubles_of(fetched("V1Pod", POD % (scheduled, reason)))]


@pytest.mark.parametrize(
    ("image", "tag"),
    [("a/b:v1", "v1"), ("r:5000/a/b:v1@sha256:1", "v1"), ("r:5000/a/b", ""), ("a@sha256:1", "")],
)
def test_the_tag_of_an_image_is_no_port_and_no_digest(image: str, tag: str) -> None:
    assert tag == inventory.tag(image)
