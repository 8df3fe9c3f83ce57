# SPDX-License-Identifier: Apache-2.0
"""What a right case file becomes, field by field; what is wrong with a wrong one is in test_casefile_errors.py."""

from pathlib import Path
from typing import Any

import pytest

from ztconform import casefile
from ztconform.model import Lifecycle, Port, Probe, Ref, Row, Step, Workload

VALID = Path(__file__).parent / "data" / "casefiles" / "valid"

HEAD = """\
apiVersion: ztconform.io/v1alpha1
kind: Case
metadata: {name: rows}
namespaces: [{name: a}, {name: b}]
workloads:
- {name: client, namespace: a}
- name: server
  namespace: b
  ports:
  - {number: 80}
  - {number: 80, protocol: UDP}
  - {number: 81, servicePort: null}
  - {number: 82, app: tcp}
  - {number: 83, app: grpc}
  - {number: 84, app: http2, servicePort: 8400}
services:
- {apiVersion: v1, kind: Service, metadata: {name: plain, namespace: b}, spec: {ports: [{port: 1, targetPort: 80}]}}
- {apiVersion: v1, kind: Service, metadata: {name: bare, namespace: a}, spec: {clusterIP: None}}
outsiders: [{name: world, ports: [{number: 443}]}]
"""
SERVER = Workload(
    ref=Ref("b", "server"),
    ports=(
        Port(number=80, service=80),
        Port(number=80, protocol="UDP", app="udp", service=80),
        Port(number=81, service=None),
        Port(number=82, app="tcp", service=82),
        Port(number=83, app="grpc", service=83),
        Port(number=84, app="http2", service=8400),
    ),
)


def load(tmp_path: Path, text: str) -> casefile.CaseFile:
    path = tmp_path / "rows.ztc.yaml"
    path.write_text(text, encoding="utf-8")
    return casefile.load(path)


def rows(tmp_path: Path, *written: str) -> tuple[Row, ...]:
    text = HEAD + "expect:\n" + "".join(f"- {{{one}, verdict: allowed}}\n" for one in written)
    return load(tmp_path, text).case.steps[0].rows


def everything() -> casefile.CaseFile:
    return casefile.load(VALID / "everything.ztc.yaml")


def test_a_case_has_the_name_and_the_topology_that_the_file_declares() -> None:
    case = everything().case
    payment = Workload(
        ref=Ref("shop", "payment"),
        ports=(
            Port(number=8080, name="http", service=80),
            Port(number=7, name="raw", app="tcp", service=None),
            Port(number=53, protocol="UDP", app="udp", service=53),
            Port(number=9000, app="grpc", service=9000, listening=False),
            Port(number=5000, protocol="SCTP", app="tcp", service=5000),
        ),
        labels={"app": "payment"},
        service_account="payment",
        meshed=True,
        replicas=2,
        node=1,
    )
    checkout = Workload(ref=Ref("shop", "checkout"), labels={"app": "checkout", "old": "yes"})
    assert "everything" == case.id
    assert (payment, checkout, Workload(ref=Ref("blog", "writer"))) == case.topology.workloads
    assert {
        "shop": {"team": "shop", "kubernetes.io/metadata.name": "shop", "example.com/tier": ""},
        "blog": {},
    } == case.topology.namespaces
    assert (Workload(ref=Ref("", "world"), ports=(Port(number=443, app="tcp"),)),) == case.topology.outsiders
    assert {"pathNormalization": "BASE", "rootNamespace": "mesh-root", "trustDomain": "example.org"} == case.topology.mesh
    assert ["payment-pods"] == [service["metadata"]["name"] for service in case.topology.services]
    assert ["typo"] == [manifest["metadata"]["name"] for manifest in case.refuse]


def test_the_top_level_is_step_0_and_its_manifests_come_from_files_and_inline_in_order() -> None:
    first = everything().case.steps[0]
    assert ("", ["first", "second", "default"]) == (first.name, [manifest["metadata"]["name"] for manifest in first.apply])
    assert {"8080": {"mode": "STRICT"}} == first.apply[2]["spec"]["portLevelMtls"]


