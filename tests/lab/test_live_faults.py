# SPDX-License-Identifier: Apache-2.0
"""A broken experiment is never green: each fault is really done, in the middle of a proof, and every row it touches says so."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ztconform.errors import ClusterError
from ztconform.lab.cluster import LabCluster
from ztconform.model import Case, Port, Probe, Ref, Row, Step, Topology, Workload
from ztconform.proof import plan, prove_canary, prove_case

ROOT = Path(__file__).parents[2]
HTTP = Port(number=8080, name="http", service=80)
CLIENT, FRIEND, SERVER = Ref("t", "client"), Ref("t", "friend"), Ref("t", "server")
SERVER_POD = Ref("t", "server-0")
L34 = frozenset({"l34"})
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "from-friend", "namespace": "t"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "server"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
    },
}
TOPOLOGY = Topology(
    namespaces={"t": {}},
    workloads=tuple(
        Workload(ref=ref, labels={"app": ref.name}, ports=(HTTP,) if ref == SERVER else ()) for ref in (CLIENT, FRIEND, SERVER)
    ),
)


def row(source: Ref, want: str, **probe: object) -> Row:
    by = L34 if want == "denied" else frozenset()
    return Row(id=f"{source.name} {want}", probe=Probe(source=source, target=SERVER, port=8080, **probe), want=want, by=by)


CASE = Case(id="t", topology=TOPOLOGY, steps=(Step(apply=(POLICY,), rows=(row(FRIEND, "allowed"), row(CLIENT, "denied"))),))


@pytest.fixture
def lab() -> Iterator[LabCluster]:
    """Give each fault a lab of its own, since it breaks it."""
    with LabCluster() as cluster:
        yield cluster


def outcomes(lab: LabCluster, *, at: str = "", fault: Callable[[], object] = lambda: None, case: Case = CASE, **options):
    done = []

    def notify(phase: str) -> None:
        if phase == at and not done:
            done.append(fault())

    results = prove_case(case, lab, notify=notify, **options)
    assert at == "" or done, f"phase {at} never came, so nothing was broken"
    return {r.row.id: (r.outcome, r.why) for r in results}


def unserve(lab: LabCluster, pod: Ref = SERVER_POD) -> None:
    lab._process.servers.ask("unserve", since={str(pod): 0})


@pytest.fixture
def serve(lab: LabCluster) -> Iterator[Callable[[int], None]]:
    """Start another server in the server's pod, as a real process of its own."""
    started = []

    def start(number: int) -> None:
        attempt = attempt_of(lab, row(FRIEND, "allowed", address="pod").probe)
        itself = replace(attempt, probe=replace(attempt.probe, source=SERVER_POD))
        enter = shlex.split(lab.render(itself).partition(f"{sys.executable} -m")[0])
        wanted = {"pod": str(SERVER_POD), "ports": [{"number": number, "protocol": "TCP", "app": "http"}]}
        command = [*enter, sys.executable, "-m", "ztconform.agent", "serve", json.dumps(wanted)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        started.append(process)
        assert b"ready" in process.stdout.readline()

    yield start
    for process in started:
        process.communicate(timeout=5)


def test_without_a_fault_everything_is_proved(lab):
    assert {"PROVED"} == {outcome for outcome, _ in outcomes(lab).values()}


@pytest.mark.parametrize("phase", ["apply", "converge", "hold"])
def test_a_killed_server_denies_nobody(lab, phase):
    came = outcomes(lab, at=phase, fault=lambda: unserve(lab))
    assert {"INCONCLUSIVE"} == {outcome for outcome, _ in came.values()}
    assert "does not answer itself" in came["client denied"][1]


def test_a_server_that_dies_before_the_control_denies_nobody(lab):
    came = outcomes(lab, at="control", fault=lambda: unserve(lab))
    assert {"INCONCLUSIVE"} == {outcome for outcome, _ in came.values()}


@pytest.mark.parametrize("phase", ["apply", "converge", "hold"])
def test_a_server_that_moved_to_another_port_denies_nobody(lab, serve, phase):
    came = outcomes(lab, at=phase, fault=lambda: (unserve(lab), serve(8081)))
    assert {"INCONCLUSIVE"} == {outcome for outcome, _ in came.values()}


@pytest.mark.parametrize("phase", ["converge", "hold"])
def test_a_server_that_restarted_denies_nobody_and_has_lost_its_log(lab, serve, phase):
    came = outcomes(lab, at=phase, fault=lambda: (unserve(lab), serve(8080)))
    assert {"INCONCLUSIVE"} == {outcome for outcome, _ in came.values()}
    assert "restarted" in came["client denied"][1] or "log" in came["client denied"][1]


def test_a_dead_dns_server_makes_rows_by_name_inconclusive_and_no_others(lab):
    rows = (row(FRIEND, "allowed", address="name"), replace(row(FRIEND, "allowed"), id="by service"))
    case = replace(CASE, steps=(Step(apply=(POLICY,), rows=rows),))
    came = outcomes(lab, at="apply", fault=lambda: unserve(lab, Ref("kube-system", "kube-dns-0")), case=case)
    assert "INCONCLUSIVE" == came["friend allowed"][0]
    assert "did not resolve" in came["friend allowed"][1]
    assert "PROVED" == came["by service"][0]


def test_a_denied_row_by_name_whose_dns_died_is_no_denial(lab):
    case = replace(CASE, steps=(Step(apply=(POLICY,), rows=(row(CLIENT, "denied", address="name"),)),))
    came = outcomes(lab, at="apply", fault=lambda: unserve(lab, Ref("kube-system", "kube-dns-0")), case=case)
    assert "INCONCLUSIVE" == came["client denied"][0]


def test_a_policy_that_was_never_applied_is_a_violation(lab):
    came = outcomes(lab, mutate=lambda manifest: None)
    assert "VIOLATED" == came["client denied"][0]


def test_a_policy_that_flaps_between_two_rounds_is_a_violation(lab):
    """No round sees the gap, but the stream does."""

    def flap() -> None:
        lab.perform(Step(delete=(POLICY,)))
        time.sleep(0.05)
        lab.perform(Step(apply=(POLICY,)))

    came = outcomes(lab, at="hold", fault=flap)
    assert "VIOLATED" == came["client denied"][0]
    assert "after it had been denied" in came["client denied"][1]


def test_a_policy_that_is_not_read_back_as_applied_proves_nothing(lab, monkeypatch):
    monkeypatch.setattr(lab, "policies", lambda: ())
    assert {"INCONCLUSIVE"} == {outcome for outcome, _ in outcomes(lab).values()}


def test_rules_that_never_reach_the_kernel_are_a_violation_and_fail_the_canary(lab, monkeypatch):
    monkeypatch.setattr(lab._process, "load", lambda batches: None)
    case = replace(CASE, steps=(Step(apply=(POLICY,), rows=(row(CLIENT, "denied", address="pod"),)),))
    assert "VIOLATED" == outcomes(lab, case=case)["client denied"][0]
    assert "VIOLATED" in {r.outcome for r in prove_canary(lab)}


def test_a_prober_that_calls_everything_a_timeout_proves_nothing(lab, monkeypatch):
    lie = {"signal": "timeout", "stage": "connect", "backend": "", "status": None}
    monkeypatch.setattr(lab, "run", lying(lab, lambda o: replace(o, **lie)))
    assert {"INCONCLUSIVE"} <= {outcome for outcome, _ in outcomes(lab).values()}
    assert "PROVED" not in {outcome for outcome, _ in outcomes(lab).values()}


def test_a_prober_that_calls_denied_probes_answered_is_a_violation(lab, monkeypatch):
    def lie(o):
        if o.signal == "answered":
            return o
        return replace(o, signal="answered", stage="done", status=200, backend=str(SERVER_POD), boot=boot)

    boot = ""

    def control() -> None:
        nonlocal boot
        probe = row(FRIEND, "allowed").probe
        boot = lab.run([attempt_of(lab, probe)]).observations[0].boot

    came = outcomes(lab, at="apply", fault=lambda: (control(), monkeypatch.setattr(lab, "run", lying(lab, lie))))
    assert "VIOLATED" == came["client denied"][0]


def test_a_prober_that_sent_nothing_under_the_policy_proves_no_denial(lab, monkeypatch):
    """It reports the very timeout that a denial shows, but no firewall has seen its packet."""
    real = lab.run

    def mute(attempts):
        # The denied client's probes go to a bystander's port that nobody has, and are reported as timeouts.
        round_ = real(attempts)
        silent = [
            replace(o, signal="timeout", stage="connect", backend="", nonce="f" * 16) if o.signal != "answered" else o
            for o in round_.observations
        ]
        return replace(round_, observations=tuple(silent))

    came = outcomes(lab, at="apply", fault=lambda: monkeypatch.setattr(lab, "run", mute))
    assert "INCONCLUSIVE" == came["client denied"][0]
    assert "nothing logged" in came["client denied"][1]


def test_a_nonce_that_arrived_although_its_client_timed_out_is_a_violation(lab, monkeypatch):
    """One direction leaks: what the server saw overrules what the client heard."""
    real = lab.seen
    sent: list[str] = []
    real_run = lab.run

    def run(attempts):
        round_ = real_run(attempts)
        sent.extend(o.nonce for o in round_.observations if o.signal == "timeout")
        return round_

    def seen(servers):
        log = real(servers)
        if SERVER_POD not in log or not sent:
            return log
        extra = replace(log[SERVER_POD][-1], nonce=sent[-1], sequence=len(log[SERVER_POD]) + 1)
        return {**log, SERVER_POD: [*log[SERVER_POD], extra]}

    monkeypatch.setattr(lab, "run", run)
    monkeypatch.setattr(lab, "seen", seen)
    came = outcomes(lab)
    assert "VIOLATED" == came["client denied"][0]
    assert "believed denied" in came["client denied"][1]


@pytest.mark.parametrize("loss", ["unreadable", "half of it"])
def test_a_lost_witness_log_proves_nothing(lab, monkeypatch, loss):
    real = lab.seen

    def seen(servers):
        if loss == "unreadable":
            return dict.fromkeys(servers)
        return {server: log[: len(log) // 2] for server, log in real(servers).items()}

    monkeypatch.setattr(lab, "seen", seen)
    came = outcomes(lab)
    assert "INCONCLUSIVE" == came["friend allowed"][0]
    if loss == "unreadable":
        assert "INCONCLUSIVE" == came["client denied"][0]


def test_a_gap_in_a_servers_log_loses_the_whole_log(lab):
    lab.deploy(TOPOLOGY, "t")
    lab._note({str(SERVER_POD): [["n1", "b", 1, None], ["n3", "b", 3, None]]})
    assert {SERVER_POD: None} == lab.seen([SERVER_POD])


def test_a_firewall_log_that_lost_events_proves_no_denial(lab, monkeypatch):
    monkeypatch.setattr(lab, "causes", lambda nonces: None)
    came = outcomes(lab)
    assert "INCONCLUSIVE" == came["client denied"][0]
    assert "lost events" in came["client denied"][1]


def test_a_machine_too_busy_for_a_denied_probe_does_not_hide_a_policy_without_effect(lab, monkeypatch):
    """Every answer comes later than a denied probe waits; the last word is asked for with an allowed probe's patience."""
    real, patience = lab.run, lab.facts().timeouts.denied

    def hurried(attempts):
        round_ = real(attempts)
        met = zip(attempts, round_.observations, strict=True)
        late = tuple(replace(o, signal="timeout", status=None, backend="") if a.timeout == patience else o for a, o in met)
        return replace(round_, observations=late)

    came = outcomes(lab, at="converge", fault=lambda: monkeypatch.setattr(lab, "run", hurried), mutate=lambda manifest: None)
    assert "VIOLATED" == came["client denied"][0]
    assert "answered by t/server-0" in came["client denied"][1]


def test_a_bystander_that_is_cut_off_makes_silence_inconclusive(lab):
    came = outcomes(lab, at="converge", fault=lambda: [unserve(lab, Ref("ztc-bystanders", f"listener-{n}-0")) for n in (0, 1)])
    assert "INCONCLUSIVE" == came["client denied"][0]
    assert "bystander" in came["client denied"][1]


@pytest.mark.parametrize("phase", ["control", "converge", "hold", "release"])
def test_a_killed_prober_is_a_cluster_error_and_no_result(lab, phase):
    with pytest.raises(ClusterError, match=r"ended|gone"):
        outcomes(lab, at=phase, fault=lambda: os.kill(lab._process.inner_pid, signal.SIGKILL))


def test_a_deployment_that_fails_half_way_is_not_in_the_way_of_the_next(lab, monkeypatch):
    def refuse(*arguments):
        raise ClusterError("Envoy would not have it")

    with monkeypatch.context() as broken, pytest.raises(ClusterError, match="would not have it"):
        broken.setattr(lab.mesh, "tell", refuse)
        outcomes(lab)
    assert {"PROVED"} == {outcome for outcome, _ in outcomes(lab).values()}


def lying(lab: LabCluster, lie: Callable[..., object]):
    real = lab.run

    def run(attempts):
        round_ = real(attempts)
        return replace(round_, observations=tuple(lie(o) for o in round_.observations))

    return run


def attempt_of(lab: LabCluster, probe: Probe):
    found, _ = plan.attempts(Row(id="x", probe=probe, want="allowed"), lab.pods(), lab.endpoints, lab.facts().timeouts)
    return found[0]
