# SPDX-License-Identifier: Apache-2.0
"""The command line: what it hands to pytest, what it refuses before anything starts, one line and an exit code for the rest."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ztconform import cli, resources, stacks
from ztconform.errors import ClusterError, ZtconformError
from ztconform.plugin import launch
from ztconform.settings import Settings

Run = Callable[..., tuple[int, str, str]]
PYTHON = Path(sys.executable)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line and returns its exit code, its output and its errors."""

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(args)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that takes the arguments which pytest would have been started with; the session is red."""
    arguments: list[str] = []

    def main(args: Sequence[str]) -> int:
        arguments.extend(args)
        return 1

    monkeypatch.setattr(launch, "main", main)
    return arguments


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def case(path: Path, text: str = "apiVersion: nothing\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def good(path: Path) -> Path:
    return case(
        path,
        """\
apiVersion: ztconform.io/v1alpha1
kind: Case
metadata: {name: open}
namespaces: [{name: shop}]
workloads:
- {name: web, namespace: shop, labels: {app: web}, ports: [{name: http, number: 8080}]}
- {name: user, namespace: shop, labels: {app: user}, ports: []}
expect:
- {from: shop/user, to: shop/web, port: 8080, verdict: allowed}
""",
    )


def test_a_run_is_a_session_over_our_scenarios_with_our_configuration_alone(
    run: Run, handed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scenarios = resources.folder("scenarios")
    assert 1 == run("run")[0]
    ini = Path(handed[1])
    assert ("-c", "pytest.ini", True) == (handed[0], ini.name, ini.is_file())
    assert [
        f"--rootdir={scenarios}",
        "--import-mode=importlib",
        "-o",
        f"cache_dir={tmp_path / 'cache' / 'ztconform' / 'pytest'}",
        "--ztc-stack=lab",
        str(scenarios),
    ] == handed[2:]


@pytest.mark.parametrize("value", ["", "relative/cache"])
def test_a_cache_home_that_is_not_absolute_does_not_count(
    run: Run, handed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    run("run")
    assert f"cache_dir={tmp_path}/.cache/ztconform/pytest" in handed


def test_without_a_home_there_is_no_cache(run: Run, handed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 2)  # a number that no user has
    run("run")
    assert ["-p", "no:cacheprovider"] == [argument for argument in handed if argument in ("-p", "no:cacheprovider")]


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        (("--stack", "calico"), ["--ztc-stack=calico"]),
        (("-k", "deny or label"), ["-k", "(deny or label)"]),
        (("--requirement", "N01", "--requirement", "R09"), ["-k", "(N01 or R09)"]),
        (("--requirement", "N01", "-k", "not slow"), ["-k", "(not slow) and (N01)"]),
        (("-m", "ztc_requirement"), ["-m", "ztc_requirement"]),
        (("-x",), ["-x"]),
        (("-vv",), ["-v", "-v"]),
        (("-n", "2"), ["-n", "2"]),
        (("-n", "auto"), ["-n", "auto"]),
        (("--", "--lf", "-rA"), ["--lf", "-rA"]),
        (("--context", "prod"), ["--ztc-context=prod"]),
        (("--context", "prod", "--stack", "cilium"), ["--ztc-stack=cilium", "--ztc-context=prod"]),
        (("--stack", "cilium", "--keep"), ["--ztc-stack=cilium", "--ztc-keep"]),
        (("--load-image", "a.tar", "--load-image", "b"), ["--ztc-load-image=a.tar", "--ztc-load-image=b"]),
        (("--chart", "cilium=c", "--values", "cilium=v"), ["--ztc-chart=cilium=c", "--ztc-values=cilium=v"]),
        (("--cni-command", "up {cluster}"), ["--ztc-cni-command=up {cluster}"]),
        (("--allow-disruptive", "--kind-image", "i:1"), ["--ztc-allow-disruptive", "--ztc-kind-image=i:1"]),
        (("--privileged",), ["--ztc-privileged"]),
    ],
)
def test_an_option_is_handed_on(run: Run, handed: list[str], given: tuple[str, ...], arguments: list[str]) -> None:
    run("run", *given)
    assert arguments == [argument for argument in handed if argument in arguments]


@pytest.mark.parametrize(
    "given", [("--context", "prod"), ("--", "--ztc-context=prod"), ("--", "--ztc-context", "prod"), ("--", "--ztc-stack=cilium")]
)
def test_the_lab_is_named_only_where_nobody_says_a_word_of_the_stack(run: Run, handed: list[str], given: tuple[str, ...]) -> None:
    run("run", *given)
    assert "--ztc-stack=lab" not in handed


def test_a_report_goes_where_the_user_stands(
    run: Run, handed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("run", "--report", "out")
    assert f"--ztc-report={tmp_path / 'out'}" in handed


@pytest.mark.parametrize("name", ["PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"])
def test_settings_for_other_suites_do_not_count(run: Run, handed: list[str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    run("run")
    assert handed
    assert name not in os.environ


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            ("run", "--requirement", "N99"),
            "ztconform: --requirement N99: the catalogue has no such requirement; did you mean N09",
        ),
        (
            ("run", "--requirement", "n01"),
            "ztconform: --requirement n01: the catalogue has no such requirement; did you mean N01",
        ),
        (("run", "-n", "many"), "ztconform: -n many: expected a number of processes, auto or logical"),
        (("verify",), "ztconform: name at least one case file (*.ztc.yaml), or a folder that holds some"),
        (("verify", "gone"), "ztconform: gone: no such file or folder"),
        (("verify", "notes.yaml"), "ztconform: notes.yaml: the name of a case file ends in .ztc.yaml"),
        (("verify", "empty"), "ztconform: empty: no case file (*.ztc.yaml) below this folder"),
        (("run", "--nope"), "Error: No such option"),
        (("prove",), "Error: No such command 'prove'"),
    ],
)
def test_a_mistake_is_one_line_and_two_and_nothing_is_started(
    run: Run, handed: list[str], folder: Path, given: tuple[str, ...], line: str
) -> None:
    (folder / "empty").mkdir()
    (folder / "notes.yaml").write_text("a: 1\n", encoding="utf-8")
    code, out, err = run(*given)
    assert (2, "") == (code, out)
    assert err.splitlines()[-1].startswith(line)
    assert [] == handed


def test_every_mistake_in_every_case_file_is_told_before_anything_is_started(run: Run, handed: list[str], folder: Path) -> None:
    good(Path("cases/good.ztc.yaml"))
    case(Path("cases/deep/bad.ztc.yaml"))
    case(Path("worse.ztc.yaml"), "a: [\n")
    code, out, err = run("verify", "cases", "worse.ztc.yaml")
    assert (2, "", []) == (code, out, handed)
    assert {"cases/deep/bad.ztc.yaml", "worse.ztc.yaml"} == {line.split(":")[0] for line in err.splitlines()}


def test_case_files_are_proved_each_once_without_the_conftest_beside_them(run: Run, handed: list[str], folder: Path) -> None:
    files = [good(folder / "cases" / name) for name in ("a.ztc.yaml", "b/c.ztc.yaml")]
    code, _, err = run("verify", str(files[1]), "cases", "--stack", "lab")
    assert (1, "") == (code, err)
    assert f"--rootdir={folder / 'cases'}" in handed
    assert ["--noconftest", str(files[1]), str(files[0])] == handed[-3:]


def test_what_stands_behind_two_dashes_goes_to_pytest_and_is_no_case_file(run: Run, handed: list[str], folder: Path) -> None:
    path = good(folder / "a.ztc.yaml")
    assert 1 == run("verify", "--keep", "a.ztc.yaml", "--", "--ztc-nodes=a,b", "-rA")[0]
    assert ["--noconftest", "--ztc-nodes=a,b", "-rA", str(path)] == handed[-4:]
    assert "--ztc-keep" in handed


def test_the_schema_of_case_files_is_printed_and_nothing_else(run: Run, handed: list[str]) -> None:
    code, out, err = run("verify", "--schema")
    assert (0, "", []) == (code, err, handed)
    assert "object" == json.loads(out)["type"]


class _Stack:
    summary = "A stack that cannot run"
    shared = True

    def __init__(self, name: str, error: ZtconformError | None) -> None:
        self.name = name
        self.error = error

    def preflight(self, settings: Settings) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("broken", "args", "said", "code"),
    [
        ((), (), ("lab", "mock"), 0),
        (("lab",), (), ("lab", "mock"), 3),
        (("mock",), (), ("lab", "mock"), 0),
        (("mock",), ("--stack", "mock"), ("mock",), 3),
        (("mock",), ("--stack", "lab"), ("lab",), 0),
        (("lab",), ("--stack", "mock"), ("mock",), 0),
    ],
)
def test_doctor_says_of_each_stack_whether_it_can_run_and_is_red_for_the_lab_or_the_one_that_is_named(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    broken: tuple[str, ...],
    args: tuple[str, ...],
    said: tuple[str, ...],
    code: int,
) -> None:
    error = ClusterError("no user namespaces: type x")
    monkeypatch.setattr(stacks, "names", lambda: ("lab", "mock"))
    monkeypatch.setattr(stacks, "find", lambda name: _Stack(name, error if name in broken else None))
    got, out, _ = run("doctor", *args)
    lines = [f"{n}: cannot run here: {error}" if n in broken else f"{n}: can run here" for n in said]
    assert (code, lines) == (got, [line for line in out.splitlines()[1:] if not line.startswith("charts were not looked for")])


def test_doctor_looks_at_each_thing_that_a_stack_needs_and_leaves_out_what_hangs_on_another(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Docker, no kind, no helm
    code, out, err = run("doctor", "--stack", "cilium:wireguard")
    lines = dict(line.split(": ", 1) for line in out.splitlines()[1:])
    assert (3, "") == (code, err)
    assert "cannot run here" == lines.pop("cilium:wireguard")
    assert lines["docker"].startswith("CANNOT RUN: docker is not on the PATH, and kind needs it: install Docker")
    assert lines["helm"].startswith("CANNOT RUN: helm is not on the PATH: install it")
    wanting = {name: line for name, line in lines.items() if line.startswith("not looked at")}
    assert {
        "kind": "not looked at, for want of docker",
        "cgroup": "not looked at, for want of kind",
        "memory": "not looked at, for want of kind",
        "disk": "not looked at, for want of kind",
        "inotify": "not looked at, for want of kind",
        "kernel VXLAN": "not looked at, for want of docker",
        "kernel WireGuard": "not looked at, for want of docker",
        "chart cilium": "not looked at, for want of helm",
    } == wanting
    assert {"packages", "options", "ports"} == lines.keys() - wanting.keys() - {"docker", "helm"}


def test_doctor_finds_a_port_that_is_taken(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "kind.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(
            f"kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {{apiServerPort: {port}}}\n", encoding="utf-8"
        )
        _, out, _ = run("doctor", "--stack", "kindnet", "--kind-config", str(config))
    assert [f"ports: CANNOT RUN: port {port} of 127.0.0.1, which the kind configuration takes, cannot be had"] == [
        line.partition(" (")[0] for line in out.splitlines() if line.startswith("ports")
    ]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("doctor", "--stack", "cilium", "--chart", "cilium"), "ztconform: --chart cilium: give COMPONENT=..."),
        (("stacks", "--images"), "Error: --images needs the name of a stack"),
        (("stacks", "--images", "lab"), "ztconform: --images lab: the lab runs from no image"),
        (("stacks", "--images", "custom"), "ztconform: --images custom: its CNI is yours"),
        (("stacks", "calico+cilium"), "ztconform: no stack is called 'calico+cilium': a stack has one CNI; "),
    ],
)
def test_a_mistake_about_a_stack_is_one_line_and_two(run: Run, args: tuple[str, ...], line: str) -> None:
    code, out, err = run(*args)
    assert (2, "") == (code, out)
    assert err.splitlines()[-1].startswith(line)


def test_doctor_knows_only_stacks_that_there_are(run: Run) -> None:
    code, out, err = run("doctor", "--stack", "cillium")
    assert (2, "") == (code, out)
    assert err.startswith("ztconform: no stack is called 'cillium': 'cillium' is no part, did you mean cilium?; a stack is lab, ")
    assert 1 == len(err.splitlines())


def test_stacks_lists_every_stack_with_what_it_is_and_below_it_what_it_needs_and_can_prove(run: Run) -> None:
    code, out, _ = run("stacks")
    heads = [line.split()[0] for line in out.splitlines()[:-1] if not line.startswith(" ")]
    needs = [line for line in out.splitlines() if line.startswith("    needs ")]
    assert (0, list(stacks.names())) == (code, heads)
    assert len(stacks.names()) - 3 == len(needs)  # the labs need nothing of the kind, and of custom nothing is known
    able = "can prove 13 of the 42 requirements with scenarios"
    assert f"    needs 3072 MiB, VXLAN and WireGuard in the kernel, 6 images; {able}" in needs


def test_of_one_stack_everything_is_told_and_every_feature_is_there_or_has_its_reason(run: Run) -> None:
    code, out, _ = run("stacks", "calico+gateway+istio")
    assert (0, "calico+istio+gateway") == (code, out.split()[0])
    lacks = {line.split()[1].rstrip(":") for line in out.splitlines() if line.startswith("lacks ")}
    assert {"svid-rotation", "federation", "audit-mode"} <= lacks
    assert not {"l34", "mtls", "staged-policy"} & lacks
    able = next(line for line in out.splitlines() if line.startswith("can prove ")).split()
    assert "N01" in able
    assert "A04" not in able  # it could, and no scenario does


def test_the_images_of_a_stack_are_printed_one_a_line_and_as_a_mirror_calls_them(run: Run) -> None:
    code, out, _ = run("stacks", "--images", "cilium+linkerd", "--image-registry", "mirror.example/")
    lines = out.splitlines()
    assert 0 == code
    assert "mirror.example/cilium/cilium:v1.19.6" in lines
    assert "mirror.example/linkerd/proxy:edge-26.8.3" in lines
    assert [] == [line for line in lines if " " in line or ":" not in line]


def test_sweep_has_nothing_to_do_for_the_lab(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Docker, no kind: what other runs left on this machine is theirs
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    code, out, _ = run("sweep")
    assert 0 == code
    assert out.startswith("nothing to sweep: ")


def test_an_error_of_ours_is_one_line_and_its_own_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(args: Sequence[str]) -> int:
        raise ClusterError("the lab is gone; start again")

    monkeypatch.setattr(launch, "main", main)
    assert (3, "", "ztconform: the lab is gone; start again\n") == run("run")


def test_an_interrupt_is_told_by_its_code_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(args: Sequence[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "main", main)
    code, out, err = run("run")
    assert (130, "", "") == (code, out, err.strip())


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from ztconform import cli; cli.main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=_checkout())
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert set() == loaded & {"pytest", "_pytest", "yaml", "jsonschema", "rich", "filelock", "ctypes", "kubernetes"}
    for command in ("run", "verify", "doctor", "stacks", "matrix", "sweep"):
        assert command in done.stdout


def test_a_reader_that_goes_away_is_neither_a_pass_nor_a_red() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [PYTHON, "-m", "ztconform.cli", "verify", "--schema"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60, check=False, cwd=_checkout())
    os.close(theirs)
    assert (141, "") == (done.returncode, done.stderr)


def _checkout() -> Path:
    return Path(__file__).resolve().parents[2]
