# SPDX-License-Identifier: Apache-2.0
"""Whose a thing in a cluster is, when its run is dead, and what `ztconform sweep` does on this machine."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("kubernetes")

from ztconform import cli
from ztconform.kube import lease, ledger, liveness, sweep
from ztconform.kube.labels import Labels

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
LABELS = Labels("ztconform.io", "")
Swept = Callable[..., tuple[int, str, str]]


def thing(run: str, age: float, name: str = "shop") -> sweep.Thing:
    """Return a namespace of a run, made so many seconds before NOW."""
    created = NOW - timedelta(seconds=age)
    return sweep.Thing(
        kind="namespace", name=name, namespace="", run=run, uid=f"{run}/{name}", path="/api/v1/namespaces/x", created=created
    )


def held(run: str, silent: float, worker: str = "") -> dict[str, Any]:
    """Return a run's Lease, renewed so many seconds before NOW."""
    labels = Labels("ztconform.io", run, worker)
    return dict(lease.manifest(f"ztconform-run-{run}{worker}", run, labels, NOW - timedelta(seconds=silent)))


@pytest.mark.parametrize(
    ("things", "leases", "dead"),
    [
        ([thing("r", 3600)], [held("r", 5)], False),
        ([thing("r", 3600)], [held("r", 59)], False),
        ([thing("r", 3600)], [held("r", 60)], True),
        ([thing("r", 10)], [held("r", 60)], True),
        ([thing("r", 3600)], [held("r", 300), held("r", 5, "gw1")], False),  # one worker still lives
        ([thing("r", 3600)], [held("r", 300), held("r", 200, "gw1")], True),
        ([thing("r", 59)], [], False),  # its Lease may come yet
        ([thing("r", 60)], [], True),
        ([thing("r", 3600), thing("r", 30, "bank")], [], False),
        ([], [held("r", 300)], True),
        ([thing("r", 3600)], [held("other", 5)], True),  # another run's Lease saves nobody
    ],
)
def test_a_run_is_dead_when_nothing_was_heard_of_it_for_a_minute(
    things: list[sweep.Thing], leases: list[dict[str, Any]], dead: bool
) -> None:
    runs = {run.id: run for run in sweep.group(things, leases, LABELS, NOW)}
    assert dead is runs["r"].dead


@given(st.dictionaries(st.sampled_from("abcde"), st.floats(0, 600), min_size=1), st.sampled_from("abcde"))
def test_a_living_run_is_never_among_the_dead_whatever_else_is_there(silences: dict[str, float], living: str) -> None:
    leases = [held(run, silent) for run, silent in silences.items()] + [held(living, 1, "gw0")]
    runs = sweep.group([thing(run, 3600) for run in silences], leases, LABELS, NOW)
    assert living not in [run.id for run in runs if run.dead]
    assert {one for run in runs for one in run.things} == {thing(run, 3600) for run in silences}


