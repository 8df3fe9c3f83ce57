# SPDX-License-Identifier: Apache-2.0
"""An intent is said in a cluster's own dialect, or its absence has a reason; a typo is neither."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import pytest
import yaml

from ztconform import policies, resources
from ztconform.errors import InternalError, UsageError

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a file below an empty manifests/policies."""
    root = tmp_path / "policies"
    root.mkdir()
    monkeypatch.setattr(resources, "folder", lambda name: tmp_path)

    def write(path: str, text: str) -> None:
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")

    return write


def test_the_first_dialect_that_has_manifests_is_taken(write: Write) -> None:
    write("default-deny/kubernetes.yaml", "kind: A\n---\nkind: B\n")
    write("default-deny/cilium.yaml", "kind: C\n")
    assert ({"kind": "A"}, {"kind": "B"}) == policies.load("default-deny", ("calico", "kubernetes", "cilium"))
    assert ({"kind": "C"},) == policies.load("default-deny", ("cilium", "kubernetes"))


def test_intents_are_known_by_the_names_of_their_folders(write: Write) -> None:
    write("world-closed/kubernetes.yaml", "kind: A\n")
    write("default-deny/kubernetes.yaml", "kind: A\n")
    write("gaps.yaml", "{}\n")
    assert ("default-deny", "world-closed") == policies.known()


def test_a_declared_gap_comes_with_its_reason(write: Write) -> None:
    write("names-only/cilium.yaml", "kind: A\n")
    write("gaps.yaml", "names-only: {kubernetes: NetworkPolicy knows no names, calico: not without a licence}\n")
    assert policies.Gap("names-only", "kubernetes", "NetworkPolicy knows no names") == policies.load(
        "names-only", ("kubernetes",)
    )
    assert ({"kind": "A"},) == policies.load("names-only", ("kubernetes", "cilium"))


@pytest.mark.parametrize("text", ["", "# none yet\n", "{}\n"])
def test_there_may_be_no_gaps(write: Write, text: str) -> None:
    write("gaps.yaml", text)
    assert () == policies.gaps()


def test_a_typo_is_answered_with_close_names(write: Write) -> None:
    write("default-deny/kubernetes.yaml", "kind: A\n")
    with pytest.raises(UsageError, match=r"policy 'defalt-deny': no such intent .* did you mean default-deny"):
        policies.load("defalt-deny", ("kubernetes",))


def test_an_intent_never_leads_out_of_its_folder(write: Write) -> None:
    write("default-deny/kubernetes.yaml", "kind: A\n")
    with pytest.raises(UsageError, match="no such intent"):
        policies.load("../policies/default-deny", ("kubernetes",))


def test_a_dialect_that_is_neither_written_nor_a_gap_is_an_error(write: Write) -> None:
    write("default-deny/kubernetes.yaml", "kind: A\n")
    with pytest.raises(
        UsageError, match=r"no manifest for istio or linkerd; write .*default-deny/<dialect>.yaml, or declare the gap"
    ):
        policies.load("default-deny", ("istio", "linkerd"))


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("default-deny/kubernetes.yaml", "# nothing\n", "no manifest in it"),
        ("default-deny/kubernetes.yaml", "- a\n", "every document must be an object"),
        ("default-deny/kubernetes.yaml", "a: [\n", "please report this"),
        ("gaps.yaml", "default-deny: [kubernetes]\n", "default-deny: expected a table of dialects"),
        ("gaps.yaml", "default-deny: {istio: ''}\n", "default-deny: expected a table of dialects"),
    ],
)
def test_a_broken_file_of_ours_is_our_error(write: Write, path: str, text: str, message: str) -> None:
    write("default-deny/calico.yaml", "kind: A\n")
    write(path, text)
    with pytest.raises(InternalError, match=re.escape(message)):
        policies.load("default-deny", ("kubernetes", "istio"))


def files() -> list[Path]:
    root = resources.folder("manifests") / "policies"
    return sorted(path for path in root.rglob("*.yaml") if path.parent != root)


