# SPDX-License-Identifier: Apache-2.0
"""The commands and their options; each hands over to a module that it imports only when it is called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _options_of_a_session(command: _Command) -> _Command:
    """Give a command the options that every proof takes."""
    for option in (
        click.option("-v", "--verbose", count=True, help="Say more; -vv says most"),
        click.option("-x", "--exitfirst", is_flag=True, help="Stop at the first red test"),
        click.option("-n", "--workers", metavar="N", help="Prove on N processes, each with a cluster of its own"),
        click.option(
            "--report", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Write conformance.json into DIR"
        ),
        click.option("--stack", metavar="NAME", default="lab", show_default=True, help="Test the stack NAME"),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ztconform", message="%(prog)s %(version)s")
def ztconform() -> None:
    """Prove with live traffic that a cluster enforces zero trust.

    Exits with 0 if everything is proved, 1 if anything is violated or inconclusive, 2 for a mistake in the call or in a case
    file, and 3 if it could not be run.
    """


@ztconform.command()
@_options_of_a_session
@click.option("--requirement", "requirements", metavar="ID", multiple=True, help="Prove the requirement ID only; may be repeated")
@click.option("-k", "keyword", metavar="EXPR", help="Select scenarios by pytest's keyword expression")
@click.option("-m", "marks", metavar="EXPR", help="Select scenarios by pytest's mark expression")
@click.argument("pytest_args", nargs=-1, type=click.UNPROCESSED)
def run(
    *,
    stack: str,
    report: Path | None,
    workers: str | None,
    exitfirst: bool,
    verbose: int,
    requirements: tuple[str, ...],
    keyword: str | None,
    marks: str | None,
    pytest_args: tuple[str, ...],
) -> int:
    """Prove the catalogue's requirements.

    Whatever stands behind -- goes to pytest as it is.
    """
    from ztconform.cli import session

    session.check_requirements(requirements)
    selection = session.Selection(requirements=requirements, keyword=keyword, marks=marks)
    manner = session.Manner(stack=stack, report=report, workers=workers, exitfirst=exitfirst, verbose=verbose)
    return session.prove_scenarios(manner, selection, pytest_args)


@ztconform.command()
@_options_of_a_session
@click.option("--schema", is_flag=True, help="Print the JSON Schema of case files, and do nothing else")
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(path_type=Path))
def verify(
    *,
    stack: str,
    report: Path | None,
    workers: str | None,
    exitfirst: bool,
    verbose: int,
    schema: bool,
    files: tuple[Path, ...],
) -> int:
    """Prove case files: your own policies and what you expect of them.

    FILE is a case file (*.ztc.yaml), or a folder, which stands for all case files below it.
    """
    from ztconform.cli import casefiles, session

    if schema:
        click.echo(casefiles.schema(), nl=False)
        return 0
    found = casefiles.find(files)
    if problems := casefiles.problems(found):
        click.echo("\n".join(problems), err=True)
        return 2
    manner = session.Manner(stack=stack, report=report, workers=workers, exitfirst=exitfirst, verbose=verbose)
    return session.prove_case_files(manner, found)


@ztconform.command()
def doctor() -> int:
    """Say which stacks can run on this machine, and what cures what cannot."""
    from ztconform.cli import machine

    return machine.doctor(click.echo)


@ztconform.command()
def stacks() -> int:
    """List the stacks that --stack takes."""
    from ztconform.cli import machine

    return machine.stacks(click.echo)


@ztconform.command()
def sweep() -> int:
    """Remove what runs have left behind."""
    from ztconform.cli import machine

    return machine.sweep(click.echo)
