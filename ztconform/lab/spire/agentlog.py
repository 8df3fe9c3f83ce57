# SPDX-License-Identifier: Apache-2.0
"""What SPIRE's agent logged, as evidence of who was refused an identity and why; one JSON object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# pkg/agent/endpoints/workload/handler.go and pkg/agent/manager/manager.go of SPIRE 1.15.3
_REFUSED = "No identity issued"
_BANNED = "Agent is banned: removing SVID and shutting down"


class AgentLog:
    """Read what an agent writes while it runs, and ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def end(self) -> int:
        """Return where the log ends now."""
        return self.path.stat().st_size if self.path.exists() else 0

    def since(self, place: int) -> bytes:
        """Return what was logged behind a place."""
        if not self.path.exists():
            return b""
        with open(self.path, "rb") as file:
            file.seek(place)
            return file.read()


def refused(log: bytes, pid: int) -> bool:
    """Return whether the agent refused an identity to this process because no entry is for it."""
    return any(line.get("msg") == _REFUSED and line.get("registered") is False and line.get("pid") == pid for line in _lines(log))


def banned(log: bytes) -> bool:
    """Return whether the agent gave up because the server has banned it."""
    return any(line.get("msg") == _BANNED for line in _lines(log))


def _lines(log: bytes) -> Iterator[dict[str, Any]]:
    for line in log.splitlines():
        try:
            read = json.loads(line)
        except ValueError:  # what Go itself writes as it crashes, or a line that is being written
            continue
        if isinstance(read, dict):
            yield read
