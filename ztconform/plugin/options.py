# SPDX-License-Identifier: Apache-2.0
"""The plugin's options: each is declared once, with an ini value of the same name, which the command line overrides.

What an option does is left to the module that asks for it.
"""

from pathlib import Path

import pytest

DEFAULT_STACK = "lab"


def declare(parser: pytest.Parser) -> None:
    """Declare every option and ini value."""
    group = parser.getgroup("ztconform", "zero-trust conformance")
    _value(parser, group, "ztc_stack", "NAME", f"Test the stack NAME (default: {DEFAULT_STACK})")
    _value(parser, group, "ztc_report", "DIR", "Write conformance.json into DIR")
    _value(parser, group, "ztc_svid_ttl", "SECONDS", "Let the identities of the lab's mesh live so long (default: 3600)")
    _flag(parser, group, "ztc_partial", "Accept requirements that were collected but did not run")
    _flag(parser, group, "ztc_casefiles", "Collect every *.ztc.yaml, not only those named on the command line")


def _value(parser: pytest.Parser, group: pytest.OptionGroup, name: str, metavar: str, text: str) -> None:
    group.addoption(_option(name), dest=name, metavar=metavar, default=None, help=text)
    parser.addini(name, text, type="string", default="")


def _flag(parser: pytest.Parser, group: pytest.OptionGroup, name: str, text: str) -> None:
    group.addoption(_option(name), dest=name, action="store_true", default=None, help=text)
    parser.addini(name, text, type="bool", default=False)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def flag(config: pytest.Config, name: str) -> bool:
    """Return whether a switch is on."""
    return bool(config.getoption(name) or config.getini(name))


def chosen_stack(config: pytest.Config) -> str | None:
    """Return the name of the stack that the user chose, or None where nobody did."""
    return config.getoption("ztc_stack") or config.getini("ztc_stack") or None


def svid_ttl(config: pytest.Config) -> float | None:
    """Return for how many seconds identities are to live, or None where nobody said; raises UsageError for nonsense."""
    text = config.getoption("ztc_svid_ttl") or config.getini("ztc_svid_ttl")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 2.0 <= seconds <= 86_400.0:
        raise pytest.UsageError(f"--ztc-svid-ttl {text}: give a number of seconds from 2 to 86400")
    return seconds


def report_directory(config: pytest.Config) -> Path | None:
    """Return where the report goes: an option is relative to where pytest was started, an ini value to the root directory."""
    if named := config.getoption("ztc_report"):
        return config.invocation_params.dir / str(named)
    if named := config.getini("ztc_report"):
        return config.rootpath / str(named)
    return None
