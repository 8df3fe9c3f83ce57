# SPDX-License-Identifier: Apache-2.0
"""What a user says of a stack is checked before anything is created; each mistake is one line that names its option."""

from collections.abc import Callable
from typing import Any

import pytest

from ztconform.plugin import settings, stack
from ztconform.settings import PodOptions, Settings

Read = Callable[..., Settings]


@pytest.fixture
def read(pytester: pytest.Pytester) -> Read:
    """Return what reads a command line, beside files that it may name."""
    for name in ("values.yaml", "kind.yaml", "kubeconfig", "image.tar"):
        (pytester.path / name).write_text("{}", encoding="utf-8")
    (pytester.path / "chart").mkdir()
    (pytester.path / "below").mkdir()

    def read(*args: str, ini: str = "") -> Settings:
        pytester.makeini(f"[pytest]\n{ini}\n")
        return settings.of(pytester.parseconfig("-p", "no:cacheprovider", "-p", "no:pytest-kind", *args))

    return read


def test_nothing_said_is_the_default(read: Read) -> None:
    found = read()
    default = Settings()
    for name in Settings.__slots__:
        if name not in ("run", "folder", "notify"):
            assert getattr(default, name) == getattr(found, name), name
    assert 6 == len(found.run)


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["--ztc-context=prod"], "context", "prod"),
        (["--ztc-keep"], "keep", True),
        (["--ztc-allow-disruptive"], "allow_disruptive", True),
        (["--ztc-privileged"], "privileged", True),
        (["--ztc-kind-image=node:v1"], "kind_image", "node:v1"),
        (["--ztc-kind-bin=kind-0.30"], "kind_bin", "kind-0.30"),
        (["--ztc-cni-command=up --to {cluster}"], "cni_command", "up --to {cluster}"),
        (["--ztc-nodes=a,b.example"], "nodes", ("a", "b.example")),
        (["--ztc-outsider=ssh host"], "outsider", "ssh host"),
        (["--ztc-svid-ttl=12.5"], "svid_ttl", 12.5),
        (["--ztc-spire-server-bin=spire-1"], "spire_server_bin", "spire-1"),
        (["--ztc-spire-agent-bin=spire-2"], "spire_agent_bin", "spire-2"),
    ],
)
def test_a_word_of_the_user_is_a_setting(read: Read, args: list[str], field: str, value: Any) -> None:
    assert value == getattr(read(*args), field)


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["--ztc-agent-image=python:3"], "agent_image", "python:3"),
        (["--ztc-image-registry=mirror.example/"], "image_registry", "mirror.example"),
        (["--ztc-pull-secret=registry/pull.me"], "pull_secret", "registry/pull.me"),
        (["--ztc-label-prefix=acme.example"], "label_prefix", "acme.example"),
        (["--ztc-node-selector=a/b=c", "--ztc-node-selector=d="], "node_selector", {"a/b": "c", "d": ""}),
        (["--ztc-namespace-label=a=b"], "namespace_labels", {"a": "b"}),
        (["--ztc-namespace-annotation=a=b c=d"], "namespace_annotations", {"a": "b c=d"}),
        (["--ztc-toleration=k"], "tolerations", ({"key": "k", "operator": "Exists"},)),
        (["--ztc-toleration=k:NoExecute"], "tolerations", ({"key": "k", "operator": "Exists", "effect": "NoExecute"},)),
        (
            ["--ztc-toleration=a.b/k=v:NoSchedule"],
            "tolerations",
            ({"key": "a.b/k", "operator": "Equal", "value": "v", "effect": "NoSchedule"},),
        ),
        (
            ["--ztc-toleration=k=v", "--ztc-toleration=l"],
            "tolerations",
            ({"key": "k", "operator": "Equal", "value": "v"}, {"key": "l", "operator": "Exists"}),
        ),
    ],
)
def test_a_word_of_the_user_is_an_option_of_our_pods(read: Read, args: list[str], field: str, value: Any) -> None:
    assert value == getattr(read(*args).pods, field)
    assert getattr(PodOptions(), field) == getattr(read().pods, field)


