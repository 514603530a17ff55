"""Asynchronous invocation on a real node: the command line, the SDK, AWS's own SDK, and kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.calls import zipped
from bench.node import Node, await_true
from runtimed.client import Client, ClientError
from runtimed.model import errors
from runtimed.model.log import LogKind
from runtimed.model.queue import CancelEventsRequest, EventState, ListEventsRequest, QueuedEvent
from tests.conformance.conftest import boto, free_address
from tests.conftest import need_root
from tests.crash import census

SECONDS = 60.0
SOURCE = """
def handler(event, context):
    if event.get("fail"):
        raise ValueError("as asked")
    print("handled", event["n"])
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """With one function; retries are made at once."""
    need_root()
    address = free_address()
    with Node.start({"RUNTIMED_EVENTS_RETRY_DELAY_MS": "10", "RUNTIMED_INVOKE_LISTEN": address}) as started:
        with Client(started.address) as client:
            client.deploy("work", zipped(SOURCE), runtime="python3.11", handler="app.handler", timeout=30)
        yield started


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    with Client(node.address) as made:
        yield made


def handled(client: Client) -> list[str]:
    """What each invocation that went well printed."""
    lines = [event.message.strip() for event in client.logs("work") if event.kind is LogKind.FUNCTION]
    return [line.removeprefix("handled ") for line in lines if line.startswith("handled ")]


def await_handled(client: Client, *names: str) -> None:
    await_true(lambda: set(names) <= set(handled(client)), SECONDS, f"{names} to be handled")


def test_the_command_line_accepts_lists_and_redrives(node: Node, client: Client) -> None:
    accepted = node.runtimectl("invoke", "work", "--async", "--event-id", "a-1", "--payload", '{"n": "cli"}')
    assert accepted.returncode == 0, accepted.stderr
    uuid.UUID(accepted.stdout.strip())
    again = node.runtimectl("invoke", "work", "--async", "--event-id", "a-1", "--payload", '{"n": "cli"}')
    assert again.stdout == accepted.stdout
    await_handled(client, "cli")
    assert handled(client).count("cli") == 1
    failing = client.invoke_async("work", {"n": "dead", "fail": True})
    await_true(lambda: client.list_queues("work")[0].dead == 1, SECONDS, "the event to be given up")
    listed = json.loads(node.runtimectl("queue", "list", "work", "--state", "dead", "--json").stdout)["Events"]
    assert [(event["EventId"], event["ApproximateInvokeCount"]) for event in listed] == [(failing, 3)]
    shown = node.runtimectl("queue", "show", failing)
    assert '{"n":"dead","fail":true}' in shown.stdout.replace(" ", "")
    assert client.redrive_events("work").changed == 1
    dead = ListEventsRequest(event_id=failing, state=EventState.DEAD)  # counts may be from before
    await_true(lambda: bool(client.list_events(dead).events), SECONDS, "the event to be given up again")
    assert node.runtimectl("queue", "cancel", failing).stdout == "1 event removed\n"
    with pytest.raises(errors.ResourceNotFound):
        client.cancel_events(CancelEventsRequest(event_id=failing))


def test_a_paused_queue_keeps_its_events_over_a_restart(node: Node, client: Client) -> None:
    client.pause_queue("work")
    accepted = [client.invoke_async("work", {"n": f"paused-{n}"}) for n in range(3)]
    for kind in ("dispatch", "control"):
        os.kill(census.by_kind(node)[kind][0], signal.SIGKILL)
        await_true(node.answers, SECONDS, "the node's return")

    def waiting() -> list[str]:
        try:
            return [event.event_id for event in client.list_events(ListEventsRequest(function_name="work")).events]
        except (errors.ServiceUnavailable, ClientError):
            return []

    await_true(lambda: waiting() == accepted, SECONDS, "the events to be there")
    assert client.list_events(ListEventsRequest(state=EventState.DEAD)).events == []
    client.resume_queue("work")
    await_handled(client, *(f"paused-{n}" for n in range(3)))


def test_nothing_that_was_accepted_is_lost_by_kill_9(node: Node, client: Client) -> None:
    """Events are accepted while the dispatcher is killed again and again; a ledger knows the acknowledged ones.

    Each fails, so that the event log itself keeps, over every kill, that it was invoked and how often. What a function
    printed is no such witness: the lines of the last moment go with the dispatcher."""
    ledger: dict[str, bytes] = {}
    for n in range(60):
        if n % 20 == 10:
            await_true(lambda: bool(census.by_kind(node).get("dispatch")), SECONDS, "a dispatcher")
            with contextlib.suppress(ProcessLookupError):
                os.kill(census.by_kind(node)["dispatch"][0], signal.SIGKILL)
        payload = b'{"n":"ledger-%d","fail":true}' % n
        try:
            ledger[client.invoke_async("work", payload=payload, event_id=f"ledger-{n}")] = payload
        except (errors.ApiError, ClientError):
            continue
    assert ledger
    await_true(node.answers, SECONDS, "the node's return")
    ended: dict[str, QueuedEvent] = {}

    def all_are_given_up() -> bool:
        try:
            page = ListEventsRequest(function_name="work", state=EventState.DEAD, payloads=True, max_items=1000)
            ended.update((event.event_id, event) for event in client.list_events(page).events)
        except (errors.ServiceUnavailable, ClientError):
            return False
        return ledger.keys() <= ended.keys()

    await_true(all_are_given_up, SECONDS, "each event to be invoked and given up")
    assert {number: ended[number].payload for number in ledger} == ledger
    assert {ended[number].approximate_invoke_count for number in ledger} == {3}
    client.cancel_events(CancelEventsRequest(function_name="work", state=EventState.DEAD))


