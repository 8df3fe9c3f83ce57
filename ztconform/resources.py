# SPDX-License-Identifier: Apache-2.0
"""Where the scenarios, manifests and examples are: in an installed wheel, or in the checkout that the package is part of.

Reading them is left to `policies`, the case files' loader and the CLI.
"""

from pathlib import Path
from typing import Literal

from ztconform.errors import InternalError

Folder = Literal["scenarios", "manifests", "examples"]

_PACKAGE = Path(__file__).resolve().parent


def folder(name: Folder) -> Path:
    """Return the directory that holds the scenarios, the manifests or the examples.

    A wheel carries them in `ztconform/_data`; in a checkout, editable install included, they stand beside the package.
    Raises InternalError where neither is there.
    """
    for base in (_PACKAGE / "_data", _PACKAGE.parent):
        if (base / name).is_dir():
            return base / name
    raise InternalError(
        f"{name}/ is neither in {_PACKAGE / '_data'} nor beside {_PACKAGE}: install ztconform again, or report this"
    )