def test_a_row_takes_every_field_that_it_writes() -> None:
    first = everything().case.steps[0].rows[0]
    assert first == Row(
        id="pays",
        probe=Probe(
            source=Ref("shop", "checkout"),
            target=Ref("shop", "payment"),
            port=8080,
            address="name",
            method="POST",
            path="/v1//payments/%2F",
            headers=(("x-user", "root"), ("x-many", "a"), ("x-many", "b")),
            host="payment.shop",
        ),
        want="allowed",
        identity="spiffe://example.org/ns/shop/sa/checkout",
    )


def test_a_denied_row_takes_layers_and_a_twin() -> None:
    _, twin, layers, *_ = everything().case.steps[0].rows
    assert (frozenset({"l7"}), "twin", "pays") == (twin.by, twin.control, twin.twin)
    assert (frozenset({"l34", "mtls"}), "open", None) == (layers.by, layers.control, layers.twin)


def test_steps_delete_what_was_applied_and_relabel_pods_and_namespaces() -> None:
    case = everything().case
    step = case.steps[1]
    assert case.steps[0].apply[:2] == step.delete
    assert ["third"] == [manifest["metadata"]["name"] for manifest in step.apply]
    assert ((Ref("shop", "checkout"), {"tier": "front", "old": None}), (Ref("blog", ""), {"team": "shop"})) == step.relabel


def test_in_a_step_pods_end_before_others_start_and_take_over_their_addresses() -> None:
    _, _, step, restarted = everything().case.steps
    heir = Workload(ref=Ref("blog", "heir"), service_account="heir", node=0)
    assert step == Step(
        name="pods come and go",
        lifecycle=(
            Lifecycle(action="terminate", workload=Ref("shop", "payment"), grace=1.5),
            Lifecycle(action="complete", workload=Ref("shop", "checkout")),
            Lifecycle(action="remove", workload=Ref("blog", "writer")),
            Lifecycle(action="start", workload=heir.ref, spec=heir, reuse=Ref("shop", "checkout")),
        ),
    )
    assert (Lifecycle(action="restart", workload=heir.ref),) == restarted.lifecycle


def test_every_row_has_the_line_where_it_is_written() -> None:
    found = everything()
    ids = [row.id for step in found.case.steps for row in step.rows]
    assert ids == list(dict.fromkeys(ids))
    assert set(ids) == set(found.lines)
    text = (VALID / "everything.ztc.yaml").read_text(encoding="utf-8").splitlines()
    assert 44 == found.lines["pays"]
    assert all("from:" in text[line - 1] for line in found.lines.values())


@pytest.mark.parametrize(
    ("written", "id_", "expected"),
    [
        ("port: 80, protocol: TCP", "80/TCP", {"kind": "http", "address": "service"}),
        ("port: 80, protocol: UDP", "80/UDP", {"kind": "udp", "address": "service"}),
        ("port: 81", "81/TCP", {"kind": "http", "address": "pod"}),
        ("port: 82", "82/TCP", {"kind": "tcp"}),
        ("port: 83", "83/TCP", {"kind": "grpc", "method": "POST"}),
        ("port: 83, path: /a.B/C", "83/TCP POST /a.B/C", {"kind": "grpc", "path": "/a.B/C"}),
        ("port: 84", "84/TCP", {"kind": "http2", "port": 84}),
        ("port: 81, method: GET, path: /", "81/TCP", {"method": "GET", "path": "/"}),
        ("port: 81, method: DELETE", "81/TCP DELETE /", {"method": "DELETE"}),
        ("port: 84, address: pod", "84/TCP by pod", {"address": "pod"}),
        ("port: 84, address: service", "84/TCP", {"address": "service"}),
        ("port: 84, address: name", "84/TCP by name", {"address": "name"}),
        ("port: 84, family: 6", "84/TCP over IPv6", {"family": 6}),
        ("port: 81, via: plain", "81/TCP via b/plain", {"via": Ref("b", "plain"), "address": "service"}),
        ("port: 81, via: a/bare", "81/TCP via a/bare", {"via": Ref("a", "bare"), "address": "headless"}),
        ("port: 81, via: a/bare, address: name", "81/TCP via a/bare by name", {"via": Ref("a", "bare"), "address": "name"}),
        ("port: 84, host: x.y", "84/TCP", {"host": "x.y"}),
        ("port: 84, id: mine", "mine", {"port": 84}),
    ],
)
def test_a_row_means_what_its_port_and_its_fields_say(tmp_path: Path, written: str, id_: str, expected: dict[str, Any]) -> None:
    (row,) = rows(tmp_path, f"from: a/client, to: b/server, {written}")
    assert (id_ if id_ == "mine" else f"a/client->b/server:{id_}") == row.id
    assert expected == {key: getattr(row.probe, key) for key in expected}


