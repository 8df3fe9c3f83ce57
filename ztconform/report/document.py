# SPDX-License-Identifier: Apache-2.0
"""The run as one JSON document, `conformance.json`: for machines, for the comparison of two runs, and for an auditor.

`schema.json` beside this module describes it; a change that would break a reader gets a new schema name.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ztconform.catalogue import Requirement
from ztconform.errors import UsageError
from ztconform.report.results import Attempt, Result, RunResult, exit_code
from ztconform.report.rows import RowJson

SCHEMA = "ztconform.io/report/v1"
FILE = "conformance.json"


def build(run: RunResult, catalogue: Mapping[str, Requirement], *, exit_status: int | None = None) -> dict[str, Any]:
    """Return the document in JSON's own types.

    `exit_status` is what the process will really exit with, where that is not by the results alone (an interrupt).
    """
    return {
        "schema": SCHEMA,
        "tool": {"name": "ztconform", "version": run.version},
        "stack": run.stack,
        "versions": dict(run.versions),
        "notes": list(run.notes),
        "started": run.started.isoformat(timespec="seconds"),
        "seconds": round(run.seconds, 3),
        "times": _times(run.times),
        "complete": run.complete,
        "exit": exit_code(run) if exit_status is None else exit_status,
        "could_not_run": list(run.could_not_run),
        "canary": [{"layer": result.id, **_result(result)} for result in run.canary],
        "requirements": [
            {"id": result.id, "sentence": catalogue[result.id].sentence, "area": catalogue[result.id].area, **_result(result)}
            for result in run.requirements
        ],
        "cases": [{"id": result.id, "file": result.file, **_result(result)} for result in run.cases],
    }


def write(directory: Path, document: Mapping[str, Any]) -> Path:
    """Write the document into the directory, which is made if need be, and return its path.

    A reader sees the old document or the new one, never a part. Raises UsageError where it cannot be written.
    """
    path = directory / FILE
    fresh = directory / f".{FILE}.{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            fresh.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"the report cannot be written: {path}: {error.strerror}; name another directory") from error
    return path


def _result(result: Result) -> dict[str, Any]:
    counts = result.counts
    return {
        "outcome": result.outcome,
        "why": result.why,
        "rows": [_row(row) for row in counts.rows],
        "windows": _windows(counts.rows),
        "notes": list(counts.notes),
        "times": _times(result.times),
        "other_attempts": [_attempt(attempt) for attempt in result.attempts if attempt is not counts],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    outcome, why = attempt.judged()
    return {
        "outcome": outcome,
        "why": why,
        "rows": [_row(row) for row in attempt.rows],
        "notes": list(attempt.notes),
        "times": _times(attempt.times),
    }


def _times(times: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(seconds, 3) for phase, seconds in times.items()}


def _windows(rows: Iterable[RowJson]) -> list[dict[str, Any]]:
    return [{"row": row["row"]["id"], **row["window"]} for row in rows if row["window"]]


def _row(row: RowJson) -> dict[str, Any]:
    demand = row["row"]
    probe = {key: value for key, value in demand["probe"].items() if key not in ("source", "target")}
    return {
        "id": demand["id"],
        "from": demand["probe"]["source"],
        "to": demand["probe"]["target"],
        "probe": probe,
        "expected": {key: demand[key] for key in ("want", "by", "identity", "named", "logged")},
        "observed": row["observations"],
        "outcome": row["outcome"],
        "why": row["why"],
        "control": {"held": row["control"], "kind": demand["control"], "twin": demand["twin"]},
        "window": row["window"],
        "cause": row["cause"],
        "fate": row["fate"],
        "recorded": row["recorded"],
        "policies": row["policies"],
        "repeat": row["repeat"],
    }
