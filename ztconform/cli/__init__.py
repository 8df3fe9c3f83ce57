# SPDX-License-Identifier: Apache-2.0
"""The command `ztconform`: one line and an exit code for everything that keeps it from running, never a traceback.

The commands are declared in `commands`; what they do is left to `session`, `casefiles` and `machine`.
"""

from collections.abc import Sequence

# As a shell reports them: 128 + SIGINT, 128 + SIGPIPE.
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 proved, 1 red, 2 usage, 3 could not run, 130 interrupted."""
    import click

    from ztconform.cli.commands import ztconform
    from ztconform.errors import EXIT_COULD_NOT_RUN, ZtconformError

    try:
        code = ztconform.main(args, prog_name="ztconform", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ZtconformError as error:
        click.echo(f"ztconform: {error}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except SystemExit:  # click's answer to a reader that has gone, as in `ztconform verify --schema | head`; its code would be 1
        return EXIT_UNREAD
    return code if isinstance(code, int) else EXIT_COULD_NOT_RUN
