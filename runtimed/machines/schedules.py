"""When a scheduled action is due: the three kinds of expression, and the moments that they mean. Pure.

    at(yyyy-mm-ddThh:mm:ss)                              once
    rate(N minute|minutes|hour|hours|day|days)           again and again, a day being 24 hours
    cron(minutes hours day-of-month month day-of-week year)

They are those of Application Auto Scaling (PutScheduledAction), and cron's fields those of the cron reference that it
points to (EventBridge user guide, "Cron expressions reference"): `, - * /` in each, `?` in one of the two fields of
days and never in both, in day-of-month `L` (the last) and `15W` (the weekday nearest to the 15th, in the same month),
in day-of-week 1-7 or SUN-SAT, `L` (Saturday), `6L` (the last Friday of the month) and `6#3` (its third one).

Clocks that change: a time of day that a cron expression names is left out on the day on which it does not exist, and
comes once on the day on which it comes twice, the first time (EventBridge Scheduler user guide, "Daylight savings
time"). An at expression that names a time which does not exist is due as much later as the clocks were moved.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from msgspec import Struct

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
YEARS = (1970, 2199)
LONGEST_RATE = timedelta(days=36_500)
_UNITS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}


class ScheduleError(ValueError):
    """An expression that is none; says what is wrong and what would do."""


class At(Struct, frozen=True):
    """Once, at this time of its zone's clocks."""

    local: datetime


class Rate(Struct, frozen=True):
    """Each time after so long."""

    period: timedelta


class Cron(Struct, frozen=True, kw_only=True):
    """All fields as they are to be matched; weekdays are 1 (Sunday) to 7."""

    minutes: frozenset[int]
    hours: frozenset[int]
    months: frozenset[int]
    years: frozenset[int]
    days: frozenset[int]
    last_day: bool
    nearest: frozenset[int]
    """Days to whose nearest weekday it goes."""
    weekdays: frozenset[int]
    last_weekdays: frozenset[int]
    nth_weekday: tuple[int, int] | None
    """Which weekday, and the how-manieth of its month."""


Schedule = At | Rate | Cron


class Rule(Struct, frozen=True, kw_only=True):
    """A schedule and what it refers to. All moments are aware, in UTC."""

    schedule: Schedule
    zone: tzinfo = UTC
    put_at: datetime
    """From then on a rate without a start is counted: it is due for the first time one period later."""
    start: datetime | None = None
    """Not due before; a rate is due then for the first time."""
    end: datetime | None = None
    """Not due after."""


def parse(expression: str) -> Schedule:
    """Raises ScheduleError."""
    found = re.fullmatch(r"\s*(at|rate|cron)\s*\(([^()]*)\)\s*", expression)
    if found is None:
        raise ScheduleError(
            "must be at(2026-01-31T08:00:00), rate(5 minutes), or cron(0 8 ? * MON-FRI *): minutes, hours, "
            "day of month, month, day of week, year."
        )
    readers: dict[str, Callable[[str], Schedule]] = {"at": _at, "rate": _rate, "cron": _cron}
    return readers[found[1]](found[2].strip())


def next_after(rule: Rule, moment: datetime) -> datetime | None:
    """When it is due next, later than `moment`; None: never again."""
    after = moment if rule.start is None else max(moment, rule.start - timedelta(microseconds=1))
    match rule.schedule:
        case At(local):
            due: datetime | None = local.replace(tzinfo=rule.zone).astimezone(UTC)
            due = due if due is not None and due > after else None
        case Rate(period):
            first = rule.put_at + period if rule.start is None else rule.start
            due = first if first > after else first + ((after - first) // period + 1) * period
        case Cron() as cron:
            due = next(_moments(cron, after, rule.zone), None)
    return due if due is not None and (rule.end is None or due <= rule.end) else None


def latest(rule: Rule, since: datetime, until: datetime) -> datetime | None:
    """When it was due last, at `since` or later and not after `until`; None: not in that time."""
    low, high = since - timedelta(microseconds=1), until
    found = next_after(rule, low)
    if found is None or found > until:
        return None
    # Whether anything is due between a moment and `until` is true of all moments before some one of them.
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        due = next_after(rule, middle)
        if due is None or due > until:
            high = middle
        else:
            low, found = middle, due
    return found


# ---- cron's moments ----------------------------------------------------------------------------------------------


def _moments(cron: Cron, after: datetime, zone: tzinfo) -> Iterator[datetime]:
    local = after.astimezone(zone).replace(tzinfo=None)
    hours, minutes = sorted(cron.hours), sorted(cron.minutes)
    for day in _dates(cron, local.date()):
        for hour in hours:
            if day == local.date() and hour < local.hour:
                continue
            for minute in minutes:
                wall = datetime.combine(day, time(hour, minute))
                due = wall.replace(tzinfo=zone).astimezone(UTC)
                if due > after and due.astimezone(zone).replace(tzinfo=None) == wall:
                    yield due


def _dates(cron: Cron, first: date) -> Iterator[date]:
    """That match, in order, from `first` on."""
    for year in sorted(year for year in cron.years if year >= first.year):
        for month in sorted(cron.months):
            if (year, month) < (first.year, first.month):
                continue
            for day in _days(cron, year, month):
                if date(year, month, day) >= first:
                    yield date(year, month, day)


def _days(cron: Cron, year: int, month: int) -> list[int]:
    beginning, length = calendar.monthrange(year, month)  # Monday is 0

    def weekday(day: int) -> int:
        return (beginning + day) % 7 + 1

    found = {day for day in cron.days if day <= length}
    found |= {day for day in range(1, length + 1) if weekday(day) in cron.weekdays}
    if cron.last_day:
        found.add(length)
    found |= {_nearest(day, weekday(day), length) for day in cron.nearest if day <= length}
    found |= {day for day in range(length - 6, length + 1) if weekday(day) in cron.last_weekdays}
    if cron.nth_weekday is not None:
        which, number = cron.nth_weekday
        matching = [day for day in range(1, length + 1) if weekday(day) == which]
        found |= set(matching[number - 1 : number])
    return sorted(found)


def _nearest(day: int, weekday: int, length: int) -> int:
    """The weekday nearest to a day of the month; never in another month."""
    if weekday == 7:
        return day - 1 if day > 1 else day + 2
    if weekday == 1:
        return day + 1 if day < length else day - 2
    return day


# ---- reading -----------------------------------------------------------------------------------------------------


def _at(inner: str) -> At:
    wrong = ScheduleError(f"at({inner}): must be a date and a time, such as at(2026-01-31T08:00:00).")
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}", inner) is None:
        raise wrong
    try:
        local = datetime.fromisoformat(inner)
    except ValueError:
        raise wrong from None
    if not YEARS[0] <= local.year <= YEARS[1]:
        raise ScheduleError(f"at({inner}): the year must be from {YEARS[0]} to {YEARS[1]}.")
    return At(local)


