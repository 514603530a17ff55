"""runtimectl doctor: everything that the node needs, and what to do about what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common
from runtimed.cli.verb import Verb

if TYPE_CHECKING:
    from runtimed.model.node import Check

MARKS = {
    "Ok": ("ok", "green"),
    "Warning": ("warning", "yellow"),
    "Missing": ("MISSING", "red"),
    "Unknown": ("?", "cyan"),
}


@click.command(
    "doctor",
    cls=Verb,
    examples=(
        ("sudo runtimectl doctor", "Everything, with what to do about what is missing:"),
        ("runtimectl doctor --json", "For a program; exit status 1 when something is missing:"),
    ),
)
@common
def command(session: Session) -> int:
    """Check every kernel feature, limit, tool and runtime that the node needs, and say what to do when one is missing.

    The daemon is asked; without one this command looks itself, as far as its privileges go. The exit status is 1 when
    something is missing without which functions do not run.
    """
    checks = _ask(session)
    if session.as_json:
        output.as_json({"Checks": checks})
    else:
        _print(checks)
    return 1 if any(check.state.value == "Missing" for check in checks) else 0


def _ask(session: Session) -> list[Check]:
    from runtimed.client.errors import Unreachable

    try:
        with session.client() as client:
            return client.diagnose().checks
    except Unreachable as error:
        click.echo(f"{error}\nLooking at this machine without it.\n", err=True)
    from runtimed.telemetry import checks

    return checks.host() + checks.interpreters()


def _print(checks: list[Check]) -> None:
    width = max((len(check.name) for check in checks), default=0)
    group = ""
    for check in checks:
        if check.group.value != group:
            group = check.group.value
            click.echo(f"{group}:")
        mark, colour = MARKS[check.state.value]
        click.echo(f"  {click.style(mark.ljust(7), fg=colour)}  {check.name.ljust(width)}  {check.found}")
        if check.advice:
            click.echo(f"  {'':7}  {'':{width}}  {check.purpose}. {check.advice}")
