# SPDX-License-Identifier: Apache-2.0
"""What a person needs to believe a red row, and to see it again: demand, wire, log, control, cause, policy, command.

Choosing which rows are shown is left to the plugin.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from ztconform.catalogue import Requirement
from ztconform.report import rows
from ztconform.report.rows import RowJson

_LABEL = 10
_SHOWN = 4  # observations; a proof keeps no more than these to decide by

# What an API server adds to an object, and says nothing about what the object demands.
_NOISE = {"managedFields", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink"}
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def render(row: RowJson, requirement: Requirement | None) -> str:
    """Return the whole text of one row, without colour and without a newline at its end."""
    title = f"{requirement.id} {requirement.sentence}" if requirement else "Case file"
    lines = [f"{row['outcome']}  {title}", f"  {'row':<{_LABEL}}{row['row']['id']}: {rows.sent(row)}"]
    for label, text in _facts(row):
        first, *rest = text.splitlines() or [""]
        lines.append(f"  {label:<{_LABEL}}{first}")
        lines += [f"  {'':<{_LABEL}}{line}" for line in rest]
    return "\n".join(line.rstrip() for line in lines)


def _facts(row: RowJson) -> Iterator[tuple[str, str]]:
    yield "expected", rows.expected(row)
    yield "observed", _observed(row["observations"], row["row"]["id"])
    yield "why", row["why"] or "no reason was given"
    yield "nonce", row["fate"] or _nonces(row["observations"])
    if row["recorded"]:
        yield "recorded", "\n".join(row["recorded"])
    yield "control", row["control"] or "none held"
    yield "cause", rows.cause(row)
    measured = rows.window(row)
    yield "window", f"{measured}, {measured.sent} probes" if measured else "not measured"
    yield "policy", _policies(row["policies"])
    yield "repeat", row["repeat"] or "no command is known"


def _observed(observations: Sequence[Mapping[str, Any]], row: str) -> str:
    if not observations:
        return "nothing: no probe of this row came back"
    lines = [f"{rows.observed(o)}  {o['attempt'].removeprefix(row).strip()}".rstrip() for o in observations[:_SHOWN]]
    if len(observations) > _SHOWN:
        lines.append(f"and {len(observations) - _SHOWN} more")
    return "\n".join(lines)


def _nonces(observations: Sequence[Mapping[str, Any]]) -> str:
    sent = ", ".join(o["nonce"] for o in observations if o["nonce"])
    return f"{sent}: what the servers saw of it was not asked" if sent else "none was sent"


def _policies(manifests: Sequence[Mapping[str, Any]]) -> str:
    if not manifests:
        return "none in force"
    return "---\n".join(yaml.safe_dump(_trimmed(m), sort_keys=False, default_flow_style=False) for m in manifests).rstrip()


def _trimmed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest without its status and without what the API server keeps in its metadata."""
    kept = {key: value for key, value in manifest.items() if key != "status"}
    metadata = kept.get("metadata")
    if isinstance(metadata, Mapping):
        metadata = {key: value for key, value in metadata.items() if key not in _NOISE}
        annotations = {k: v for k, v in (metadata.pop("annotations", None) or {}).items() if k != _LAST_APPLIED}
        kept["metadata"] = {**metadata, "annotations": annotations} if annotations else metadata
    return kept
