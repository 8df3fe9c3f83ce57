# SPDX-License-Identifier: Apache-2.0
"""The files by which Envoy is told its configuration: written elsewhere, then moved in place, each with a version of its own.

What is in them comes from `resources`; that Envoy has taken them is asked by `envoy`.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LISTENERS, CLUSTERS = "lds.json", "cds.json"


class XdsFiles:
    """Keep the files of one Envoy."""

    def __init__(self, directory: Path) -> None:
        """Take a directory on one file system, for otherwise a move is a copy, which Envoy could read half of."""
        self.directory = directory / "xds"
        self._staging = directory / "staging"
        for path in (self.directory, self._staging):
            path.mkdir(exist_ok=True)
        self._version = 0
        self._written: dict[str, str] = {}

    def put(self, name: str, resources: Iterable[Mapping[str, Any]]) -> str | None:
        """Write a file and return its new version; None where it holds this already."""
        body = json.dumps(list(resources), separators=(",", ":"))
        if self._written.get(name) == body:
            return None
        self._version += 1
        staged = self._staging / name
        staged.write_text(f'{{"version_info":"{self._version}","resources":{body}}}')
        os.replace(staged, self.directory / name)  # Envoy looks only when a file is moved in, never at one that is being written
        self._written[name] = body
        return str(self._version)

    def distrust(self) -> None:
        """Have everything written again, changed or not: what was written last is not known to be in force."""
        self._written.clear()
