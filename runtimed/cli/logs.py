"""runtimectl logs: what a function wrote, and what the platform wrote about it."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common, function_name

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"(?:\d+[smhdw])+")


def _moment(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        if _SPAN.fullmatch(text):
            parts = re.findall(r"(\d+)([smhdw])", text)
            return datetime.now(UTC) - sum((timedelta(**{UNITS[unit]: int(n)}) for n, unit in parts), timedelta())
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither a span such as 30s, 10m, 2h or 1d, nor a time such as 2026-01-31T12:00:00Z."
        ) from None


@click.command("logs")
@click.argument("name", shell_complete=function_name)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on.")
@click.option("--since", metavar="WHEN", callback=_moment, help="A span (30s, 10m, 2h, 1d) or a time.")
@click.option("--request-id", metavar="ID", default="", help="Only this invocation.")
@common
def command(session: Session, name: str, follow: bool, since: datetime | None, request_id: str) -> None:
    """Print the log of the function NAME, oldest first."""
    with session.client() as client:
        for event in client.logs(name, follow=follow, since=since, request_id=request_id):
            if session.as_json:
                output.as_json_line(event)
            else:
                click.echo(f"{output.moment(event.time)} {event.message}")
            if follow:
                sys.stdout.flush()
