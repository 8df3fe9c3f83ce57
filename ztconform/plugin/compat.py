# SPDX-License-Identifier: Apache-2.0
"""All that is taken from inside pytest: a failure that is a text and still tells its one-line summary and its place.

A plain string would do on the terminal, but pytest then repeats the whole of it in the short summary wherever CI is set, and
`--tb=line` cuts it after 50 characters. Seen with pytest 9.2; these four classes also cross xdist.
"""

from pathlib import Path

from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback


def failure(text: str, *, headline: str, path: Path, line: int) -> ReprExceptionInfo:
    """Return a report's `longrepr` that prints the text and nothing else, at every --tb."""
    lines = [text.rstrip("\n") + "\n"] if text else []
    traceback = ReprTraceback([ReprEntryNative(lines)], extraline=None, style="native")
    return ReprExceptionInfo(traceback, ReprFileLocation(str(path), line, headline))
