# SPDX-License-Identifier: Apache-2.0
"""What Istio's mesh means for our objects, by its own settings; a pod without its proxy is an error, and never a finding."""

import json
import re
from typing import Any

import pytest

from ztconform.errors import ClusterError, UsageError
from ztconform.kube import inventory, meshpods, objects
from ztconform.kube.labels import Labels
from ztconform.kube.making import Maker, Surroundings
from ztconform.kube.names import Names
from ztconform.kube.nodes import Nodes
from ztconform.kube.profile import SVID_FOLDER, SVID_VOLUME, Area
from ztconform.model import Port, Ref, Topology, Workload
from ztconform.settings import PodOptions, Settings
from ztconform.stacks import composition, istio, istiomesh, waypoint

MESH = istiomesh.mesh(istiomesh.MESH_CONFIG)
LABELS = Labels("ztconform.io", "run")
HTTP = Port(number=8080, name="http", service=80)
ATTACKER = Workload(ref=Ref("shop", "attacker"), ports=(HTTP,), service_account="attacker", meshed=True)


def pod(workload: Workload) -> dict[str, Any]:
    made = objects.pod(Ref("shop-1", "attacker-0"), Ref("shop", "attacker-0"), workload, "n", LABELS, PodOptions(), serves=True)
    return meshpods.fitted(made, workload, MESH, objects.past_serving("shop/attacker-0/past"))


def attacker(*shown: str) -> dict[str, Any]:
    return pod(Workload(ref=ATTACKER.ref, ports=ATTACKER.ports, meshed=True, past_proxy=shown))


def test_a_meshed_pod_asks_for_its_proxy_and_a_bare_one_for_none() -> None:
    bare = pod(Workload(ref=ATTACKER.ref))
    assert ("true", "false") == tuple(p["metadata"]["labels"]["sidecar.istio.io/inject"] for p in (pod(ATTACKER), bare))
    assert 1 == len(bare["spec"]["containers"])


def test_only_a_pod_whose_probes_pass_its_proxy_has_a_container_that_is_not_captured() -> None:
    assert ["agent"] == [c["name"] for c in pod(ATTACKER)["spec"]["containers"]]
    agent, past = attacker("")["spec"]["containers"]
    assert istiomesh.PROXY_UID == past["securityContext"]["runAsUser"]
    assert "runAsUser" not in agent["securityContext"]
    assert {"drop": ["ALL"]} == past["securityContext"]["capabilities"]
    assert not past["ports"]


def test_an_svid_lies_in_the_pod_only_where_a_probe_shows_it() -> None:
    assert SVID_VOLUME not in json.dumps(attacker("", "none", "foreign-ca"))
    made = attacker("own")
    mounted = [c["name"] for c in made["spec"]["containers"] if SVID_FOLDER in json.dumps(c["volumeMounts"])]
    assert ["past"] == mounted
    config = json.loads(made["metadata"]["annotations"]["proxy.istio.io/config"])
    assert {"OUTPUT_CERTS": SVID_FOLDER} == config["proxyMetadata"]


def test_a_certificate_lives_briefly_only_where_an_expired_one_is_shown() -> None:
    config = json.loads(attacker("expired", "own")["metadata"]["annotations"]["proxy.istio.io/config"])
    assert f"{meshpods.BRIEF}s" == config["proxyMetadata"]["SECRET_TTL"]


def test_another_accounts_certificate_is_held_by_a_pod_that_runs_under_it() -> None:
    shown = Workload(ref=ATTACKER.ref, labels={"app": "attacker"}, meshed=True, past_proxy=("", "own", "shop/checkout", "twin/x"))
    held = [(t.ref.namespace, t.service_account, dict(t.labels), t.past_proxy) for t in meshpods.stolen(shown)]
    assert [("shop", "checkout", {"app": "attacker"}, ("own",)), ("twin", "x", {"app": "attacker"}, ("own",))] == held


def test_ports_say_what_they_speak_and_the_headless_service_hides_those_in_no_service() -> None:
    ports = (
        HTTP,
        Port(number=9091, name="grpc", app="grpc", service=9091),
        Port(number=7000, name="ledger", app="tcp", service=7000),
        Port(number=7001, name="events", protocol="UDP", app="udp", service=7001),
        Port(number=9191, name="debug"),
    )
    workload = Workload(ref=ATTACKER.ref, ports=ports, meshed=True)
    _, headless = (meshpods.spoken(s, workload, MESH) for s in objects.services(workload, "shop-1", LABELS))
    said = {p["name"]: p.get("appProtocol") for p in headless["spec"]["ports"]}
    assert {"http": "http", "grpc": "grpc", "ledger": "tcp", "events": None} == said


