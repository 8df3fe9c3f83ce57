# SPDX-License-Identifier: Apache-2.0
"""Whom a proxy in front of this server vouches for: the last element of x-forwarded-client-cert.

Each proxy on the way appends an element, so what stands before the last is what the client said, or a proxy that it went through.
Envoy's grammar: elements part at commas, pairs at semicolons; a value in quotes may hold both, its own quotes behind backslashes.
"""

from __future__ import annotations

import re

HEADER = "x-forwarded-client-cert"

# Spaces around a separator are no part of a value; a quote stands only around a whole one.
_PAIR = re.compile(r'[ \t]*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^",;]*)(;|$)')
_ESCAPED = re.compile(r"\\(.)")


def identity(header: str) -> str | None:
    """Return the URI that the last element names, or all of that element where it names none or two; None for no element."""
    element = last_element(header)
    if element is None:
        return None
    found = []
    at = 0
    while at < len(element):
        pair = _PAIR.match(element, at)
        if pair is None:
            return element
        at = pair.end()
        if pair.group(1).lower() == "uri":
            found.append(_unquoted(pair.group(2)).strip(" \t"))
    return found[0] if len(found) == 1 and found[0] else element


def last_element(value: str) -> str | None:
    """Return the last element of a comma-separated header whose commas may stand in quotes; None for an empty one."""
    start = 0
    quoted = escaped = False
    for at, character in enumerate(value):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            start = at + 1
    return value[start:].strip() or None


def _unquoted(value: str) -> str:
    return _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
