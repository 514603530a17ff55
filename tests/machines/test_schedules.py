"""Schedules: against a calendar that is walked minute by minute, and over days on which clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.machines.schedules import Cron, Rule, ScheduleError, latest, next_after, parse

BERLIN = ZoneInfo("Europe/Berlin")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 8 * 366 * 86_400).map(lambda seconds: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(0, seconds))


def rule(expression: str, zone: str = "UTC", **more: datetime) -> Rule:
    return Rule(schedule=parse(expression), zone=ZoneInfo(zone), **({"put_at": BEGAN} | more))


def times(of: Rule, after: datetime, count: int) -> list[str]:
    """As the rule's own clocks show them."""
    found = []
    for _ in range(count):
        due = next_after(of, after)
        if due is None:
            break
        found.append(due.astimezone(of.zone).strftime("%Y-%m-%d %H:%M"))
        after = due
    return found


def matches(cron: Cron, at: datetime) -> bool:
    """One minute of the calendar, looked at by itself."""
    tomorrow = at + timedelta(days=1)
    weekday = at.isoweekday() % 7 + 1
    on = (
        at.day in cron.days
        or weekday in cron.weekdays
        or (cron.last_day and tomorrow.month != at.month)
        or (weekday in cron.last_weekdays and (at + timedelta(days=7)).month != at.month)
        or cron.nth_weekday == (weekday, (at.day + 6) // 7)
        or (at.isoweekday() <= 5 and any(at.day == near(at, day) for day in cron.nearest))
    )
    return (
        on and at.minute in cron.minutes and at.hour in cron.hours and at.month in cron.months and at.year in cron.years
    )


def near(at: datetime, day: int) -> int:
    """The weekday of `at`'s month with the least distance to a day of it; 0 when it has no such day."""
    days = [at.replace(day=1) + timedelta(days=n) for n in range(31)]
    inside = [one for one in days if one.month == at.month]
    if day > len(inside):
        return 0
    return min((one.day for one in inside if one.isoweekday() <= 5), key=lambda one: abs(one - day))


NUMBERS = {"minutes": (0, 59), "hours": (0, 23), "months": (1, 12)}


def field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.one_of(st.just("*"), number.map(str), span), st.integers(1, most)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    return st.one_of(st.just("*"), st.lists(st.one_of(number.map(str), span, stepped), min_size=1, max_size=3).map(
        ",".join))  # fmt: skip


DAYS = st.one_of(field(1, 31), st.just("L"), st.integers(1, 31).map(lambda day: f"{day}W"), st.just("1,L,15W"))
NAMED = st.sampled_from(["MON-FRI", "SUN", "L", "6L", "FRIL", "3#2", "FRI#5", "SAT,SUN", "2-4,7"])
CRONS = st.tuples(
    field(0, 59),
    field(0, 23),
    st.one_of(DAYS.map(lambda days: (days, "?")), NAMED.map(lambda days: ("?", days))),
    field(1, 12),
).map(lambda parts: f"cron({parts[0]} {parts[1]} {parts[2][0]} {parts[3]} {parts[2][1]} *)")


@given(CRONS, MOMENTS)
def test_cron_is_what_the_calendar_says(expression: str, moment: datetime) -> None:
    schedule = parse(expression)
    assert isinstance(schedule, Cron)
    due = next_after(rule(expression), moment)
    at = (moment + timedelta(minutes=1)).replace(second=0, microsecond=0)
    first = min(schedule.hours), min(schedule.minutes)
    for _ in range(200):  # days, of which those that do not match are passed over
        midnight = at.replace(hour=0, minute=0)
        if matches(schedule, midnight.replace(hour=first[0], minute=first[1])):
            while at.date() == midnight.date():
                if matches(schedule, at):
                    assert due == at
                    return
                at += timedelta(minutes=1)
        at = midnight + timedelta(days=1)
    assert due is None or due >= at


@given(CRONS | st.integers(1, 3000).map(lambda n: f"rate({n} minutes)"), MOMENTS, st.integers(1, 4000))
def test_the_last_time_is_the_last_one(expression: str, since: datetime, hours: int) -> None:
    of, until = rule(expression, put_at=datetime(2023, 6, 1, 0, 0, 7, tzinfo=UTC)), since + timedelta(hours=hours)
    found = latest(of, since, until)
    if found is None:
        first = next_after(of, since - timedelta(microseconds=1))
        assert first is None or first > until
    else:
        assert since <= found <= until
        following = next_after(of, found)
        assert following is None or following > until
        assert next_after(of, found - timedelta(microseconds=1)) == found


@given(
    st.sampled_from(["rate(7 minutes)", "rate(3 hours)", "cron(30 2 * * ? *)", "cron(0/20 * ? * MON-FRI *)"]), MOMENTS
)
def test_nothing_is_due_twice_or_passed_over(expression: str, moment: datetime) -> None:
    of = rule(expression, "America/New_York", put_at=datetime(2023, 6, 1, tzinfo=UTC))
    due = next_after(of, moment)
    assert due is not None
    assert due > moment
    assert next_after(of, moment + (due - moment) / 2) == due


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # The examples of EventBridge's cron reference.
        ("cron(0 10 * * ? *)", ["2026-03-28 10:00", "2026-03-29 10:00"]),
        ("cron(15 12 * * ? *)", ["2026-03-27 12:15", "2026-03-28 12:15"]),
        ("cron(0 18 ? * MON-FRI *)", ["2026-03-27 18:00", "2026-03-30 18:00"]),
        ("cron(0 8 1 * ? *)", ["2026-04-01 08:00", "2026-05-01 08:00"]),
        ("cron(0/5 8-17 ? * MON-FRI *)", ["2026-03-27 12:05", "2026-03-27 12:10"]),
        ("cron(0 9 ? * 2#1 *)", ["2026-04-06 09:00", "2026-05-04 09:00"]),
        ("cron(15 10 ? * 6L 2026-2027)", ["2026-04-24 10:15", "2026-05-29 10:15"]),
        ("cron(0 0 ? JUL 6L *)", ["2026-07-31 00:00", "2027-07-30 00:00"]),
        ("cron(0 0 L FEB ? *)", ["2027-02-28 00:00", "2028-02-29 00:00"]),
        ("cron(0 8 1W * ? *)", ["2026-04-01 08:00", "2026-05-01 08:00", "2026-06-01 08:00", "2026-07-01 08:00",
                                "2026-08-03 08:00"]),  # the first is a Saturday: not in July
        ("cron(0 8 31W MAY ? *)", ["2026-05-29 08:00"]),  # the 31st is a Sunday: not in June
        ("cron(0 0 30 2 ? *)", []),
        ("at(2026-03-28T08:00:00)", ["2026-03-28 08:00"]),
        ("at(2026-03-27T12:00:00)", []),
        ("rate(1 day)", ["2026-03-28 00:00", "2026-03-29 00:00"]),
    ],
)  # fmt: skip
def test_examples(expression: str, expected: list[str]) -> None:
    found = times(rule(expression), datetime(2026, 3, 27, 12, tzinfo=UTC), max(2, len(expected)))
    assert found[: len(expected)] == expected
    assert expected or not found