def test_clients_give_up_in_time_and_pool_no_connections() -> None:
    rule = MESH.objects(Area(namespace="shop-1", domain="cluster.local"))[0]
    assert "*.shop-1.svc.cluster.local" == rule["spec"]["host"]
    pool = rule["spec"]["trafficPolicy"]["connectionPool"]
    assert ("1s", 1) == (pool["tcp"]["connectTimeout"], pool["http"]["maxRequestsPerConnection"])


def test_an_impostors_service_is_declared_to_be_the_account_that_it_claims() -> None:
    impostor = Workload(ref=Ref("shop", "impostor"), service_account="payment", svid_account="impostor", meshed=True)
    area = meshpods.area("shop", "shop-1", "cluster.local", [impostor, ATTACKER], MESH)
    rules = {r["spec"]["host"]: r["spec"]["trafficPolicy"].get("tls") for r in MESH.objects(area)}
    pinned = {"mode": "ISTIO_MUTUAL", "subjectAltNames": ["spiffe://cluster.local/ns/shop-1/sa/payment"]}
    assert pinned == rules["impostor.shop-1.svc.cluster.local"]
    assert rules["*.shop-1.svc.cluster.local"] is None


def found(*containers: str, key: str = "initContainers") -> dict[str, Any]:
    metadata = {"namespace": "shop-1", "name": "attacker-0"}
    return {"metadata": metadata, "spec": {"containers": [{"name": "agent"}], key: [{"name": c} for c in containers]}}


@pytest.mark.parametrize("key", ["containers", "initContainers"])
def test_a_meshed_pod_without_its_proxy_is_an_error(key: str) -> None:
    meshpods.demand_injection(found("istio-proxy", key=key), ATTACKER, MESH)
    with pytest.raises(ClusterError, match="was not given its proxy, the container istio-proxy"):
        meshpods.demand_injection(found("istio-init", key=key), ATTACKER, MESH)


def test_a_bare_pod_with_a_proxy_is_an_error() -> None:
    meshpods.demand_injection(found(), Workload(ref=ATTACKER.ref), MESH)
    with pytest.raises(ClusterError, match="although it is labelled to have none"):
        meshpods.demand_injection(found("istio-proxy"), Workload(ref=ATTACKER.ref), MESH)


def test_the_namespace_admits_istio_init_unless_the_cni_plugin_does_its_work() -> None:
    levels = [istiomesh.mesh({}, cni=cni).pod_security for cni in (False, True)]
    assert ["privileged", "restricted"] == levels
    assert any("CNI plugin" in note for note in istiomesh.notes(istiomesh.mesh({})))
    assert () == istiomesh.notes(istiomesh.mesh({}, cni=True))


def test_a_revision_injects_by_its_own_label() -> None:
    labels = [dict(istiomesh.mesh({}, revision=revision).namespace_labels) for revision in ("", "canary")]
    assert [{"istio-injection": "enabled"}, {"istio.io/rev": "canary"}] == labels


def test_a_mesh_without_an_access_log_is_given_one_in_our_namespaces_alone() -> None:
    area = Area(namespace="shop-1", domain="cluster.local")
    kinds = [[m["kind"] for m in istiomesh.mesh(config).objects(area)] for config in ({}, istiomesh.MESH_CONFIG)]
    assert [["DestinationRule", "Telemetry"], ["DestinationRule"]] == kinds


def test_a_mesh_whose_log_is_not_known_proves_no_denial() -> None:
    told = istiomesh.features(istiomesh.mesh({"accessLogFile": "/dev/stdout", "accessLogFormat": "x"}))
    assert all("a format of this mesh's own" in told[name] for name in ("mtls", "l7-authz", "identity", "authorization-dry-run"))
    own, default = istiomesh.features(MESH), istiomesh.features(istiomesh.mesh({}))
    assert ("", "", "") == (own["mtls"], own["l7-authz"], own["authorization-dry-run"])
    assert ("", True) == (default["mtls"], bool(default["authorization-dry-run"]))


def test_settings_of_a_mesh_that_cannot_be_read_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "config_map", lambda *_: {"mesh": "trustDomain: one: two\n"})
    with pytest.raises(ClusterError, match=r"ConfigMap istio-system/istio-canary is no YAML \(.*\): what .* cannot be known$"):
        istiomesh.config(None, revision="canary")  # type: ignore[arg-type]  # nobody is asked


