# SPDX-License-Identifier: Apache-2.0
"""In every dialect that says a scenario's intents, its own rows come out as demanded, by what the dialect's reference says.

Nothing is sent: that a cluster does what its reference says is for the scenarios to prove.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import loosening
import mesh_oracles
import pytest
from cni_oracles import Http, verdict
from dialect_world import RESOLVER, load, pod, relabelled, rendered, world
from mesh_oracles import Call
from policy_oracle import Connection

from ztconform import policies, scenario
from ztconform.lab.inventory import Inventory
from ztconform.model import Case, Ref, Row
from ztconform.proof.change import key
from ztconform.rows import Change, allowed, step
from ztconform.shop import shop

ALL = shop().topology
MESHES: dict[str, Callable[[Sequence[Any], Call], str]] = {
    "istio": mesh_oracles.sidecar,
    "istio-waypoint": mesh_oracles.waypoint,
    "linkerd, which denies by default": lambda manifests, call: mesh_oracles.linkerd(manifests, call, "deny"),
    "linkerd, which is open by default": lambda manifests, call: mesh_oracles.linkerd(manifests, call, "all-unauthenticated"),
}
NETWORKS = ("kubernetes", "cilium", "calico", "cluster-network-policy")
LINKERD, DENIES = "linkerd", "linkerd, which denies by default"
# What of a scenario a mesh does in a way of its own: requirement, how the row's name begins, and the meshes.
OWN_WAYS = [
    # A sidecar that calls a pod's address sends plaintext; ztunnel and Linkerd's proxy know the pod, and do not.
    ("M01", "shop/frontend GET shop/payment:8080 by pod", ("istio-waypoint", LINKERD)),
    ("M03", "shop/frontend GET shop/payment:9191 by pod", ("istio-waypoint", LINKERD)),
    # A waypoint's port is not the pod's: with whose certificate past ztunnel is for the stack to say.
    ("A03", "shop/attacker ", ("istio-waypoint",)),
    ("A12", "shop/attacker ", ("istio-waypoint",)),
    ("R08", "shop/checkout POST shop/payment:8080 /v1/payments/1 by service past its proxy", ("istio-waypoint",)),
    # What no Server names is closed by default, and so the removed policy opens nothing for the network layer to close.
    ("R05", "shop/checkout POST shop/payment:8080 /v1/payments/1 by service, step 2", (DENIES,)),
]
BEFORE_POLICIES = ("none", "expired", "foreign-ca", "partner")  # certificates that the handshake refuses, or a federation admits


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Hold what one scenario asks of `prove` once."""

    requirement: str
    number: int
    policy: Any
    rows: Sequence[Row]
    steps: Sequence[Change] = ()

    def case(self, dialects: Sequence[str], *, mesh: bool) -> Case | policies.Gap:
        """Return the case that it is in these dialects."""
        return scenario.case(
            f"{self.requirement}-{self.number}", ALL, dialects, policy=self.policy, rows=self.rows, steps=self.steps, mesh=mesh
        )


def asked() -> list[Asked]:
    """Return what every scenario asks, in their order."""
    found: list[Asked] = []
    for requirement, function in sorted(loosening.scenarios().items()):

        def prove(
            *, policy: Any, rows: Sequence[Row], steps: Sequence[Change] = (), needs: str = "", of: str = requirement
        ) -> None:
            played = loosening.of_sidecars(rows)
            found.append(Asked(requirement=of, number=len(found), policy=policy, rows=played, steps=steps))

        function(shop(), prove)
    return found


ASKED = asked()


def played(case: Case) -> Iterator[tuple[Inventory, list[Any], Row]]:
    """Yield every row of a case with the pods and the policies of its step; one that passes since it is audited, as a denial."""
    inventory, force = world(case.topology), {}
    for made in case.steps:
        for manifest in (*made.delete, *made.apply):
            force.pop(key(manifest), None)
            if manifest not in made.delete:
                force[key(manifest)] = manifest
        inventory = relabelled(inventory, dict(made.relabel))
        for row in made.rows:
            objected = row.probe.target in made.audited and bool(row.logged)
            asked = replace(row, want="denied", by=frozenset({"l34"})) if objected else row
            yield inventory, rendered(list(force.values()), inventory), asked


def connection(inventory: Inventory, row: Row) -> Connection:
    probe = row.probe
    source, target = (pod(inventory, ref) for ref in (probe.source, probe.target))
    return Connection(source=source, target=target, protocol=probe.transport, port=probe.port, family=4)


