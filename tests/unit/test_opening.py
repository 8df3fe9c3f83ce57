# SPDX-License-Identifier: Apache-2.0
"""What opens namespaces that deny by themselves, and the mesh's canary, in every dialect: manifests that an API server takes."""

import os
from pathlib import Path

import pytest
from manifest_schemas import Schemas

from ztconform.model import Case, Manifest, Port, Ref, Topology, Workload
from ztconform.proof.canary import mesh_canary
from ztconform.proof.opening import opened

PORTS = (Port(number=8080), Port(number=7000, app="tcp"), Port(number=53, protocol="UDP", app="udp"))
TOPOLOGY = Topology(
    namespaces={"shop": {}, "twin": {}},
    workloads=(
        Workload(ref=Ref("shop", "payment"), ports=PORTS, meshed=True),
        Workload(ref=Ref("shop", "products"), ports=(Port(number=8080), Port(number=9091)), meshed=True),
        Workload(ref=Ref("shop", "legacy"), ports=(Port(number=6000),)),
        Workload(ref=Ref("twin", "payment"), ports=(Port(number=8080),), meshed=True),
    ),
)


def kinds(manifests: tuple[Manifest, ...]) -> list[tuple[str, str]]:
    return [(str(m["kind"]), str(m["metadata"]["namespace"])) for m in manifests]


def test_each_layer_that_is_there_is_opened_once_in_each_namespace() -> None:
    assert [("NetworkPolicy", "shop")] == kinds(opened(("kubernetes", "cilium"), ["shop", "shop"], TOPOLOGY))
    found = kinds(opened(("kubernetes", "istio"), ["twin", "shop"], TOPOLOGY))
    assert {("PeerAuthentication", "shop"), ("AuthorizationPolicy", "twin")} < set(found)
    assert 6 == len(found) == len(set(found))


def test_linkerd_is_opened_by_a_server_for_each_tcp_port_of_meshed_pods() -> None:
    servers = [m for m in opened(("kubernetes", "linkerd"), ["shop"], TOPOLOGY) if m["kind"] == "Server"]
    assert [7000, 8080, 9091] == [m["spec"]["port"] for m in servers]
    assert 3 == len({m["metadata"]["name"] for m in servers})
    assert {"all-unauthenticated"} == {m["spec"]["accessPolicy"] for m in servers}


@pytest.mark.parametrize(("dialects", "plaintext"), [(("kubernetes", "istio"), "mtls"), (("kubernetes", "linkerd"), "l7")])
def test_the_meshs_canary_speaks_the_meshs_own_dialect(dialects: tuple[str, ...], plaintext: str) -> None:
    case = mesh_canary(dialects)
    (step,) = case.steps
    groups = {str(manifest["apiVersion"]).partition("/")[0] for manifest in step.apply}
    assert {"security.istio.io" if "istio" in dialects else "policy.linkerd.io"} == groups
    assert frozenset({plaintext}) == next(row.by for row in step.rows if row.id.startswith("plain"))


@pytest.mark.parametrize("dialect", ["istio", "linkerd"])
def test_an_api_server_takes_them(dialect: str) -> None:
    folder = os.environ.get("ZTC_TEST_SCHEMAS")
    if not folder:
        pytest.skip("schemas not given: nothing validated")
    schemas, case = Schemas(Path(folder)), mesh_canary((dialect,))
    assert isinstance(case, Case)
    for manifest in (*opened((dialect,), ["shop"], TOPOLOGY), *case.steps[0].apply):
        assert [] == schemas.wrongs(manifest)