def test_clocks_that_change() -> None:
    """On March 29th, 2026, there is no 2:30 in Berlin; on October 25th there are two."""
    daily = rule("cron(30 2 * * ? *)", "Europe/Berlin")
    assert times(daily, datetime(2026, 3, 27, 12, tzinfo=UTC), 2) == ["2026-03-28 02:30", "2026-03-30 02:30"]
    first = next_after(daily, datetime(2026, 10, 24, 12, tzinfo=UTC))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert next_after(daily, first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    once = rule("at(2026-03-29T02:30:00)", "Europe/Berlin")
    assert next_after(once, BEGAN) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    # A day is 24 hours, whatever clocks do.
    every = rule("rate(1 day)", "Europe/Berlin", put_at=datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert times(every, datetime(2026, 3, 28, 12, tzinfo=UTC), 1) == ["2026-03-29 14:00"]


def test_start_and_end() -> None:
    start, end = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC)
    assert times(rule("cron(0 12 * * ? *)", start=start, end=end), BEGAN, 5) == ["2026-03-01 12:00", "2026-03-02 12:00"]
    assert times(rule("rate(12 hours)", start=start, end=end), BEGAN, 9) == [
        "2026-03-01 12:00", "2026-03-02 00:00", "2026-03-02 12:00", "2026-03-03 00:00",
    ]  # fmt: skip
    assert next_after(rule("at(2026-02-01T00:00:00)", start=start), BEGAN) is None


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("every day", "must be at"),
        ("cron(0 8 * * * *)", "one of day of month and day of week must be"),
        ("cron(0 8 ? * ? *)", "one of day of month and day of week must be"),
        ("cron(0 8 * * ?)", "six fields"),
        ("cron(60 8 * * ? *)", "minutes 60: must be from 0 to 59"),
        ("cron(0 22-2 * * ? *)", "goes backwards"),
        ("cron(0 8 ? * FOO *)", "day of week FOO: must be from 1 to 7 or SUN-SAT"),
        ("cron(0 8 ? * 2#6 *)", "number from 1 to 5"),
        ("cron(0 8 ? * 2#1,3#1 *)", "no list"),
        ("cron(0/0 8 * * ? *)", "the step of minutes 0: must be from 1"),
        ("cron(0 8 32W * ? *)", "day of month 32"),
        ("cron(0 8 , * ? *)", "day of month nothing"),
        ("cron(0 8 1 * ? 2200)", "year 2200"),
        ("rate(0 minutes)", "from 1 up"),
        ("rate(5 weeks)", "a unit"),
        ("rate(999999999 days)", "must be a number"),
        ("at(2026-02-30T00:00:00)", "a date and a time"),
        ("at(2026-01-01 00:00:00)", "a date and a time"),
        ("at(9999-12-31T23:59:59)", "the year must be from 1970 to 2199"),
        ("cron(0 8 (1) * ? *)", "must be at"),
    ],
)
def test_what_is_no_schedule_is_told(expression: str, told: str) -> None:
    with pytest.raises(ScheduleError, match=told.replace("(", r"\(").replace("?", r"\?")):
        parse(expression)


@given(st.text(max_size=60) | st.text("0123456789 *?,-/LW#()cronate", max_size=40).map(lambda text: f"cron({text})"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        schedule = parse(text)
    except ScheduleError:
        return
    next_after(Rule(schedule=schedule, zone=BERLIN, put_at=BEGAN), BEGAN)