def call(inventory: Inventory, row: Row) -> Call | None:
    """Return a row's request as a mesh sees it; None for one that no policy decides."""
    probe, target = row.probe, pod(inventory, row.probe.target)
    if probe.cert in BEFORE_POLICIES or "identity" in row.by or "impostor" in str(probe.target):
        return None
    workload = next(w for w in ALL.workloads if w.ref == probe.source)
    own = f"{probe.source.namespace}/{workload.service_account}"
    in_mesh = workload.meshed and not probe.past_proxy
    account = {None: own if in_mesh else "", "own": own}.get(probe.cert, probe.cert or "")
    app = next(p.app for p in target.ports if p.number == probe.port and p.protocol == probe.transport)
    return Call(
        target=target,
        port=probe.port,
        account=account,
        tcp=app == "tcp",
        method=probe.method,
        path=probe.path.partition("#")[0],
        by_service=probe.address == "service",
        in_mesh=in_mesh,
    )


def is_own_way(name: str, case: Case, row: Row) -> bool:
    """Return whether a mesh does something else here, as it should."""
    requirement, meshes = case.id.partition("-")[0], {name, name.partition(",")[0]}
    return any(requirement == r and row.id.startswith(start) and meshes & {*where} for r, start, where in OWN_WAYS)


def cases(names: Sequence[str], *, mesh: bool) -> list[Any]:
    """Return every case that a dialect of these can say, with NetworkPolicy beside it for a mesh, as parameters."""
    found = []
    for name in names:
        dialects = (name.partition(",")[0], "kubernetes") if mesh else (name,)
        for one in ASKED:
            case = one.case(dialects, mesh=mesh)
            if isinstance(case, Case) and _speaks(case, mesh=mesh):
                found.append(pytest.param(name, case, id=f"{name}-{case.id}"))
    return found


def _speaks(case: Case, *, mesh: bool) -> bool:
    """Return whether a case is about this layer: one with a mesh has more than NetworkPolicies."""
    kinds = {manifest["kind"] for made in case.steps for manifest in made.apply}
    return not mesh or bool(kinds - {"NetworkPolicy"})


NETWORK_CASES, MESH_CASES = cases(NETWORKS, mesh=False), cases(tuple(MESHES), mesh=True)


def layer_of(name: str, case: Case, inventory: Inventory, manifests: Sequence[Any], row: Row) -> str | None:
    """Return what refuses a row's request under a mesh and NetworkPolicies, or "allowed"; None for what is not decided here."""
    request = call(inventory, row)
    if request is None or is_own_way(name, case, row):
        return None
    network = [m for m in manifests if m["kind"] == "NetworkPolicy"]
    if verdict("kubernetes", inventory, network, connection(inventory, row)) == "l34":
        return "l34"
    if not pod_is_meshed(row.probe.target):
        return "allowed"
    return MESHES[name]([m for m in manifests if m["kind"] != "NetworkPolicy"], request)


def pod_is_meshed(ref: Ref) -> bool:
    return any(w.ref == ref and w.meshed for w in ALL.workloads)


@pytest.mark.parametrize(("name", "case"), NETWORK_CASES)
def test_the_network_layers_rows_come_out_as_demanded_and_by_the_layer_that_is(name: str, case: Case) -> None:
    for inventory, manifests, row in played(case):
        if row.probe.past_proxy or row.probe.cert is not None:
            continue  # there is no proxy to go past, and nobody asks for a certificate
        http = Http(method=row.probe.method, path=row.probe.path) if row.probe.kind == "http" else None
        found = verdict(name, inventory, manifests, connection(inventory, row), http)
        assert row.want == ("allowed" if found == "allowed" else "denied"), row.id
        assert found in (row.by or {"allowed"}), row.id


@pytest.mark.parametrize(("name", "case"), MESH_CASES)
def test_the_meshs_rows_come_out_as_demanded(name: str, case: Case) -> None:
    decided = [(row, found) for i, m, row in played(case) if (found := layer_of(name, case, i, m, row)) is not None]
    assert decided or any(is_own_way(name, case, row) for *_, row in played(case))
    for row, found in decided:
        assert row.want == ("allowed" if found == "allowed" else "denied"), f"{row.id}: {found}"
        if "istio" in name:
            assert found in (row.by or {"allowed"}), row.id


def test_every_scenario_is_asked_and_every_intent_of_theirs_is_played() -> None:
    assert len({one.requirement for one in ASKED}) > 30
    ids = {str(parameter.id) for parameter in (*NETWORK_CASES, *MESH_CASES)}
    for name in (*NETWORKS, *MESHES):
        assert any(each.startswith(f"{name}-") for each in ids), name


