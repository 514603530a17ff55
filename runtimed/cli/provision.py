"""runtimectl provision: environments that are kept ready, how many of them, and when."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from runtimed.cli import REFUSED, output, provision_scaling
from runtimed.cli.options import Session, common, function_name, qualified, qualified_name, qualifier_option
from runtimed.cli.verb import VerbGroup
from runtimed.model import errors

if TYPE_CHECKING:
    from runtimed.client import Client
    from runtimed.model.concurrency import ProvisionedConcurrency

WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.1

Found = tuple[str, str, "ProvisionedConcurrency"]
"""A function's name, the qualifier, and what is provisioned."""

_name = click.argument("name", shell_complete=qualified_name)


@click.group(
    "provision",
    cls=VerbGroup,
    invoke_without_command=True,
    examples=(
        ("runtimectl provision put hello 5", "Keep five environments ready, and wait until they are:"),
        ("runtimectl provision put hello:live 5", "Of the version that the alias live names, wherever it moves:"),
        ("runtimectl provision", "What is provisioned for which function:"),
        ("runtimectl provision target hello --min 1 --max 20 --utilization 0.7", "As many as are needed:"),
        (
            "runtimectl provision schedule hello morning 'cron(0 8 ? * MON-FRI *)' --timezone Europe/Berlin --min 10",
            "At least ten from eight in the morning on:",
        ),
        ("runtimectl provision delete hello", "Keep none ready any more:"),
    ),
)
@common
def command(session: Session) -> int:
    """Keep environments of functions ready, ahead of the first invocation; show how many there are (the default).

    They are initialized ahead of the first invocation and replaced when they end. Invocations beyond them get
    environments on demand, as ever. What is provisioned under an alias goes with it to the version that it names. How
    many there are may follow a schedule, or how many of them are at work.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        return _list(session, None)
    ctx.obj = session.where
    return 0


@command.command("put", examples=(("runtimectl provision put hello 5 --no-wait", "Ask for five, and go on:"),))
@_name
@click.argument("count", type=click.IntRange(min=1))
@qualifier_option
@click.option("--no-wait", is_flag=True, help="Do not wait until they are ready.")
@common
def put_command(session: Session, name: str, count: int, qualifier: str | None, no_wait: bool) -> int:
    """Keep COUNT environments of the function NAME, or of a version of it, ready, and wait until they are."""
    name, qualifier = qualified(name, qualifier)
    with session.client() as client:
        found = client.provision(name, count, qualifier)
        if not no_wait:
            found = _ready(client, name, qualifier, found)
    return _show(session, [(name, qualifier, found)])


@command.command("get", examples=(("runtimectl provision get hello --json", "For a program:"),))
@_name
@qualifier_option
@common
def get_command(session: Session, name: str, qualifier: str | None) -> int:
    """Show what is provisioned for the function NAME, and how far it is."""
    name, qualifier = qualified(name, qualifier)
    with session.client() as client:
        found = client.provisioned(name).get(qualifier)
    return _show(session, [] if found is None else [(name, qualifier, found)], f" for {name}:{qualifier}")


@command.command("list", examples=(("runtimectl provision list", "Of all functions:"),))
@click.argument("name", required=False, shell_complete=function_name)
@common
def list_command(session: Session, name: str | None) -> int:
    """List what is provisioned for the versions of NAME, or for all functions."""
    return _list(session, name)


@command.command("delete", examples=(("runtimectl provision delete hello", "Its environments end as they fall idle:"),))
@_name
@qualifier_option
@common
def delete_command(session: Session, name: str, qualifier: str | None) -> None:
    """Keep no environments of the function NAME ready any more."""
    name, qualifier = qualified(name, qualifier)
    with session.client() as client:
        client.unprovision(name, qualifier)
    if session.as_json:
        output.as_json({"Removed": f"{name}:{qualifier}"})
    else:
        shown = name if qualifier == "$LATEST" else f"{name}:{qualifier}"
        click.echo(f"{shown}: nothing is provisioned")


command.add_command(provision_scaling.target_command)
command.add_command(provision_scaling.schedule_command)


def _list(session: Session, name: str | None) -> int:
    with session.client() as client:
        if name is not None:
            found = [(name, *one) for one in client.provisioned(name).items()]
            return _show(session, found, f" for {name}")
        found = []
        for function in client.list_functions():
            with suppress(errors.ResourceNotFound):  # deleted meanwhile
                found += [(function.function_name, *one) for one in client.provisioned(function.function_name).items()]
    return _show(session, found)


def _ready(client: Client, name: str, qualifier: str, before: ProvisionedConcurrency) -> ProvisionedConcurrency:
    """Once it is so, or is known not to become so, or has taken too long. `before`: when somebody removes it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = client.provisioned(name).get(qualifier)
        if found is None:
            return before
        if found.status.value != "IN_PROGRESS" or time.monotonic() > deadline:
            return found
        time.sleep(LOOK_SECONDS)


def _show(session: Session, found: list[Found], of: str = "") -> int:
    """`of`: what was asked for, for a sentence."""
    if session.as_json:
        configs = [{"FunctionName": name, "Qualifier": qualifier, "Config": one} for name, qualifier, one in found]
        output.as_json({"ProvisionedConcurrencyConfigs": configs})
    elif found:
        output.table(
            ("FUNCTION", "QUALIFIER", "STATUS", "REQUESTED", "ALLOCATED", "AVAILABLE", "MODIFIED"),
            [
                (
                    name,
                    qualifier,
                    one.status.value,
                    str(one.requested_provisioned_concurrent_executions),
                    str(one.allocated_provisioned_concurrent_executions),
                    str(one.available_provisioned_concurrent_executions),
                    output.when(one.last_modified),
                )
                for name, qualifier, one in found
            ],
            right=("REQUESTED", "ALLOCATED", "AVAILABLE"),
            shrink=("FUNCTION",),
        )
    else:
        click.echo(
            f"Nothing is provisioned{of}. `runtimectl provision put NAME COUNT` keeps environments ready.", err=True
        )
    for _, _, one in found:
        if isinstance(one.status_reason, str) and not session.as_json:
            output.complain(one.status_reason)
    return REFUSED if any(one.status.value == "FAILED" for _, _, one in found) else 0
