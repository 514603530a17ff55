"""Rules of asynchronous invocation in the real dispatcher: whose hold for which event, and what outlives a kill -9."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtimed.model import wire
from tests.integration.dispatch_stage import FUNCTION, ROUTE, UNSET, Control, Stage, target
from tests.integration.event_stage import (
    EVENT,
    RULE,
    accept,
    await_count,
    counted,
    fail,
    kill,
    operate,
    prepare,
    queue_state,
    staged,
)

ALIAS = wire.PutRoute(name="f", qualifier="live", target=1)
OTHER = bytes(range(16, 32))


def told(stage: Stage, *puts: tuple[int, wire.Message]) -> Control:
    control = stage.control()
    control.greet()
    control.synchronise((1, target()), (1, ROUTE), (2, ALIAS), (1, RULE), *puts)
    return control


def rule(retries: int, **fields: Any) -> wire.PutAsync:
    return wire.PutAsync(function_uid=FUNCTION, retries=retries, base_delay_ms=1, max_age_ms=3_600_000, **fields)


def test_the_qualifiers_rule_comes_before_the_functions_and_that_before_the_nodes(tmp_path: Path) -> None:
    with staged(tmp_path / "d", tmp_path / "queue") as stage:
        control = told(stage, (2, rule(0)), (3, rule(1, qualifier="live")))
        invoker = stage.invoker()
        environment = stage.warm(invoker)
        dead = 0
        for qualifier, attempts in (("", 1), ("$LATEST", 1), ("live", 2)):
            number = accept(invoker, b"1", qualifier=qualifier)
            assert fail(environment, attempts) == [number] * attempts
            dead += 1
            await_count(control, "events_dead", dead)
            (event,), _ = operate(control, wire.QueueOperation.LIST, event=number)
            assert (event.attempts, event.state) == (attempts, wire.EventState.DEAD)
        control.acknowledged(control.put(wire.DelAsync(), 3, UNSET))
        number = accept(invoker, b"1", qualifier="live")
        assert fail(environment, 1) == [number]
        control.acknowledged(control.put(wire.DelAsync(), 2, UNSET))
        await_count(control, "events_dead", dead + 1)
        number = accept(invoker, b"1")
        assert fail(environment, 3) == [number] * 3
        await_count(control, "events_dead", dead + 2)


def test_a_name_is_known_over_a_kill_9(tmp_path: Path) -> None:
    with staged(tmp_path / "a", tmp_path / "queue") as stage:
        prepare(stage)
        number = accept(stage.invoker(), b"1", event_id="order-1")
        kill(stage)
    with staged(tmp_path / "b", tmp_path / "queue") as stage:
        control = prepare(stage)
        invoker = stage.invoker()
        assert accept(invoker, b"1", event_id="order-1") == number
        answer, _ = invoker.answer(invoker.call(b"2", flags=EVENT, event_id="order-1"))
        assert (answer.status, answer.code) == (409, "ResourceConflictException")
        environment = stage.launch()
        environment.start()
        assert bytes(environment.serve().id) == number
        await_count(control, "events_waiting", 0)
        assert accept(invoker, b"1", event_id="order-1") == number, "handled, and known still"
        assert counted(control, "events_attempts") == 1


def test_attempts_that_were_made_count_over_a_kill_9(tmp_path: Path) -> None:
    with staged(tmp_path / "a", tmp_path / "queue") as stage:
        control = prepare(stage, rule={"base_delay_ms": 1})
        number = accept(stage.invoker(), b"1")
        environment = stage.launch()
        environment.start()
        assert fail(environment, 2) == [number] * 2
        invoke, _ = environment.invoke()  # the third: of the second, the log knows by now or with this
        accept(stage.invoker(), b"2")
        kill(stage)
    with staged(tmp_path / "b", tmp_path / "queue") as stage:
        control = prepare(stage, rule={"base_delay_ms": 1})
        environment = stage.launch()
        environment.start()
        fates = {}
        for _ in range(2):
            invoke, _ = environment.invoke()
            fates[bytes(invoke.id)] = True
            if bytes(invoke.id) == number:
                environment.result(invoke.id, b"{}", error="E")
            else:
                environment.result(invoke.id)
        assert number in fates
        queue_state(control, lambda s: s.dead == 1 and s.depth == 0)
        (event,), _ = operate(control, wire.QueueOperation.LIST, state=wire.EventState.DEAD)
        assert (bytes(event.event), event.attempts) == (number, 3)


def test_a_function_that_waits_for_a_place_uses_up_no_attempt_and_holds_up_no_other(tmp_path: Path) -> None:
    """All of its concurrency is taken by a call that takes its time; another function's events go on."""
    with staged(tmp_path / "d", tmp_path / "queue") as stage:
        control = stage.control()
        control.greet()
        other = target(function_uid=OTHER, function_name="g", plan=8, max_environments=1)
        route = wire.PutRoute(name="g", qualifier="$LATEST", target=2)
        control.synchronise((1, target(max_concurrency=1)), (2, other), (1, ROUTE), (2, route), (1, RULE))
        invoker, sender = stage.invoker(), stage.invoker()
        call = invoker.call(b'"long"')
        environment = stage.launch()
        environment.start()
        invoke, _ = environment.invoke()
        numbers = [accept(sender, b"%d" % n) for n in range(3)]
        theirs = [accept(sender, b"%d" % n, name="g") for n in range(3)]
        second = stage.launch()
        second.start()
        assert sorted(bytes(second.serve().id) for _ in theirs) == sorted(theirs)
        queue_state(control, lambda s: bytes(s.function_uid) == OTHER and s.depth == 0)
        events, _ = operate(control, wire.QueueOperation.LIST)
        assert {bytes(event.event): event.attempts for event in events} == dict.fromkeys(numbers, 0)
        environment.result(invoke.id)
        assert invoker.answer(call)[0].status == 200
        assert sorted(bytes(environment.serve().id) for _ in numbers) == sorted(numbers)
        await_count(control, "events_waiting", 0)
        assert counted(control, "events_dead") == counted(control, "events_retried") == 0
