# SPDX-License-Identifier: Apache-2.0
"""Which resolver this pod was given, as the C library would read it from resolv.conf; asking it is for `lookup`."""

from __future__ import annotations

from typing import Any

PATH = "/etc/resolv.conf"


def read_resolver(path: str = PATH) -> dict[str, Any]:
    """Return the name servers and the search list; of several search lines the last one counts (resolv.conf(5))."""
    servers: list[str] = []
    search: list[str] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    for line in lines:
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest:
            servers.append(rest[0])
        elif word in ("search", "domain"):
            search = rest
    return {"servers": servers, "search": search}
