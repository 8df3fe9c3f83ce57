# SPDX-License-Identifier: Apache-2.0
"""One cluster for all processes of a run: the first that needs it creates it, the one that the user started removes it, once."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ztconform.plugin import sharing

SHARED = "--ztc-stack=shared"
WORKERS = pytest.mark.parametrize("workers", [0, 2])


@pytest.fixture
def temporary(inner, tmp_path: Path) -> Path:
    """Return the folder in which inner runs make their own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    inner.env(TMPDIR=folder)
    return folder


def words(inner, first: str) -> list[list[str]]:
    return [line.split() for line in inner.log if line.split()[0] == first]


def spans(inner) -> dict[str, tuple[float, float]]:
    """Return when each proof began and ended; all processes read one clock."""
    begun = {name: float(at) for _, name, at in words(inner, "begin")}
    return {name: (begun[name], float(at)) for _, name, at in words(inner, "end")}


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def two_that_wait(inner) -> None:
    inner.env(FAKE_GO_ON=inner.path / "go-on")
    inner.write(inner.requirement("N01", "WAIT a") + inner.requirement("N02", "WAIT a"))


@pytest.mark.parametrize(("rows", "code"), [(("PROVED a", "PROVED a"), 0), (("PROVED a", "VIOLATED a"), 1), (("LOST a",), 3)])
@WORKERS
def test_it_is_created_once_and_removed_once_by_the_process_that_the_user_started(inner, temporary, rows, code, workers):
    inner.write("".join(inner.requirement(f"N0{n}", row) for n, row in enumerate(rows, start=1)))
    run = inner.start(SHARED, f"-n{workers}")
    assert code == run.wait(timeout=60), inner.output
    [[_, name]] = words(inner, "create")
    assert [["finish", str(run.pid), name, str(code != 0)]] == words(inner, "finish")
    assert "finished" == inner.log[-1]
    assert 1 == len(words(inner, "preflight"))
    assert [] == [path for path in temporary.iterdir() if path.name.startswith("ztconform-")]


def test_workers_that_both_use_it_have_ended_before_it_goes(inner):
    two_that_wait(inner)
    run = inner.start(SHARED, "-n2")
    inner.logged("waiting", 2)
    (inner.path / "go-on").touch()
    assert 0 == run.wait(timeout=60), inner.output
    assert 2 == len(words(inner, "start")) == len(words(inner, "stop"))
    assert (1, 1) == (len(words(inner, "create")), len(words(inner, "finish")))
    assert ["stop", "stop", "finish", "finished"] == [
        line.split()[0] for line in inner.log if line.startswith(("stop", "finish"))
    ]


@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_removed_also_when_a_signal_ends_the_run(inner, temporary, workers, number):
    two_that_wait(inner)
    run = inner.start(SHARED, f"-n{workers}")
    inner.logged("waiting", workers or 1)
    os.kill(run.pid, number)
    assert pytest.ExitCode.INTERRUPTED == run.wait(timeout=60), inner.output
    assert [["finish", str(run.pid), words(inner, "create")[0][1], "False"]] == words(inner, "finish")
    assert ["finished"] == inner.log[-1:]
    ends = [line.split()[0] for line in inner.log if line.startswith(("stop", "finish"))]
    assert [*["stop"] * (workers or 1), "finish", "finished"] == ends
    assert "Traceback" not in inner.output
    assert [] == [path for path in temporary.iterdir() if path.name.startswith("ztconform-")]


@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_is_removed_says_what_remains(inner, workers, number):
    inner.env(FAKE_SLOW_FINISH=inner.path / "slow")
    inner.write(inner.requirement("N01", "PROVED a"))
    run = inner.start(SHARED, f"-n{workers}")
    [finish] = inner.logged("finish")
    os.kill(run.pid, number)
    cure = f"after a kill `ztconform sweep` does it; run {finish.split()[2]}"
    line = f"ztconform: still removing the shared cluster of stack shared ({cure})"
    deadline = time.monotonic() + 20
    while line not in inner.output:
        assert time.monotonic() < deadline, inner.output
        time.sleep(0.02)
    (inner.path / "slow").touch()
    assert 0 == run.wait(timeout=60), inner.output
    assert "finished" == inner.log[-1]


