# SPDX-License-Identifier: Apache-2.0
"""How the access log of Istio's sidecars and waypoints reads: in the format of our own stacks, and in Istio's default, as text.

What a line means for a probe is left to the cluster. In the default format a request is known by its x-request-id, which sidecars
leave as it is: Envoy makes a new one for edge requests alone (config/http/http_conn_man/headers, x-request-id), and none of
theirs is one.
"""

import json
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from ztconform.mesh import logentry
from ztconform.mesh.logentry import Entry
from ztconform.model import Ref

# What our own stacks write: what is read here, and by what a request is told from a connection.
FORMAT: Mapping[str, str] = {**logentry.FORMAT, "protocol": "%PROTOCOL%"}

NO_DRY_RUNS = "Istio's default log format leaves out what a dry run would deny: set MeshConfig.accessLogFormat as our stacks do"

# pilot/pkg/model/telemetry_logging.go, EnvoyTextLogFormat. "-" stands for what there is none of.
_QUOTED, _WORD = r'"([^"]*)"', r"(\S+)"
_TEXT = re.compile(
    rf'\[(?P<start>[^\]]+)\] "(?:\S+) (?:.*) (?P<protocol>\S+)" {_WORD} {_WORD} (?P<details>\S+) (?P<terminated>\S+) '
    rf'"(?P<upstream_failure>[^"]*)" {_WORD} {_WORD} {_WORD} {_WORD} {_QUOTED} {_QUOTED} "(?P<nonce>[^"]*)" {_QUOTED} '
    rf'"(?P<upstream>[^"]*)" {_WORD} (?P<upstream_local>\S+) (?P<local>\S+) (?P<remote>\S+) (?P<sni>\S+) {_WORD}'
)


def unlogged(config: Mapping[str, Any]) -> str:
    """Return why the log that a MeshConfig asks for cannot tell who denied, "" where it can."""
    given = str(config.get("accessLogFormat") or "")
    if config.get("accessLogFile") not in (None, "", "/dev/stdout"):
        return (
            f"Istio's proxies write their access log to {config['accessLogFile']}, and not to /dev/stdout, where it can be read"
        )
    if is_ours(config) or (not given and str(config.get("accessLogEncoding") or "TEXT") == "TEXT"):
        return ""
    return (
        "Istio's proxies log in a format of this mesh's own (MeshConfig.accessLogFormat or accessLogEncoding), which may not "
        "tell who denied: leave both out, or set them as ztconform's own stacks do"
    )


def is_ours(config: Mapping[str, Any]) -> bool:
    """Return whether a MeshConfig asks for our own format, or one with more in it."""
    try:
        said = json.loads(config.get("accessLogFormat") or "null")
    except ValueError:
        return False
    return config.get("accessLogEncoding") == "JSON" and isinstance(said, dict) and FORMAT.items() <= said.items()


def read(line: bytes, pod: Ref, addresses: Collection[str]) -> Entry | None:
    """Return what a line of a sidecar's output says, None where it is no entry of its access log.

    What was sent to one of the pod's own addresses came in: the proxy restores where its client wanted to go.
    """
    said = _said(line)
    if said is None:
        return None
    host, _, _ = str(said.get("local") or "").rpartition(":")
    inward = "inbound" if host.strip("[]") in addresses else "outbound"
    what = "request" if str(said.get("protocol") or "-") != "-" else "connection"
    return logentry.entry({**said, "side": f"{inward}-{what}", "pod": str(pod)})


def read_waypoint(line: bytes, pod: Ref, addresses: Collection[str]) -> Entry | None:
    """Return what a line of a waypoint's output says of a request to a pod of its namespace, None for any other line.

    A request is logged by the listener that judges it; what only carries a tunnel has no nonce.
    """
    said = _said(line)
    found = None if said is None else logentry.entry({**said, "side": "inbound-request", "pod": str(pod)})
    return found if found is not None and found.nonce else None


def _said(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a line of the access log, in either format; None for any other line."""
    return _of_json(line) if line.startswith(b"{") else _of_text(line)


def _of_json(line: bytes) -> dict[str, Any] | None:
    said = logentry.parsed(line)
    return said if said is not None and "start" in said else None


def _of_text(line: bytes) -> dict[str, Any] | None:
    found = _TEXT.fullmatch(line.decode("utf-8", "replace").strip())
    if found is None:
        return None
    try:
        start = datetime.fromisoformat(found["start"]).timestamp()
    except ValueError:
        return None
    # A sidecar names the server that it wants in its handshake, and plaintext names none.
    return {**found.groupdict(), "start": start, "tls": found["sni"]}
