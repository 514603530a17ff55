"""runtimectl provision: environments that are kept ready."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from runtimed.cli import REFUSED, output
from runtimed.cli.options import Session, common, function_name
from runtimed.cli.verb import Verb

if TYPE_CHECKING:
    from runtimed.client import Client
    from runtimed.model.concurrency import ProvisionedConcurrency

WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.1


@click.command(
    "provision",
    cls=Verb,
    examples=(
        ("runtimectl provision hello 5", "Keep five environments ready, and wait until they are:"),
        ("runtimectl provision hello", "How many there are:"),
        ("runtimectl provision hello 0", "Keep none any more:"),
    ),
)
@click.argument("name", shell_complete=function_name)
@click.argument("count", type=click.IntRange(min=0), required=False)
@click.option("--qualifier", metavar="VERSION", default="$LATEST", help="Which version; default: $LATEST.")
@click.option("--no-wait", is_flag=True, help="Do not wait until they are ready.")
@common
def command(session: Session, name: str, count: int | None, qualifier: str, no_wait: bool) -> int:
    """Keep COUNT environments of the function NAME ready, or show what is kept.

    They are initialized ahead of the first invocation and replaced when they end. Invocations beyond them get
    environments on demand, as ever.
    """
    with session.client() as client:
        if count == 0:
            client.unprovision(name, qualifier)
            if session.as_json:
                output.as_json({"Removed": f"{name}:{qualifier}"})
            else:
                click.echo(f"{name}: nothing is provisioned")
            return 0
        if count is not None:
            found = client.provision(name, count, qualifier)
            if not no_wait:
                found = _ready(client, name, qualifier, found)
            return _show(session, [(qualifier, found)])
        return _show(session, list(client.provisioned(name).items()))


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


def _show(session: Session, found: list[tuple[str, ProvisionedConcurrency]]) -> int:
    if session.as_json:
        output.as_json({"ProvisionedConcurrencyConfigs": [{"Qualifier": q, "Config": one} for q, one in found]})
    elif found:
        output.table(
            ("QUALIFIER", "STATUS", "REQUESTED", "READY", "MODIFIED"),
            [
                (
                    qualifier,
                    one.status.value,
                    str(one.requested_provisioned_concurrent_executions),
                    str(one.available_provisioned_concurrent_executions),
                    output.when(one.last_modified),
                )
                for qualifier, one in found
            ],
            right=("REQUESTED", "READY"),
        )
    else:
        click.echo("Nothing is provisioned. `runtimectl provision NAME COUNT` keeps environments ready.", err=True)
    for _, one in found:
        if isinstance(one.status_reason, str) and not session.as_json:
            output.complain(one.status_reason)
    return REFUSED if any(one.status.value == "FAILED" for _, one in found) else 0
