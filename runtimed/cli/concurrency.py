"""runtimectl concurrency: what is reserved for a function."""

from __future__ import annotations

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common, function_name
from runtimed.cli.verb import Verb


@click.command(
    "concurrency",
    cls=Verb,
    examples=(
        ("runtimectl concurrency hello", "What is reserved for a function:"),
        ("runtimectl concurrency hello --reserve 20", "Twenty at a time, sure and at most:"),
        ("runtimectl concurrency hello --reserve 0", "Stop it:"),
        ("runtimectl concurrency hello --unreserve", "Share what the others share:"),
    ),
)
@click.argument("name", shell_complete=function_name)
@click.option("--reserve", metavar="COUNT", type=click.IntRange(min=0), help="Invocations at a time, all its own.")
@click.option("--unreserve", is_flag=True, help="Reserve nothing any more.")
@common
def command(session: Session, name: str, reserve: int | None, unreserve: bool) -> None:
    """Show or change how many invocations of the function NAME may run at a time.

    What is reserved is the function's own, and its bound; all functions without a reservation share what is left of the
    account's concurrency.
    """
    if unreserve and reserve is not None:
        raise click.UsageError("--reserve and --unreserve exclude each other.")
    with session.client() as client:
        if unreserve:
            client.unreserve(name)
        elif reserve is not None:
            client.reserve(name, reserve)
        found = client.reserved(name)
    if session.as_json:
        output.as_json({} if found is None else {"ReservedConcurrentExecutions": found})
    elif found is None:
        click.echo(f"{name}: nothing is reserved; it shares the account's concurrency")
    else:
        click.echo(f"{name}: {found} reserved" + ("; it is stopped" if found == 0 else ""))
