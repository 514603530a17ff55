"""runtimectl top: what each function is doing, as it happens."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common
from runtimed.cli.verb import Verb

if TYPE_CHECKING:
    from runtimed.model.node import Statistics

SHOWN = 200
"""Functions asked for when they go to a file or another program."""


SORTS = (
    "invocations", "errors", "throttles", "cold", "running", "waiting", "environments", "p50", "p99", "memory", "name",
)  # fmt: skip
"""The keys of frame.ORDERS, which is loaded late."""


@click.command(
    "top",
    cls=Verb,
    examples=(
        ("runtimectl top", "Watch; q ends it, the letters below the table order it:"),
        ("runtimectl top --sort errors --interval 5", "Every five seconds, most errors first:"),
        ("runtimectl top --once", "One second as a table:"),
        ("runtimectl top --json --sort p99", "One JSON object for each second, until interrupted:"),
    ),
)
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="invocations",
    metavar="KEY",
    help=f"{', '.join(SORTS)}; default invocations.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.25, 60),
    default=1.0,
    metavar="SECONDS",
    help="0.25 to 60; default 1.",
)
@click.option("--once", is_flag=True, help="Print one interval as a table and end.")
@common
def command(session: Session, sort: str, interval: float, once: bool) -> None:
    """Show for each function invocations, errors, throttles and cold starts a second, what runs and waits, its
    environments, durations and memory.

    On a terminal the table is renewed until q is typed; elsewhere each interval is printed below the one before.
    """
    if not session.as_json and not once and sys.stdin.isatty() and output.on_terminal():
        from runtimed.cli.screen import run

        run(session, sort, interval)
        return
    from runtimed.cli.frame import ORDERS

    before: Statistics | None = None
    with session.client() as client:
        for told in client.watch_statistics(order=ORDERS[sort].value, limit=SHOWN, interval=interval):
            former, before = before, told
            if former is None:
                continue  # shorter than the interval asked for: see WatchStatistics
            if session.as_json:
                output.as_json_line(told)
            else:
                _print(told, former, end=once)
            if once:
                return
            sys.stdout.flush()


def _print(told: Statistics, before: Statistics, end: bool) -> None:
    from runtimed.cli import frame

    width = shutil.get_terminal_size().columns if output.on_terminal() else None
    for line in [*frame.header(told, before), "", *frame.rows(told, width), *([] if end else [""])]:
        click.echo(line if width is None else output.cut(line, width))
