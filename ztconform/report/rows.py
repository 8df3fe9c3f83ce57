# SPDX-License-Identifier: Apache-2.0
"""How a row reads in words, given in the JSON form in which it crossed from a worker: what was sent, demanded and observed.

Putting the words onto a terminal is left to `matrix` and `redrow`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from ztconform.evidence import Cause, Window
from ztconform.model import OUTSIDE, Layer, Ref

RowJson = Mapping[str, Any]  # a model.RowResult as jsonform.to_json gives it


def window(row: RowJson) -> Window | None:
    """Return the row's measured window."""
    return Window(**row["window"]) if row["window"] else None


def worst_window(rows: Iterable[RowJson]) -> Window | None:
    """Return the longest window of these rows; of equal ones the coarsest, which says least."""
    return max(filter(None, map(window, rows)), key=lambda w: (w.seconds, w.spacing), default=None)


def sent(row: RowJson) -> str:
    """Say what the row's probe is."""
    probe = row["row"]["probe"]
    if not probe["port"]:
        return f"{probe['target']} sent to the cluster's API"
    ways = {"pod": "pod IP", "node": "its node's port", "other-node": "another node's port"}
    by = ways.get(probe["address"], "" if probe["via"] else probe["address"])
    by = f"{by} of Service {probe['via']}".removeprefix(" of ") if probe["via"] else by
    family = " over IPv6" if probe["family"] == 6 else ""
    return f"{probe['source']} -> {probe['target']} port {probe['port']} by {by}, {_request(probe)}{family}"


def expected(row: RowJson) -> str:
    """Say what the row demands."""
    demand = row["row"]
    words = demand["want"]
    if demand["by"] and set(demand["by"]) != set(get_args(Layer)):  # whoever names no layer means any
        words += f" by {' or '.join(demand['by'])}"
    if demand["named"]:
        words += f", attributed to {', '.join(demand['named'])}"
    if demand["logged"] is not None:
        words += f", with the proxy remarking {', '.join(demand['logged']) or 'nothing'}"
    if demand["identity"] is not None:
        words += f", with the server seeing {demand['identity']}"
    return str(words)


def observed(observation: Mapping[str, Any]) -> str:
    """Say what one probe met on the wire: signal, stage, detail, addresses, and after how long."""
    signal = observation["signal"]
    words = f"{signal} at stage {observation['stage']}" if signal != "answered" else "answered"
    if observation["status"] is not None:
        words += f" with status {observation['status']}"
    if observation["backend"]:
        words += f" by {observation['backend']}"
    elif signal == "answered":
        words += f" by something that is no agent of ours ({observation['server'] or 'no Server header'})"
    if observation["detail"]:
        words += f" ({observation['detail']})"
    if observation["source"] or observation["peer"]:
        words += f", {_socket(observation['source'])} -> {_socket(observation['peer'])}"
    return f"{words}, after {(observation['ended'] - observation['sent']) * 1e3:.1f} ms"


def cause(row: RowJson) -> str:
    """Say what denied the probe, if anything is known."""
    found = row["cause"]
    if not found:
        return "none known"
    endpoint = Ref(*_names(found["endpoint"])) if found["endpoint"] else None
    denial = Cause(**{**found, "policies": tuple(found["policies"]), "endpoint": endpoint})
    return f"{denial} (layer {denial.layer}, from {denial.source})"


def _request(probe: Mapping[str, Any]) -> str:
    if probe["kind"] in ("http", "http2", "grpc"):
        return f"{probe['kind']} {probe['method']} {probe['path']}"
    if probe["kind"] == "dns":
        return f"dns {probe['path']}"
    return str(probe["kind"])


def _socket(text: str) -> str:
    return text.replace(" ", " port ") or "?"


def _names(ref: str) -> tuple[str, str]:
    namespace, _, name = ref.partition("/")
    return (OUTSIDE if namespace == "outsider" else namespace), name
