# SPDX-License-Identifier: Apache-2.0
"""The commands and their options; each hands over to a module that it imports only when it is called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PASSED_ON = "ztconform.passed_on"  # what stands behind --

# Handed to pytest as --ztc-<name>; the rarer ones go behind --.
_OF_A_STACK = (
    click.option("--context", metavar="NAME", help="Test the existing cluster of this kubeconfig context"),
    click.option("--kubeconfig", metavar="FILE", help="Look the context up in FILE"),
    click.option("--keep", is_flag=True, help="Leave the cluster for the next run"),
    click.option("--kind-image", metavar="IMAGE", help="Make kind nodes of IMAGE"),
    click.option("--kind-config", metavar="FILE", help="Merge FILE into the configuration of the kind cluster"),
    click.option("--load-image", metavar="PATH", multiple=True, help="Load image archives into the kind nodes; may be repeated"),
    click.option("--agent-image", metavar="IMAGE", help="Run our pods from IMAGE, which needs python3 >= 3.8"),
    click.option("--chart", metavar="COMPONENT=DIR", multiple=True, help="Install a component from this chart; may be repeated"),
    click.option("--values", metavar="COMPONENT=FILE", multiple=True, help="Give a component these helm values; may be repeated"),
    click.option("--cni-command", metavar="CMD", help="Install the CNI of the stack custom; {cluster} is the cluster's name"),
    click.option("--allow-disruptive", is_flag=True, help="On an existing cluster, also prove what disturbs others"),
)


def _options_of_a_session(command: _Command) -> _Command:
    """Give a command the options that every proof takes."""
    for option in (
        click.option("-v", "--verbose", count=True, help="Say more; -vv says most"),
        click.option("-x", "--exitfirst", is_flag=True, help="Stop at the first red test"),
        click.option("-n", "--workers", metavar="N", help="Prove on N processes: with a lab each, or on one cluster"),
        click.option(
            "--report", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Write conformance.json into DIR"
        ),
        *reversed(_OF_A_STACK),
        click.option("--stack", metavar="NAME", help="Test the stack NAME (default: lab, or what --context turns out to be)"),
    ):
        command = option(command)
    return command


def _options_of_a_new_cluster(command: _Command) -> _Command:
    """Give a command the options by which a cluster is made, for what it says of one that is not made yet."""
    path, folder = click.Path(path_type=Path, exists=True, dir_okay=False), click.Path(path_type=Path, exists=True)
    for option in (
        click.option("--kind-image", metavar="IMAGE", default="", help="Make kind nodes of IMAGE"),
        click.option("--kind-config", metavar="FILE", type=path, help="Merge FILE into the configuration of the kind cluster"),
        click.option("--kind-bin", metavar="FILE", default="kind", show_default=True, help="Use this kind"),
        click.option("--helm-bin", metavar="FILE", default="helm", show_default=True, help="Use this helm"),
        click.option("--agent-image", metavar="IMAGE", default="", help="Run our pods from IMAGE"),
        click.option("--image-registry", metavar="REGISTRY", default="", help="Pull public images through the mirror REGISTRY"),
        click.option("--load-image", metavar="PATH", type=folder, multiple=True, help="Load image archives into the nodes"),
        click.option("--chart", metavar="COMPONENT=DIR", multiple=True, help="Install a component from this chart"),
        click.option("--chart-version", metavar="COMPONENT=VERSION", multiple=True, help="Take this version of its chart"),
        click.option("--chart-repository", metavar="COMPONENT=URL", multiple=True, help="Get its chart from this repository"),
        click.option("--values", metavar="COMPONENT=FILE", multiple=True, help="Give a component these helm values"),
        click.option("--cni-command", metavar="CMD", default="", help="Install the CNI of the stack custom"),
    ):
        command = option(command)
    return command


class _PassesOn(click.Command):
    """Keep what stands behind -- apart from the arguments before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the rest off, and parse what stands before."""
        if "--" in args:
            where = args.index("--")
            ctx.meta[_PASSED_ON] = tuple(args[where + 1 :])
            args = args[:where]
        return super().parse_args(ctx, args)


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
    **of_the_stack: Any,
) -> int:
    """Prove the catalogue's requirements.

    Whatever stands behind -- goes to pytest as it is; ztconform run -- --help lists all of its options.
    """
    from ztconform.cli import session

    session.check_requirements(requirements)
    selection = session.Selection(requirements=requirements, keyword=keyword, marks=marks)
    manner = session.Manner(
        stack=stack, of_the_stack=of_the_stack, report=report, workers=workers, exitfirst=exitfirst, verbose=verbose
    )
    return session.prove_scenarios(manner, selection, pytest_args)


@ztconform.command(cls=_PassesOn)
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
    **of_the_stack: Any,
) -> int:
    """Prove case files: your own policies and what you expect of them.

    FILE is a case file (*.ztc.yaml), or a folder, which stands for all case files below it. Whatever stands behind -- goes to
    pytest as it is.
    """
    from ztconform.cli import casefiles, session

    if schema:
        click.echo(casefiles.schema(), nl=False)
        return 0
    found = casefiles.find(files)
    if problems := casefiles.problems(found):
        click.echo("\n".join(problems), err=True)
        return 2
    manner = session.Manner(
        stack=stack, of_the_stack=of_the_stack, report=report, workers=workers, exitfirst=exitfirst, verbose=verbose
    )
    return session.prove_case_files(manner, found, click.get_current_context().meta.get(_PASSED_ON, ()))


@ztconform.command()
@click.option("--stack", metavar="NAME", help="Look at all that the stack NAME needs; exits with 3 if anything is not there")
@click.option("--context", metavar="NAME", help="Say instead what this existing cluster runs, and what is not permitted there")
@click.option("--kubeconfig", metavar="FILE", type=click.Path(path_type=Path), help="Look the context up in FILE")
@_options_of_a_new_cluster
def doctor(*, stack: str | None, context: str | None, kubeconfig: Path | None, **given: Any) -> int:
    """Say which stacks can run on this machine, and what cures what cannot.

    Without --stack it exits with 3 only if the lab cannot run, and looks for no charts.
    """
    from ztconform.cli import machine
    from ztconform.cli.given import Given

    if context is not None:
        return machine.permissions(click.echo, context, kubeconfig)
    settings = Given(**given).settings()
    return machine.examine(click.echo, stack, settings) if stack is not None else machine.doctor(click.echo, settings)


@ztconform.command()
@click.option("--images", is_flag=True, help="Print the images that STACK runs from, one a line, and nothing else")
@_options_of_a_new_cluster
@click.argument("stack", required=False)
def stacks(*, stack: str | None, images: bool, **given: Any) -> int:
    """List the stacks that --stack takes, with what each needs and can prove; of STACK say all.

    Images are those of the charts that --chart names, and otherwise the pinned ones.
    """
    from ztconform.cli import listing
    from ztconform.cli.given import Given

    settings = Given(**given).settings()
    if images and stack is None:
        raise click.UsageError("--images needs the name of a stack")
    if stack is None:
        return listing.stacks(click.echo, settings)
    return (listing.images if images else listing.one)(click.echo, stack, settings)


@ztconform.command(cls=_PassesOn)
@click.option(
    "--report", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Write each stack's report into DIR/STACK"
)
@click.argument("stacks", metavar="STACK...", nargs=-1, required=True)
def matrix(*, stacks: tuple[str, ...], report: Path | None) -> int:
    """Prove the catalogue's requirements on one STACK after the other, whatever becomes of the one before.

    Whatever stands behind -- goes to each `ztconform run`. Exits with 1 if anything is violated or inconclusive, with 3 if a
    stack could not be provisioned or run.
    """
    from ztconform.cli import matrix

    return matrix.run(click.echo, stacks, report, click.get_current_context().meta.get(_PASSED_ON, ()))


@ztconform.command()
@click.option("--context", metavar="NAME", default="", help="Sweep the cluster of this kubeconfig context too")
@click.option("--kubeconfig", metavar="FILE", type=click.Path(path_type=Path), help="Look the context up in FILE")
@click.option(
    "--label-prefix", metavar="PREFIX", default="ztconform.io", show_default=True, help="Know our things by labels with PREFIX"
)
@click.option("--kind-bin", metavar="FILE", default="kind", show_default=True, help="Delete kind clusters by FILE")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed")
def sweep(*, context: str, kubeconfig: Path | None, label_prefix: str, kind_bin: str, dry_run: bool) -> int:
    """Remove what killed runs have left behind.

    On this machine always, and in a cluster if its context is named. A run counts as killed when its process is gone, or in a
    cluster after a minute without a sign of life; a cluster that was to be kept is left alone.
    """
    from ztconform.cli import sweep

    return sweep.sweep(
        click.echo, context=context, kubeconfig=kubeconfig, prefix=label_prefix, kind_bin=kind_bin, dry_run=dry_run
    )