def test_event_invoke_configuration_and_boto3(node: Node, client: Client) -> None:
    made = boto(client.create_key("events"))
    put = made.put_function_event_invoke_config(FunctionName="work", MaximumRetryAttempts=0)
    assert (put["MaximumRetryAttempts"], put["FunctionArn"].rpartition(":")[2]) == (0, "$LATEST")
    updated = made.update_function_event_invoke_config(FunctionName="work", MaximumEventAgeInSeconds=60)
    assert (updated["MaximumRetryAttempts"], updated["MaximumEventAgeInSeconds"]) == (0, 60)
    listed = made.list_function_event_invoke_configs(FunctionName="work")["FunctionEventInvokeConfigs"]
    assert [config["MaximumEventAgeInSeconds"] for config in listed] == [60]
    answer = made.invoke(FunctionName="work", InvocationType="Event", Payload=b'{"n":"boto","fail":true}')
    assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")
    number = answer["ResponseMetadata"]["RequestId"]
    dead = ListEventsRequest(event_id=number, state=EventState.DEAD)
    await_true(lambda: bool(client.list_events(dead).events), SECONDS, "the event to be given up")
    assert client.list_events(dead).events[0].approximate_invoke_count == 1
    made.delete_function_event_invoke_config(FunctionName="work")
    with pytest.raises(made.exceptions.ResourceNotFoundException):
        made.get_function_event_invoke_config(FunctionName="work")
    assert client.cancel_events(CancelEventsRequest(function_name="work", state=EventState.DEAD)).changed == 1
    made.close()


def test_more_retries_than_lambda_knows(node: Node, client: Client) -> None:
    """By the node's own members, also for a function whose delay is the node's otherwise; AWS's clients read it."""
    client.deploy("often", zipped(SOURCE), runtime="python3.11", handler="app.handler", timeout=30)
    put = node.runtimectl("queue", "configure", "often", "--retries", "5", "--retry-delay", "0.001", "--json")
    assert put.returncode == 0, put.stderr
    told = json.loads(put.stdout)
    assert (told["MaximumRetryAttempts"], told["RetryDelayMilliseconds"]) == (5, 1)
    aged = node.runtimectl("queue", "configure", "often", "--max-age", "3600")
    assert "5" in aged.stdout and "3600 s" in aged.stdout and "0.001 s" in aged.stdout, "what was not given stays"
    failing = client.invoke_async("often", {"n": 1, "fail": True})
    dead = ListEventsRequest(event_id=failing, state=EventState.DEAD)
    await_true(lambda: bool(client.list_events(dead).events), SECONDS, "the event to be given up")
    assert client.list_events(dead).events[0].approximate_invoke_count == 6
    made = boto(client.create_key("often"))
    found = made.get_function_event_invoke_config(FunctionName="often")
    assert (found["MaximumRetryAttempts"], found["MaximumEventAgeInSeconds"]) == (5, 3600)
    with pytest.raises(made.exceptions.ClientError):
        made.put_function_event_invoke_config(FunctionName="often", MaximumRetryAttempts=3)
    made.close()
    forgotten = node.runtimectl("queue", "configure", "often", "--default")
    assert "2 (default)" in forgotten.stdout, forgotten.stderr
    assert node.runtimectl("queue", "configure", "often", "--default").returncode == 0, "nothing to forget is no error"
    assert client.cancel_events(CancelEventsRequest(function_name="often")).changed == 1
    client.delete_function("often")


def test_events_of_a_deleted_function_are_given_up(node: Node, client: Client) -> None:
    """Also where its queue is paused; a function of the same name that comes later has nothing to do with them."""
    client.deploy("gone", zipped(SOURCE), runtime="python3.11", handler="app.handler", timeout=30)
    client.pause_queue("gone")
    accepted = {client.invoke_async("gone", {"n": f"gone-{n}"}) for n in range(3)}
    client.delete_function("gone")
    dead = ListEventsRequest(state=EventState.DEAD, payloads=True)
    await_true(
        lambda: {event.event_id for event in client.list_events(dead).events} == accepted,
        SECONDS,
        "them to be given up",
    )
    assert {event.function_name for event in client.list_events(dead).events} == {"gone"}
    assert b'"gone-' in client.list_events(dead).events[0].payload
    client.deploy("gone", zipped(SOURCE), runtime="python3.11", handler="app.handler", timeout=30)
    client.invoke_async("gone", {"n": "new"})
    await_true(
        lambda: any(event.message.strip() == "handled new" for event in client.logs("gone")), SECONDS, "the new event"
    )
    for number in accepted:
        assert client.cancel_events(CancelEventsRequest(event_id=number)).changed == 1
    client.delete_function("gone")


def test_state_is_private(node: Node) -> None:
    queue = Path(node.state_dir) / "queue"
    assert queue.stat().st_mode & 0o7777 == 0o700
    assert {path.stat().st_mode & 0o7777 for path in queue.iterdir()} == {0o600}
