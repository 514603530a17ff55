"""runtimectl completion: what a shell evaluates to complete this command."""

from __future__ import annotations

import click

from runtimed.cli import PROGRAM, output
from runtimed.cli.options import Session, common
from runtimed.cli.verb import Verb


@click.command(
    "completion",
    cls=Verb,
    examples=(
        ('eval "$(runtimectl completion bash)"', "In ~/.bashrc:"),
        ('eval "$(runtimectl completion zsh)"', "In ~/.zshrc:"),
        ("runtimectl completion fish > ~/.config/fish/completions/runtimectl.fish", "For fish, once:"),
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def command(session: Session, shell: str) -> None:
    """Print the completion script for SHELL.

    It completes verbs, options, their choices, and the names of functions, for which the daemon is asked; when it does
    not answer there are none.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    made = kind(root, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE")
    script = PRELUDES.get(shell, "") + made.source_template % made.source_vars()
    if session.as_json:
        output.as_json({"Shell": shell, "Script": script})
    else:
        click.echo(script)


PRELUDES = {"zsh": "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\n"}
"""Before click's own script. zsh completes nothing before compinit ran, which a new ~/.zshrc has not."""