def test_files_are_found_from_where_pytest_was_started(read: Read, pytester: pytest.Pytester) -> None:
    here = pytester.path
    found = read("--ztc-kind-config=kind.yaml", "--ztc-load-image=image.tar", "--ztc-load-image=chart", "--ztc-chart=cni=chart")
    assert (here / "kind.yaml", (here / "image.tar", here / "chart")) == (found.kind_config, found.load_images)
    assert {"cni": here / "chart"} == found.charts
    found = read("--ztc-values=cni=values.yaml", f"--ztc-values=mesh={here / 'values.yaml'}")
    assert {"cni": here / "values.yaml", "mesh": here / "values.yaml"} == found.values
    assert here / "kubeconfig" == read("--ztc-context=c", "--ztc-kubeconfig=kubeconfig").kubeconfig


def test_a_charts_version_and_repository_are_of_one_component_each_also_in_the_ini(read: Read) -> None:
    found = read(
        "--ztc-chart-version=istiod=1.31.0-rc.0",
        "--ztc-chart-version=calico=v3.32.1",
        "--ztc-chart-repository=istiod=oci://ghcr.io/istio/charts",
    )
    assert {"istiod": "1.31.0-rc.0", "calico": "v3.32.1"} == found.chart_versions
    assert {"istiod": "oci://ghcr.io/istio/charts"} == found.chart_repositories
    ini = "ztc_chart_version =\n  spire=0.30.0\nztc_chart_repository =\n  spire=https://mirror.example/charts"
    assert ({"spire": "0.30.0"}, {"spire": "https://mirror.example/charts"}) == (
        (found := read(ini=ini)).chart_versions,
        found.chart_repositories,
    )


