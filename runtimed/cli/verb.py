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
