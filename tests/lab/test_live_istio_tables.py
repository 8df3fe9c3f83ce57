# SPDX-License-Identifier: Apache-2.0
"""The tables of Istio's own tests hold in the lab's mesh, row by row, by requests that reach the server's proxy as they are."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ztconform.model import Attempt, Case, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import prove_case

DATA = Path(__file__).parents[1] / "unit" / "data" / "istio"
AUTHORIZATION = yaml.safe_load((DATA / "authorization.yaml").read_text(encoding="utf-8"))
PATHS = yaml.safe_load((DATA / "path-normalization.yaml").read_text(encoding="utf-8"))
MODES = yaml.safe_load((DATA / "peerauthentication.yaml").read_text(encoding="utf-8"))
PORTS = tuple(Port(number=number, name=app, app=app, service=number) for app, number in AUTHORIZATION["ports"].items())
SETTINGS = ("NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")


def ref(text: str) -> Ref:
    return Ref(*text.split("/"))


def manifest(kind: str, policy: dict[str, Any], number: int) -> dict[str, Any]:
    namespace, _, name = policy["in"].partition("/")
    metadata = {"name": name or f"policy-{number}", "namespace": namespace, "annotations": policy.get("annotations", {})}
    whole = {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": policy["spec"]}
    return json.loads(json.dumps(whole).replace("${ip:", "${host:"))


def topology(case: dict[str, Any]) -> Topology:
    def labels(who: str) -> dict[str, str]:
        return {"app": ref(who).name, **case.get("labels", {}).get(who, {})}

    workloads = tuple(
        Workload(ref=ref(who), ports=PORTS, labels=labels(who), service_account=ref(who).name, meshed=True)
        for who in dict.fromkeys([*AUTHORIZATION["pods"], *(row[0].rpartition(" ")[2] for row in case["rows"])])
    )
    namespaces = {w.ref.namespace: {} for w in workloads}
    return Topology(namespaces=namespaces, workloads=workloads)


def rows(case: dict[str, Any]):
    for number, (source, target, ports, line, verdict, *rest) in enumerate(case["rows"]):
        said = rest[0] if rest else {}
        if "sni" in said:
            continue  # a server name belongs to the proxy's own connection
        plaintext, _, who = source.rpartition(" ")
        for app in ports:
            method, _, path = ("", "", "") if app == "tcp" else line.partition(" ")
            probe = Probe(
                source=ref(who),
                target=ref(target),
                port=AUTHORIZATION["ports"][app],
                address="pod",
                kind=app,
                method=method or "GET",
                path=path or "/",
                headers=tuple(said.get("headers", {}).items()),
                host=said.get("host"),
                past_proxy=True,
                cert=None if plaintext else "own",
            )
            denied = verdict == "deny"
            by = frozenset({"l7"}) if denied else frozenset()
            yield Row(id=f"{number} {source} {target} {app} {line}", probe=probe, want="denied" if denied else "allowed", by=by)


CASES = [c for c in AUTHORIZATION["cases"] if any(True for _ in rows(c))]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_every_row_of_the_authorization_tables_is_proved(lab, case):
    apply = tuple(manifest("AuthorizationPolicy", policy, n) for n, policy in enumerate(case["policies"]))
    step = Step(apply=apply, rows=tuple(rows(case)))
    results = prove_case(Case(id=case["name"], topology=topology(case), steps=(step,)), lab)
    assert results
    assert [] == [(r.row.id, r.row.want, r.outcome, r.why) for r in results if r.outcome != "PROVED"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_server_sees_the_path_that_the_setting_makes_of_it(lab, setting):
    table = [(sent, *seen) for sent, *seen in PATHS["paths"]] + [(path, *[path] * 4) for path in PATHS["unchanged"]]
    a, b = (Workload(ref=Ref("n", name), ports=PORTS[:1], service_account=name, meshed=True) for name in "ab")
    lab.deploy(Topology(namespaces={"n": {}}, workloads=(a, b), mesh={"pathNormalization": setting}), "n")
    probes = [
        Probe(source=Ref("n", "a-0"), target=Ref("n", "b-0"), port=8080, address="pod", path=sent, past_proxy=True, cert="own")
        for sent, *_ in table
    ]
    attempts = [Attempt(id=str(n), row=str(n), probe=p, targets=(Ref("n", "b-0"),), timeout=3.0) for n, p in enumerate(probes)]
    came = lab.run(attempts).observations
    lab.remove("n")
    expected = {sent: str(seen[SETTINGS.index(setting)]) for sent, *seen in table}
    got = {p.path: json.loads(o.body)["path"] if o.backend else str(o.status) for p, o in zip(probes, came, strict=True)}
    assert expected == got


@pytest.mark.parametrize("case", MODES["cases"], ids=lambda c: c["name"])
def test_the_mode_in_force_is_the_one_of_the_table(lab, case):
    """By plaintext and by mTLS to each declared port: STRICT takes the one, DISABLE the other, PERMISSIVE both."""
    ports = tuple(Port(number=n, name=f"p{n}", service=n) for n in (8080, 9090))
    pods = [who for who in case["modes"] if ref(who).namespace != "istio-system"]
    workloads = [
        Workload(ref=ref(who), ports=ports, labels={"app": ref(who).name}, service_account="s", meshed=True) for who in pods
    ]
    client = Workload(ref=Ref("client", "c"), service_account="c", meshed=True)
    namespaces = {w.ref.namespace: {} for w in (*workloads, client)} | {"ns1": {}}
    lab.deploy(Topology(namespaces=namespaces, workloads=(*workloads, client)), "m")
    lab.perform(Step(apply=tuple(manifest("PeerAuthentication", policy, n) for n, policy in enumerate(case["policies"]))))
    wanted, attempts = {}, []
    for who in pods:
        for number, mode in case["modes"][who][1].items():
            if number not in (8080, 9090):
                continue
            for cert, passes in ((None, mode != "STRICT"), ("own", mode != "DISABLE")):
                name = f"{who}:{number} {cert}"
                target = Ref(ref(who).namespace, f"{ref(who).name}-0")
                probe = Probe(source=Ref("client", "c-0"), target=target, port=number, address="pod", past_proxy=True, cert=cert)
                wanted[name] = passes
                attempts.append(Attempt(id=name, row=name, probe=probe, targets=(target,), timeout=2.0))
    came = lab.run(attempts).observations if attempts else ()
    lab.remove("m")
    assert wanted == {o.attempt: bool(o.backend) for o in came}
