# SPDX-License-Identifier: Apache-2.0
"""SPIRE beside the lab, as far as it is pure: what it is configured with, how its log reads, and what a refusal is worth."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ztconform.agent.spec import read_spec
from ztconform.cluster import Facts
from ztconform.errors import ClusterError, UsageError
from ztconform.evidence import Bystander, Observation, Round, Vital
from ztconform.judge import judge
from ztconform.lab.causes import of_refusal
from ztconform.lab.mesh.issuing import OwnIssuer
from ztconform.lab.signatures import SIGNATURES, SPIRE_SIGNATURES
from ztconform.lab.spire import agentlog, config, presenting
from ztconform.lab.spire.workloads import Answer
from ztconform.model import Attempt, Probe, Ref, Step
from ztconform.proof.change import Changes
from ztconform.settings import Settings
from ztconform.stacks import labspire

SERVER, CLIENT = Ref("shop", "payment-0"), Ref("shop", "frontend-0")
ID = "spiffe://cluster.local/ns/shop/sa/frontend"
# As SPIRE 1.15.3 writes them.
REFUSAL = (
    '{"elapsed_time_ms":1,"level":"error","method":"FetchX509SVID","msg":"No identity issued","pid":41,"registered":false,'
    '"service":"WorkloadAPI","subsystem_name":"endpoints","time":"2026-11-28T17:40:00Z"}'
)
BAN = '{"error":"...","level":"warning","msg":"Agent is banned: removing SVID and shutting down","subsystem_name":"manager"}'


def test_a_workload_is_registered_by_the_path_of_its_program_and_nothing_else_of_it() -> None:
    made = json.loads(config.entries("cluster.local", {"ztc7": ID}, {"ztc7": "/run/programs/ztc7"}, ["partner.example"]))
    assert {
        "entries": [
            {
                "entry_id": "ztc7",
                "spiffe_id": ID,
                "parent_id": "spiffe://cluster.local/node",
                "selectors": [{"type": "unix", "value": "path:/run/programs/ztc7"}],
                "federates_with": ["spiffe://partner.example"],
            }
        ]
    } == made


def test_whatever_spire_writes_is_in_the_directory_that_it_is_given() -> None:
    for text in (config.server("/given", "cluster.local", 8081, 60.0), config.agent("/given", "cluster.local", 8081, "token")):
        paths = [value for value in _strings(json.loads(text)) if value.startswith("/")]
        assert 3 <= len(paths)
        assert {"/given"} == {path[: len("/given")] for path in paths}


def test_spire_listens_on_an_address_that_nobody_else_reaches() -> None:
    made = json.loads(config.server("/given", "cluster.local", 8081, 60.0))["server"]
    assert ("127.0.0.1", 8081, "60s") == (made["bind_address"], made["bind_port"], made["default_x509_svid_ttl"])


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for below in value.values() for text in _strings(below)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (REFUSAL, True),
        (f"{BAN}\n{REFUSAL}\n", True),
        (REFUSAL.replace('"pid":41', '"pid":42'), False),
        (REFUSAL.replace('"registered":false', '"registered":true'), False),
        (REFUSAL.replace("No identity issued", "Something else"), False),
        (REFUSAL[:-9], False),
        ("panic: 41 No identity issued", False),
        ("[41]\n", False),
        ("", False),
    ],
)
def test_the_agent_refused_a_process_only_where_its_log_names_that_very_process(log: str, found: bool) -> None:
    assert found is agentlog.refused(log.encode(), 41)


@pytest.mark.parametrize(("log", "found"), [(BAN, True), (REFUSAL, False), (BAN[:-3], False), ("", False)])
def test_an_agent_is_banned_where_its_own_log_says_so(log: str, found: bool) -> None:
    assert found is agentlog.banned(log.encode())


ATTEMPT = Attempt(
    id="a",
    row="r",
    probe=Probe(source=CLIENT, target=SERVER, port=8080, past_proxy=True, cert="own"),
    targets=(SERVER,),
    timeout=0.4,
)
NO_ENTRY = Observation(
    attempt="a",
    nonce="n",
    sent=1.0,
    ended=1.1,
    signal="no-identity",
    stage="identity",
    detail="PERMISSION_DENIED no identity issued",
)
GONE = replace(NO_ENTRY, detail="UNAVAILABLE connection refused")
CAUSE = of_refusal("n", CLIENT)


def verdict(observation: Observation, *, caused: bool = True, alive: bool = True) -> tuple[str, str]:
    vital = Vital(server=SERVER, port=8080, transport="TCP", boot="b", answers_itself=alive, ready=True, in_endpoints=True)
    round_ = Round(
        observations=(observation,),
        vitals=(vital,),
        bystanders=(Bystander(nodes=(0, 1), transport="TCP", through=True),),
    )
    signatures = (*SIGNATURES, *SPIRE_SIGNATURES)
    baseline = {SERVER: replace(vital, answers_itself=True)}
    cause = CAUSE if caused else None
    found = judge(ATTEMPT, observation, round_, signatures=signatures, cause=cause, baseline=baseline)
    return found.kind, found.signature or found.why


def test_no_identity_is_a_denial_only_where_the_agent_logged_it_and_the_target_lives() -> None:
    assert ("DENIED", "NOSVID") == verdict(NO_ENTRY)
    assert ("DENIED", "BANNED") == verdict(GONE)
    assert ("INCONCLUSIVE", "looks like NOSVID, but nothing logged that it dropped this probe") == verdict(NO_ENTRY, caused=False)
    assert ("INCONCLUSIVE", "looks like BANNED, but nothing logged that it dropped this probe") == verdict(GONE, caused=False)
    assert "INCONCLUSIVE" == verdict(NO_ENTRY, alive=False)[0]


@pytest.mark.parametrize("detail", ["DEADLINE_EXCEEDED", "UNKNOWN no identity issued", "PERMISSION_DENIED something else", ""])
def test_an_agent_that_refuses_otherwise_proves_nothing(detail: str) -> None:
    assert "INCONCLUSIVE" == verdict(replace(NO_ENTRY, detail=detail))[0]


def test_a_refusal_says_who_issued_nothing_to_whom() -> None:
    assert "spire, which issues nothing to shop/frontend-0" == str(CAUSE)


class _Recorder:
    """Remember the steps that a cluster with or without SPIRE is told to do."""

    def __init__(self, features: dict[str, str]) -> None:
        self.told: list[Step] = []
        self._features = features

    def facts(self) -> Facts:
        return Facts(
            stack="recorder",
            dialects=(),
            features=self._features,
            versions={},
            signatures=(),
            timeouts=None,  # type: ignore[arg-type]  # nobody waits here
            resolver=None,  # type: ignore[arg-type]  # nor asks for a name
            nodes=(),
        )

    def pods(self) -> tuple[()]:
        return ()

    def perform(self, step: Step) -> None:
        self.told.append(step)


BANNED = Step(name="step 2", provider="banned", unregistered=frozenset({CLIENT}))


def test_releasing_a_step_makes_the_identity_provider_sound_and_restoring_it_does_not() -> None:
    cluster = _Recorder({"spire": ""})
    changes = Changes(cluster, None)  # type: ignore[arg-type]  # as much of a cluster as changes take
    changes.do(BANNED)
    changes.lift()
    changes.restore()
    assert ["banned", "sound", "banned"] == [step.provider for step in cluster.told]
    assert [{CLIENT}, set(), {CLIENT}] == [step.unregistered for step in cluster.told]
    changes.do(Step())
    changes.lift()
    assert 4 == len(cluster.told)


@pytest.mark.parametrize("features", [{}, {"spire": "the lab issues identities itself"}])
@pytest.mark.parametrize("step", [BANNED, Step(provider="down"), Step(unregistered=frozenset({CLIENT}))])
def test_a_step_that_disturbs_an_identity_provider_is_refused_where_there_is_none(features: dict[str, str], step: Step) -> None:
    cluster = _Recorder(features)
    changes = Changes(cluster, None)  # type: ignore[arg-type]  # as above
    with pytest.raises(UsageError, match=r"changes what the identity provider issues: (the lab issues|recorder says nothing)"):
        changes.do(step)
    assert [] == cluster.told


def test_without_spire_nobody_has_a_certificate_of_a_partner() -> None:
    issuer = OwnIssuer()
    issuer.issue("cluster.local", {}, [])
    assert "spiffe://cluster.local/ns/shop/sa/frontend" == issuer.shown("own", ID).spiffe_id
    with pytest.raises(UsageError, match=r"issued on stacks with SPIRE alone, such as lab\+spire"):
        issuer.shown("partner", ID)


def _programs(tmp_path: Path, server: str, agent: str) -> Settings:
    for name, says in (("spire-server", server), ("spire-agent", agent)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    return Settings(spire_server_bin=str(tmp_path / "spire-server"), spire_agent_bin=str(tmp_path / "spire-agent"))


def test_two_programs_of_one_version_are_spire(tmp_path: Path) -> None:
    found = labspire.binaries(_programs(tmp_path, "echo 1.15.3 >&2", "echo 1.15.3"))
    assert ("1.15.3", "spire-server", "spire-agent") == (found.version, found.server.name, found.agent.name)


@pytest.mark.parametrize(
    ("server", "agent", "said"),
    [
        ("exit 1", "echo 1.15.3", r"--ztc-spire-server-bin .*/spire-server: this is no spire-server"),
        ("echo 1.15.3", "echo hello", r"--ztc-spire-agent-bin .*/spire-agent: this is no spire-agent; .* it said 'hello'"),
        ("echo 1.15.3", "echo 1.14.5", r"spire-server is 1\.15\.3 and spire-agent 1\.14\.5: name two of one version"),
    ],
)
def test_what_is_no_spire_is_refused_by_the_option_that_named_it(tmp_path: Path, server: str, agent: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        labspire.binaries(_programs(tmp_path, server, agent))


def test_a_program_that_is_not_there_is_named_with_its_option() -> None:
    with pytest.raises(UsageError, match=r"--ztc-spire-server-bin: there is no program /nowhere/spire-server; name SPIRE's"):
        labspire.binaries(Settings(spire_server_bin="/nowhere/spire-server"))


class _Prober:
    """Answer whatever is sent, and remember it."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    async def probe_all(self, specs: Any) -> list[dict[str, Any]]:
        self.shown += [(spec["nonce"], spec.get("tls"), presenting.KEY in spec) for spec in specs]
        return [{"nonce": spec["nonce"], "signal": "answered", "sent": 9.0} for spec in specs]

    def send(self, spec: Any, nonce: str, done: Any) -> None:
        self.shown.append((nonce, spec.tls.chain, spec.tls.key))
        done({"nonce": nonce, "signal": "answered", "sent": 9.0})