def sentence(path: Path) -> str:
    """Return the intent that a manifest's first line gives in words."""
    return path.read_text(encoding="utf-8").partition("\n")[0]


def test_a_manifest_begins_with_its_intent_in_one_sentence_equal_in_all_dialects() -> None:
    said: dict[str, set[str]] = {}
    for path in files():
        assert re.fullmatch(r"# [A-Z].*[^.]\.?", sentence(path)), f"{path}: {sentence(path)}"
        assert "SPDX" not in sentence(path), path
        said.setdefault(path.parent.name, set()).add(sentence(path))
    assert {} == {intent: sentences for intent, sentences in said.items() if len(sentences) > 1}


SOURCE = re.compile(r" \((?:https://[^\s()]+|[\w.-]+/[\w.-]+#[0-9]+)\)$")


def missing(intents: Iterable[str], written: Collection[tuple[str, str]], gaps: Sequence[policies.Gap]) -> list[str]:
    """Return what keeps intents from being said, or declared unsayable, in every dialect."""
    declared = [(gap.intent, gap.dialect) for gap in gaps]
    cells = {(intent, dialect) for intent in intents for dialect in policies.DIALECTS}
    wrong = [f"{intent}: neither a manifest nor a gap for {dialect}" for intent, dialect in cells - {*written, *declared}]
    wrong += [f"{intent}: both a manifest and a gap for {dialect}" for intent, dialect in {*written} & {*declared}]
    wrong += [f"{intent}: no such intent or dialect: {dialect}" for intent, dialect in {*written, *declared} - cells]
    wrong += [f"{gap.intent}: {gap.dialect}: a reason ends with its source" for gap in gaps if not SOURCE.search(gap.reason)]
    return sorted(wrong)


def test_every_intent_is_said_in_every_dialect_or_why_not_and_by_what_source() -> None:
    assert len(policies.DIALECTS) == 7
    written = {(path.parent.name, path.stem) for path in files()}
    assert [] == missing(policies.known(), written, policies.gaps())


def test_whatever_is_missing_or_too_much_is_named() -> None:
    gaps = [policies.Gap("a", dialect, "it has no words (https://example.org/x)") for dialect in policies.DIALECTS[1:]]
    whole = {("a", policies.DIALECTS[0])}
    assert [] == missing(["a"], whole, gaps)
    assert ["a: neither a manifest nor a gap for linkerd"] == missing(["a"], whole, gaps[:-1])
    assert ["a: both a manifest and a gap for linkerd"] == missing(["a"], {*whole, ("a", "linkerd")}, gaps)
    assert ["a: no such intent or dialect: waypoint"] == missing(["a"], {*whole, ("a", "waypoint")}, gaps)
    assert ["b: no such intent or dialect: linkerd"] == missing(
        ["a"], whole, [*gaps, policies.Gap("b", "linkerd", "no words (linkerd/linkerd2#1)")]
    )


@pytest.mark.parametrize(
    "reason",
    ["it has no words", "(https://example.org)", "no words (example.org)", "no words (https://example.org) yet", "no (#1)"],
)
def test_a_reason_without_a_source_at_its_end_is_named(reason: str) -> None:
    gaps = [policies.Gap("a", dialect, "no words (linkerd/linkerd2#4023)") for dialect in policies.DIALECTS[1:]]
    wrong = missing(["a"], {("a", "kubernetes")}, [*gaps[:-1], policies.Gap("a", "linkerd", reason)])
    assert ["a: linkerd: a reason ends with its source"] == wrong


def test_every_manifest_of_ours_is_read_and_every_gap_is_one() -> None:
    for path in files():
        assert list(yaml.safe_load_all(path.read_text(encoding="utf-8"))) == list(policies.load(path.parent.name, (path.stem,)))
    for gap in {gap.dialect: gap for gap in policies.gaps()}.values():
        assert gap == policies.load(gap.intent, (gap.dialect,))