@WORKERS
def test_a_removal_that_fails_is_one_line_and_exit_code_3(inner, workers):
    inner.env(FAKE_FINISH="the cluster cannot be removed; type  kind delete cluster")
    inner.write(inner.requirement("N01", "PROVED a"))
    result = inner.run_apart(SHARED, f"-n{workers}")
    assert 3 == result.ret
    result.stdout.fnmatch_lines(["Could not run: the cluster cannot be removed; type  kind delete cluster"])


@WORKERS
def test_a_start_that_fails_is_cleared_away_too(inner, workers):
    inner.env(FAKE_START="no such image")
    inner.write(inner.requirement("N01", "PROVED a"))
    result = inner.run_apart(SHARED, f"-n{workers}")
    assert 3 == result.ret
    assert 1 == len(words(inner, "finish"))


@pytest.mark.parametrize("args", [["--co"], ["--co", "-n2"], ["--help"], ["-k", "nothing"], ["-k", "nothing", "-n2"]])
def test_where_nothing_runs_nothing_is_created_and_nothing_removed(inner, temporary, args):
    inner.write(inner.requirement("N01", "PROVED a"))
    inner.run_apart(SHARED, *args)
    assert [] == [line for line in inner.log if line != "preflight"]
    assert [] == [path for path in temporary.iterdir() if path.name.startswith("ztconform-")]


def test_a_worker_that_dies_takes_no_cluster_with_it(inner):
    inner.write(inner.requirement("N01", "DIE a") + inner.requirement("N02", "PROVED a"))
    assert 1 == inner.run_apart(SHARED, "-n1").ret
    assert (1, 2, 1) == tuple(len(words(inner, word)) for word in ("create", "start", "finish"))


def test_a_stack_that_is_not_shared_is_never_finished(inner):
    inner.write(inner.requirement("N01", "PROVED a"))
    assert 0 == inner.run_apart("-n2").ret
    assert [] == words(inner, "finish")


@pytest.mark.parametrize("outcome", ["PROVED", "VIOLATED"])
def test_workers_share_the_canarys_answer(inner, outcome):
    inner.env(FAKE_CANARY=outcome)
    inner.write("".join(inner.requirement(f"N0{n}", "SLOW a") for n in range(1, 5)))
    result = inner.run_apart(SHARED, "-n2")
    assert (0 if outcome == "PROVED" else 1) == result.ret
    assert 1 == len(words(inner, "canary"))
    result.stdout.fnmatch_lines([f"canary *l34 {outcome}*"])
    if outcome == "VIOLATED":
        result.stdout.fnmatch_lines(["NOT_RUN *N01 N02 N03 N04: see canary: *"])
        assert 1 == result.stdout.str().count("until it passes")
        assert "attempt 1 of" not in result.stdout.str()


def test_a_node_that_was_left_out_is_red_and_the_others_are_believed(inner):
    inner.env(FAKE_UNTESTED="worker-3")
    inner.write(inner.requirement("N01", "PROVED a"))
    result = inner.run_apart(SHARED)
    assert 1 == result.ret
    result.stdout.fnmatch_lines(
        [
            "node worker-3 was not tested: it was left out; what it enforces nobody knows",
            "canary *l34 PROVED *nodes INCONCLUSIVE",
            "segmentation *N01 PROVED",
        ]
    )


def test_what_disturbs_others_has_the_cluster_alone(inner):
    alone = "import pytest\n@pytest.mark.ztc_disruptive\n"
    others = "".join(inner.requirement(f"N0{n}", "SLOW a", "SLOW b") for n in range(1, 7))
    inner.write(others + alone + inner.requirement("N08", "SLOW a", "SLOW b"))
    assert 0 == inner.run_apart(SHARED, "-n3").ret
    found = spans(inner)
    mine = found.pop("N08")
    assert [] == [name for name, span in found.items() if overlap(mine, span)]
    assert any(overlap(found[one], found[other]) for one in found for other in found if one < other)


def test_what_disturbs_is_for_an_existing_cluster_only_where_that_is_permitted(inner):
    inner.write("import pytest\n@pytest.mark.ztc_disruptive\n" + inner.requirement("N01", "PROVED a"))
    result = inner.run_apart(SHARED, "--ztc-context=prod")
    result.stdout.fnmatch_lines(["NOT_SUPPORTED *N01: disturbs more of an existing cluster * --ztc-allow-disruptive permits it"])
    assert [] == words(inner, "prove")
    result = inner.run_apart(SHARED, "--ztc-context=prod", "--ztc-allow-disruptive")
    result.stdout.fnmatch_lines(["segmentation *N01 PROVED"])


