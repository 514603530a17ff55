"""runtimectl logs: what a function wrote, and what the platform wrote about it.

On a terminal the platform's lines are dim, and of what a function wrote only its colours take effect: any other control
character is shown, not obeyed, because it could rewrite what the screen says. Elsewhere lines are printed as they are.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common, qualified_name, qualifier_name
from runtimed.cli.verb import Verb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runtimed.model.log import LogEvent

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LIMIT_MAX = 10_000
DIM, PLAIN = "\x1b[2m", "\x1b[0m"
_SPAN = re.compile(r"(?:\d+[smhdw])+")
_COLOUR = re.compile(r"(\x1b\[[\d;:]*m)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


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


def _version(_ctx: click.Context, _parameter: click.Parameter, text: str) -> str:
    if text and text != "$LATEST" and not (text.isascii() and text.isdigit()):
        raise click.BadParameter(
            f"{text!r} is not a version's number, nor $LATEST. `runtimectl aliases NAME` shows where an alias leads."
        )
    return text


def _pattern(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise click.BadParameter(f"{text!r} is not a regular expression: {error}. --filter takes plain text.") from None


@click.command(
    "logs",
    cls=Verb,
    examples=(
        ("runtimectl logs hello --since 10m", "The last ten minutes:"),
        ("runtimectl logs hello --version 3", "What its version 3 did:"),
        ("runtimectl logs hello --follow --json", "From now on, one JSON object a line:"),
        ("runtimectl logs hello --request-id 8f5d0b4c-3b1f-4d59-9a53-0e8c1f0a7d11", "One invocation:"),
    ),
)
@click.argument("name", shell_complete=qualified_name)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on.")
@click.option("--limit", "-n", type=click.IntRange(1, LIMIT_MAX), metavar="N", help="Only the last N events.")
@click.option("--since", metavar="WHEN", callback=_moment, help="A span (30s, 10m, 2h, 1d) or a time.")
@click.option("--until", metavar="WHEN", callback=_moment, help="Likewise; not with --follow.")
@click.option(
    "--version",
    metavar="VERSION",
    default="",
    callback=_version,
    shell_complete=qualifier_name,
    help="Only this version: a number, or $LATEST.",
)
@click.option("--request-id", metavar="ID", default="", help="Only this invocation.")
@click.option("--filter", "contains", metavar="TEXT", multiple=True, help="Only lines with TEXT; may be repeated.")
@click.option("--grep", metavar="PATTERN", callback=_pattern, help="Only lines that match a regular expression.")
@common
def command(
    session: Session,
    name: str,
    follow: bool,
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
    version: str,
    request_id: str,
    contains: tuple[str, ...],
    grep: re.Pattern[str] | None,
) -> None:
    """Print the log of the function NAME, oldest first."""
    if follow and until is not None:
        raise click.UsageError("--follow and --until exclude each other.")
    if follow and grep is not None and limit is not None:
        raise click.UsageError("--follow, --grep and --limit do not go together; use --filter in place of --grep.")
    with session.client() as client:
        events: Iterable[LogEvent] = client.logs(
            name,
            follow=follow,
            since=since,
            until=until,
            version=version,
            request_id=request_id,
            contains=contains,
            limit=limit if grep is None else None,
        )
        if grep is not None:
            matching = (event for event in events if grep.search(event.message))
            # The pattern is applied here, so the last ones are chosen here.
            events = matching if limit is None else deque(matching, maxlen=limit)
        for line in _lines(events, session.as_json, sys.stdout.isatty()):
            sys.stdout.write(f"{line}\n")
            if follow:
                sys.stdout.flush()


def _lines(events: Iterable[LogEvent], as_json: bool, terminal: bool) -> Iterator[str]:
    if as_json:
        import msgspec

        for event in events:
            yield msgspec.json.encode(event).decode()
        return
    colours = output.coloured()
    for event in events:
        line = (
            f"{output.moment(event.time)} {visible(event.message, colours) if terminal or colours else event.message}"
        )
        dim = colours and event.kind.value != "Function"
        yield f"{DIM}{line}{PLAIN}" if dim else line


def visible(text: str, colours: bool) -> str:
    """A line for a terminal: its colours stay (and end with it) if wanted, other control characters are shown."""
    parts = _COLOUR.split(text)
    parts[::2] = [_CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", part) for part in parts[::2]]
    if not colours:
        parts[1::2] = [""] * len(parts[1::2])
    return "".join(parts) + (PLAIN if colours and len(parts) > 1 else "")
