# SPDX-License-Identifier: Apache-2.0
"""Everything that can be wrong in a case file gets one line with file, line, field and what to do; here are those lines."""

from pathlib import Path

import pytest

from ztconform import casefile
from ztconform.errors import UsageError

BASE = """\
apiVersion: ztconform.io/v1alpha1
kind: Case
metadata: {name: base}
namespaces:
- {name: shop, labels: {team: shop}}
- {name: blog}
workloads:
- {name: payment, namespace: shop, labels: {app: payment}, ports: [{name: http, number: 8080, servicePort: 80}]}
- {name: checkout, namespace: shop, labels: {app: checkout}}
- {name: writer, namespace: blog, ports: [{number: 80}, {number: 80, protocol: UDP}, {number: 7, servicePort: null}]}
services: [{apiVersion: v1, kind: Service, metadata: {name: extra, namespace: shop}, spec: {}}]
outsiders: [{name: world, ports: [{number: 443}]}]
manifests:
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {}}
refuse: []
expect:
- {from: shop/checkout, to: shop/payment, port: 8080, verdict: allowed}
- {from: blog/writer, to: shop/payment, port: 8080, verdict: denied}
steps:
- remove: [blog/writer]
- start: [{name: late, namespace: blog}]
"""
ROW = "- {from: blog/writer, to: shop/payment, port: 8080, verdict: denied}"  # line 18, expect[1]
PORTS = "[{name: http, number: 8080, servicePort: 80}]"  # line 8, workloads[0]
POLICY = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {}}"  # line 14
LABEL = "at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
NOT_DNS = "is not a DNS label (lower case letters, digits and '-', at most 63, beginning and ending with a letter or digit)"


