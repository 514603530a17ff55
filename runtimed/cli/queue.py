"""runtimectl queue: the events of asynchronous invocation that wait, run or were given up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common, function_name, qualified, qualified_name, qualifier_option
from runtimed.cli.verb import VerbGroup

if TYPE_CHECKING:
    from runtimed.client import Client
    from runtimed.client.requests import Retrying
    from runtimed.model.queue import ChangedEvents, EventState, FunctionEventInvokeConfig, QueuedEvent, QueueStatus
    from runtimed.model.shape import UnsetType

STATES = ("waiting", "running", "dead")
PAGE = 200

_state = click.option("--state", type=click.Choice(STATES), help="Only events in this state.")
_event = click.option("--event-id", metavar="ID", default="", help="Only this event.")
_function = click.argument("name", required=False, default="", shell_complete=function_name)


@click.group(
    "queue",
    cls=VerbGroup,
    invoke_without_command=True,
    examples=(
        ("runtimectl queue", "How much waits for which function:"),
        ("runtimectl queue list report --state dead", "Events that were given up:"),
        ("runtimectl queue redrive report", "Begin anew with them:"),
        ("runtimectl queue pause report", "Run none of its events for now:"),
        ("runtimectl queue configure report --retries 0 --max-age 3600", "Try them once, within an hour:"),
        ("runtimectl queue configure report --retries 10 --retry-delay 5", "Ten times more, soon:"),
    ),
)
@common
def command(session: Session) -> None:
    """Show the queues of asynchronous invocation (the default), list, remove or redrive their events, or hold them up.

    An event waits in its function's queue until it has been handled: a failed attempt is repeated after a minute, and
    again after two. Then it is given up (dead), and kept so that it can be looked at and redriven.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        _stats(session, "")
    else:
        ctx.obj = session.where


@command.command("stats", examples=(("runtimectl queue stats --json", "For a program:"),))
@_function
@common
def stats_command(session: Session, name: str) -> None:
    """Show how many events wait for each function, or for NAME."""
    _stats(session, name)


def _stats(session: Session, name: str) -> None:
    with session.client() as client:
        queues = client.list_queues(name)
    if session.as_json:
        output.as_json({"Queues": queues})
    elif queues:
        output.table(
            ("FUNCTION", "WAITING", "RUNNING", "DEAD", "OLDEST", "STATE"),
            [
                (q.function_name, str(q.waiting), str(q.running), str(q.dead), _age(q.oldest_accepted_at), _held(q))
                for q in queues
            ],
        )
    else:
        click.echo("No function has had an event since the dispatcher started.", err=True)


