"""`runtimectl`: one file per verb, imported only when that verb is used, and gRPC only when the daemon is asked.

Results go to standard output, everything else to standard error. Exit status: 0; 1 the function failed (doctor:
something is missing); 2 wrong usage; 3 the daemon cannot be reached; 4 the daemon refused.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from runtimed import __version__

PROGRAM = "runtimectl"
FUNCTION_FAILED, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 1, 2, 3, 4, 130

VERBS = {
    "deploy": "Create a function, or update it, from a .py file, a directory or a .zip.",
    "invoke": "Run a function once and print its result.",
    "functions": "List functions, show one, delete one.",
    "logs": "Print a function's log, or follow it.",
    "status": "Show what the node is doing.",
    "doctor": "Check what the node needs from this machine, and say what to do.",
    "completion": "Print what makes a shell complete this command.",
}
"""The verbs and what they do; here so that help needs no import."""


class Verbs(click.Group):
    """A group whose commands are modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"runtimed.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no verb {args[0]!r}. `{PROGRAM} --help` lists them.", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=PROGRAM)
@click.option(
    "--address", metavar="ADDRESS", help="unix:/path or host:port; else RUNTIMED_ADDRESS, else the default socket."
)
@click.option("--key-file", metavar="FILE", help="The key that TCP needs; else RUNTIMED_KEY.")
@click.pass_context
def command(ctx: click.Context, address: str | None, key_file: str | None) -> None:
    """Deploy functions to a runtimed node, invoke them, and look after them."""
    ctx.obj = (address, key_file)


def main(arguments: list[str] | None = None) -> int:
    """The entry point; returns the exit status."""
    try:
        status = command.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as stop:
        # Whoever read our output has enough; click makes a SystemExit of that. Python would complain again at exit.
        if isinstance(stop, SystemExit) and stop.code != 1:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        status = _explain(error)
        if status is None:
            raise
        return status


def _explain(error: Exception) -> int | None:
    """Says what is wrong; None when it is a defect of ours."""
    from runtimed.client.errors import ClientError, DeployFailed, TimedOut, Unreachable
    from runtimed.model.errors import ApiError

    match error:
        case ApiError():
            click.echo(f"{PROGRAM}: {error.code}: {error.message}", err=True)
            return REFUSED
        case Unreachable() | TimedOut():
            status = UNREACHABLE
        case DeployFailed():
            status = REFUSED
        case ClientError():
            status = USAGE
        case _:
            return None
    click.echo(f"{PROGRAM}: {error}", err=True)
    return status
