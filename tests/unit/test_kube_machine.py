# SPDX-License-Identifier: Apache-2.0
"""What stops a kind cluster before it is begun, what is only worth a warning, and whose clusters on this machine are nobody's."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ztconform.errors import ClusterError, UsageError
from ztconform.kube import command, kind, ledger, machine
from ztconform.kube.docker import Docker
from ztconform.kube.ledger import Ledger, Record
from ztconform.kube.liveness import Process

GIB = 1 << 30
GOOD = machine.Machine(
    docker=Docker(version="28", cgroup=2, memory=16 * GIB, kernel="6"), available=8 * GIB, watches=524288, instances=512
)
CGROUP_1 = replace(GOOD, docker=replace(GOOD.docker, cgroup=1))
DEMAND = machine.Demand(memory=3072, nodes=3, kubernetes=(1, 35))


@pytest.mark.parametrize(
    ("here", "demand", "found"),
    [
        (GOOD, DEMAND, []),
        (CGROUP_1, DEMAND, [(True, "kubelet of Kubernetes 1.35 refuses")]),
        (CGROUP_1, replace(DEMAND, kubernetes=(1, 36)), [(True, "kubelet of Kubernetes 1.36 refuses")]),
        (CGROUP_1, replace(DEMAND, kubernetes=(1, 34)), []),
        (CGROUP_1, replace(DEMAND, kubernetes=None), []),
        (CGROUP_1, replace(DEMAND, allows_cgroup_1=True), []),
        (replace(GOOD, available=2 * GIB), DEMAND, [(False, "2048 MiB of memory are available; this stack wants about 3072")]),
        (replace(GOOD, available=1 * GIB), DEMAND, [(True, "1024 MiB of memory are available, and this stack needs about 3072")]),
        (replace(GOOD, available=None), DEMAND, []),
        (
            replace(GOOD, available=None, docker=replace(GOOD.docker, memory=GIB)),
            DEMAND,
            [(True, "1024 MiB of memory are there")],
        ),
        (replace(GOOD, available=None, docker=replace(GOOD.docker, memory=0)), DEMAND, []),
        (replace(GOOD, disk=4 * GIB), DEMAND, []),
        (replace(GOOD, disk=1 * GIB), DEMAND, [(True, "1024 MiB are free where Docker keeps its containers")]),
        (replace(GOOD, disk=4 * GIB), replace(DEMAND, archives=GIB), [(True, "3 nodes with these images need about 7680")]),
        (replace(GOOD, watches=8192), DEMAND, [(False, "sysctl fs.inotify.max_user_watches=524288")]),
        (replace(GOOD, instances=128), DEMAND, [(False, "sysctl fs.inotify.max_user_instances=512")]),
        (replace(GOOD, instances=128, nodes=3), DEMAND, [(False, "sysctl fs.inotify.max_user_instances=512")]),
        (replace(GOOD, instances=128, nodes=4), DEMAND, [(True, "too few for 7 kind nodes (4 of them run already)")]),
        (replace(GOOD, nodes=9), DEMAND, []),
        (replace(GOOD, watches=None, instances=None), DEMAND, []),
        (replace(CGROUP_1, instances=128), DEMAND, [(True, "cgroup v1"), (False, "max_user_instances")]),
    ],
)
def test_what_stands_against_a_cluster(here: machine.Machine, demand: machine.Demand, found: list[tuple[bool, str]]) -> None:
    findings = machine.judge(here, demand)
    assert [fatal for fatal, _ in found] == [finding.fatal for finding in findings]
    assert all(text in finding.text for (_, text), finding in zip(found, findings, strict=True))


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("kindest/node:v1.35.8@sha256:07b2", (1, 35)),
        ("registry.example:5000/kind/node:v1.36.0", (1, 36)),
        ("kindest/node:v1.34", (1, 34)),
        ("kindest/node:v1.37.0-beta.1", (1, 37)),
        ("kindest/node@sha256:07b2", None),
        ("mine/node:latest", None),
        ("mine/node:v1", None),
    ],
)
def test_the_kubernetes_version_is_read_from_the_node_images_tag(image: str, version: tuple[int, int] | None) -> None:
    assert version == machine.kubernetes_of(image)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("kind v0.33.0 go1.26.8 linux/amd64", (0, 33, 0)),
        ("v4.1.4+g05fa379", (4, 1, 4)),
        ("v3.8.0", (3, 8, 0)),
        ("", ()),
        ("no version here", ()),
    ],
)
def test_a_tools_version_is_read_from_what_it_says(said: str, version: tuple[int, ...]) -> None:
    assert version == machine.parsed(said)


def program(folder: Path, says: str, code: int = 0) -> str:
    path = folder / "tool"
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("says", "code", "said"),
    [
        ("kind v0.26.0 go1.23", 0, "kind 0.26.0 is too old: install 0.27.0 or newer, or name one by --ztc-kind-bin"),
        ("hello", 0, "--ztc-kind-bin: this is no kind that tells its version (hello)"),
        ("kind v0.33.0", 3, "--ztc-kind-bin: this is no kind that tells its version"),
    ],
)
def test_a_kind_that_is_too_old_or_none_is_one_line(tmp_path: Path, says: str, code: int, said: str) -> None:
    with pytest.raises(ClusterError) as caught:
        machine.kind(program(tmp_path, says, code))
    assert said in str(caught.value)


def test_a_kind_that_is_new_enough_is_taken(tmp_path: Path) -> None:
    assert tmp_path / "tool" == machine.kind(program(tmp_path, "kind v0.27.0 go1.23"))


@pytest.mark.parametrize(("where", "place"), [("no-such-kind", "on the PATH"), ("/no/such/kind", "at /no/such/kind")])
def test_a_kind_that_is_not_there_is_one_line_with_the_option(where: str, place: str) -> None:
    with pytest.raises(ClusterError, match=f"^kind is not {place}: install it .*, or say where it is by --ztc-kind-bin$"):
        machine.kind(where)


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "late"
    argv = [sys.executable, "-c", f"import subprocess; subprocess.run(['sh', '-c', 'sleep 2; touch {mark}'])"]
    with pytest.raises(ClusterError, match="took more than 1 s and was stopped"):
        command.run(argv, within=1)
    left = subprocess.run(["pgrep", "-f", f"touch {mark}"], capture_output=True, text=True, check=False).stdout
    assert "" == left


def test_a_program_that_cannot_be_started_is_one_line() -> None:
    with pytest.raises(ClusterError, match=r"^cannot run /no/such/program: No such file or directory$"):
        command.run(["/no/such/program"], within=1)


def test_lines_are_told_as_they_come_and_returned_as_one_text() -> None:
    told: list[str] = []
    done = command.follow(["sh", "-c", "echo one; echo two >&2; exit 3"], within=5, tell=told.append)
    assert (["one", "two"], 3, "one\ntwo\n") == (told, done.code, done.out)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nERROR: failed to create cluster: x\nb", "ERROR: failed to create cluster: x"),
        ("a\n  b   c \n\n", "b c"),
        ("", ""),
    ],
)
def test_the_complaint_is_the_first_error_or_the_last_line(text: str, line: str) -> None:
    assert line == command.complaint(text)


@pytest.mark.parametrize(
    ("stack", "keep", "name"),
    [
        ("cilium", False, "ztc-cilium-ab12"),
        ("cilium", True, "ztc-cilium"),
        ("calico+istio", True, "ztc-calico-istio"),
        ("cilium:wireguard", False, "ztc-cilium-wireguard-ab12"),
    ],
)
def test_a_cluster_is_named_after_its_stack_and_its_run_unless_it_is_kept(stack: str, keep: bool, name: str) -> None:
    assert name == kind.name_of(stack, "AB12", keep=keep)


def test_a_node_of_a_stack_with_every_option_has_a_name_that_kubernetes_takes() -> None:
    longest = "cilium+istio+gateway:ambient:dual:kpr:wireguard"
    name = kind.name_of(longest, "t123451234567", keep=False)  # a run's ID has six characters, a test's more
    assert 63 >= len(f"{name}-control-plane")
    assert name != kind.name_of(longest.removesuffix(":wireguard"), "t123451234567", keep=False)
    assert "--" not in name


def test_archives_are_files_and_all_of_a_folder_each_once(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "readme.txt"):
        (tmp_path / name).touch()
    assert (tmp_path / "b.tar", tmp_path / "a.tar") == kind.archives([tmp_path / "b.tar", tmp_path])


def test_an_archive_that_is_not_there_or_a_folder_without_any_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--ztc-load-image .*/none.tar: there is no such file or folder$"):
        kind.archives([tmp_path / "none.tar"])
    with pytest.raises(UsageError, match=r"this folder holds no \*\.tar$"):
        kind.archives([tmp_path])


DEAD = Process(pid=2**22, start=1, boot="another boot", host="")


def record(**changed: object) -> Record:
    return replace(Record(name="ztc-a", run="r", owner=DEAD, keep=False, whole=True), **changed)  # type: ignore[arg-type]


def test_a_workers_cluster_belongs_to_the_process_that_started_it() -> None:
    assert os.getppid() == ledger.owner(worker=True).pid


@pytest.mark.parametrize(
    ("one", "stale"),
    [
        (record(), True),
        (record(keep=True), False),
        (record(keep=True, whole=False), True),
        (record(owner=ledger.owner(worker=False)), False),
        (record(owner=ledger.owner(worker=False), whole=False), False),
        (record(owner=replace(DEAD, host="another machine")), False),  # of which nothing is known here
    ],
)
def test_a_cluster_is_nobodys_if_its_run_is_dead_and_it_is_not_kept_or_not_whole(one: Record, stale: bool) -> None:
    assert stale is one.stale


def test_a_record_is_read_as_it_was_written_until_it_is_forgotten(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "state")
    one = record(made={"--ztc-kind-image": "x"}, installed="i", loaded=("a", "b"))
    assert None is book.read("ztc-a")
    book.write(one)
    assert one == book.read("ztc-a")
    assert (one,) == book.records()
    book.forget("ztc-a")
    assert () == book.records()


def test_a_record_that_is_not_one_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "ztc-a.json").write_text('{"name": "ztc-a"}', encoding="utf-8")
    assert None is Ledger(tmp_path).read("ztc-a")
    assert () == Ledger(tmp_path).records()


def test_a_held_cluster_is_waited_for_and_that_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    script = (
        "import signal, sys; from pathlib import Path; from ztconform.kube.ledger import Ledger; signal.alarm(20)\n"
        "with Ledger(Path(sys.argv[1])).held('ztc-a', print): print('held', flush=True); sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout
        assert "held\n" == other.stdout.readline()
        release = other.stdin.close

        def tell(line: str) -> None:
            told.append(line)
            release()

        with Ledger(tmp_path).held("ztc-a", tell):
            pass
    assert ["waiting for another process, which prepares the cluster ztc-a"] == told
