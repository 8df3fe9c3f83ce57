# SPDX-License-Identifier: Apache-2.0
"""A real SPIRE issues the identities of the lab's pods: I05, I08, I09 and R08 are proved on it, and each fault of it is noticed.

The programs are named by ZTC_TEST_SPIRE_SERVER and ZTC_TEST_SPIRE_AGENT; without them nothing of this is proved.
"""

import asyncio
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loosening import scenarios

from tests.lab.test_live_leftovers import children_of, gone
from ztconform import scenario
from ztconform.errors import ClusterError, UsageError
from ztconform.lab.cluster import LabCluster
from ztconform.lab.spire.host import Host
from ztconform.model import Case, Ref, Step
from ztconform.proof import plan, prove_case
from ztconform.settings import Settings
from ztconform.shop import shop
from ztconform.stacks import labspire

PROGRAMS = {name: os.environ.get(f"ZTC_TEST_SPIRE_{name}", "") for name in ("SERVER", "AGENT")}
WITHOUT = [f"ZTC_TEST_SPIRE_{name}" for name, path in PROGRAMS.items() if not path]
pytestmark = [
    pytest.mark.skipif(bool(WITHOUT), reason=f"no SPIRE to test with: {' and '.join(WITHOUT)} name no program"),
    pytest.mark.skipif(importlib.util.find_spec("spiffe") is None, reason="pip install 'ztconform[spire]': spiffe is missing"),
]
SETTINGS = Settings(spire_server_bin=PROGRAMS["SERVER"], spire_agent_bin=PROGRAMS["AGENT"])
OF_SPIRE = ("I05", "I08", "I09", "R08")
OF_THE_MESH = ("I01", "I02", "M06", "M07", "A01", "A12")
CHECKOUT, FRONTEND, PAYMENT = (Ref("shop", name) for name in ("checkout", "frontend", "payment"))
SCENARIOS = scenarios()


@pytest.fixture(scope="module")
def spire() -> Iterator[LabCluster]:
    with LabCluster(spire=labspire.binaries(SETTINGS)) as cluster:
        yield cluster


def case_of(requirement: str) -> Case:
    """Return the case that a scenario asks to be proved."""
    asked: list[dict[str, Any]] = []
    SCENARIOS[requirement](shop(), lambda **words: asked.append(words))
    (words,) = asked
    made = scenario.case(requirement, shop().topology, ("kubernetes", "istio"), mesh=True, **words)
    assert isinstance(made, Case)
    return made


def outcomes(cluster: LabCluster, case: Case, patience: float | None = None) -> dict[str, tuple[str, str]]:
    return {result.row.id: (result.outcome, result.why) for result in prove_case(case, cluster, patience=patience)}


def faulty(cluster: LabCluster, case: Case) -> dict[str, tuple[str, str]]:
    """Return the outcomes of what will not be proved, however long it is waited for."""
    return outcomes(cluster, case, patience=6.0)


def changed(case: Case, **changes: Any) -> Case:
    """Return the case with fields of every step that disturbs the identity provider replaced, its rows as they were."""
    disturbed = [step for step in case.steps if step.provider != "sound" or step.unregistered]
    assert disturbed
    return replace(case, steps=tuple(replace(step, **changes) if step in disturbed else step for step in case.steps))


