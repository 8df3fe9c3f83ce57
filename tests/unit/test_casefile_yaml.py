# SPDX-License-Identifier: Apache-2.0
"""YAML that is no YAML, or not the same YAML to everybody, is refused with its place; so are files that cannot be read."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ztconform import casefile
from ztconform.errors import UsageError

VALID = Path(__file__).parent / "data" / "casefiles" / "valid"
SMALLEST = (VALID / "smallest.ztc.yaml").read_text(encoding="utf-8")
POLICY = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x, namespace: a}\n"


def problems(path: Path) -> list[str]:
    """Return the lines of the error, without the file's folder."""
    with pytest.raises(UsageError) as caught:
        casefile.load(path)
    return [line.replace(f"{path.parent}/", "") for line in str(caught.value).splitlines()]


def written(folder: Path, data: str | bytes, name: str = "case.ztc.yaml") -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def label(value: str) -> str:
    """Return a right case with this value in line 8, column 82."""
    service = f"{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: a}}, x: {value}}}"
    return f"{SMALLEST}outsiders: []\nservices: [{service}]\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (SMALLEST.replace("kind: Case\n", "kind: Case\nkind: Case\n"), "3:1: kind: is given twice, in line 2 and here"),
        (
            SMALLEST.replace("verdict: allowed", "verdict: allowed, verdict: denied"),
            "6:59: expect[0].verdict: is given twice, in line 6 and here",
        ),
        (SMALLEST + "---\n" + SMALLEST, "8:1: a second document begins; a case file holds one case"),
        (SMALLEST + "refuse: &self [*self]\n", "7:9: refuse[0]: contains itself by an alias"),
        (SMALLEST + "refuse: *nobody\n", "7:9: is not YAML: found undefined alias 'nobody'"),
        (SMALLEST + "refuse:\n\t- x\n", "8:1: a tab cannot indent; use spaces"),
        (SMALLEST + "refuse: [\n", "8:1: is not YAML: expected the node content, but found '<stream end>'"),
        (SMALLEST + "mesh: {a: ${host:a/a}}\n", "7:12: is not YAML: expected ',' or '}', but got '{';"
         " write strings that hold ${...} between quotes"),
        (SMALLEST + "refuse: {? [a] : b}\n", "7:12: refuse: a field's name must be a string, not a list or a mapping"),
        (SMALLEST + "refuse: !!set {a}\n", "7:9: refuse: the tag 'set' is not supported"),
        (SMALLEST + "refuse: !x y\n", "7:9: refuse: the tag '!x' is not supported"),
        (SMALLEST + "refuse: !!null x\n", "7:9: refuse: 'x' is not null"),
        (SMALLEST + "<<: {refuse: []}\n", "7:1: ['<<']: merge keys are not supported; write the fields out"),
        (SMALLEST + "yes: 1\n", "7:1: yes: 'yes' is no string in YAML; quote the field's name: \"yes\""),
        (SMALLEST + "~: 1\n", "7:1: ['~']: '~' is no string in YAML; quote the field's name: \"~\""),
        (SMALLEST + 'refuse: ["\\ud800"]\n', "7:10: refuse[0]: is not valid Unicode"),
        (SMALLEST + '"\\ud800": 1\n', "7:1: '\\ud800' is not valid Unicode"),
        (SMALLEST + "refuse: [\x07]\n", "7:10: the character '\\x07' is not allowed in YAML"),
        (SMALLEST + "refuse: " + "[" * 60 + "]" * 60, "7:59: refuse" + "[0]" * 50 + ": is nested more than 50 levels deep"),
        ("[" * 5000, "1:1: is nested more than 50 levels deep"),
        (SMALLEST + 'refuse: ["\\UFFFFFFFF"]\n', "7:13: holds a number or an escape that stands for nothing"),
        (
            SMALLEST + "refuse:\n- &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"- &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcde", "bcdef", strict=True)),
            "1:1: has more than 200000 values once its aliases are followed",
        ),
    ],
    ids=lambda value: value if len(value) < 80 and "\n" not in value and "[0][0]" not in value else None,
)  # fmt: skip
def test_yaml_that_nobody_should_write_is_refused(tmp_path: Path, text: str, line: str) -> None:
    assert f"case.ztc.yaml:{line}" in problems(written(tmp_path, text))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *(
            (word, f"'{word}' is a boolean in YAML 1.1 and a string in 1.2; quote it (\"{word}\") or write {instead}")
            for word, instead in (("no", "false"), ("on", "true"), ("Yes", "true"), ("OFF", "false"))
        ),
        *(
            (word, f"'{word}' is a number that not all YAML reads alike; write it in decimal or quote it (\"{word}\")")
            for word in ("010", "0o10", "0x1F", "12:30", "1_000", "+1", "080", "1e3", "0b11", "9" * 19)
        ),
        *(
            (word, f"'{word}' is not a number in plain decimals; write it so or quote it (\"{word}\")")
            for word in (".inf", "1.", ".5", "1:30.5", ".nan", "1_0.0")
        ),
    ],
)
def test_a_value_that_yaml_1_1_and_1_2_read_differently_is_refused(tmp_path: Path, value: str, message: str) -> None:
    assert [f"case.ztc.yaml:8:82: services[0].x: {message}"] == problems(written(tmp_path, label(value)))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ('"no"', "no"),
        ("'010'", "010"),
        ("true", True),
        ("FALSE", False),
        ("8080", 8080),
        ("-1", -1),
        ("1.5", 1.5),
        ("2026-11-22", "2026-11-22"),
        ("1.2.3", "1.2.3"),
        ("null", None),
        ("~", None),
        ("=", "="),
        ("{8080: x}", {"8080": "x"}),
        ("!!str 7x", "7x"),
        ("y", "y"),
    ],
)
def test_every_other_value_is_what_it_looks_like(tmp_path: Path, value: str, read: object) -> None:
    case = casefile.load(written(tmp_path, label(value))).case
    assert (read, type(read)) == (case.topology.services[0]["x"], type(case.topology.services[0]["x"]))