def problems(tmp_path: Path, text: str) -> list[str]:
    """Return the lines of the error, without the file's folder."""
    (tmp_path / "case.ztc.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        casefile.load(tmp_path / "case.ztc.yaml")
    return [line.replace(f"{tmp_path}/", "").removeprefix("case.ztc.yaml:") for line in str(caught.value).splitlines()]


def edited(old: str, new: str) -> str:
    assert 1 == BASE.count(old), old
    return BASE.replace(old, new)


def row(written: str) -> str:
    """Return the base with another row in line 18."""
    return edited(ROW, f"- {{{written}}}")


def step(written: str) -> str:
    """Return the base with another step in line 22, after one that removed blog/writer and one that started blog/late."""
    return BASE + f"- {{{written}}}\n"


def test_the_base_is_right(tmp_path: Path) -> None:
    (tmp_path / "case.ztc.yaml").write_text(BASE, encoding="utf-8")
    assert "base" == casefile.load(tmp_path / "case.ztc.yaml").case.id


FORM = [
    (edited("kind: Case", "kind: Cse"), "2: kind: 'Cse' is not 'Case'"),
    (edited("apiVersion: ztconform.io/v1alpha1", "apiVersion: v1"), "1: apiVersion: 'v1' is not 'ztconform.io/v1alpha1'"),
    (edited("kind: Case\n", ""), "1: kind: is missing"),
    (edited("kind: Case\n", "kind: Case\nexpext: []\n"), "3: expext: unknown field (left to use: mesh)"),
    (edited("name: base", "name: Base"), f"3: metadata.name: 'Base' {NOT_DNS}"),
    (edited("name: base", "name: 7"), "3: metadata.name: must be a string, not 7; put it between quotes"),
    (edited("{name: base}", "base"), "3: metadata: must be a mapping, not 'base'"),
    (edited("team: shop", "team: true"), "5: namespaces[0].labels.team: must be a string, not true; put it between quotes"),
    (edited("team: shop", "team: 1.5"), "5: namespaces[0].labels.team: must be a string, not 1.5; put it between quotes"),
    (edited("team: shop", "team: -x"), f"5: namespaces[0].labels.team: '-x' is not a label's value ({LABEL})"),
    (
        edited("team: shop", "a/b/c: shop"),
        f"5: namespaces[0].labels['a/b/c']: 'a/b/c' is not a label's key (an optional DNS prefix and '/', then {LABEL})",
    ),
    (edited(PORTS, "[{number: 0}]"), "8: workloads[0].ports[0].number: 0 is not between 1 and 65535"),
    (edited(PORTS, "[{number: 8080.0}]"), "8: workloads[0].ports[0].number: must be a whole number, not 8080.0"),
    (edited(PORTS, "[{number: http}]"), "8: workloads[0].ports[0].number: must be a whole number, not 'http'"),
    (edited(PORTS, "[{name: http}]"), "8: workloads[0].ports[0].number: is missing"),
    (
        edited(PORTS, "[{number: 8080, protocol: tcp}]"),
        "8: workloads[0].ports[0].protocol: 'tcp' is not one of TCP, UDP, SCTP",
    ),
    (
        edited(PORTS, "[{number: 8080, name: '8080'}]"),
        "8: workloads[0].ports[0].name: '8080' is not a port's name"
        " (at most 15 lower case letters, digits and single '-', with at least one letter)",
    ),
    (edited("labels: {app: checkout}", "replicas: 0"), "9: workloads[1].replicas: 0 is not between 1 and 100"),
    (edited("labels: {app: checkout}", "node: 2"), "9: workloads[1].node: 2 is not between 0 and 1"),
    (edited("labels: {app: checkout}", "meshed: 1"), "9: workloads[1].meshed: must be true or false, not 1"),
    (edited("labels: {app: checkout}", "lables: {}"), "9: workloads[1].lables: unknown field (did you mean 'labels'?)"),
    (edited("refuse: []", "refuse: [3]"), "15: refuse[0]: must be a string or a mapping, not 3; put it between quotes"),
    (edited("refuse: []", "refuse:"), "15: refuse: must be a list, but is empty"),
    (edited("refuse: []", "refuse: ['']"), "15: refuse[0]: must not be empty"),
    (edited("refuse: []", 'refuse: ["a\\tb"]'), "15: refuse[0]: 'a\\tb' must be one line of printable characters"),
    (edited("refuse: []", "refuse: [{kind: X, metadata: {name: x}}]"), "15: refuse[0].apiVersion: is missing"),
    (edited("refuse: []", "mesh: {pathNormalization: base}"), "15: mesh.pathNormalization: 'base' is not one of"
     " NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES"),
    (row("from: shop, to: shop/payment, port: 8080, verdict: denied"),
     "18: expect[1].from: 'shop' is not of the form NAMESPACE/WORKLOAD or outsider/NAME"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denyed"),
     "18: expect[1].verdict: 'denyed' is not one of allowed, denied, inconclusive (did you mean 'denied'?)"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdct: denied"),
     "18: expect[1].verdct: unknown field (did you mean 'verdict'?)"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, layer: l3"),
     "18: expect[1].layer: 'l3' is not one of l34, mtls, l7, dns, identity, api (did you mean 'l34'?)"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, layer: []"),
     "18: expect[1].layer: must not be empty"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, path: v1"),
     "18: expect[1].path: 'v1' is not a path (it begins with '/' and holds no spaces or characters beyond Latin-1)"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, method: G E T"),
     "18: expect[1].method: 'G E T' is not an HTTP method"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, headers: {'x y': z}"),
     "18: expect[1].headers['x y']: 'x y' is not a header's name"),
    (row('from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, headers: {x: "a\\nb"}'),
     "18: expect[1].headers.x: 'a\\nb' is not a header's value (one line in Latin-1 without spaces around it)"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, family: 5"),
     "18: expect[1].family: 5 is not one of 4, 6"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, host: 'a b'"),
     "18: expect[1].host: 'a b' is not a host"),
    (row(f"from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, id: {'x' * 251}"),
     "18: expect[1].id: is longer than 250 characters"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, via: a/b/c"),
     "18: expect[1].via: 'a/b/c' is not of the form NAME or NAMESPACE/NAME"),
    (row("from: shop/checkout, to: kube-system/kube-dns, port: 53, verdict: denied, name: A"),
     "18: expect[1].name: 'A' is not a DNS name (lower case labels with dots between them)"),
    (step("restart: [late]"), "22: steps[2].restart[0]: 'late' is not of the form NAMESPACE/WORKLOAD"),
    (step("terminate: [{graceSeconds: 1}]"), "22: steps[2].terminate[0].workload: is missing"),
    (step("relabel: {pods: {blog/late: {a: 1}}}"),
     "22: steps[2].relabel.pods['blog/late'].a: must be a string or null, not 1; put it between quotes"),
    (step("relabel: {pod: {}}"), "22: steps[2].relabel.pod: unknown field (did you mean 'pods'?)"),
    (step("delete: [{kind: NetworkPolicy}]"), "22: steps[2].delete[0].name: is missing"),
    (step("delete: [{kind: NetworkPolicy, name: x, namspace: shop}]"),
     "22: steps[2].delete[0].namspace: unknown field (did you mean 'namespace'?)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), FORM, ids=[line for _, line in FORM])
def test_what_has_not_the_form_is_named(tmp_path: Path, text: str, line: str) -> None:
    assert [line] == problems(tmp_path, text)


MEANING = [
    (edited("{name: blog}", "{name: blog}\n- {name: shop}"),
     "7: namespaces[2].name: namespace shop is declared already (line 5)"),
    (edited("{name: blog}", "{name: blog}\n- {name: outsider}"),
     "7: namespaces[2].name: rows would confuse 'outsider' with hosts outside the cluster; take another name"),
    (edited("team: shop", "kubernetes.io/metadata.name: x"),
     "5: namespaces[0].labels['kubernetes.io/metadata.name']: is set by the API server, to 'shop'; leave it out"),
    (edited("name: checkout, namespace: shop", "name: checkout, namespace: shopp"),
     "9: workloads[1].namespace: namespace 'shopp' is not declared under `namespaces` (did you mean 'shop'?)"),
    (edited("{app: checkout}}", "{app: checkout}}\n- {name: checkout, namespace: shop}"),
     "10: workloads[2].name: workload shop/checkout is declared already"),
    (edited("{name: world,", "{name: world}, {name: world,"), "12: outsiders[1].name: outsider/world is declared already"),
    (edited("{number: 443}", "{number: 443, servicePort: 443}"),
     "12: outsiders[0].ports[0].servicePort: a host outside the cluster has no Service"),
    (edited(PORTS, "[{number: 8080, app: udp}]"), "8: workloads[0].ports[0].app: udp is not spoken over TCP"),
    (edited(PORTS, "[{number: 8080}, {number: 9, protocol: UDP, app: http}]"),
     "8: workloads[0].ports[1].app: http is not spoken over UDP"),
    (edited(PORTS, "[{number: 8080}, {number: 9, protocol: SCTP, app: tcp}]"),
     "8: workloads[0].ports[1].app: an SCTP port has no app: no row can use it"),
    (edited(PORTS, "[{number: 8080}, {number: 8080}]"),
     "8: workloads[0].ports[1].number: 8080/TCP is declared already (line 8)"),
    (edited(PORTS, "[{number: 8080, name: a}, {number: 9, name: a}]"),
     "8: workloads[0].ports[1].name: a is another port's name (line 8)"),
    (edited(PORTS, "[{number: 8080, servicePort: 80}, {number: 80}]"), "8: workloads[0].ports[1].servicePort:"
     " 80/TCP is in the Service already, so this port needs another servicePort, or null (line 8)"),
    (edited("kind: Service", "kind: Servlet"),
     "11: services[0].kind: 'Servlet' is no Service (apiVersion: v1, kind: Service)"),
    (edited("name: extra", "name: payment"),
     "11: services[0].metadata.name: shop/payment is the workload's own Service; take another name"),
    (edited(POLICY, f"{POLICY}\n- {POLICY}"),
     "15: manifests[1].metadata.name: NetworkPolicy shop/deny is given already (line 14)"),
    (edited("{name: deny, namespace: shop}", "{name: deny, namespace: blgo}"),
     "14: manifests[0].metadata.namespace: namespace 'blgo' is not declared under `namespaces` (did you mean 'blog'?)"),
    (edited("{name: deny, namespace: shop}", "{name: deny}"),
     "14: manifests[0].metadata.namespace: is missing; the NetworkPolicy must be in one of shop, blog"),
    (edited("kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {}",
            "kind: NetworkPolicyList, metadata: {name: deny}, items: []"),
     "14: manifests[0].kind: a list of objects is not supported; write them as documents of their own"),
    (edited("spec: {}}\nrefuse", "spec: {a: ['${host:shop/chekout}']}}\nrefuse"),
     "14: manifests[0].spec.a[0]: ${host:shop/chekout}: no workload or outsider shop/chekout (did you mean shop/checkout?)"),
    (edited("refuse: []", f"refuse: [{POLICY.replace('shop', 'sho')}]"),
     "15: refuse[0].metadata.namespace: namespace 'sho' is not declared under `namespaces` (did you mean 'shop'?)"),
    (row("from: shop/chekout, to: shop/payment, port: 8080, verdict: denied"),
     "18: expect[1].from: no workload 'shop/chekout' (did you mean 'shop/checkout'?)"),
    (row("from: outsider/word, to: shop/payment, port: 8080, verdict: denied"),
     "18: expect[1].from: no outsider 'word' (did you mean 'outsider/world'?)"),
    (row("from: blog/late, to: shop/payment, port: 8080, verdict: denied"),
     "18: expect[1].from: blog/late does not run yet: steps[1] starts it"),
    (row("from: kube-system/kube-dns, to: shop/payment, port: 8080, verdict: denied"),
     "18: expect[1].from: the cluster's resolver sends no rows"),
    (row("from: outsider/world, to: outsider/world, port: 443, verdict: denied"),
     "18: expect[1].to: both ends are outside the cluster, where no policy of it applies"),
    (row("from: shop/checkout, to: shop/payment, port: 80, verdict: denied"),
     "18: expect[1].port: 80 is not a declared port of shop/payment (declared: 8080/TCP)"),
    (row("from: shop/checkout, to: shop/checkout, port: 80, verdict: denied"),
     "18: expect[1].port: 80 is not a declared port of shop/checkout (declared: none)"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, protocol: UDP, verdict: denied"),
     "18: expect[1].protocol: port 8080 of shop/payment is TCP, not UDP"),
    (row("from: shop/checkout, to: blog/writer, port: 80, verdict: denied"),
     "18: expect[1].protocol: is missing, and port 80 of blog/writer is declared for TCP and UDP"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, protocol: SCTP, verdict: denied"),
     "18: expect[1].protocol: the lab sends no SCTP; rows may use TCP or UDP"),
    (edited(ROW, "- {from: shop/checkout, to: shop/payment, port: 9, verdict: denied}").replace(
        PORTS, "[{number: 8080}, {number: 9, protocol: SCTP}]"),
     "18: expect[1].port: the lab sends no SCTP; rows may use TCP or UDP"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, method: GET, verdict: denied").replace(
        PORTS, "[{number: 8080, app: grpc}]"),
     "18: expect[1].method: a gRPC request is always a POST"),
    (edited("services: [", "services: [{apiVersion: v1, kind: Service, metadata: {name: extra, namespace: shop}}, "),
     "11: services[1].metadata.name: Service shop/extra is given already (line 11)"),
    (step("terminate: [{workload: blog/late, graceSeconds: 1}]").replace(
        "- start:", "- terminate: [{workload: shop/payment, graceSeconds: 1}]\n  start:")
     + "- {terminate: [{workload: shop/payment, graceSeconds: 1}]}\n",
     "24: steps[3].terminate[0].workload: shop/payment is terminating already"),
    (step(f"delete: [{POLICY.replace('deny', 'dny')}]"), "22: steps[2].delete[0]:"
     " NetworkPolicy shop/dny is not applied at this point (did you mean 'NetworkPolicy shop/deny'?)"),
    (row("from: shop/checkout, to: kube-system/kube-dns, port: 53, protocol: TCP, verdict: denied"),
     "18: expect[1].protocol: port 53 of kube-system/kube-dns is UDP, not TCP"),
    (row("from: shop/checkout, to: blog/writer, port: 80, protocol: UDP, method: GET, verdict: denied"),
     "18: expect[1].method: is for http, http2 and grpc ports, and 80 of blog/writer is udp"),
    (row("from: shop/checkout, to: kube-system/kube-dns, port: 53, path: /, verdict: denied"),
     "18: expect[1].path: is for http, http2 and grpc ports, and 53 of kube-system/kube-dns is dns"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, name: x.y, verdict: denied"),
     "18: expect[1].name: is for rows to kube-system/kube-dns, which ask it for a name"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, headers: {Host: x}, verdict: denied"),
     "18: expect[1].headers.Host: is a field of its own: write host beside headers"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, layer: l7, verdict: allowed"),
     "18: expect[1].layer: only a denied row has this field, and this row's verdict is allowed"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, twin: x, verdict: inconclusive"),
     "18: expect[1].twin: only a denied row has this field, and this row's verdict is inconclusive"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, identity: x, verdict: denied"),
     "18: expect[1].identity: only an allowed row has this field, and this row's verdict is denied"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, twin: shop/chekout->shop/payment:8080/TCP"),
     "18: expect[1].twin: no row of this step has the id 'shop/chekout->shop/payment:8080/TCP'"
     " (did you mean 'shop/checkout->shop/payment:8080/TCP'?)"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, id: me, twin: me"),
     "18: expect[1].twin: the row 'me' is not an allowed one"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, via: extr"),
     "18: expect[1].via: no Service 'shop/extr' (did you mean 'shop/extra'?)"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, via: extra, address: pod"),
     "18: expect[1].address: contradicts via, which names a Service"),
    (row("from: shop/checkout, to: shop/payment, port: 8080, verdict: denied, via: extra, address: headless"),
     "18: expect[1].address: the Service shop/extra is not headless"),
    (row("from: outsider/world, to: shop/payment, port: 8080, verdict: denied, via: extra"),
     "18: expect[1].via: a host outside the cluster neither has nor reaches a Service"),
    (row("from: shop/checkout, to: kube-system/kube-dns, port: 53, verdict: denied, via: extra"),
     "18: expect[1].via: the resolver is asked at its own address"),
    (row("from: shop/checkout, to: kube-system/kube-dns, port: 53, verdict: denied, address: name"),
     "18: expect[1].address: the resolver is asked at its own address; use service or pod"),
    (row("from: outsider/world, to: shop/payment, port: 8080, verdict: denied, address: service"),
     "18: expect[1].address: a host outside the cluster neither has nor reaches a Service; use pod"),
    (row("from: shop/checkout, to: blog/writer, port: 7, verdict: denied, address: service"),
     "18: expect[1].address: port 7 of blog/writer is in no Service (servicePort: null); use pod or via"),
    (step("name: nothing"), "22: steps[2]: a step must change or expect something"),
    (step("expect: [{from: blog/writer, to: shop/payment, port: 8080, verdict: denied}]"),
     "22: steps[2].expect[0].from: blog/writer does not run any more: steps[0] removes it"),
    (step("restart: [blog/writer]"), "22: steps[2].restart[0]: blog/writer does not run any more: steps[0] removes it"),
    (step("restart: [outsider/world]"), "22: steps[2].restart[0]: outsider/world is a host outside, which cannot be changed"),
    (step("restart: [kube-system/kube-dns]"), "22: steps[2].restart[0]: kube-system/kube-dns is the cluster's own"),
    (step("complete: [blog/late], remove: [blog/late]"),
     "22: steps[2].remove[0]: blog/late does not run any more: steps[2] completes it"),
    (step("terminate: [{workload: blog/late, graceSeconds: 1}], restart: [blog/late]"),
     "22: steps[2].restart[0]: blog/late is under terminate of this step already"),
    (step("terminate: [{workload: shop/payment, graceSeconds: 1}],"
          " expect: [{from: shop/checkout, to: shop/payment, port: 8080, verdict: allowed, address: service}]"),
     "22: steps[2].expect[0].address: shop/payment is terminating and stands behind no Service any more; use pod"),
    (step("start: [{name: late, namespace: blog}]"), "22: steps[2].start[0].name: workload blog/late runs already"),
    (step("start: [{name: extra, namespace: shop, ports: [{number: 1}]}]"), "22: steps[2].start[0].name:"
     " an applied Service is called shop/extra already, and this workload's own would be too"),
    (step("start: [{name: x, namespace: shop, reuseAddressOf: blog/late}]"),
     "22: steps[2].start[0].reuseAddressOf: blog/late still runs; complete or remove it before its address is free"),
    (step("start: [{name: x, namespace: shop, reuseAddressOf: blog/wrter}]"),
     "22: steps[2].start[0].reuseAddressOf: no workload 'blog/wrter' has ended (did you mean 'blog/writer'?)"),
    (step("start: [{name: x, namespace: shop, reuseAddressOf: blog/writer},"
          " {name: y, namespace: shop, reuseAddressOf: blog/writer}]"),
     "22: steps[2].start[1].reuseAddressOf: another workload has taken over the address of blog/writer already"),
    (step("relabel: {pods: {shop/chekout: {a: b}}}"),
     "22: steps[2].relabel.pods['shop/chekout']: no workload 'shop/chekout' (did you mean 'shop/checkout'?)"),
    (step("relabel: {namespaces: {blgo: {a: b}}}"), "22: steps[2].relabel.namespaces.blgo:"
     " namespace 'blgo' is not declared under `namespaces` (did you mean 'blog'?)"),
    (step("relabel: {namespaces: {blog: {kubernetes.io/metadata.name: null}}}"),
     "22: steps[2].relabel.namespaces.blog['kubernetes.io/metadata.name']:"
     " is set by the API server, to 'blog'; leave it out"),
    (step("delete: [{kind: NetworkPolicy, namespace: shop, name: den}]"), "22: steps[2].delete[0]:"
     " NetworkPolicy shop/den is not applied at this point (did you mean 'NetworkPolicy shop/deny'?)"),
    (step("delete: [{apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy, namespace: shop, name: deny}]"),
     "22: steps[2].delete[0]: NetworkPolicy shop/deny is not applied at this point (did you mean 'NetworkPolicy shop/deny'?)"),
    (step("delete: [{kind: NetworkPolicy, namespace: shop, name: deny}, {kind: NetworkPolicy, namespace: shop, name: deny}]"),
     "22: steps[2].delete[1]: NetworkPolicy shop/deny is deleted already by this step"),
    (step(f"apply: [{POLICY}], delete: [{{kind: NetworkPolicy, namespace: shop, name: deny}}]"),
     "22: steps[2].delete[0]: NetworkPolicy shop/deny is applied by this very step"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), MEANING, ids=[line for _, line in MEANING])
def test_what_makes_no_sense_is_named(tmp_path: Path, text: str, line: str) -> None:
    assert [line] == problems(tmp_path, text)


def test_a_second_row_of_an_id_is_named(tmp_path: Path) -> None:
    text = BASE.replace("port: 8080,", "port: 8080, id: one,")
    assert ["18: expect[1].id: 'one' is the id of the row in line 17 already"] == problems(tmp_path, text)


def test_a_case_without_rows_is_refused(tmp_path: Path) -> None:
    text = BASE[: BASE.index("expect:")]
    assert ["1: expect: has no rows, here or in a step: a case without rows proves nothing"] == problems(tmp_path, text)


def test_the_same_object_of_two_api_groups_must_be_told_apart(tmp_path: Path) -> None:
    other = POLICY.replace("networking.k8s.io/v1", "projectcalico.org/v3")
    text = edited(POLICY, f"{POLICY}\n- {other}") + "- {delete: [{kind: NetworkPolicy, namespace: shop, name: deny}]}\n"
    assert [
        "23: steps[2].delete[0]: NetworkPolicy shop/deny is of several API groups"
        " (networking.k8s.io, projectcalico.org); add apiVersion"
    ] == problems(tmp_path, text)


def test_a_deleted_object_cannot_be_deleted_again(tmp_path: Path) -> None:
    once = "- {delete: [{kind: NetworkPolicy, namespace: shop, name: deny}]}\n"
    assert [
        "23: steps[3].delete[0]: NetworkPolicy shop/deny is not applied at this point (applied: Service shop/extra)"
    ] == problems(tmp_path, BASE + once + once)


def test_everything_wrong_is_told_at_once_and_in_order(tmp_path: Path) -> None:
    text = BASE.replace("kind: Case", "kind: Suite").replace("verdict: denied", "verdict: denyed, twin: 3, port: 1")
    text = text.replace("shop/checkout", "shop/chekout").replace("team: shop", "team: no")
    assert [
        "2: kind: 'Suite' is not 'Case'",
        "5:31: namespaces[0].labels.team: 'no' is a boolean in YAML 1.1 and a string in 1.2; quote it (\"no\") or write false",
        "17: expect[0].from: no workload 'shop/chekout' (did you mean 'shop/checkout'?)",
        "18: expect[1].verdict: 'denyed' is not one of allowed, denied, inconclusive (did you mean 'denied'?)",
        "18: expect[1].twin: must be a string, not 3; put it between quotes",
        "18:79: expect[1].port: is given twice, in line 18 and here",
    ] == problems(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("namespaces:", "namspaces:", "4: namspaces: unknown field (did you mean 'namespaces'?)"),
        ("workloads:", "workload:", "7: workload: unknown field (did you mean 'workloads'?)"),
        ("name: checkout,", "name: Checkout,", f"9: workloads[1].name: 'Checkout' {NOT_DNS}"),
        ("apiVersion: networking.k8s.io/v1, kind", "kind", "14: manifests[0].apiVersion: is missing"),
        ("apiVersion: v1, kind: Service", "kind: Service", "11: services[0].apiVersion: is missing"),
        ("name: shop,", "name: Shop,", f"5: namespaces[0].name: 'Shop' {NOT_DNS}"),
        ("name: blog}\nworkloads", "name: Blog}\nworkloads", f"6: namespaces[1].name: 'Blog' {NOT_DNS}"),
        ("{name: world,", "{name: World,", f"12: outsiders[0].name: 'World' {NOT_DNS}"),
        ("{name: writer,", "{name: Writer,", f"10: workloads[2].name: 'Writer' {NOT_DNS}"),
        ("{name: late,", "{name: Late,", f"21: steps[1].start[0].name: 'Late' {NOT_DNS}"),
    ],
)
def test_one_mistake_in_a_declaration_is_not_told_again_at_every_use(tmp_path: Path, old: str, new: str, line: str) -> None:
    uses = """\
- delete: [{kind: NetworkPolicy, namespace: shop, name: deny}]
  relabel: {namespaces: {shop: {a: b}, blog: {a: b}}, pods: {blog/late: {a: b}}}
  start: [{name: heir, namespace: blog, reuseAddressOf: blog/writer}]
  expect:
  - {from: shop/checkout, to: shop/payment, port: 8080, via: extra, verdict: denied}
  - {from: shop/checkout, to: shop/payment, port: 8080, via: blog/writer, verdict: denied}
  - {from: shop/checkout, to: outsider/world, port: 443, verdict: denied}
  - {from: blog/late, to: shop/payment, port: 8080, verdict: denied}
"""
    assert [line] == problems(tmp_path, edited(old, new) + uses)


def test_what_a_broken_manifest_file_was_to_bring_is_not_told_again(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [", encoding="utf-8")
    text = edited(f"- {POLICY}", "- broken.yaml") + "- {delete: [{kind: NetworkPolicy, namespace: shop, name: deny}]}\n"
    assert ["broken.yaml:1:5: is not YAML: expected the node content, but found '<stream end>'"] == problems(tmp_path, text)


def test_a_manifest_without_a_namespace_is_not_blamed_for_a_namespace_that_could_not_be_read(tmp_path: Path) -> None:
    text = edited("{name: deny, namespace: shop}", "{name: deny}").replace("- {name: blog}", "- {name: [default]}")
    assert ["6: namespaces[1].name: must be a string, not a list"] == problems(tmp_path, text)
