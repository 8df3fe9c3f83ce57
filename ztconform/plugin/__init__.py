# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin's front door: its options, its marker, its fixtures, and the question whether a run holds tests of ours.

A suite that merely has ztconform installed imports this and nothing heavier; `runner` and `reporter` are registered with the
first test of ours, and all else is imported by the function that needs it.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ztconform.errors import UsageError, ZtconformError
from ztconform.plugin import marks, options
from ztconform.plugin.fixtures import ztc_canary, ztc_cluster, ztc_prove, ztc_shop, ztc_stack

if TYPE_CHECKING:
    from ztconform.plugin.casefiles import CaseFileCollector

__all__ = ["ztc_canary", "ztc_cluster", "ztc_prove", "ztc_shop", "ztc_stack"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options, each with an ini value of the same name."""
    options.declare(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that a user's plugin may answer."""
    from ztconform.plugin import hooks

    pluginmanager.add_hookspecs(hooks)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Refuse an unknown stack, or one that cannot be meant so, and let xdist's controller ask it for all of its workers."""
    if config.option.help or is_worker(config) or not options.given(config):
        return None
    from ztconform.plugin import stack

    chosen = bool(config.getoption("ztc_stack") or config.getoption("ztc_context"))
    try:
        stack.check(config, preflight=chosen and _distributes(config) and not config.option.collectonly)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    except ZtconformError as error:
        sys.stderr.write(f"could not run: {error}\n")
        return error.exit_code
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", marks.DESCRIPTION)
    config.addinivalue_line("markers", marks.ALONE)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist on this machine whose child it is and which run it belongs to; collect what the workers prove."""
    import os

    from ztconform.plugin import stack

    if node.gateway.spec.popen:
        node.workerinput["ztc_controller"] = os.getpid()
        stack.tell(node.config, node.workerinput)
    _reporter(node.config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "CaseFileCollector | None":
    """Collect a case file that is named on the command line; any other only where it is asked for."""
    if not file_path.name.endswith(marks.CASE_FILE):
        return None
    if not (parent.session.isinitpath(file_path) or options.flag(parent.config, "ztc_casefiles")):
        return None
    from ztconform.plugin.casefiles import CaseFileCollector

    return CaseFileCollector.from_parent(parent, path=file_path)


@pytest.hookimpl(tryfirst=True)  # before -k and -m deselect, which must see the IDs
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Find the tests of ours; only where there are any does the rest of the plugin wake up."""
    ours = [item for item in items if _is_ours(item)]
    if not ours:
        return
    from ztconform.plugin import subjects

    try:
        subjects.assign(ours)
    except UsageError as error:
        subjects.refuse(session, items, error)
        return
    if config.option.collectonly or config.getoption("setuponly", False):
        return
    from ztconform.plugin.runner import Runner

    record = None if is_worker(config) else _reporter(config).record
    config.pluginmanager.register(Runner(config, record), "ztconform-runner")


def is_worker(config: pytest.Config) -> bool:
    """Return whether this process is a worker of xdist."""
    return hasattr(config, "workerinput")


def _is_ours(item: pytest.Item) -> bool:
    fixtures: Iterable[str] = getattr(item, "fixturenames", ())
    return item.get_closest_marker(marks.NAME) is not None or "ztc_prove" in fixtures


def _distributes(config: pytest.Config) -> bool:
    dist: str = config.getoption("dist", "no")
    return bool(config.getoption("numprocesses", None)) or (dist != "no" and bool(config.getoption("tx", None)))


def _reporter(config: pytest.Config) -> Any:
    from ztconform.plugin.reporter import Reporter

    known = config.pluginmanager.get_plugin("ztconform-reporter")
    if known is not None:
        return known
    reporter = Reporter(config)
    config.pluginmanager.register(reporter, "ztconform-reporter")
    return reporter
