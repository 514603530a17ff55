"""runtimectl provision target and schedule: provisioned concurrency that follows utilization, or the clock."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import click

from runtimed.cli import failures, output
from runtimed.cli.options import Session, common, completing, qualified, qualified_name, qualifier_option
from runtimed.cli.verb import Verb

if TYPE_CHECKING:
    from datetime import datetime

    from runtimed.client import Client
    from runtimed.client.scaling import When
    from runtimed.model.scaling import ScalableTarget, ScheduledAction
    from runtimed.model.shape import UnsetType

_least = click.option("--min", "least", type=click.IntRange(min=0), metavar="COUNT", help="At least so many.")
_most = click.option("--max", "most", type=click.IntRange(min=0), metavar="COUNT", help="At most so many.")
_MOMENTS = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"]


@click.command(
    "target",
    cls=Verb,
    examples=(
        ("runtimectl provision target hello --min 1 --max 20", "May be scaled, from one to twenty:"),
        ("runtimectl provision target hello --utilization 0.7", "So many that seven in ten are at work:"),
        ("runtimectl provision target", "What is scaled, and what was done last:"),
        ("runtimectl provision target hello --delete", "Leave it as it is from now on:"),
    ),
)
@click.argument("name", required=False, default="", shell_complete=qualified_name)
@qualifier_option
@_least
@_most
@click.option(
    "--utilization",
    type=click.FloatRange(0.1, 0.9),
    metavar="SHARE",
    help="Scale so that about this share of the provisioned environments is at work: 0.1 to 0.9.",
)
@click.option("--scale-out-cooldown", type=click.IntRange(0, 86_400), default=0, metavar="SECONDS",
              help="So long after there are more, only a larger number is asked for.")  # fmt: skip
@click.option("--scale-in-cooldown", type=click.IntRange(0, 86_400), default=0, metavar="SECONDS",
              help="So long after there are fewer, there are not fewer again.")  # fmt: skip
@click.option("--no-scale-in", is_flag=True, help="Never fewer by utilization.")
@click.option("--no-utilization", is_flag=True, help="Scale by utilization no longer.")
@click.option("--delete", is_flag=True, help="Forget bounds, policy and schedules; what is provisioned stays.")
@common
def target_command(
    session: Session,
    name: str,
    qualifier: str | None,
    least: int | None,
    most: int | None,
    utilization: float | None,
    scale_out_cooldown: int,
    scale_in_cooldown: int,
    no_scale_in: bool,
    no_utilization: bool,
    delete: bool,
) -> None:
    """Show between what provisioned concurrency is scaled, of all functions or of NAME; with options, change it.

    By utilization: three minutes in a row above it add environments, fifteen below nine tenths of it take some away
    (settings pools.scaling_period_ms, pools.scale_out_periods, pools.scale_in_periods).
    """
    changes = delete or no_utilization or (least, most, utilization) != (None, None, None)
    if not name and changes:
        raise click.UsageError("NAME is missing: which function?")
    if delete and (no_utilization or (least, most, utilization) != (None, None, None)):
        raise click.UsageError("--delete stands alone.")
    if utilization is None and (scale_out_cooldown or scale_in_cooldown or no_scale_in):
        raise click.UsageError("cooldowns and --no-scale-in go with --utilization.")
    if utilization is not None and no_utilization:
        raise click.UsageError("--utilization and --no-utilization exclude each other.")
    shown = f"{name}:{qualifier}" if qualifier else name
    name, qualifier = qualified(name, qualifier)
    with session.client() as client:
        if delete:
            client.scaling.deregister(name, qualifier)
        if least is not None or most is not None:
            client.scaling.register(name, least, most, qualifier)
        if no_utilization:
            client.scaling.untrack(name, qualifier)
        if utilization is not None:
            client.scaling.track(
                name,
                utilization,
                qualifier,
                scale_out_cooldown=scale_out_cooldown,
                scale_in_cooldown=scale_in_cooldown,
                scale_in=not no_scale_in,
            )
        found = client.scaling.targets(shown)
    _show_targets(session, found)


def _show_targets(session: Session, found: list[ScalableTarget]) -> None:
    if session.as_json:
        output.as_json({"ScalableTargets": found})
        return
    if not found:
        click.echo("Nothing is scaled. `runtimectl provision target NAME --min 1 --max 10` begins.", err=True)
        return
    output.table(
        ("FUNCTION", "QUALIFIER", "MIN", "MAX", "NOW", "UTILIZATION", "SCHEDULES", "LAST"),
        [
            (
                one.function_name,
                one.qualifier,
                str(one.min_capacity),
                str(one.max_capacity),
                str(one.capacity),
                _utilization(one),
                str(one.scheduled_actions),
                _last(one),
            )
            for one in found
        ],
        right=("MIN", "MAX", "NOW", "SCHEDULES"),
        shrink=("FUNCTION", "LAST"),
    )
    for one in found:
        message = getattr(one.last_activity, "status_message", None)
        if isinstance(message, str):
            output.complain(f"{one.function_name}:{one.qualifier}: {message}")


def _utilization(target: ScalableTarget) -> str:
    value = getattr(target.policy, "target_value", None)
    return "-" if value is None else f"{value:.2f}"


def _last(target: ScalableTarget) -> str:
    from runtimed.model.shape import UnsetType

    last = target.last_activity
    if isinstance(last, UnsetType):
        return "-"
    to = f"{last.from_capacity} to {last.to_capacity}"
    failed = ", failed" if last.status.value == "Failed" else ""
    return f"{output.when(last.time)}: {to}{failed}, {last.cause}"


def _action_name(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completes the name of an action that is planned for the function; nothing when the daemon does not answer."""
    try:
        with completing(ctx).client(failures.NAMES_SECONDS) as client:
            found = client.scaling.actions(*qualified(ctx.params["name"], ctx.params.get("qualifier")))
        names = [one.scheduled_action_name for one in found]
        return [name for name in names if name.startswith(incomplete)]
    except Exception:
        return []