def test_an_alias_stands_for_what_it_names(tmp_path: Path) -> None:
    text = SMALLEST.replace("ports:", "labels: &same {app: a}, ports:")
    text = text.replace("}]\nexpect", "}, {name: b, namespace: a, labels: *same}]\nexpect")
    assert [{"app": "a"}] * 2 == [one.labels for one in casefile.load(written(tmp_path, text)).case.topology.workloads]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; a case file begins with apiVersion: ztconform.io/v1alpha1"),
        (b"# only a comment\n", "is empty; a case file begins with apiVersion: ztconform.io/v1alpha1"),
        (b"---\n", "is empty; a case file begins with apiVersion: ztconform.io/v1alpha1"),
        (b"kind: Case\nx: \xff\n", "is not UTF-8 (byte 0xff in line 2)"),
    ],
)
def test_a_file_that_holds_no_text_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    assert [f"case.ztc.yaml: {message}"] == problems(written(tmp_path, data))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    assert ["nobody.ztc.yaml: cannot be read: No such file or directory"] == problems(tmp_path / "nobody.ztc.yaml")
    (tmp_path / "folder.ztc.yaml").mkdir()
    assert ["folder.ztc.yaml: is a folder; name a file"] == problems(tmp_path / "folder.ztc.yaml")
    assert ["x\0y: cannot be read: embedded null byte"] == problems(tmp_path / "x\0y")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert "smallest" == casefile.load(written(tmp_path, b"\xef\xbb\xbf" + SMALLEST.encode())).case.id


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("p.yaml", None, "case.ztc.yaml:7: manifests[0]: 'p.yaml' cannot be read: No such file or directory"),
        ("..", None, "case.ztc.yaml:7: manifests[0]: '..' is outside this file's folder; put it beside this file or below"),
        (
            "/etc/passwd",
            None,
            "case.ztc.yaml:7: manifests[0]: '/etc/passwd' is outside this file's folder; put it beside this file or below",
        ),
        (".", None, "case.ztc.yaml:7: manifests[0]: '.' is a folder; name a file"),
        ("p.yaml", b"\xff", "case.ztc.yaml:7: manifests[0]: 'p.yaml' is not UTF-8 (byte 0xff in line 1)"),
        ("p.yaml", b"---\n", "case.ztc.yaml:7: manifests[0]: 'p.yaml' holds no manifest"),
        ("p.yaml", b"a: [", "p.yaml:1:5: is not YAML: expected the node content, but found '<stream end>'"),
        ("p.yaml", b"7", "p.yaml:1: must be a mapping, not 7"),
        ("p.yaml", POLICY.replace("kind", "Kind").encode(), "p.yaml:1: kind: is missing"),
        ("p.yaml", POLICY.replace("a}", "b}").encode(),
         "p.yaml:3: metadata.namespace: namespace 'b' is not declared under `namespaces`"),
        ("p.yaml", f"{POLICY}---\n{POLICY}".encode(), "p.yaml:7: metadata.name: NetworkPolicy a/x is given already (line 3)"),
        ("p.yaml", f"{POLICY}spec: ${{host:b/b}}".encode(), "p.yaml:4: spec: ${host:b/b}: no workload or outsider b/b"),
        ("p.yaml", f"{POLICY}---\nkind: 7\nkind: 8\n".encode(), "p.yaml:5: apiVersion: is missing"),
    ],
    ids=lambda value: str(value)[-40:] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_with_a_manifest_file_is_told_in_its_own_lines(
    tmp_path: Path, name: str, data: bytes | None, line: str
) -> None:
    if data is not None:
        written(tmp_path, data, name)
    path = written(tmp_path, f"{SMALLEST}manifests: ['{name}']\n")
    assert line == problems(path)[0]


