# SPDX-License-Identifier: Apache-2.0
"""Prove with live traffic that a Kubernetes cluster enforces zero trust: the names that scenarios and users hold.

Names are loaded when first used: a test suite that merely has the plugin installed pays for none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ztconform.errors import ConformanceFailure, Rejected, UsageError, ZtconformError
    from ztconform.plugin.marks import requirement
    from ztconform.rows import allowed, denied, step

__all__ = [
    "ConformanceFailure",
    "Rejected",
    "UsageError",
    "ZtconformError",
    "__version__",
    "allowed",
    "denied",
    "requirement",
    "step",
]
__version__ = "0.1.0"

_HOMES = {
    "ConformanceFailure": "errors",
    "Rejected": "errors",
    "UsageError": "errors",
    "ZtconformError": "errors",
    "allowed": "rows",
    "denied": "rows",
    "requirement": "plugin.marks",
    "step": "rows",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"ztconform.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ztconform' has no attribute {name!r}")