@pytest.mark.parametrize(
    ("conditions", "why"),
    [
        ([], "it is Terminating"),
        ([("NamespaceContentRemaining", "True", "pods remain")], "pods remain"),
        ([("NamespaceContentRemaining", "False", "All content removed")], "it is Terminating"),
        (
            [
                ("NamespaceContentRemaining", "True", "some remain"),
                ("NamespaceFinalizersRemaining", "True", "a finalizer: x/y in 1 resource instances"),
            ],
            "a finalizer: x/y in 1 resource instances",
        ),
        (
            [("NamespaceDeletionDiscoveryFailure", "True", "Discovery failed for some groups, 1 failing")],
            "Discovery failed for some groups, 1 failing",
        ),
    ],
)
def test_a_namespace_that_does_not_go_says_why(conditions: list[tuple[str, str, str]], why: str) -> None:
    told = [{"type": kind, "status": status, "message": message} for kind, status, message in conditions]
    namespace = {"metadata": {"name": "shop"}, "status": {"phase": "Terminating", "conditions": told}}
    assert f"{why} (kubectl get namespace shop -o yaml)" == sweep.obstacle(namespace)


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Swept:
    """Return a function that sweeps a machine whose Docker has these containers and answers with this code, and has no kind."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def swept(containers: list[str] | None, *args: str, code: int = 0, said: str = "") -> tuple[int, str, str]:
        if containers is not None:
            listed = "\n".join(containers)
            script = (
                f"#!{sys.executable}\nimport sys\n"
                f"open({str(tmp_path / 'asked')!r}, 'a').write(' '.join(sys.argv[1:2] + sys.argv[-1:]) + '\\n')\n"
                f"print({json.dumps(listed)} if sys.argv[1] == 'ps' else '')\n"
                f"print({json.dumps(said)}, file=sys.stderr)\nsys.exit({code})\n"
            )
            (tmp_path / "docker").write_text(script, encoding="utf-8")
            (tmp_path / "docker").chmod(0o755)
        capsys.readouterr()
        ended = cli.main(["sweep", *args])
        told = capsys.readouterr()
        return ended, told.out, told.err

    return swept


def container(name: str, **changed: Any) -> str:
    """Return a line of `docker ps` for a container that this process started, or one with something changed."""
    labels = dict(liveness.this_process().labels("run-1")) | {f"ztconform.{key}": value for key, value in changed.items()}
    return "\t".join([f"id-{name}", name, *(labels[f"ztconform.{key}"] for key in ("run", "pid", "start", "boot", "host"))])


LIVING = container("living")
DEAD = container("dead", start="1")
FOREIGN = container("foreign", host="elsewhere")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_containers_of_dead_processes_are_removed_and_no_others(swept: Swept, tmp_path: Path) -> None:
    code, out, err = swept([LIVING, DEAD, FOREIGN])
    assert (0, "") == (code, err)
    assert [
        "removed container dead of the run run-1",
        "container foreign of the run run-1: cannot tell from here whether that lives, left alone (docker rm --force foreign)",
    ] == out.splitlines()
    assert ["rm id-dead"] == [line for line in (tmp_path / "asked").read_text().splitlines() if line.startswith("rm")]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_dry_run_removes_nothing(swept: Swept, tmp_path: Path) -> None:
    code, out, _ = swept([LIVING, DEAD], "--dry-run")
    assert (0, "would remove container dead of the run run-1\n") == (code, out)
    assert ["ps"] == [line.split()[0] for line in (tmp_path / "asked").read_text().splitlines()]


def test_a_kind_cluster_of_a_dead_run_is_deleted_and_a_kept_one_is_not(swept: Swept, tmp_path: Path) -> None:
    nobody = liveness.Process(pid=1, start=-1, boot="another", host="")
    for name, keep in (("ztc-dead", False), ("ztc-kept", True)):
        ledger.default().write(ledger.Record(name=name, run="run-1", owner=nobody, keep=keep, whole=True))
    script = f"#!{sys.executable}\nimport sys\nopen({str(tmp_path / 'told')!r}, 'a').write(' '.join(sys.argv[1:4]) + '\\n')\n"
    (tmp_path / "kind").write_text(f"{script}print('ztc-dead ztc-kept')\n", encoding="utf-8")
    (tmp_path / "kind").chmod(0o755)
    assert (0, "would remove kind cluster ztc-dead of the run run-1\n", "") == swept([], "--dry-run")
    assert (0, "removed kind cluster ztc-dead of the run run-1\n", "") == swept([])
    told = (tmp_path / "told").read_text().splitlines()
    assert ["delete cluster --name=ztc-dead"] == [line for line in told if line.startswith("delete")]


@pytest.mark.parametrize("containers", [None, [], [LIVING]], ids=["no Docker", "no container", "a living one"])
def test_where_nothing_is_left_that_is_said(swept: Swept, containers: list[str] | None) -> None:
    assert (0, "nothing to sweep: no dead run has left anything\n", "") == swept(containers)


def test_a_docker_that_cannot_be_asked_is_one_line_and_three(swept: Swept) -> None:
    code, out, err = swept([], code=1, said="permission denied while trying to connect to the Docker daemon socket")
    assert (3, "") == (code, out)
    assert "ztconform: docker ps failed: permission denied while trying to connect to the Docker daemon socket\n" == err
