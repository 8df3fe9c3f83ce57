# SPDX-License-Identifier: Apache-2.0
"""A broken mesh is never green: each fault is really done, in the middle of a proof, and every row that it touches says so."""

import copy
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ztconform.errors import ClusterError
from ztconform.lab.cluster import LabCluster
from ztconform.lab.mesh import control
from ztconform.model import Case, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import prove_case
from ztconform.proof.canary import mesh_canary

HTTP = Port(number=8080, name="http", service=80)
FRIEND, STRANGER, PLAIN, SERVER = (Ref("t", name) for name in ("friend", "stranger", "plain", "server"))


def security(kind: str, name: str, spec: dict[str, object]) -> dict[str, object]:
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "t"}, "spec": spec}


STRICT = security("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}})
FROM_FRIEND = security(
    "AuthorizationPolicy",
    "from-friend",
    {
        "selector": {"matchLabels": {"app": "server"}},
        "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/t/sa/friend"]}}]}],
    },
)


def row(name: str, source: Ref, want: str, *by: str, control: str = "open", twin: str | None = None, **probe: object) -> Row:
    made = Probe(source=source, target=SERVER, port=8080, **probe)
    return Row(id=name, probe=made, want=want, by=frozenset(by), control=control, twin=twin)


def workload(ref: Ref, **more: object) -> Workload:
    return Workload(ref=ref, labels={"app": ref.name}, service_account=ref.name, **{"meshed": True, **more})


CASE = Case(
    id="t",
    topology=Topology(
        namespaces={"t": {}},
        workloads=(workload(SERVER, ports=(HTTP,)), workload(FRIEND), workload(STRANGER), workload(PLAIN, meshed=False)),
    ),
    steps=(
        Step(
            apply=(STRICT, FROM_FRIEND),
            rows=(
                row("friend", FRIEND, "allowed"),
                row("stranger", STRANGER, "denied", "l7"),
                row("plain", PLAIN, "denied", "mtls"),
                row("own", FRIEND, "allowed", past_proxy=True, cert="own"),
                row("none", FRIEND, "denied", "mtls", past_proxy=True, cert="none", control="twin", twin="own"),
            ),
        ),
    ),
)


@pytest.fixture
def lab() -> Iterator[LabCluster]:
    """Give each fault a lab of its own, since it breaks it."""
    with LabCluster() as cluster:
        yield cluster


def outcomes(lab: LabCluster, *, at: str = "", fault: Callable[[], object] = lambda: None, case: Case = CASE):
    done = []

    def notify(phase: str) -> None:
        if phase == at and not done:
            done.append(fault())

    results = prove_case(case, lab, notify=notify)
    assert at == "" or done, f"phase {at} never came, so nothing was broken"
    return {r.row.id: (r.outcome, r.why) for r in results}


def envoy(lab: LabCluster) -> int:
    """Return the Envoy of a lab, as seen from here."""
    children = Path(f"/proc/{lab._process.inner_pid}/task/{lab._process.inner_pid}/children").read_text().split()
    return next(int(pid) for pid in children if b"envoy" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])


def kill_envoy(lab: LabCluster) -> None:
    os.kill(envoy(lab), signal.SIGKILL)


def test_without_a_fault_everything_is_proved(lab):
    assert {"PROVED"} == {outcome for outcome, _ in outcomes(lab).values()}


@pytest.mark.parametrize("phase", ["converge", "hold"])
def test_rows_of_a_mesh_whose_envoy_was_killed_are_not_green(lab, phase):
    try:
        came = outcomes(lab, at=phase, fault=lambda: kill_envoy(lab))
    except ClusterError as error:
        assert "Envoy" in str(error)
        return
    assert not {"PROVED"} & {outcome for outcome, _ in came.values()}


def test_an_envoy_that_was_killed_and_restarted_proves_again(lab):
    lab.deploy(CASE.topology, "before")
    kill_envoy(lab)
    lab.mesh.restart()
    lab.remove("before")
    assert {"PROVED"} == {outcome for outcome, _ in outcomes(lab).values()}


