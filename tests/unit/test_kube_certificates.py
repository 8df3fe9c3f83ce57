# SPDX-License-Identifier: Apache-2.0
"""What an attacker's probe shows, whose agent sends it, and that a captured client's leaves by its own."""

from typing import Any

import pytest
from cryptography import x509

from ztconform.agent.spec import read_spec
from ztconform.errors import UsageError
from ztconform.kube.certificates import Certificates
from ztconform.kube.making import past
from ztconform.kube.meshing import sender
from ztconform.kube.names import private
from ztconform.kube.pods import KubePod
from ztconform.kube.profile import SVID_FOLDER
from ztconform.model import Attempt, Case, Kind, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import plan

NAMES = private({"shop": {}}, "1a2b3c-0")
SOURCE = Ref("shop", "attacker-0")


def pod(*, meshed: bool = True) -> KubePod:
    workload = Workload(ref=Ref("shop", "attacker"), service_account="attacker", meshed=meshed, past_proxy=("own",))
    return KubePod(ref=SOURCE, real=SOURCE, workload=workload, node=0, addresses=("10.0.0.7",), serves=True)


def shown(cert: str | None, *, kind: Kind = "http", past_proxy: bool = True, meshed: bool = True) -> dict[str, Any]:
    probe = Probe(source=SOURCE, target=Ref("shop", "payment"), port=8080, kind=kind, past_proxy=past_proxy, cert=cert)
    return Certificates(NAMES, "corp.example").tls(probe, pod(meshed=meshed))


def claimed(tls: dict[str, Any]) -> str:
    names = x509.load_pem_x509_certificate(tls["chain"].encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return str(names.value.get_values_for_type(x509.UniformResourceIdentifier)[0])


@pytest.mark.parametrize(("cert", "outlived"), [("own", False), ("expired", True), ("shop/checkout", False)])
def test_a_certificate_of_the_mesh_stays_in_its_pods_files(cert: str, outlived: bool) -> None:
    tls = shown(cert)
    assert (SVID_FOLDER, outlived) == (tls["folder"], tls["outlived"])
    assert "key" not in tls


@pytest.mark.parametrize(
    ("cert", "identity"),
    [
        ("foreign-ca", "spiffe://corp.example/ns/shop-1a2b3c-0/sa/attacker"),
        ("foreign-domain", "spiffe://foreign.example/ns/shop-1a2b3c-0/sa/attacker"),
    ],
)
def test_a_forgery_claims_the_pods_own_identity_in_the_cluster(cert: str, identity: str) -> None:
    assert identity == claimed(shown(cert))


def test_no_certificate_is_tls_all_the_same() -> None:
    assert {"alpn": ["istio-http/1.1", "istio", "http/1.1"]} == shown("none")
    assert {"alpn": ["istio-h2", "istio", "h2"]} == shown("none", kind="grpc")


def test_every_certificate_is_one_that_the_agent_takes() -> None:
    for cert in ("none", "own", "expired", "foreign-ca", "foreign-domain", "shop/checkout"):
        read_spec({"kind": "http", "port": 80, "address": "10.0.0.1", "tls": shown(cert)})


@pytest.mark.parametrize("fields", [{"past_proxy": False}, {"meshed": False}])
def test_a_pod_that_has_no_certificate_shows_none(fields: dict[str, bool]) -> None:
    with pytest.raises(UsageError, match="only a meshed pod has one"):
        shown("own", **fields)


@pytest.mark.parametrize(
    ("past_proxy", "cert", "sends"),
    [
        (False, None, SOURCE),
        (True, None, Ref("shop", "attacker-0/past")),
        (True, "own", Ref("shop", "attacker-0/past")),
        (True, "foreign-ca", Ref("shop", "attacker-0/past")),
        (True, "shop/checkout", Ref("shop", "attacker-0-as-checkout/past")),
    ],
)
def test_only_a_probe_past_its_proxy_is_sent_by_whom_no_proxy_captures(past_proxy: bool, cert: str | None, sends: Ref) -> None:
    probe = Probe(source=SOURCE, target=Ref("shop", "payment"), port=8080, past_proxy=past_proxy, cert=cert)
    attempt = Attempt(id="a", row="r", probe=probe, targets=(), timeout=1.0)
    holder = Ref("shop", "attacker-0-as-checkout")
    thief = KubePod(ref=holder, real=holder, workload=pod().workload, node=0, addresses=(), serves=False)
    others = {(SOURCE, ""): past(pod()), (SOURCE, "shop/checkout"): past(thief)}
    assert sends == sender(attempt, pod(), others)


def test_a_workload_says_what_its_probes_show_and_only_those_past_its_proxy() -> None:
    attacker, other = (Workload(ref=Ref("shop", name), meshed=True) for name in ("attacker", "other"))
    probes = [
        Probe(source=attacker.ref, target=other.ref, port=1, past_proxy=True, cert="own"),
        Probe(source=attacker.ref, target=other.ref, port=2, past_proxy=True),
        Probe(source=other.ref, target=attacker.ref, port=1),
    ]
    rows = tuple(Row(id=str(n), probe=probe, want="allowed") for n, probe in enumerate(probes))
    topology = Topology(namespaces={"shop": {}}, workloads=(attacker, other))
    case = plan.with_attackers(Case(id="c", topology=topology, steps=(Step(rows=rows),)))
    assert [("", "own"), ()] == [workload.past_proxy for workload in case.topology.workloads]
