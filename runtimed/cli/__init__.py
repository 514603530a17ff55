"""`runtimectl`: one file per verb, imported only when that verb is used, and gRPC only when the daemon is asked.

Results go to standard output, everything else to standard error. Exit status: 0; 1 the function failed (doctor:
something is missing); 2 wrong usage; 3 the daemon cannot be reached; 4 the daemon refused.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from runtimed import __version__

PROGRAM = "runtimectl"
FUNCTION_FAILED, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 1, 2, 3, 4, 130

VERBS = {
    "deploy": "Create a function, or update it, from a file of code, a directory or a .zip.",
    "invoke": "Run a function once and print its result.",
    "functions": "List functions, show one, delete one.",
    "versions": "List a function's versions, publish one, delete one.",
    "aliases": "Name versions of a function; move the names.",
    "queue": "Show what waits to be invoked asynchronously; list, remove, redrive, hold up.",
    "logs": "Print a function's log, or follow it.",
    "provision": "Keep environments of a function ready.",
    "concurrency": "Show or change how many invocations of a function may run at a time.",
    "keys": "Make, list and revoke keys for callers over TCP.",
    "top": "Watch what the functions are doing.",
    "status": "Show what the node is doing.",
    "doctor": "Check what the node needs from this machine, and say what to do.",
    "completion": "Print what makes a shell complete this command.",
    "man": "Print a page of the manual, or write all of them.",
    "help": "Show the help of a verb.",
}
"""The verbs and what they do; here so that help needs no import."""

EXAMPLES = (
    ("runtimectl deploy hello hello.py", "Make a function of a file:"),
    ('runtimectl invoke hello --payload \'{"name": "you"}\'', "Run it:"),
    ("runtimectl functions list --json", "What there is, for a program to read:"),
)


class Verbs(click.Group):
    """A group whose commands are modules."""

    examples = EXAMPLES

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

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from runtimed.cli.verb import write_examples

        write_examples(EXAMPLES, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(verb, help=what) for verb, what in VERBS.items() if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from runtimed.cli.verb import guess

            meant = guess(args[0], list(VERBS))
            raise click.UsageError(f"there is no verb {args[0]!r}. {meant}`{PROGRAM} --help` lists them.", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=PROGRAM)
@click.option(
    "--address", metavar="ADDRESS", help="unix:/path or host:port; else RUNTIMED_ADDRESS, else the default socket."
)
@click.option("--key-file", metavar="FILE", help="The key that TCP needs; else RUNTIMED_KEY.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), help="Colours; auto: on terminals.")
@click.pass_context
def command(ctx: click.Context, address: str | None, key_file: str | None, color: str | None) -> None:
    """Deploy functions to a runtimed node, invoke them, and look after them."""
    ctx.obj = (address, key_file)


def main(arguments: list[str] | None = None) -> int:
    """The entry point; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:
        from runtimed.cli import shells

        shells.register()
    as_json = "--json" in words[: words.index("--") if "--" in words else None]
    try:
        status = command.main(words, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        if as_json:
            from runtimed.cli import failures

            failures.show(failures.usage(error), as_json)
        else:
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
        from runtimed.cli import failures

        failure = failures.explain(error)
        if failure is None:
            raise
        failures.show(failure, as_json)
        return failure.status