def test_an_authorization_that_never_reaches_envoy_is_a_violation(lab, monkeypatch):
    real = lab._process.prober.ask

    def ask(op, **arguments):
        if op == "mesh-tell":
            old = {name: it for name, it in arguments["authorization"].items() if name in told}
            told.update(arguments["authorization"])
            arguments["authorization"] = {n: it for n, it in arguments["authorization"].items() if n not in old}
        return real(op, **arguments)

    told: dict[str, object] = {}
    monkeypatch.setattr(lab._process.prober, "ask", ask)
    came = outcomes(lab)
    assert "VIOLATED" == came["stranger"][0]
    assert "PROVED" == came["plain"][0]


def test_listeners_that_never_reach_envoy_are_a_violation_of_mtls(lab, monkeypatch):
    real = lab._process.prober.ask
    first = []

    def ask(op, **arguments):
        if op == "mesh-tell" and arguments["listeners"] is not None:
            if first:
                arguments["listeners"] = None
            first.append(True)
        return real(op, **arguments)

    monkeypatch.setattr(lab._process.prober, "ask", ask)
    came = outcomes(lab)
    assert "VIOLATED" == came["plain"][0]


def test_servers_that_ask_clients_for_no_certificate_are_found(lab, monkeypatch):
    real = control.resources

    def lax(*arguments):
        made = real(*arguments)
        listeners = copy.deepcopy(list(made.listeners))
        for listener in listeners:
            for chain in listener.get("filter_chains", ()):
                socket = chain.get("transport_socket")
                if socket:
                    socket["typed_config"].pop("require_client_certificate", None)
                    # The SPIFFE validator alone would demand one too.
                    socket["typed_config"]["common_tls_context"].pop("validation_context_sds_secret_config", None)
        return replace(made, listeners=tuple(listeners))

    monkeypatch.setattr(control, "resources", lax)
    # Without the authorization, which would refuse whoever shows no certificate.
    case = replace(CASE, steps=(replace(CASE.steps[0], apply=(STRICT,), rows=CASE.steps[0].rows[3:]),))
    assert "VIOLATED" == outcomes(lab, case=case)["none"][0]


def test_clients_whose_packets_leave_past_the_proxy_in_plaintext_are_found(lab, monkeypatch):
    """What leaks is refused by the server, so that the very rows that should pass are red."""
    real = lab._aim

    def leaking():
        aim = real()
        spec = aim.spec
        aim.spec = lambda attempt: {**spec(attempt), "mark": 1337}
        return aim

    monkeypatch.setattr(lab, "_aim", leaking)
    assert "VIOLATED" == outcomes(lab)["friend"][0]


def test_an_identity_that_is_not_renewed_ends_what_depends_on_it(monkeypatch):
    with LabCluster(svid_ttl=3.0) as lab:
        monkeypatch.setattr(lab.mesh, "due", lambda state: [])
        # Every connection is made anew, so that an expired certificate is shown at once.
        came = outcomes(lab, at="apply", fault=lambda: time.sleep(4.0))
    assert "PROVED" != came["friend"][0]


def test_identities_that_live_for_seconds_are_renewed_in_time():
    with LabCluster(svid_ttl=4.0) as lab:
        lab.deploy(CASE.topology, "t")
        server = next(p for p in lab._state.pods.values() if p.workload == SERVER)
        first = lab.mesh.holding(server)
        deadline = time.monotonic() + 6.0
        attempt = _attempt(lab)
        while time.monotonic() < deadline:
            assert lab.run([attempt]).observations[0].backend
            time.sleep(0.1)
        assert first.serial != lab.mesh.holding(server).serial


def _attempt(lab: LabCluster):
    from ztconform.proof import plan

    found, _ = plan.attempts(row("x", FRIEND, "allowed"), lab.pods(), lab.endpoints, lab.facts().timeouts)
    return found[0]


def test_a_mesh_that_allows_nothing_by_itself_is_opened_first_and_the_control_says_so():
    metadata = {"name": "allow-nothing", "namespace": "every"}
    nothing = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": {}}
    with LabCluster(baseline=(nothing,)) as lab:
        results = prove_case(mesh_canary(("istio",)), lab)
    assert ["PROVED", "PROVED", "PROVED"] == [r.outcome for r in results], [r.why for r in results]
    assert ["opened", "opened"] == [r.control for r in results if r.row.want == "denied"]