def short(found: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {row: outcome for row, (outcome, _) in found.items() if outcome != "PROVED"}


@pytest.mark.parametrize("requirement", (*OF_SPIRE, *OF_THE_MESH))
def test_a_requirement_is_proved_on_identities_that_spire_issued(spire: LabCluster, requirement: str) -> None:
    found = outcomes(spire, case_of(requirement))
    assert found
    assert {} == {row: told for row, told in found.items() if told[0] != "PROVED"}


def test_a_denial_says_by_the_agents_own_log_that_nothing_was_issued(spire: LabCluster) -> None:
    results = [r for r in prove_case(case_of("I09"), spire) if r.row.by == {"identity"}]
    assert 3 == len(results)
    assert ["NOSVID", "BANNED", "BANNED"] == [r.why.partition(" ")[0] for r in results]
    for result in results:
        assert ("spire", "identity") == (result.cause.source, result.cause.layer)
        assert {"no-identity"} == {o.signal for o in result.observations}
        assert "open" == result.control
        assert result.fate.startswith("none of ")
        print(result.row.id, result.why, result.window)


def test_an_entry_that_is_not_deleted_is_a_violation(spire: LabCluster) -> None:
    for requirement, rows in (("I08", 1), ("I09", 1)):
        case = case_of(requirement)
        found = faulty(spire, changed(case, unregistered=frozenset()))
        red = short(found)
        assert ["VIOLATED"] * rows == list(red.values())
        assert all("shop/frontend" in row and "step 2" in row for row in red)


def test_an_agent_that_is_not_banned_is_a_violation(spire: LabCluster) -> None:
    red = short(faulty(spire, changed(case_of("I09"), provider="sound")))
    assert {"VIOLATED"} == set(red.values())
    assert 2 == len(red)
    assert all("step 3" in row for row in red)


def test_an_agent_that_is_merely_gone_is_no_denial(spire: LabCluster) -> None:
    case = case_of("I09")
    down = replace(case, steps=tuple(replace(s, provider="down") if s.provider == "banned" else s for s in case.steps))
    red = faulty(spire, down)
    assert {"INCONCLUSIVE"} == set(short(red).values())
    assert all("looks like BANNED, but nothing logged" in why for _, why in red.values() if "nothing logged" in why)
    assert 2 == len(short(red))


def test_a_refusal_that_the_agent_did_not_log_is_no_denial(spire: LabCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from ztconform.lab.process import Channel

    asked = Channel.ask

    def without(self: Channel, op: str, **words: Any) -> Any:
        answer = asked(self, op, **words)
        return {**answer, "refused": []} if op == "causes" else answer

    monkeypatch.setattr(Channel, "ask", without)
    assert {"INCONCLUSIVE"} == set(short(faulty(spire, case_of("I08"))).values())


def test_an_outage_hides_no_policy_that_is_not_in_force(spire: LabCluster) -> None:
    def without(manifest: Any) -> Any:
        return None if manifest["kind"] == "AuthorizationPolicy" else manifest

    results = prove_case(case_of("R08"), spire, mutate=without, patience=6.0)
    red = {r.row.id for r in results if r.outcome == "VIOLATED"}
    assert {r.row.id for r in results if r.row.by == {"l7"}} == red
    assert 3 == len(red)


def test_a_partner_that_is_trusted_without_being_federated_is_a_violation(spire: LabCluster) -> None:
    case = case_of("I05")
    always = replace(case, steps=tuple(replace(step, provider="federated") for step in case.steps))
    found = faulty(spire, always)
    assert ["VIOLATED", "VIOLATED"] == list(short(found).values())
    assert all("certificate partner" in row for row in short(found))


def test_a_partner_that_is_not_trusted_although_it_is_federated_is_a_violation(spire: LabCluster) -> None:
    found = faulty(spire, changed(case_of("I05"), provider="sound"))
    assert ["VIOLATED"] == list(short(found).values())


def test_a_registration_is_tied_to_the_program_of_one_pod(spire: LabCluster) -> None:
    case = case_of("I01")
    spire.deploy(case.topology, "t")
    try:
        spire.perform(Step())
        held = {p.workload: spire.mesh.holding(p) for p in spire._state.pods.values() if p.meshed}
        ids = {ref: svid.spiffe_id for ref, svid in held.items() if svid is not None}
        assert "spiffe://cluster.local/ns/shop/sa/checkout" == ids[CHECKOUT]
        assert "spiffe://cluster.local/ns/shop/sa/frontend" == ids[FRONTEND]
        assert len(ids) == len(set(ids.values()))
        assert len({svid.serial for svid in held.values() if svid is not None}) == len(ids)
    finally:
        spire.remove("t")


def test_another_trust_domain_is_refused_in_one_line(spire: LabCluster) -> None:
    case = case_of("I01")
    outcomes(spire, case)
    with pytest.raises(UsageError, match=r"mesh.trustDomain is other.example, and this lab's SPIRE has cluster.local for good"):
        prove_case(replace(case, topology=replace(case.topology, mesh={"trustDomain": "other.example"})), spire)


def test_a_spire_that_cannot_start_is_one_line_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "agent").write_text('#!/bin/sh\n[ "$1" = run ] || { echo 1.2.3; exit 0; }\necho the agent said no >&2\nexit 1\n')
    (tmp_path / "agent").chmod(0o755)
    broken = replace(labspire.binaries(SETTINGS), agent=tmp_path / "agent")
    with LabCluster(spire=broken) as lab, pytest.raises(ClusterError, match=r"agent ended by itself: .*the agent said no"):
        lab.deploy(case_of("I01").topology, "t")


def test_identities_that_live_for_seconds_are_renewed_by_spire_in_time() -> None:
    case = case_of("R08")
    with LabCluster(spire=labspire.binaries(SETTINGS), svid_ttl=12.0) as lab:
        lab.deploy(case.topology, "t")
        (pod,) = (p for p in lab._state.pods.values() if p.workload == PAYMENT)
        row = next(row for row in case.steps[0].rows if row.want == "allowed")
        (attempt,), _ = plan.attempts(row, lab.pods(), lab.endpoints, lab.facts().timeouts)
        first, deadline = lab.mesh.holding(pod), time.monotonic() + 18.0
        while time.monotonic() < deadline:
            assert lab.run([attempt]).observations[0].backend
            time.sleep(0.2)
        assert first.serial != lab.mesh.holding(pod).serial


OWNER = """
import sys
from dataclasses import replace
from ztconform.lab.cluster import LabCluster
from ztconform.settings import Settings
from ztconform.shop import shop
from ztconform.stacks import labspire
settings = Settings(spire_server_bin=sys.argv[1], spire_agent_bin=sys.argv[2])
with LabCluster(spire=labspire.binaries(settings)) as lab:
    topology = shop().topology
    pods = tuple(w for w in topology.workloads if w.ref.name in ("frontend", "payment"))
    lab.deploy(replace(topology, workloads=pods, services=()), "t")
    print("up", flush=True)
    sys.stdin.readline()
"""


def test_nothing_of_spire_outlives_its_owner_and_no_file_is_left(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, PROGRAMS["SERVER"], PROGRAMS["AGENT"]]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, cwd=tmp_path, env=environment) as owner:
        assert "up\n" == owner.stdout.readline()
        lab = children_of(owner.pid)
        names = {Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].rpartition(b"/")[2].decode() for pid in lab}
        assert {"spire-server", "spire-agent"} <= names
        owner.kill()
        owner.wait()
    assert set() == gone(lab)
    assert [] == list(tmp_path.rglob("*"))