@pytest.mark.parametrize("ends", ["from: b/server, to: b/server", "from: outsider/world, to: b/server"])
def test_pods_are_addressed_directly_from_themselves_and_from_outside(tmp_path: Path, ends: str) -> None:
    (row,) = rows(tmp_path, f"{ends}, port: 84")
    assert "pod" == row.probe.address


def test_a_host_outside_is_addressed_directly(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "from: a/client, to: outsider/world, port: 443")
    assert (Ref("", "world"), "pod", "http") == (row.probe.target, row.probe.address, row.probe.kind)
    assert "a/client->outsider/world:443/TCP" == row.id


@pytest.mark.parametrize(("written", "asked"), [("", "server.b.svc.cluster.local"), (", name: example.org", "example.org")])
def test_the_resolver_is_there_and_is_asked_for_a_name(tmp_path: Path, written: str, asked: str) -> None:
    (row,) = rows(tmp_path, f"from: a/client, to: kube-system/kube-dns, port: 53{written}")
    assert ("dns", "UDP", asked) == (row.probe.kind, row.probe.transport, row.probe.path)
    assert Ref("kube-system", "kube-dns") == row.probe.target
    assert f"a/client->kube-system/kube-dns:53/UDP {asked}" == row.id


def test_without_a_service_the_resolver_is_asked_for_the_name_that_every_cluster_has(tmp_path: Path) -> None:
    text = HEAD[: HEAD.index("- name: server")]
    text += "expect: [{from: a/client, to: kube-system/kube-dns, port: 53, verdict: allowed}]\n"
    assert "kube-dns.kube-system.svc.cluster.local" == load(tmp_path, text).case.steps[0].rows[0].probe.path


def test_made_ids_count_repeats_and_avoid_written_ones(tmp_path: Path) -> None:
    same = "from: a/client, to: b/server, port: 84"
    found = rows(tmp_path, same, same, f'{same}, id: "a/client->b/server:84/TCP"', same)
    made = "a/client->b/server:84/TCP"
    assert [f"{made} #2", f"{made} #3", made, f"{made} #4"] == [row.id for row in found]


def test_a_removed_workload_may_start_again_and_a_service_may_come_and_go(tmp_path: Path) -> None:
    row = "{from: a/client, to: b/server, port: 84, verdict: allowed}"
    through = "{from: a/client, to: b/server, port: 84, via: late, verdict: allowed}"
    steps = f"""\
expect: [{row}]
steps:
- apply: [{{apiVersion: v1, kind: Service, metadata: {{name: late, namespace: b}}}}]
  expect: [{through}]
- delete: [{{kind: Service, namespace: b, name: late}}]
  remove: [b/server]
- start: [{{name: server, namespace: b, ports: [{{number: 84}}]}}]
  expect: [{row}]
"""
    case = load(tmp_path, HEAD + steps).case
    assert ["a/client->b/server:84/TCP #2"] == [row.id for row in case.steps[3].rows]


def test_a_terminating_workload_is_addressed_directly(tmp_path: Path) -> None:
    steps = """\
expect: [{from: a/client, to: b/server, port: 84, verdict: allowed}]
steps:
- terminate: [{workload: b/server, graceSeconds: 60}]
  expect: [{from: a/client, to: b/server, port: 84, verdict: allowed}]
"""
    assert "pod" == load(tmp_path, HEAD + steps).case.steps[1].rows[0].probe.address


def test_dates_are_strings_and_json_is_yaml(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(
        '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "a"}}', encoding="utf-8"
    )
    text = HEAD.replace("- {name: client, namespace: a}", "- {name: client, namespace: a, labels: {since: 2026-11-22}}")
    case = load(tmp_path, text + "manifests: [p.json]\nrefuse: [p.json]\n").case
    assert {"since": "2026-11-22"} == case.topology.workloads[0].labels
    assert SERVER == case.topology.workloads[1]
    assert "x" == case.steps[0].apply[0]["metadata"]["name"]