@click.command(
    "schedule",
    cls=Verb,
    examples=(
        ("runtimectl provision schedule hello", "What is planned:"),
        ("runtimectl provision schedule hello night 'cron(0 22 * * ? *)' --min 0 --max 1", "Few at night, in UTC:"),
        (
            "runtimectl provision schedule hello sale 'at(2026-11-27T06:00:00)' --min 50 --timezone America/New_York",
            "Once:",
        ),
        ("runtimectl provision schedule hello night --delete", "Not any more:"),
    ),
)
@click.argument("name", shell_complete=qualified_name)
@click.argument("action", required=False, shell_complete=_action_name)
@click.argument("expression", required=False)
@qualifier_option
@_least
@_most
@click.option("--timezone", metavar="ZONE", default="", help="Of at and cron, such as Europe/Berlin; default: UTC.")
@click.option("--start", type=click.DateTime(_MOMENTS), metavar="TIME", help="Not before this time, in UTC.")
@click.option("--end", type=click.DateTime(_MOMENTS), metavar="TIME", help="Not after this time, in UTC.")
@click.option("--delete", is_flag=True, help="Remove the action.")
@common
def schedule_command(
    session: Session,
    name: str,
    action: str | None,
    expression: str | None,
    qualifier: str | None,
    least: int | None,
    most: int | None,
    timezone: str,
    start: datetime | None,
    end: datetime | None,
    delete: bool,
) -> None:
    """Show what is planned for the provisioned concurrency of NAME; plan ACTION for the times of EXPRESSION; remove it.

    EXPRESSION is at(2026-01-31T08:00:00), rate(12 hours), or cron(MINUTES HOURS DAY-OF-MONTH MONTH DAY-OF-WEEK YEAR).
    Then what is provisioned is brought between --min and --max, and stays there until something else changes it. Needs
    bounds: see `runtimectl provision target`.
    """
    if action is not None and not delete and expression is None:
        raise click.UsageError("EXPRESSION is missing: when? Such as 'cron(0 8 ? * MON-FRI *)'.")
    if delete and (action is None or expression is not None):
        raise click.UsageError("--delete takes NAME and ACTION, and nothing else.")
    name, qualifier = qualified(name, qualifier)
    with session.client() as client:
        if action is not None and delete:
            client.scaling.unschedule(name, action, qualifier)
        elif action is not None and expression is not None:
            _plan(client, name, action, expression, qualifier, least, most, timezone, start, end)
        found = client.scaling.actions(name, qualifier)
    _show_actions(session, found)


def _plan(
    client: Client,
    name: str,
    action: str,
    expression: str,
    qualifier: str,
    least: int | None,
    most: int | None,
    timezone: str,
    start: datetime | None,
    end: datetime | None,
) -> None:
    when: When = {"timezone": timezone}
    if least is not None:
        when["minimum"] = least
    if most is not None:
        when["maximum"] = most
    if start is not None:
        when["start"] = start.replace(tzinfo=UTC)
    if end is not None:
        when["end"] = end.replace(tzinfo=UTC)
    client.scaling.schedule(name, action, expression, qualifier, **when)


def _show_actions(session: Session, found: list[ScheduledAction]) -> None:
    if session.as_json:
        output.as_json({"ScheduledActions": found})
        return
    if not found:
        click.echo(
            "Nothing is planned. `runtimectl provision schedule NAME ACTION EXPRESSION --min 5` plans.", err=True
        )
        return
    output.table(
        ("ACTION", "SCHEDULE", "ZONE", "MIN", "MAX", "NEXT"),
        [
            (
                one.scheduled_action_name,
                one.schedule,
                one.timezone,
                _number(one.min_capacity),
                _number(one.max_capacity),
                _until(one.next_time),
            )
            for one in found
        ],
        right=("MIN", "MAX"),
        shrink=("ACTION", "SCHEDULE"),
    )


def _until(moment: datetime | UnsetType) -> str:
    """On a terminal how long until then."""
    from datetime import datetime

    if not isinstance(moment, datetime):
        return "-"
    if not output.on_terminal():
        return output.moment(moment)
    return f"in {output.span((moment - datetime.now(UTC)).total_seconds())}"


def _number(value: int | UnsetType) -> str:
    return str(value) if isinstance(value, int) else "-"
