"""runtimectl concurrency: the account's, and what is reserved of it for functions."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common, function_name
from runtimed.cli.verb import Verb
from runtimed.model import errors

if TYPE_CHECKING:
    from runtimed.client import Client


@click.command(
    "concurrency",
    cls=Verb,
    examples=(
        ("runtimectl concurrency", "The account's, and what is reserved and provisioned of it for whom:"),
        ("runtimectl concurrency hello", "What is reserved for a function:"),
        ("runtimectl concurrency hello --reserve 20", "Twenty at a time, sure and at most:"),
        ("runtimectl concurrency hello --reserve 0", "Stop it:"),
        ("runtimectl concurrency hello --unreserve", "Share what the others share:"),
    ),
)
@click.argument("name", required=False, shell_complete=function_name)
@click.option("--reserve", metavar="COUNT", type=click.IntRange(min=0), help="Invocations at a time, all its own.")
@click.option("--unreserve", is_flag=True, help="Reserve nothing any more.")
@common
def command(session: Session, name: str | None, reserve: int | None, unreserve: bool) -> None:
    """Show the account's concurrency; show or change how many invocations of the function NAME may run at a time.

    What is reserved is the function's own, and its bound; all functions without a reservation share what is left of the
    account's concurrency.
    """
    if unreserve and reserve is not None:
        raise click.UsageError("--reserve and --unreserve exclude each other.")
    if name is None and (unreserve or reserve is not None):
        raise click.UsageError("NAME is missing: which function?")
    with session.client() as client:
        if name is None:
            _account(session, client)
            return
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


def _account(session: Session, client: Client) -> None:
    limit = client.account().account_limit
    found: list[tuple[str, int | None, int]] = []
    for function in client.list_functions():
        with suppress(errors.ResourceNotFound):  # deleted meanwhile
            name = function.function_name
            reserved, provisioned = client.reserved(name), client.provisioned(name).values()
            asked = sum(one.requested_provisioned_concurrent_executions for one in provisioned)
            if reserved is not None or asked:
                found.append((name, reserved, asked))
    if session.as_json:
        output.as_json(
            {
                "ConcurrentExecutions": limit.concurrent_executions,
                "UnreservedConcurrentExecutions": limit.unreserved_concurrent_executions,
                "Functions": [
                    {"FunctionName": name}
                    | ({} if reserved is None else {"ReservedConcurrentExecutions": reserved})
                    | ({"RequestedProvisionedConcurrentExecutions": asked} if asked else {})
                    for name, reserved, asked in found
                ],
            }
        )
        return
    output.table(
        ("FUNCTION", "RESERVED", "PROVISIONED"),
        [
            *((name, "-" if reserved is None else str(reserved), str(asked)) for name, reserved, asked in found),
            ("(all others)", str(limit.unreserved_concurrent_executions), ""),
            ("(the account)", str(limit.concurrent_executions), str(sum(asked for _, _, asked in found))),
        ],
        right=("RESERVED", "PROVISIONED"),
    )
