"""runtimectl help: the help of a verb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from runtimed.cli import VERBS, output
from runtimed.cli.options import Session, common
from runtimed.cli.verb import Verb, guess

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def _verbs(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(verb, help=what) for verb, what in VERBS.items() if verb.startswith(incomplete)]


@click.command(
    "help",
    cls=Verb,
    examples=(
        ("runtimectl help deploy", "What deploy takes:"),
        ("runtimectl help functions get", "A verb of a verb:"),
    ),
)
@click.argument("verb", nargs=-1, shell_complete=_verbs)
@common
def command(session: Session, verb: tuple[str, ...]) -> None:
    """Show the help of VERB, or of runtimectl itself."""
    ctx = click.get_current_context().find_root()
    for name in verb:
        group: Any = ctx.command
        known = group.list_commands(ctx) if isinstance(group, click.Group) else []
        if name not in known:
            raise click.UsageError(f"`{ctx.command_path}` has no verb {name!r}. {guess(name, known)}".rstrip(), ctx)
        found = group.get_command(ctx, name)
        ctx = found.context_class(found, info_name=name, parent=ctx)
    text = ctx.get_help()
    if session.as_json:
        output.as_json({"Help": text})
    else:
        click.echo(text)