def _rate(inner: str) -> Rate:
    found = re.fullmatch(r"([0-9]{1,9})\s+(minute|hour|day)s?", inner)
    number = int(found[1]) if found else 0
    if found is None or number < 1 or number * _UNITS[found[2]] > LONGEST_RATE:
        raise ScheduleError(f"rate({inner}): must be a number from 1 up and a unit, such as rate(5 minutes).")
    return Rate(number * _UNITS[found[2]])


def _cron(inner: str) -> Cron:
    fields = inner.upper().split()
    if len(fields) != 6:
        raise ScheduleError(
            f"cron({inner}): must have six fields (minutes, hours, day of month, month, day of week, year), "
            f"not {len(fields)}; such as cron(0 8 ? * MON-FRI *)."
        )
    minutes, hours, days, months, weekdays, years = fields
    if (days == "?") == (weekdays == "?"):
        raise ScheduleError(f"cron({inner}): one of day of month and day of week must be ?, and the other one not.")
    on_days, last_day, nearest = _month_days(days)
    on_weekdays, last_weekdays, nth = _week_days(weekdays)
    return Cron(
        minutes=_numbers("minutes", minutes, 0, 59),
        hours=_numbers("hours", hours, 0, 23),
        months=_numbers("month", months, 1, 12, MONTHS),
        years=_numbers("year", years, *YEARS),
        days=on_days,
        last_day=last_day,
        nearest=nearest,
        weekdays=on_weekdays,
        last_weekdays=last_weekdays,
        nth_weekday=nth,
    )


def _month_days(field: str) -> tuple[frozenset[int], bool, frozenset[int]]:
    """Days, whether the last one is meant, and days whose nearest weekdays are."""
    if field == "?":
        return frozenset(), False, frozenset()
    parts = field.split(",")
    nearest = frozenset(_number("day of month", part[:-1], 1, 31) for part in parts if re.fullmatch(r"\d+W", part))
    plain = [part for part in parts if part != "L" and not re.fullmatch(r"\d+W", part)]
    return _numbers("day of month", ",".join(plain), 1, 31) if plain else frozenset(), "L" in parts, nearest


def _week_days(field: str) -> tuple[frozenset[int], frozenset[int], tuple[int, int] | None]:
    """Weekdays, those whose last one of a month is meant, and one with its place in the month."""
    if field == "?":
        return frozenset(), frozenset(), None
    what = "day of week"
    if "#" in field:
        which, _, number = field.partition("#")
        if "," in field or not re.fullmatch("[1-5]", number):
            raise ScheduleError(
                f"{what} {field}: # takes one day and a number from 1 to 5, such as FRI#3, and no list."
            )
        return frozenset(), frozenset(), (_number(what, which, 1, 7, WEEKDAYS), int(number))
    parts = ["7" if part == "L" else part for part in field.split(",")]
    ends = [part for part in parts if re.fullmatch(r"(\d+|[A-Z]{3})L", part)]
    plain = ",".join(part for part in parts if part not in ends)
    return (
        _numbers(what, plain, 1, 7, WEEKDAYS) if plain else frozenset(),
        frozenset(_number(what, part[:-1], 1, 7, WEEKDAYS) for part in ends),
        None,
    )


def _numbers(what: str, field: str, least: int, most: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    """A list of numbers, ranges and steps."""
    found: set[int] = set()
    for part in field.split(","):
        span, slash, every = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = least, most
        else:
            low = _number(what, first, least, most, names)
            high = _number(what, last, least, most, names) if dash else most if slash else low
        if high < low:
            raise ScheduleError(f"{what} {part}: the range goes backwards. Write two, such as 22-23,0-2.")
        step = _number(f"the step of {what}", every, 1, max(1, most)) if slash else 1
        found.update(range(low, high + 1, step))
    return frozenset(found)


def _number(what: str, text: str, least: int, most: int, names: tuple[str, ...] = ()) -> int:
    if text in names:
        return names.index(text) + 1
    if re.fullmatch(r"[0-9]{1,4}", text) and least <= int(text) <= most:
        return int(text)
    named = f" or {names[0]}-{names[-1]}" if names else ""
    raise ScheduleError(f"{what} {text or 'nothing'}: must be from {least} to {most}{named}.")
