# SPDX-License-Identifier: Apache-2.0
"""The agent as one file that any Python from 3.8 on runs, packed to the same bytes every time; what it does is the agent's."""

import hashlib
import io
import zipfile
from functools import cache
from importlib.resources import files

NAME = "agent.pyz"
_PACKAGE = "ztconform_agent"
_MAIN = f"import sys\n\nfrom {_PACKAGE}.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say


@cache
def pack() -> bytes:
    """Return the archive; its bytes change only with the agent's own sources."""
    sources = sorted((f.name, f.read_bytes()) for f in files("ztconform.agent").iterdir() if f.name.endswith(".py"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        for name, source in sources:
            _add(archive, f"{_PACKAGE}/{name}", source)
    return packed.getvalue()


@cache
def digest() -> str:
    """Return the archive's SHA-256, cut to what a label may hold."""
    return hashlib.sha256(pack()).hexdigest()[:40]


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)