def test_the_command_line_proves_them_with_the_programs_that_it_is_given(tmp_path: Path) -> None:
    wanted = [word for requirement in OF_SPIRE for word in ("--requirement", requirement)]
    command = [sys.executable, "-m", "ztconform.cli", "run", "--stack", "lab+spire", *wanted, "--"]
    programs = [f"--ztc-spire-{name.lower()}-bin={path}" for name, path in PROGRAMS.items()]
    done = subprocess.run([*command, *programs], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert 0 == done.returncode, done.stdout
    assert "ztconform on lab+spire" in done.stdout
    assert [] == [requirement for requirement in OF_SPIRE if f"{requirement} PROVED" not in done.stdout]


def test_a_probe_that_shows_an_identity_before_spire_runs_cannot_be_sent() -> None:
    host = Host(lambda: pytest.fail("nothing is opened"), lambda device: 0)
    with pytest.raises(ClusterError, match="SPIRE was not opened"):
        asyncio.run(host.present("ztc1", "n"))
    assert {} == host.refusals(["n"])


def test_a_topology_without_a_mesh_starts_no_spire() -> None:
    topology = case_of("I01").topology
    bare = replace(topology, workloads=tuple(replace(w, meshed=False) for w in topology.workloads))
    with LabCluster(spire=labspire.binaries(SETTINGS)) as lab:
        lab.deploy(bare, "t")
        assert "" == lab.mesh.issuer._trust_domain