def test_the_ini_says_the_same_from_its_own_folder_and_the_command_line_replaces_it(
    read: Read, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    ini = "ztc_keep = true\nztc_values =\n  cni=values.yaml\n  mesh=values.yaml\nztc_nodes = a\nztc_kind_config = kind.yaml"
    top = pytester.path
    monkeypatch.chdir(top / "below")
    found = read(f"--rootdir={top}", "-c", str(top / "tox.ini"), ini=ini)
    assert (True, {"cni": top / "values.yaml", "mesh": top / "values.yaml"}) == (found.keep, found.values)
    assert (("a",), top / "kind.yaml") == (found.nodes, found.kind_config)
    found = read(f"--rootdir={top}", "-c", str(top / "tox.ini"), "--ztc-values=cni=../values.yaml", "--ztc-nodes=b", ini=ini)
    assert ({"cni": top / "below/../values.yaml"}, ("b",)) == (found.values, found.nodes)


def test_what_is_for_a_new_cluster_may_stand_in_the_ini_of_one_that_is_there(read: Read) -> None:
    assert "prod" == read("--ztc-context=prod", ini="ztc_kind_image = node:v1").context


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--ztc-kubeconfig=none", "--ztc-context=c"], "--ztc-kubeconfig none: no such file or folder"),
        (
            ["--ztc-kubeconfig=kubeconfig"],
            "--ztc-kubeconfig says where a context is found: name the context, *",
        ),
        (["--ztc-kind-config=below"], "--ztc-kind-config below: is a folder; name a file"),
        (["--ztc-kind-bin=./kind"], "--ztc-kind-bin ./kind: no such file or folder"),
        (["--ztc-load-image=gone.tar"], "--ztc-load-image gone.tar: no such file or folder"),
        (["--ztc-chart=chart"], "--ztc-chart chart: give COMPONENT=DIR"),
        (["--ztc-chart==chart"], "--ztc-chart =chart: give COMPONENT=DIR"),
        (["--ztc-chart=cni=gone"], "--ztc-chart gone: no such file or folder"),
        (["--ztc-chart-version=istiod"], "--ztc-chart-version istiod: give COMPONENT=VERSION"),
        (["--ztc-chart-version=istiod=1.x"], "--ztc-chart-version istiod=1.x: give an exact version, such as 1.2.3"),
        (["--ztc-chart-version=istiod=>=1.2.3"], "--ztc-chart-version istiod=>=1.2.3: give an exact version, such as 1.2.3"),
        (
            ["--ztc-chart-repository=istiod=charts"],
            "--ztc-chart-repository istiod=charts: give a URL that begins with https:// or oci://",
        ),
        (["--ztc-context=c", "--ztc-chart-version=a=1.2.3"], "--ztc-chart-version is for a cluster that ztconform makes; *"),
        (["--ztc-values=cni=below"], "--ztc-values below: is a folder; name a file"),
        (["--ztc-values=a=values.yaml"] * 2, "--ztc-values a=values.yaml: a is given twice"),
        (["--ztc-node-selector=zone"], "--ztc-node-selector zone: give KEY=VALUE"),
        (["--ztc-node-selector=a b=c"], "--ztc-node-selector a b=c: Kubernetes takes no key 'a b'"),
        (["--ztc-namespace-label=a=b c"], "--ztc-namespace-label a=b c: Kubernetes takes no label value 'b c'"),
        (["--ztc-namespace-annotation=a/b/c=d"], "--ztc-namespace-annotation a/b/c=d: Kubernetes takes no key 'a/b/c'"),
        (["--ztc-toleration=:NoExecute"], "--ztc-toleration :NoExecute: give KEY[=VALUE][:EFFECT]"),
        (
            ["--ztc-toleration=a:Never"],
            "--ztc-toleration a:Never: the effect is one of NoSchedule, PreferNoSchedule, NoExecute",
        ),
        (["--ztc-toleration=a:"], "--ztc-toleration a:: the effect is one of NoSchedule, PreferNoSchedule, NoExecute"),
        (["--ztc-pull-secret=pull"], "--ztc-pull-secret pull: give the secret's namespace and name, as in registry/pull"),
        (["--ztc-label-prefix=A/b"], "--ztc-label-prefix A/b: give a domain in small letters, such as example.com"),
        (["--ztc-nodes=a,,b"], "--ztc-nodes a,,b: '' is no name of a node; give names with commas between them"),
        (["--ztc-nodes=a,a"], "--ztc-nodes a,a: a node is named twice"),
        (["--ztc-cni-command=up 'x"], "--ztc-cni-command up 'x: cannot be split into words: no closing quotation"),
        (["--ztc-cni-command= "], "--ztc-cni-command  : names no command"),
        (
            ["--ztc-context=c", "--ztc-kind-image=i"],
            "--ztc-kind-image is for a cluster that ztconform makes; --ztc-context names one",
        ),
        (["--ztc-context=c", "--ztc-load-image=image.tar"], "--ztc-load-image is for a cluster that ztconform makes; *"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_option(read: Read, args: list[str], line: str) -> None:
    with pytest.raises(pytest.UsageError) as found:
        read(*args)
    assert 1 == len(str(found.value).splitlines())
    assert str(found.value).startswith(line.removesuffix("*"))


@pytest.mark.parametrize("workers", [[], ["-n2"]])
@pytest.mark.parametrize("where", ["option", "ini"])
def test_a_mistake_ends_the_session_before_anything_is_collected(inner, where: str, workers: list[str]) -> None:
    inner.write("raise RuntimeError('collected')\n")
    if where == "ini":
        inner.pytester.makeini("[pytest]\nztc_nodes = a,a\n")
    result = inner.run_apart(*workers, *(["--ztc-nodes=a,a"] if where == "option" else []))
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    assert ["ERROR: --ztc-nodes a,a: a node is named twice"] == [line for line in result.stderr.lines if line.startswith("ERROR")]
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    result.stdout.no_fnmatch_line("*collected*")
    assert [] == inner.log


def test_a_context_is_of_no_stack_that_each_run_makes(inner) -> None:
    inner.write(inner.requirement("N01", "PROVED a"))
    result = inner.run_apart("--ztc-context=prod")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["ERROR: --ztc-context prod: the stack fake is made by each run and is no existing cluster"])
    assert [] == inner.log


def test_what_a_named_context_runs_is_found_out(inner, monkeypatch: pytest.MonkeyPatch) -> None:
    from ztconform.stacks import detect

    monkeypatch.setattr(detect, "detect", lambda own: detect.Detected("shared", f"the fake in {own.context}"))
    inner.write(inner.requirement("N01", "PROVED a"))
    result = inner.run_with_any_stack("--ztc-context=prod")
    assert 0 == result.ret
    result.stderr.fnmatch_lines(["ztconform: context prod runs the stack shared (the fake in prod)"])
    assert ["create"] == [line.split()[0] for line in inner.log if line.startswith("create")]


def test_no_context_is_looked_up_where_none_is_named(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    from ztconform.stacks import detect

    monkeypatch.setattr(detect, "detect", lambda own: pytest.fail("the current context was used"))
    monkeypatch.setenv("KUBECONFIG", str(pytester.path / "some"))
    config = pytester.parseconfig("-p", "no:cacheprovider")
    assert ("lab", "") == (stack.chosen(config).name, settings.of(config).context)