def test_what_is_installed_for_ambient_is_what_its_waypoints_are_promised_to_prove() -> None:
    found = composition.parse("cilium+istio:ambient")
    told = waypoint.features(istio.istiod_values(found, Settings(run="run"))["meshConfig"], "1.30.3")
    promised = istio.COMPONENT.promises(found)
    assert {feature: promised[feature] for feature in told} == told
    assert not any(why for feature, why in told.items() if feature != "direct-calls")


@pytest.mark.parametrize("name", ["cilium+istio", "calico+istio", "cilium+istio+gateway"])
def test_the_mesh_that_we_install_writes_the_log_that_we_read(name: str) -> None:
    found = composition.parse(name)
    installed = istiomesh.mesh(istio.istiod_values(found, Settings(run="run"))["meshConfig"])
    assert ("", False) == (installed.unlogged, installed.request_id)
    promised = istio.COMPONENT.promises(found)
    told = istiomesh.features(installed)
    assert {feature: promised[feature] for feature in told} == told


def test_a_refusal_is_believed_only_with_a_cause_but_for_the_alert_that_nobody_else_can_send() -> None:
    assert ["TLS"] == [signature.name for signature in istiomesh.SIGNATURES if not signature.caused]


def test_only_a_namespace_with_meshed_pods_is_labelled_for_injection_and_its_user_may_label_it_otherwise() -> None:
    nodes = Nodes(used=("n",), left_out={}, addresses={}, pod_networks={})
    bare = Workload(ref=Ref("other", "bare"))
    topology = Topology(namespaces={"shop": {}, "other": {}}, workloads=(ATTACKER, bare))

    def made(name: str, **labels: str) -> dict[str, str]:
        options = PodOptions(namespace_labels={key.replace("_", "-"): value for key, value in labels.items()})
        around = Surroundings(nodes=nodes, labels=LABELS, options=options, mesh=MESH)
        return dict(Maker(around, Names()).namespace(name, {}, topology)["metadata"]["labels"])

    assert ("enabled", "disabled") == (
        made("shop")["istio-injection"],
        made("shop", istio_injection="disabled")["istio-injection"],
    )
    assert "istio-injection" not in made("other")
    enforced = "pod-security.kubernetes.io/enforce"
    assert ("privileged", "restricted") == (made("shop")[enforced], made("other")[enforced])


def test_an_impostor_runs_under_the_account_whose_certificate_it_holds() -> None:
    around = Surroundings(
        nodes=Nodes(used=("n",), left_out={}, addresses={}, pod_networks={}), labels=LABELS, options=PodOptions(), mesh=MESH
    )
    impostor = Workload(ref=Ref("shop", "impostor"), service_account="payment", svid_account="impostor", meshed=True)
    maker, topology = Maker(around, Names()), Topology(namespaces={"shop": {}}, workloads=(impostor,))
    accounts = {o["metadata"]["name"] for o in maker.beside(topology) if o["kind"] == "ServiceAccount"}
    assert {"payment", "impostor"} == accounts
    assert ["impostor"] == [pod["spec"]["serviceAccountName"] for _, pod in maker.pods(impostor, 0, "")]


def test_where_no_mesh_runs_nothing_is_created_for_a_meshed_workload() -> None:
    nodes = Nodes(used=("n",), left_out={}, addresses={}, pod_networks={})
    maker = Maker(Surroundings(nodes=nodes, labels=LABELS, options=PodOptions()), Names())
    with pytest.raises(UsageError, match="no mesh runs here"):
        maker.beside(Topology(namespaces={"shop": {}}, workloads=(ATTACKER,)))


@pytest.mark.parametrize(
    ("alert", "refuses"),
    [
        ("certificate_required", True),  # these three as Istio's sidecar sent them, M06
        ("certificate_expired", True),
        ("unknown_ca", True),
        ("bad_certificate", True),
        ("handshake_failure", True),
        ("internal_error", False),
        ("decode_error", False),
        ("", False),
    ],
)
def test_only_an_alert_about_a_certificate_is_a_refusal_of_one(alert: str, refuses: bool) -> None:
    signature = next(signature for signature in istiomesh.SIGNATURES if signature.name == "TLS")
    assert refuses == (re.fullmatch(signature.detail, alert) is not None)
