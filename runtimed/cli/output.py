"""How results look. On a terminal times are relative and tables fit its width; otherwise everything is whole, for
programs and files to keep."""

from __future__ import annotations

import re
import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runtimed.model.node import EnvironmentCounts

NARROWEST = 8
"""Columns to which a column of a table is cut at least."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SPANS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def as_json(value: Any) -> None:
    """One value, indented, as the API spells it."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def as_json_line(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(value).decode())


def on_terminal() -> bool:
    """Does somebody look at standard output?"""
    return sys.stdout.isatty()


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    shrink: Collection[str] = (),
    width: int | None = None,
) -> None:
    """Aligned columns. Those named in `right` are numbers; on a terminal those in `shrink` give way, the widest first.
    `width`: the terminal's, None: as it is."""
    if width is None and on_terminal():
        width = shutil.get_terminal_size().columns
    for line in aligned(headings, rows, right=right, shrink=shrink, width=width):
        click.echo(line)


def aligned(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    shrink: Collection[str] = (),
    width: int | None = None,
) -> list[str]:
    """The table's lines."""
    cells = [[clean(text) for text in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    may = [column for column, heading in enumerate(headings) if heading in shrink]
    while width is not None and may and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(may, key=lambda column: widths[column])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return [
        "  ".join(
            cut(text, size).rjust(size) if heading in right else cut(text, size).ljust(size)
            for text, size, heading in zip(row, widths, headings, strict=True)
        ).rstrip()
        for row in cells
    ]


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def clean(text: str) -> str:
    """Without what would steer a terminal: names and texts come from whoever deployed."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def complain(text: str) -> None:
    """On standard error. What functions wrote is among it, so a terminal gets no control characters."""
    if sys.stderr.isatty():
        text = "\n".join(clean(line.replace("\t", "    ")) for line in text.splitlines())
    click.echo(text, err=True)


def coloured() -> bool:
    """Are colours wanted on standard output?"""
    ctx = click.get_current_context(silent=True)
    return on_terminal() if ctx is None or ctx.color is None else ctx.color


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one a line."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {clean(value)}".rstrip())


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")


def environments(counts: EnvironmentCounts) -> str:
    """What there is of them; kinds that there are none of are left out."""
    kinds = [f"{count} {kind}" for count, kind in ((counts.frozen, "frozen"), (counts.parked, "parked")) if count]
    idle = f"{counts.idle} idle ({', '.join(kinds)})" if kinds else f"{counts.idle} idle"
    text = f"{counts.busy} busy, {idle}, {counts.starting} starting"
    if counts.provisioned:
        text += f"; {counts.provisioned} provisioned, {counts.provisioned_in_use} of them in use"
    return text


def milliseconds(microseconds: int) -> str:
    """A duration; nothing measured: a dash."""
    if not microseconds:
        return "-"
    value = microseconds / 1000
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def moment(time: datetime) -> str:
    """In UTC, to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def when(time: datetime | str, now: datetime | None = None) -> str:
    """For people how long ago, for programs the moment itself. `time` as text stays as it is there."""
    if not on_terminal() and now is None:
        return time if isinstance(time, str) else moment(time)
    then = datetime.fromisoformat(time) if isinstance(time, str) else time
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    return "now" if seconds < 1 else f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """A duration's two largest units: 3 d 4 h, 12 min 5 s."""
    left, parts = int(seconds), []
    for unit, length in _SPANS:
        if left >= length:
            parts.append(f"{left // length} {unit}")
        left %= length
        if len(parts) == 2:
            break
    return " ".join(parts) or "0 s"
