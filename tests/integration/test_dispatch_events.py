"""Asynchronous invocation in the real dispatcher: accepted on the disk, attempted, retried, given up, found again."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import FUNCTION, await_true, counters
from tests.integration.event_stage import (
    EVENT,
    ZEROS,
    accept,
    await_count,
    counted,
    fail,
    kill,
    operate,
    prepare,
    queue_state,
    stage_with,
    staged,
)
from tests.integration.http_caller import Caller


def test_an_event_is_accepted_and_invoked_once(tmp_path: Path) -> None:
    with stage_with(tmp_path) as (stage, control):
        number = accept(stage.invoker(), b'{"n":1}', trace="Root=1-a-b")
        environment = stage.launch()
        environment.start()
        invoke, body = environment.invoke()
        assert (bytes(invoke.id), body) == (number, b'{"n":1}')
        assert invoke.trace == f"Root=1-a-b;Lineage=1:{FUNCTION[:4].hex()}:1"
        environment.result(invoke.id)
        await_count(control, "events_succeeded", 1)
        await_count(control, "events_waiting", 0)


def test_http_answers_202_without_a_body(tmp_path: Path) -> None:
    with stage_with(tmp_path) as (stage, _), Caller(stage) as caller:
        caller.post(b'{"n":2}', "X-Amz-Invocation-Type: Event")
        answer = caller.answer()
        assert (answer.status, answer.body) == (202, b"")
        environment = stage.launch()
        environment.start()
        invoke, body = environment.invoke()
        assert body == b'{"n":2}'
        assert str(uuid.UUID(bytes=bytes(invoke.id))) == answer.fields["x-amzn-requestid"]
        assert "x-amz-executed-version" not in answer.fields


@pytest.mark.parametrize("tidy", [True, False], ids=["stopped", "killed"])
def test_what_was_accepted_is_invoked_by_the_next_dispatcher(tmp_path: Path, tidy: bool) -> None:
    numbers = set()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with staged(tmp_path / "a", events=tmp_path / "queue") as stage:
        control = prepare(stage, max_concurrency=1)
        invoker = stage.invoker()
        for n in range(20):
            numbers.add(accept(invoker, b"%d" % n))
        environment = stage.launch()
        environment.start()
        numbers.remove(bytes(environment.serve().id))
        await_count(control, "events_succeeded", 1)
        # Settled is on the disk soon after, or with the next event.
        numbers.add(accept(invoker, b"20"))
        if not tidy:
            kill(stage)
    with staged(tmp_path / "b", events=tmp_path / "queue") as stage:
        control = prepare(stage, max_concurrency=1)
        environment = stage.launch()
        environment.start()
        seen = {bytes(environment.serve().id) for _ in range(20)}
        assert seen == numbers
        await_count(control, "events_succeeded", 20)
        await_count(control, "events_waiting", 0)


def test_an_event_that_always_fails_is_given_up_listed_and_begun_again(tmp_path: Path) -> None:
    with stage_with(tmp_path) as (stage, control):
        number = accept(stage.invoker(), b"7")
        environment = stage.launch()
        environment.start()
        assert fail(environment, 3) == [number] * 3
        state = queue_state(control, lambda s: s.dead == 1)
        assert (state.depth, state.in_flight, state.oldest_ms) == (0, 0, 0)
        events, done = operate(control, wire.QueueOperation.LIST, payload=1)
        assert (done.matched, done.more, done.error) == (1, 0, 0)
        (event,) = events
        assert (bytes(event.event), event.state, event.attempts) == (number, wire.EventState.DEAD, 3)
        assert (event.name, event.payload, event.total) == ("f", b"7", 1)
        _, done = operate(control, wire.QueueOperation.REDRIVE, event=number)
        assert (done.matched, done.busy) == (1, 0)
        invoke, body = environment.invoke()
        assert (bytes(invoke.id), body) == (number, b"7")
        environment.result(invoke.id)
        await_count(control, "events_succeeded", 1)
        queue_state(control, lambda s: s.dead == 0 and s.depth == 0)


def test_an_event_that_kills_its_environment_consumes_attempts(tmp_path: Path) -> None:
    with stage_with(tmp_path) as (stage, control):
        accept(stage.invoker())
        for _ in range(3):
            environment = stage.launch()
            environment.start()
            environment.invoke()
            environment.exit(139)
        await_count(control, "events_dead", 1)
        await_count(control, "events_failed", 3)


def test_a_function_without_concurrency_is_not_tried(tmp_path: Path) -> None:
    with stage_with(tmp_path, max_concurrency=0) as (stage, control):
        accept(stage.invoker())
        await_count(control, "events_dead", 1)
        await_count(control, "invocations", 0)


def test_an_event_that_is_too_old_is_given_up(tmp_path: Path) -> None:
    with stage_with(tmp_path, rule={"max_age_ms": 1, "base_delay_ms": 1000}) as (stage, control):
        accept(stage.invoker())
        await_true(lambda: counted(control, "events_dead") == 1 or counted(control, "launches") == 1, "its fate")
        if counted(control, "events_dead") == 0:  # it was young enough for one attempt
            environment = stage.launch()
            environment.start()
            fail(environment, 1)
        await_count(control, "events_dead", 1)


def test_a_chain_of_functions_is_cut(tmp_path: Path) -> None:
    with stage_with(tmp_path) as (stage, control):
        accept(stage.invoker(), trace="Root=1-a-b;Lineage=1:0badcafe:16;Sampled=0")
        await_count(control, "events_chains_cut", 1)
        await_count(control, "events_dead", 1)
        number = accept(stage.invoker(), trace="Root=1-a-b;Lineage=1:0badcafe:15;Sampled=0")
        environment = stage.launch()
        environment.start()
        invoke = environment.serve()
        assert bytes(invoke.id) == number
        assert invoke.trace == f"Root=1-a-b;Sampled=0;Lineage=1:{FUNCTION[:4].hex()}:16"


def test_an_event_with_a_name_is_accepted_once(tmp_path: Path) -> None:
    with stage_with(tmp_path, max_concurrency=1) as (stage, control):
        invoker = stage.invoker()
        number = accept(invoker, b"1", event_id="order-1")
        assert accept(invoker, b"1", event_id="order-1") == number
        answer, _ = invoker.answer(invoker.call(b"2", flags=EVENT, event_id="order-1"))
        assert (answer.status, answer.code) == (409, "ResourceConflictException")
        assert accept(invoker, b"2", event_id="order-2") != number
        environment = stage.launch()
        environment.start()
        assert [environment.serve().total for _ in range(2)] == [1, 1]
        await_count(control, "events_succeeded", 2)
        await_count(control, "events_duplicate", 1)
        await_count(control, "events_refused", 1)


def test_what_may_not_be_an_event_is_refused(tmp_path: Path) -> None:
    with stage_with(tmp_path) as (stage, control):
        invoker = stage.invoker()
        answer, _ = invoker.answer(invoker.call(b'"' + b"x" * (1 << 20) + b'"', flags=EVENT))
        assert (answer.status, answer.code) == (413, "RequestTooLargeException")
        answer, _ = invoker.answer(invoker.call(b"{", flags=EVENT))
        assert (answer.status, answer.code) == (400, "InvalidRequestContentException")
        answer, _ = invoker.answer(invoker.call(name="nobody", flags=EVENT))
        assert (answer.status, answer.code) == (404, "ResourceNotFoundException")
        await_count(control, "events_waiting", 0)


def test_callers_who_wait_come_before_events(tmp_path: Path) -> None:
    with stage_with(tmp_path, max_environments=1, timeout_ms=60000) as (stage, control):
        invoker = stage.invoker()
        for n in range(5):
            accept(invoker, b"%d" % n)
        environment = stage.launch()
        environment.start()
        invoke, _ = environment.invoke()
        calls = [invoker.call(b'"call"') for _ in range(3)]
        page = counters(control)
        await_true(lambda: page.node()["waiting"] >= 3, "the calls to wait")
        page.close()
        bodies = []
        for _ in range(7):
            environment.result(invoke.id)
            invoke, body = environment.invoke()
            bodies.append(body)
        environment.result(invoke.id)
        # One event may have waited before them: no other joins.
        assert bodies[:4].count(b'"call"') == 3
        for number in calls:
            invoker.answer(number)
        await_count(control, "events_succeeded", 5)


def test_a_paused_queue_keeps_its_events(tmp_path: Path) -> None:
    with stage_with(tmp_path) as (stage, control):
        paused = wire.PutAsync(function_uid=FUNCTION, paused=1)
        control.acknowledged(control.put(paused, 9))
        invoker = stage.invoker()
        numbers = [accept(invoker, b"%d" % n) for n in range(3)]
        state = queue_state(control, lambda s: s.depth == 3)
        assert state.paused == 1
        assert state.oldest_ms > 0
        assert counted(control, "events_attempts") == 0
        events, done = operate(control, wire.QueueOperation.LIST, limit=2)
        assert ([bytes(event.event) for event in events], done.more) == (numbers[:2], 1)
        events, done = operate(
            control, wire.QueueOperation.LIST, limit=2, at_segment=done.at_segment, at_index=done.at_index
        )
        assert ([bytes(event.event) for event in events], done.more) == (numbers[2:], 0)
        _, done = operate(control, wire.QueueOperation.CANCEL, event=numbers[1])
        assert done.matched == 1
        control.acknowledged(control.put(wire.PutAsync(function_uid=FUNCTION, paused=0), 9, 2))
        environment = stage.launch()
        environment.start()
        assert [bytes(environment.serve().id) for _ in range(2)] == [numbers[0], numbers[2]]
        await_count(control, "events_waiting", 0)
        _, done = operate(control, wire.QueueOperation.PURGE, function_uid=ZEROS)
        assert done.matched == 0


def test_two_dispatchers_do_not_have_the_log_at_a_time(tmp_path: Path) -> None:
    """As during an upgrade: the second one's callers wait until the first lets go."""
    for name in "ab":
        (tmp_path / name).mkdir()
    with staged(tmp_path / "a", events=tmp_path / "queue") as old:
        control = prepare(old)
        environment = old.warm(old.invoker())
        control.acknowledged(control.put(wire.PutAsync(function_uid=FUNCTION, paused=1), 9))
        first = accept(old.invoker(), b"1")
        with staged(tmp_path / "b", events=tmp_path / "queue") as new:
            prepare(new)
            invoker = new.invoker()
            number = invoker.call(b"2", flags=EVENT)
            assert invoker.silent(0.1)
            old.launcher.send(wire.HandOver(version=0))
            answer, _ = invoker.answer(number)
            assert answer.status == 202
            environment = new.launch()
            environment.start()
            assert bytes(environment.serve().id) == first
            assert bytes(environment.serve().id) == bytes(answer.request_id)
