# SPDX-License-Identifier: Apache-2.0
"""kind for real: what cannot run creates nothing and says why in a line; what runs leaves nothing; whoever dies leaves a trace.

`make test-cluster` runs these, and says by ZTC_TEST_* what images and programs there are.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ztconform import stacks
from ztconform.errors import ClusterError, UsageError, ZtconformError
from ztconform.kube import docker, inventory, kind, ledger
from ztconform.settings import Settings

# One node without any image of ours: what is tested here is how it comes and goes.
ONE_NODE = "nodes: [{role: control-plane}]\n"

# What a user's process does: it prints what it is told, and stays until it is ended.
PROGRAM = """
import json, sys
from pathlib import Path
from ztconform import stacks
from ztconform.errors import ZtconformError
from ztconform.settings import Settings
told = json.loads(sys.argv[1])
paths = {key: Path(told[key]) for key in ("folder", "kind_config", "report")}
settings = Settings(**{**told, **paths, "notify": lambda line: print(line, flush=True)})
try:
    connection = stacks.find("custom").provided(settings)
    print("ready", connection.context, flush=True)
    sys.stdin.read()
except ZtconformError as error:
    print("error", error, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Rig:
    """Hold what there is to test with, and where one test may write."""

    kind: Path
    folder: Path
    settings: Settings

    def name(self, *, keep: bool = False) -> str:
        return kind.name_of("custom", self.settings.run, keep=keep)

    def nodes(self, name: str) -> list[str]:
        return docker.run(["ps", "--all", "--quiet", "--filter", f"label=io.x-k8s.kind.cluster={name}"]).split()

    @contextmanager
    def process(self, **changed: Any) -> Iterator["subprocess.Popen[str]"]:
        """Run PROGRAM in a process and working directory of its own."""
        known = ("run", "folder", "kind_bin", "kind_image", "kind_config", "cni_command", "report")
        told = {**{key: getattr(self.settings, key) for key in known}, **changed}
        work = self.folder / "cwd"
        work.mkdir(exist_ok=True)
        argv = [sys.executable, "-c", PROGRAM, json.dumps(told, default=str)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=work) as child:
            try:
                yield child
            finally:
                child.kill()


def wanted(name: str) -> str:
    if name not in os.environ:
        pytest.skip(f"{name} is not set: run `make test-cluster`")
    return os.environ[name]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Provide settings for a one-node cluster of the stack `custom`; whatever a test leaves is deleted."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    users = tmp_path / "users-kubeconfig"
    users.write_text("apiVersion: v1\nkind: Config\ncurrent-context: mine\n", encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(users))
    config = tmp_path / "kind.yaml"
    given = os.environ.get("ZTC_TEST_KIND_CONFIG")
    text = Path(given).read_text(encoding="utf-8") if given else "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"
    config.write_text(text + ONE_NODE, encoding="utf-8")
    (tmp_path / "run").mkdir()
    settings = Settings(
        run=f"t{os.getpid()}{time.monotonic_ns() % 10**6}",
        kind_bin=wanted("ZTC_TEST_KIND_BIN"),
        kind_image=wanted("ZTC_TEST_NODE_IMAGE"),
        helm_bin=wanted("ZTC_TEST_HELM_BIN"),
        kind_config=config,
        cni_command=wanted("ZTC_TEST_PLAIN_CNI"),
        folder=tmp_path / "run",
        report=tmp_path / "report",
    )
    there = Rig(Path(settings.kind_bin).absolute(), tmp_path, settings)
    yield there
    for record in ledger.default().records():
        kind.delete(there.kind, record.name)
    assert "current-context: mine" in users.read_text(encoding="utf-8")
    assert "kind-" not in users.read_text(encoding="utf-8")


def line(process: "subprocess.Popen[str]", start: str) -> str:
    """Return the first line that begins so, from what a process says from now on."""
    assert process.stdout
    said = []
    for one in process.stdout:
        said.append(one)
        if one.startswith(start):
            return one.strip()
    pytest.fail(f"no line begins with {start!r}: {''.join(said)}")


def refused(stack: str, settings: Settings) -> str:
    """Return the error with which a stack refuses to run, having created nothing."""
    with pytest.raises(ZtconformError) as caught:
        stacks.find(stack).preflight(settings)
    assert "\n" not in str(caught.value)
    assert () == ledger.default().records()
    return str(caught.value)


def test_without_kind_or_with_another_program_one_line_says_so(rig: Rig) -> None:
    assert refused("custom", replace(rig.settings, kind_bin="/no/such/kind")).startswith(
        "kind is not at /no/such/kind: install it"
    )
    assert "--ztc-kind-bin: this is no kind" in refused("custom", replace(rig.settings, kind_bin="/bin/echo"))
    assert "helm is not on the PATH" in refused("cilium", chart(rig, helm_bin="no-such-helm"))


def test_without_docker_one_line_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{rig.folder}/no.sock")
    said = refused("custom", rig.settings)
    assert said.startswith("Docker cannot be reached: ")
    assert said.endswith("start Docker, or name another one by DOCKER_HOST or `docker context use`")
    monkeypatch.setenv("PATH", str(rig.folder))
    assert refused("custom", rig.settings).startswith("docker is not on the PATH, and kind needs it")


def chart(rig: Rig, **changed: Any) -> Settings:
    """Return settings for Cilium with the chart that is there."""
    return replace(
        rig.settings,
        charts={"cilium": Path(wanted("ZTC_TEST_CILIUM_CHART"))},
        values={"cilium": Path(wanted("ZTC_TEST_CILIUM_VALUES"))},
        **changed,
    )


def test_values_charts_and_archives_that_are_not_there_are_one_line_each(rig: Rig) -> None:
    none = rig.folder / "none"
    assert f"--ztc-values cilium={none}: cannot be read" in refused("cilium", replace(chart(rig), values={"cilium": none}))
    assert f"--ztc-chart cilium={none}: there is no such" in refused("cilium", replace(chart(rig), charts={"cilium": none}))
    assert f"--ztc-load-image {none}: there is no such" in refused("cilium", replace(chart(rig), load_images=(none,)))
    assert "--ztc-kind-config" in refused("cilium", replace(chart(rig), kind_config=none))
    assert "the stack custom needs --ztc-cni-command" in refused("custom", replace(rig.settings, cni_command=""))


def test_a_chart_that_does_not_render_is_one_line_before_anything_is_created(rig: Rig) -> None:
    values = rig.folder / "values.yaml"
    values.write_text("ipam: {mode: kubernetes}\nkubeProxyReplacement: nonsense\n", encoding="utf-8")
    said = refused("cilium", replace(chart(rig), values={"cilium": values}))
    assert said.startswith("the chart of cilium (")
    assert "does not render: " in said
    assert "kubeProxyReplacement" in said


def test_what_can_run_passes_preflight(rig: Rig) -> None:
    stacks.find("custom").preflight(rig.settings)
    stacks.find("cilium").preflight(chart(rig))
    assert () == ledger.default().records()


def test_two_processes_share_one_cluster_which_finish_removes(rig: Rig) -> None:
    with rig.process() as one:
        line(one, "creating the kind cluster")
        with rig.process() as two:
            line(two, "waiting for another process, which prepares")
            assert f"ready kind-{rig.name()}" == line(one, "ready")
            line(two, "using the kind cluster")
            assert f"ready kind-{rig.name()}" == line(two, "ready")
        connection = stacks.find("custom").provided(rig.settings)  # type: ignore[attr-defined]
        assert [True] == [node.ready for node in inventory.nodes(connection)]
        secret = rig.folder / "run" / f"{rig.name()}.kubeconfig"
        assert 0o600 == secret.stat().st_mode & 0o777
        assert () == kind.leftovers(rig.kind)
    assert [rig.name()] == [record.name for record in kind.leftovers(rig.kind)]  # its owner is dead
    stacks.find("custom").finish(rig.settings, failed=True)
    assert [] == rig.nodes(rig.name())
    assert () == ledger.default().records()
    assert "kube-system" in (rig.folder / "report" / "logs" / rig.name() / "events.txt").read_text(encoding="utf-8")
    assert "kube-proxy" in (rig.folder / "report" / "logs" / rig.name() / "custom.txt").read_text(encoding="utf-8")
    assert [] == list((rig.folder / "cwd").iterdir())
    stacks.find("custom").finish(rig.settings, failed=False)  # a second time there is nothing to do


def test_a_kept_cluster_is_found_again_and_never_swept(rig: Rig) -> None:
    name = rig.name(keep=True)
    assert name not in kind.clusters(rig.kind), f"{name} is somebody's: delete it first"
    with rig.process(keep=True) as one:
        line(one, "creating the kind cluster")
        line(one, "ready")
    stacks.find("custom").finish(replace(rig.settings, keep=True), failed=False)
    assert 1 == len(rig.nodes(name))
    assert () == kind.leftovers(rig.kind)
    kept = replace(rig.settings, keep=True, run="another")
    began = time.monotonic()
    stacks.find("custom").preflight(kept)
    stacks.find("custom").provided(kept)  # type: ignore[attr-defined]
    assert 10 > time.monotonic() - began
    with pytest.raises(UsageError) as caught:
        stacks.find("custom").provided(replace(kept, kind_image="other:v1", cni_command="x"))  # type: ignore[attr-defined]
    assert str(caught.value).startswith(f"the kept cluster {name} was made with another --ztc-cni-command and --ztc-kind-image: ")
    assert 1 == len(rig.nodes(name))


@pytest.mark.parametrize("when", ["creating the kind cluster", "kind: Preparing nodes", "running"])
def test_ctrl_c_while_a_cluster_comes_up_leaves_nothing(rig: Rig, when: str) -> None:
    with rig.process() as one:
        line(one, when)
        one.send_signal(signal.SIGINT)
        line(one, "removing the cluster")
        one.wait(timeout=60)
    assert [] == rig.nodes(rig.name())
    assert () == ledger.default().records()


def test_a_killed_run_leaves_a_trace_by_which_its_cluster_is_found_and_deleted(rig: Rig) -> None:
    with rig.process() as one:
        line(one, "kind: Preparing nodes")
        assert () == kind.leftovers(rig.kind)  # it lives
        one.kill()
        one.wait()
    (left,) = kind.leftovers(rig.kind)
    assert (rig.name(), False) == (left.name, left.whole)
    with rig.process() as next_run:  # the same name, as with --ztc-keep
        line(next_run, f"removing the cluster {rig.name()}, which an interrupted run left half-made")
        line(next_run, "creating the kind cluster")
        line(next_run, "ready")
    kind.delete(rig.kind, rig.name())
    assert [] == rig.nodes(rig.name())
    assert () == kind.leftovers(rig.kind)


def test_a_cni_command_that_fails_is_one_line_for_every_process_and_leaves_logs_and_no_cluster(rig: Rig) -> None:
    command = "sh -c 'echo first; echo no such CNI for {cluster} >&2; exit 3'"
    said = f"no such CNI for {rig.name()}"
    with rig.process(cni_command=command) as one:
        failed = line(one, "error")
    assert f"failed (3): {said}" in failed
    assert [] == rig.nodes(rig.name())
    assert () == ledger.default().records()
    assert (rig.folder / "report" / "logs" / rig.name() / "events.txt").exists()
    with rig.process(cni_command=command) as two:
        assert failed == line(two, "error")


def test_a_node_image_that_is_not_there_names_the_option(rig: Rig) -> None:
    with pytest.raises(ClusterError) as caught:
        stacks.find("custom").provided(replace(rig.settings, kind_image="localhost:1/no/such:v1.34.0"))  # type: ignore[attr-defined]
    assert "failed to pull image" in str(caught.value)
    assert "--ztc-kind-image" in str(caught.value)
    assert [] == rig.nodes(rig.name())


def test_an_archive_that_holds_no_image_is_one_line_and_leaves_no_cluster(rig: Rig) -> None:
    bad = rig.folder / "bad.tar"
    bad.write_bytes(b"nothing")
    with pytest.raises(ClusterError, match=r"kind could not load .*bad\.tar") as caught:
        stacks.find("custom").provided(replace(rig.settings, load_images=(bad,)))  # type: ignore[attr-defined]
    assert "\n" not in str(caught.value)
    assert [] == rig.nodes(rig.name())
    assert () == ledger.default().records()
