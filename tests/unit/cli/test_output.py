"""Columns, sizes, times and spans."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import click
import pytest

from runtimed.cli import VERBS, command, output
from runtimed.cli.logs import _moment


def test_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("A", "LONGER"), [("first", "x"), ("2", "")])
    assert capsys.readouterr().out == "A      LONGER\nfirst  x\n2\n"
    output.fields([("Name", "x"), ("", "y")])
    assert capsys.readouterr().out == "Name  x\n      y\n"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KB"), (5 << 20, "5.0 MB"), (3 << 40, "3072.0 GB")]
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


def test_times_are_in_utc() -> None:
    moment = datetime(2026, 1, 31, 13, 0, 0, 5000, tzinfo=timezone(timedelta(hours=1)))
    assert output.moment(moment) == "2026-01-31T12:00:00.005Z"


def parsed(text: str | None) -> datetime | None:
    anything: Any = None
    return _moment(anything, anything, text)


def test_spans_and_times() -> None:
    assert parsed(None) is None
    for text, span in (("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1w", 604800)):
        moment = parsed(text)
        assert moment is not None
        assert abs((datetime.now(UTC) - moment).total_seconds() - span) < 5
    assert parsed("2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "soon", "10", "m", "-5m", "99999999999d", "2026-13-01"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="10m"):
        parsed(text)


def test_every_verb_speaks_json_and_can_be_told_where_the_daemon_is() -> None:
    context = click.Context(command)
    for name in VERBS:
        verb = command.get_command(context, name)
        assert verb is not None
        assert {"--json", "--address", "--key-file"} <= {
            option for parameter in verb.params for option in parameter.opts
        }
        assert verb.help
