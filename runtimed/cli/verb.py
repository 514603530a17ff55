"""What every verb is: a click command whose help ends with examples.

The examples are also in the manual (cli/man.py), and a test parses each, so that none shows what does not work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

Example = tuple[str, str]
"""A command line, and what it does."""


class Verb(click.Command):
    """A verb."""

    def __init__(self, *args: Any, examples: Sequence[Example], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


class VerbGroup(click.Group):
    """A verb that has verbs of its own."""

    command_class = Verb

    def __init__(self, *args: Any, examples: Sequence[Example], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(
                f"`{ctx.command_path}` has no verb {args[0]!r}. {guess(args[0], list(self.commands))}"
                f"There are {', '.join(self.commands)}.",
                ctx,
            )
        return super().resolve_command(ctx, args)


class NamedGroup(VerbGroup):
    """A verb of functions: a single word that is none of its own verbs is a function's name, and that one is listed."""

    default = "list"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, subcommand_metavar="NAME | VERB [ARGS]...", **kwargs)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            misspelled = guess(args[0], list(self.commands)) and args[1:2] and not args[1].startswith("-")
            if not misspelled:
                args = [self.default, *args]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from runtimed.cli.options import function_name

        names = [] if incomplete.startswith("-") else function_name(ctx, None, incomplete)
        return [*super().shell_complete(ctx, incomplete), *map(CompletionItem, names)]


def write_examples(examples: Sequence[Example], formatter: click.HelpFormatter) -> None:
    if not examples:
        return
    with formatter.section("Examples"):
        for index, (line, what) in enumerate(examples):
            if index:
                formatter.write_paragraph()
            formatter.write_text(what)
            formatter.indent()
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
            formatter.dedent()


def guess(given: str, known: Sequence[str]) -> str:
    """`Did you mean ...? `, when something known is close."""
    import difflib

    close = difflib.get_close_matches(given, known, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(close)}? " if close else ""