def test_no_way_of_a_meshs_own_is_listed_that_no_row_takes() -> None:
    taken = {
        (r, start) for p in MESH_CASES for *_, row in played(p.values[1]) for r, start, _ in OWN_WAYS if row.id.startswith(start)
    }
    assert {(r, start) for r, start, _ in OWN_WAYS} == taken


# Linkerd takes the older of two Servers that overlap, and what is older no manifest can say.
@pytest.mark.parametrize(("name", "case"), [each for each in MESH_CASES if each.values[0] == DENIES])
def test_no_two_servers_of_linkerd_are_of_the_same_pod_and_port(name: str, case: Case) -> None:
    for inventory, manifests, _ in played(case):
        for each in inventory.pods:
            for port in each.ports:
                assert len(mesh_oracles.overlapping(manifests, Call(target=each, port=port.number, account=""))) < 2, name


def test_a_server_of_linkerd_is_the_same_in_every_intent_but_for_whom_it_admits() -> None:
    """Two intents that hold together then have one Server a port, which the later of them decides."""
    said: dict[str, set[str]] = {}
    for intent in policies.known():
        found = policies.load(intent, ("linkerd",))
        for manifest in () if isinstance(found, policies.Gap) else found:
            if manifest["kind"] == "Server":
                what = {key: value for key, value in manifest["spec"].items() if key != "accessPolicy"}
                said.setdefault(manifest["metadata"]["name"], set()).add(repr(sorted(what.items())))
    assert len(said) > 10
    assert {} == {name: forms for name, forms in said.items() if len(forms) > 1}


PAY = Call(target=pod(world(), Ref("shop", "payment")), port=8080, account="shop/checkout", method="POST", path="/v1/payments/1")


NEIGHBOURS = ("/v1/payments", "/v1/paymentsx", "/")
UNRESOLVED = (
    "/v1/payments/../admin",
    "/v1/payments/%2e%2e/admin",
)  # Envoy resolves them before it asks; Linkerd's proxy does not


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name in MESHES for path in (NEIGHBOURS if name.startswith("istio") else (*NEIGHBOURS, *UNRESOLVED))],
)
def test_no_neighbour_of_the_permitted_path_passes(name: str, path: str) -> None:
    manifests = load("payments-by-checkout", name.partition(",")[0], world())
    assert "allowed" == MESHES[name](manifests, PAY)
    assert "l7" == MESHES[name](manifests, replace(PAY, path=path))


def test_an_http_rule_that_selects_pods_is_a_denial_at_ztunnel() -> None:
    """This is why there is a dialect of its own: the sidecar's manifest admits nobody in ambient."""
    manifests = load("payments-by-checkout", "istio", world())
    assert ("allowed", "l7") == (mesh_oracles.sidecar(manifests, PAY), mesh_oracles.waypoint(manifests, PAY))


def test_without_the_policy_at_ztunnel_the_waypoint_can_be_passed_by() -> None:
    whole = load("payments-by-checkout", "istio-waypoint", world())
    past = replace(PAY, account="shop/frontend", by_service=False)
    assert ("l7", "allowed") == (mesh_oracles.waypoint(whole, past), mesh_oracles.waypoint(whole[:1], past))


def test_a_dry_run_denies_nobody() -> None:
    for name, mesh in MESHES.items():
        manifests = load("payments-by-checkout-dry-run", name.partition(",")[0], world())
        for other in (
            PAY,
            replace(PAY, account="shop/frontend"),
            replace(PAY, account=""),
            replace(PAY, method="GET", path="/x"),
        ):
            assert "allowed" == mesh(manifests, other), (name, other)


def test_a_policy_makes_room_for_one_of_another_api_group_that_has_its_kind_and_its_name() -> None:
    """A stack that says what it can in NetworkPolicy goes on in Calico's: both call it NetworkPolicy shop/payment-by-the-shop."""
    one = shop()
    rows = [allowed(one.checkout, "GET", one.payment)]
    change = step(policy="payment-but-not-legacy", rows=rows)
    case = scenario.case("N05", ALL, ("kubernetes", "calico"), policy="payment-by-the-shop", rows=rows, steps=[change])
    assert isinstance(case, Case)
    first, second = case.steps
    assert first.apply == second.delete
    assert {"networking.k8s.io/v1"} == {manifest["apiVersion"] for manifest in second.delete}
    assert {"projectcalico.org/v3"} == {manifest["apiVersion"] for manifest in second.apply}
    assert key(first.apply[0])[1:] == key(second.apply[0])[1:]


def test_the_resolver_of_the_tables_is_the_one_that_a_cluster_has() -> None:
    assert RESOLVER.labels == pod(world(), Ref("kube-system", "kube-dns")).labels