CASE = """\
apiVersion: ztconform.io/v1alpha1
kind: Case
metadata: {name: NAME}
namespaces: [{name: SPACE}]
workloads:
- {name: payment, namespace: SPACE, ports: [{number: 8080}]}
- {name: checkout, namespace: SPACE, ports: []}
manifests: MANIFESTS
expect:
- {from: SPACE/checkout, to: SPACE/payment, port: 8080, verdict: allowed, id: SLOW a}
- {from: SPACE/checkout, to: SPACE/payment, port: 8080, verdict: allowed, id: SLOW b}
"""
WIDE = "[{apiVersion: policy.example/v1, kind: ClusterPolicy, metadata: {name: wide}}]"


def cases(inner, spaces: list[str], manifests: str = "[]") -> dict[str, tuple[float, float]]:
    for name, space in zip("abcdef", spaces, strict=False):
        text = CASE.replace("NAME", name).replace("SPACE", space).replace("MANIFESTS", manifests if name == "a" else "[]")
        (inner.path / f"{name}.ztc.yaml").write_text(text, encoding="utf-8")
    result = inner.run_apart(SHARED, "-n2", "--ztc-casefiles")
    assert 0 == result.ret, result.stdout.str()
    return spans(inner)


def test_case_files_with_a_namespace_of_one_name_run_one_after_the_other(inner):
    found = cases(inner, ["shop"] * 4)
    assert [] == [(one, other) for one in found for other in found if one < other and overlap(found[one], found[other])]


def test_case_files_with_namespaces_of_their_own_run_side_by_side(inner):
    found = cases(inner, ["one", "two", "three", "four"])
    assert any(overlap(found[one], found[other]) for one in found for other in found if one < other)


def test_a_case_file_with_an_object_of_the_whole_cluster_has_it_alone(inner):
    found = cases(inner, ["one", "two", "three", "four", "five", "six"], WIDE)
    mine = found.pop("a")
    assert [] == [name for name, span in found.items() if overlap(mine, span)]


USE = """\
import sys, time
from pathlib import Path
from ztconform.plugin.sharing import use
folder, alone = Path(sys.argv[1]), sys.argv[2] == "alone"
print("asks", flush=True)
with use(folder, alone=alone):
    print("in", flush=True)
    sys.stdin.read()
"""


class User:
    """A process that uses a folder beside others, or alone, until it is told to leave."""

    def __init__(self, folder: Path, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USE, str(folder), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.lines = self.process.stdout
        assert "asks\n" == self.lines.readline()

    def enters(self) -> bool:
        return self.lines.readline() == "in\n"

    def waits(self) -> bool:
        """Return whether it stands before a lock: the kernel knows who does."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            locks = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
            if any("->" in line and f" {self.process.pid} " in line for line in locks):
                return True
            time.sleep(0.02)
        return False

    def leave(self) -> None:
        self.process.communicate(timeout=20)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the kernel's locks are read in /proc")
def test_many_use_it_beside_each_other_and_one_alone_who_is_let_in_before_later_ones(tmp_path):
    first, second = User(tmp_path, "beside"), User(tmp_path, "beside")
    assert first.enters() and second.enters()
    alone = User(tmp_path, "alone")
    assert alone.waits()
    later = User(tmp_path, "beside")
    assert later.waits()
    first.leave()
    assert alone.waits() and later.waits()
    second.leave()
    assert alone.enters()
    assert later.waits()
    alone.leave()
    assert later.enters()
    later.leave()


def test_whoever_dies_uses_it_no_longer(tmp_path):
    dead = User(tmp_path, "alone")
    assert dead.enters()
    dead.process.kill()
    dead.process.wait(timeout=20)
    with sharing.use(tmp_path, alone=True):
        pass


def test_the_folder_of_a_run_is_for_its_owner_alone(inner, pytester):
    from ztconform.plugin import run

    config = pytester.parseconfig("-p", "no:cacheprovider")
    folder = run.folder_of(config)
    assert 0o700 == folder.stat().st_mode & 0o777
    assert str(folder.parent) == tempfile.gettempdir()
    run.end(config)
    assert not folder.exists()
