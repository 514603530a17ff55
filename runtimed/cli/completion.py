"""runtimectl completion: what a shell evaluates to complete this command."""

from __future__ import annotations

import click

from runtimed.cli import PROGRAM, output
from runtimed.cli.options import Session, common


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def command(session: Session, shell: str) -> None:
    """Print the completion script for SHELL.

    bash: eval "$(runtimectl completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc. fish: runtimectl completion fish
    > ~/.config/fish/completions/runtimectl.fish.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    script = kind(root, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source()
    if session.as_json:
        output.as_json({"Shell": shell, "Script": script})
    else:
        click.echo(script)