ISSUED = Answer(told={"id": ID, "chain": "CHAIN", "key": "KEY", "roots": {}}, asked=5.0, pid=41, logged=b"")
REFUSED = Answer(told={"refused": "PERMISSION_DENIED", "detail": "no identity issued"}, asked=6.0, pid=41, logged=b"")


async def _present(nonce: str) -> Answer:
    if nonce == "gone":
        raise ClusterError("the workload of pod ztc7 ended by itself")
    return REFUSED if nonce == "other" else ISSUED


def test_a_round_shows_what_was_issued_and_tells_in_its_place_who_was_refused() -> None:
    prober, tls = _Prober(), {"alpn": ["istio"], "chain": None, "key": None}
    specs: list[dict[str, Any]] = [{"nonce": "plain", "attempt": "0"}]
    specs += [{"nonce": nonce, "attempt": "1", "tls": tls, presenting.KEY: "ztc7"} for nonce in ("other", "known", "gone")]

    def presenter(device: str) -> presenting.Presenter:
        assert "ztc7" == device
        return presenting.Presenter(prober, _present)  # type: ignore[arg-type]  # as much of a prober as it takes

    met = asyncio.run(presenting.send_all(prober, specs, presenter))  # type: ignore[arg-type]  # likewise
    assert ["plain", "other", "known", "gone"] == [o["nonce"] for o in met]
    assert ["answered", "no-identity", "answered", "not-run"] == [o["signal"] for o in met]
    # What shows an SVID was sent when that was asked for.
    assert [9.0, 6.0, 5.0] == [o["sent"] for o in met[:3]]
    assert ("identity", "PERMISSION_DENIED no identity issued") == (met[1]["stage"], met[1]["detail"])
    assert "the workload of pod ztc7 ended by itself" == met[3]["detail"]
    assert [("plain", None, False), ("known", {**tls, "chain": "CHAIN", "key": "KEY"}, False)] == prober.shown


def test_a_stream_asks_for_an_identity_before_each_probe() -> None:
    prober, met = _Prober(), []
    spec = read_spec({"kind": "http", "address": "127.0.0.1", "port": 1, "tls": {}, "attempt": "a"})

    async def stream() -> None:
        presenter = presenting.Presenter(prober, _present)  # type: ignore[arg-type]  # as above
        for nonce in ("known", "other", "known"):
            presenter.send(spec, nonce, met.append)
        while len(met) < 3:
            await asyncio.sleep(0)

    asyncio.run(stream())
    assert [("answered", 5.0), ("no-identity", 6.0), ("answered", 5.0)] == [(o["signal"], o["sent"]) for o in met]
    assert [("known", "CHAIN", "KEY")] * 2 == prober.shown


def test_without_the_client_of_the_workload_api_the_stack_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labspire.LabStack, "preflight", lambda self, settings: None)
    monkeypatch.setattr(labspire.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"lab\+spire needs the Python package spiffe: pip install 'ztconform\[spire\]'"):
        labspire.STACK.preflight(Settings())