def test_problems_of_the_case_file_come_before_those_of_its_manifests(tmp_path: Path) -> None:
    written(tmp_path, "7", "a.yaml")
    text = f"{SMALLEST}manifests: [a.yaml]\nrefuse:\n"
    assert ["case.ztc.yaml:8: refuse: must be a list, but is empty", "a.yaml:1: must be a mapping, not 7"] == problems(
        written(tmp_path, text)
    )


def test_a_manifest_beside_the_file_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub", POLICY, "p.yaml")
    written(tmp_path / "sub", f"{SMALLEST}manifests: [p.yaml]\n")
    monkeypatch.chdir(tmp_path)
    assert "x" == casefile.load(Path("sub/case.ztc.yaml")).case.steps[0].apply[0]["metadata"]["name"]


def test_a_link_to_itself_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").symlink_to("p.yaml")
    assert problems(written(tmp_path, f"{SMALLEST}manifests: [p.yaml]\n"))[0].startswith(
        "case.ztc.yaml:7: manifests[0]: 'p.yaml' cannot be read: "
    )


def test_a_link_to_outside_is_outside(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "p.yaml").symlink_to(written(tmp_path, POLICY, "p.yaml"))
    path = written(tmp_path / "inner", f"{SMALLEST}manifests: [p.yaml]\n")
    assert problems(path)[0].startswith("case.ztc.yaml:7: manifests[0]: 'p.yaml' is outside this file's folder")


EVERYTHING = (VALID / "everything.ztc.yaml").read_text(encoding="utf-8")
SCRAPS = st.sampled_from(
    ["null", "[]", "{}", "-1", "1.5", "no", "'x'", "shop/payment", "&a", "*a", "- ", ": ", "\n", "\t", "{", "${host:", '"\\'],
) | st.text(max_size=8)  # fmt: skip
ONE_FILE = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def _loads_or_says_why(folder: Path, data: bytes) -> None:
    path = written(folder, data)
    try:
        found = casefile.load(path)
    except UsageError as error:
        assert all(line.startswith(f"{folder}/") for line in str(error).split("\n"))
    else:
        assert found.case.id


@ONE_FILE
@given(text=st.text() | st.text(alphabet="{}[]:,-&*!|>'\"%@`\\ \n\t0anx~<=?#"))
def test_any_text_loads_or_is_a_usage_error(tmp_path: Path, text: str) -> None:
    _loads_or_says_why(tmp_path, text.encode("utf-8", "surrogatepass"))


@ONE_FILE
@given(place=st.integers(0, len(EVERYTHING)), length=st.integers(0, 40), scrap=SCRAPS)
def test_any_damage_to_a_right_file_loads_or_is_a_usage_error(tmp_path: Path, place: int, length: int, scrap: str) -> None:
    text = EVERYTHING[:place] + scrap + EVERYTHING[place + length :]
    (tmp_path / "policies").mkdir(exist_ok=True)
    written(tmp_path / "policies", (VALID / "policies" / "two.yaml").read_bytes(), "two.yaml")
    _loads_or_says_why(tmp_path, text.encode("utf-8", "surrogatepass"))
