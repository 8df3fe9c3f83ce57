# SPDX-License-Identifier: Apache-2.0
"""How many sockets this process may have open at once.

Probes that still meet the limit are reported as not run with EMFILE; that is for `exchange`.
"""

from __future__ import annotations

import resource


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return it: 1,024, the usual soft limit, is one round of probes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