def _age(moment: datetime | UnsetType) -> str:
    if not isinstance(moment, datetime):
        return "-"
    seconds = max(0, round((datetime.now(UTC) - moment).total_seconds()))
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m" if seconds < 7200 else f"{seconds // 3600}h"


def _held(queue: QueueStatus) -> str:
    if queue.paused:
        return "paused"
    return "throttled" if isinstance(queue.throttled_until, datetime) else ""


@command.command(
    "list",
    examples=(
        ("runtimectl queue list report", "What waits for one function:"),
        ("runtimectl queue list --state dead --json", "All that were given up, for a program:"),
    ),
)
@_function
@_state
@click.option("--limit", "-n", type=click.IntRange(1, 100_000), default=PAGE, metavar="N", help="At most N events.")
@common
def list_command(session: Session, name: str, state: str | None, limit: int) -> None:
    """List the events of all functions, or of NAME, about in the order of their acceptance."""
    from runtimed.model.queue import ListEventsRequest

    found: list[QueuedEvent] = []
    marker = ""
    with session.client() as client:
        while len(found) < limit:
            request = ListEventsRequest(
                function_name=name, state=_state_of(state), max_items=min(PAGE, limit - len(found)), marker=marker
            )
            page = client.list_events(request)
            found += page.events
            marker = page.next_marker
            if not marker:
                break
    del found[limit:]
    if session.as_json:
        output.as_json({"Events": [_described(event) for event in found]})
    elif found:
        output.table(
            ("EVENT", "FUNCTION", "STATE", "INVOKED", "ACCEPTED", "BYTES"),
            [
                (
                    event.event_id,
                    event.function_name,
                    event.state.value.lower(),
                    str(event.approximate_invoke_count),
                    output.when(event.accepted_at),
                    str(event.payload_size),
                )
                for event in found
            ],
        )
    else:
        click.echo("There are no such events.", err=True)


@command.command(
    "show", examples=(("runtimectl queue show 8f5d0b4c-3b1f-4d59-9a53-0e8c1f0a7d11", "With its payload:"),)
)
@click.argument("event_id")
@common
def show_command(session: Session, event_id: str) -> int:
    """Show the event EVENT_ID and its payload (the first 64 KB)."""
    from runtimed.model.errors import ResourceNotFound
    from runtimed.model.queue import ListEventsRequest

    marker = ""
    with session.client() as client:
        while True:
            page = client.list_events(ListEventsRequest(event_id=event_id.lower(), payloads=True, marker=marker))
            marker = page.next_marker
            if page.events or not marker:
                break
    if not page.events:
        raise ResourceNotFound(f"Event not found: {event_id}. It was handled, or never accepted here.")
    event = page.events[0]
    if session.as_json:
        output.as_json(_described(event))
        return 0
    output.fields(
        [
            ("Event", event.event_id),
            ("Function", event.function_name + (f":{event.qualifier}" if event.qualifier else "")),
            ("State", event.state.value.lower()),
            ("Invoked", f"{event.approximate_invoke_count} times"),
            ("Accepted", output.when(event.accepted_at)),
            ("Chain", str(event.chain_depth)),
            ("Trace", event.trace_id or "-"),
            ("Bytes", str(event.payload_size)),
        ]
    )
    click.echo()
    click.echo(event.payload)
    return 0


def _described(event: QueuedEvent) -> dict[str, object]:
    """With its payload as text: JSON that may have been cut."""
    described: dict[str, object] = {
        "EventId": event.event_id,
        "FunctionName": event.function_name,
        "Qualifier": event.qualifier,
        "State": event.state,
        "ApproximateInvokeCount": event.approximate_invoke_count,
        "ChainDepth": event.chain_depth,
        "AcceptedAt": event.accepted_at,
        "PayloadSize": event.payload_size,
        "TraceId": event.trace_id,
    }
    if event.payload:
        described["Payload"] = event.payload.decode(errors="replace")
    return described


@command.command(
    "cancel", examples=(("runtimectl queue cancel 8f5d0b4c-3b1f-4d59-9a53-0e8c1f0a7d11", "It is not run any more:"),)
)
@click.argument("event_id")
@common
def cancel_command(session: Session, event_id: str) -> None:
    """Remove the event EVENT_ID for good. One that is being invoked is left."""
    _change(session, "removed", event_id=event_id)


@command.command(
    "purge",
    examples=(
        ("runtimectl queue purge report --state dead", "What was given up:"),
        ("runtimectl queue purge report", "All that waits or was given up:"),
    ),
)
@click.argument("name", shell_complete=function_name)
@_state
@common
def purge_command(session: Session, name: str, state: str | None) -> None:
    """Remove the events of the function NAME for good. Those that are being invoked are left."""
    _change(session, "removed", name=name, state=state)


@command.command(
    "redrive",
    examples=(
        ("runtimectl queue redrive report", "All of a function that were given up:"),
        ("runtimectl queue redrive --event-id 8f5d0b4c-3b1f-4d59-9a53-0e8c1f0a7d11", "One:"),
    ),
)
@_function
@_event
@common
def redrive_command(session: Session, name: str, event_id: str) -> None:
    """Begin anew with events that were given up: of NAME, or one, or all."""
    with session.client() as client:
        _told(session, "begun anew", client.redrive_events(name, event_id.lower()))


def _change(session: Session, what: str, *, name: str = "", event_id: str = "", state: str | None = None) -> None:
    from runtimed.model.queue import CancelEventsRequest

    request = CancelEventsRequest(function_name=name, event_id=event_id.lower(), state=_state_of(state))
    with session.client() as client:
        _told(session, what, client.cancel_events(request))


def _told(session: Session, what: str, changed: ChangedEvents) -> None:
    if session.as_json:
        output.as_json(changed)
        return
    left = f"; {changed.left} left as they are" if changed.left else ""
    click.echo(f"{changed.changed} event{'' if changed.changed == 1 else 's'} {what}{left}")


@command.command("pause", examples=(("runtimectl queue pause report", "Until `queue resume`:"),))
@click.argument("name", shell_complete=function_name)
@common
def pause_command(session: Session, name: str) -> None:
    """Take nothing from the queue of NAME any more. Events are accepted as before."""
    with session.client() as client:
        client.pause_queue(name)
    _said(session, name, "paused")


@command.command("resume", examples=(("runtimectl queue resume report", "What waited is run:"),))
@click.argument("name", shell_complete=function_name)
@common
def resume_command(session: Session, name: str) -> None:
    """Go on with the queue of NAME."""
    with session.client() as client:
        client.resume_queue(name)
    _said(session, name, "resumed")


def _said(session: Session, name: str, what: str) -> None:
    if session.as_json:
        output.as_json({"FunctionName": name, "Queue": what})
    else:
        click.echo(f"The queue of {name} is {what}")


@command.command(
    "configure",
    examples=(
        ("runtimectl queue configure report --retries 0 --max-age 3600", "One attempt, within an hour:"),
        ("runtimectl queue configure report --retries 10 --retry-delay 5", "Ten more, after 5, 10, 15 … seconds:"),
        ("runtimectl queue configure report", "What holds:"),
        ("runtimectl queue configure report:live --retries 0", "Of events that are sent to the alias live:"),
        ("runtimectl queue configure report --default", "The node's defaults again:"),
    ),
)
@click.argument("name", shell_complete=qualified_name)
@click.option(
    "--retries",
    type=click.IntRange(0, 30),
    metavar="N",
    help="Attempts after the first one that failed; Lambda's own API knows 0 to 2.",
)
@click.option("--max-age", type=click.IntRange(60, 21600), metavar="SECONDS", help="Older events are given up.")
@click.option(
    "--retry-delay",
    type=click.FloatRange(0.001, 86400),
    metavar="SECONDS",
    help="Before the first retry; before the second twice that, and so on.",
)
@click.option("--default", "forget", is_flag=True, help="Forget what was configured.")
@qualifier_option
@common
def configure_command(
    session: Session,
    name: str,
    retries: int | None,
    max_age: int | None,
    retry_delay: float | None,
    forget: bool,
    qualifier: str | None,
) -> None:
    """Say how often and how long events of NAME are tried; without options, show it. What is not given stays.

    It holds for events that were sent to NAME without a qualifier; those sent to a version or to an alias follow what
    is configured for that one.
    """

    changes: Retrying = {}
    if retries is not None:
        changes["retries"] = retries
    if max_age is not None:
        changes["maximum_age"] = max_age
    if retry_delay is not None:
        changes["retry_delay_ms"] = round(retry_delay * 1000)
    if forget and changes:
        raise click.UsageError("--default excludes the other options.")
    name, qualifier = qualified(name, qualifier)
    with session.client() as client:
        found = _configured(client, name, qualifier)
        if forget and found is not None:
            client.delete_event_config(name, qualifier)
            found = None
        elif changes:
            before: Retrying = {}
            if found is not None:
                before["retries"] = found.maximum_retry_attempts
                before["maximum_age"] = found.maximum_event_age_in_seconds
                before["retry_delay_ms"] = found.retry_delay_milliseconds
            rules: Retrying = {**before, **changes}
            found = client.put_event_config(name, qualifier, **rules)
    if session.as_json:
        output.as_json(found if found is not None else {})
    else:
        _show_configured(name if qualifier == "$LATEST" else f"{name}:{qualifier}", found)


def _show_configured(name: str, found: FunctionEventInvokeConfig | None) -> None:
    from runtimed.model.shape import UNSET

    retries_held = UNSET if found is None else found.maximum_retry_attempts
    age_held = UNSET if found is None else found.maximum_event_age_in_seconds
    delay_held = UNSET if found is None else found.retry_delay_milliseconds
    output.fields(
        [
            ("Function", name),
            ("Retries", "2 (default)" if retries_held is UNSET else str(retries_held)),
            ("Max age", "21600 s (default)" if age_held is UNSET else f"{age_held} s"),
            ("Delay", "events.retry_delay_ms (default)" if delay_held is UNSET else f"{delay_held / 1000:g} s"),
        ]
    )


def _configured(client: Client, name: str, qualifier: str) -> FunctionEventInvokeConfig | None:
    """None: the node's defaults hold."""
    from runtimed.model.errors import ResourceNotFound

    try:
        return client.get_event_config(name, qualifier)
    except ResourceNotFound as error:
        if "EventInvokeConfig" not in error.message:
            raise
        return None


def _state_of(state: str | None) -> EventState | UnsetType:
    from runtimed.model.queue import EventState
    from runtimed.model.shape import UNSET

    return UNSET if state is None else EventState(state.capitalize())
