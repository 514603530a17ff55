"""Environments that end before they have read the event which they were given: nobody has seen it, so another one gets
it, and its caller hears nothing of the first."""

from __future__ import annotations

import contextlib
import json
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.dispatch.logs import Kind
from runtimed.model import wire
from tests.integration.dispatch_stage import PATIENCE, REPOSITORY, Environment, Stage, await_true, counters, staged
from tests.integration.test_dispatch_runtime_api import NEXT, Runtime, ask, begin_next, invoked, report

LARGE = b'"' + b"x" * 200_000 + b'"'  # more than one packet


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="1") as made:  # which one is next is a loop's own matter
        yield made


def tries() -> int:
    """INVOCATION_RETURNS_MAX."""
    text = (REPOSITORY / "native/dispatch/include/dispatch/invocation.h").read_text()
    found = re.search(r"INVOCATION_RETURNS_MAX (\d+)u", text)
    assert found is not None
    return int(found[1])


def die_unread(environment: Environment) -> None:
    """Once the event lies in its socket."""
    assert select.select([environment.sock], [], [], PATIENCE)[0]
    environment.exit(signal.SIGKILL)


@pytest.mark.parametrize("body", [b"{}", LARGE], ids=["one packet", "several"])
def test_another_one_is_launched_for_it(stage: Stage, body: bytes) -> None:
    page = counters(stage.ready())
    invoker = stage.invoker()
    first = stage.warm(invoker)
    number = invoker.call(body)
    die_unread(first)
    second = stage.launch()
    second.start()
    invoke, found = second.invoke()
    assert found == body
    second.result(invoke.id, b'"second"')
    answer, result = invoker.answer(number)
    assert (answer.outcome, result) == (wire.Outcome.SUCCESS, b'"second"')
    rest = {"environments": 1, "environments_idle": 1, "invocations_in_flight": 0, "calls_open": 0}
    await_true(lambda: rest.items() <= page.node().items(), "the first has gone, the second is idle")
    node = page.node()
    assert (node["answers_success"], node["logic_errors"], node["exits"]) == (2, 0, 0)


def test_an_idle_one_takes_it_at_once(stage: Stage) -> None:
    stage.ready()
    one, two = stage.invoker(), stage.invoker()
    one.call()
    first = stage.launch()
    first.start()
    invoke, _ = first.invoke()
    two.call()
    other = stage.launch()
    other.start()
    other.serve()
    two.answer()
    first.result(invoke.id)
    one.answer()
    number = one.call()  # to the one that was used last
    die_unread(first)
    other.serve(b'"other"')
    assert one.answer(number)[1] == b'"other"'


def test_one_that_hung_up_before_it_was_sent(stage: Stage) -> None:
    """Its socket takes no more."""
    stage.ready()
    invoker = stage.invoker()
    first = stage.warm(invoker)
    first.hang_up()
    number = invoker.call()
    second = stage.launch()
    second.start()
    second.serve(b'"second"')
    assert invoker.answer(number)[1] == b'"second"'


@pytest.mark.parametrize("ready", [b"{}", LARGE], ids=["whole", "a part of it"])
def test_what_was_read_is_not_given_again(stage: Stage, ready: bytes) -> None:
    """A part of it may be: no handler is called with a part."""
    stage.ready()
    invoker = stage.invoker()
    first = stage.warm(invoker)
    number = invoker.call(ready)
    first.expect(wire.Invoke)
    if ready == LARGE:
        die_unread(first)
        second = stage.launch()
        second.start()
        second.serve()
        assert invoker.answer(number)[0].outcome == wire.Outcome.SUCCESS
        return
    first.exit(signal.SIGKILL)
    answer, body = invoker.answer(number)
    assert answer.outcome == wire.Outcome.FUNCTION_ERROR
    assert json.loads(body)["errorType"] == "Runtime.ExitError"


def test_not_for_ever(stage: Stage) -> None:
    """Who never reads is told of at last."""
    page = counters(stage.ready())
    invoker = stage.invoker()
    number = invoker.call()
    for _ in range(tries() + 1):
        environment = stage.launch()
        environment.start()
        die_unread(environment)
    answer, body = invoker.answer(number)
    assert answer.outcome == wire.Outcome.FUNCTION_ERROR
    assert json.loads(body)["errorType"] == "Runtime.ExitError"
    await_true(lambda: page.node()["environments"] == 0, "all have gone")


def test_the_log_of_each_try_is_whole(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    first = stage.warm(invoker)
    number = invoker.call(flags=wire.CallFlags.LOG_TAIL)
    die_unread(first)
    second = stage.launch()
    second.start()
    second.serve()
    answer, _ = invoker.answer(number)
    assert answer.log_tail.count(b"START ") == answer.log_tail.count(b"REPORT ") == 1
    kinds = (Kind.START, Kind.END, Kind.REPORT)
    records = stage.await_records(3 * 3)  # and what is said of both init phases
    for environment, calls in ((first, 2), (second, 1)):
        own = [record.kind for record in records if record.environment == environment.number and record.kind in kinds]
        assert own == [*kinds] * calls


def test_where_the_runtime_api_is_spoken(stage: Stage) -> None:
    """Its connection is reset by an end that left the event unread; one that read it closes it."""
    stage.ready(runtime_api=1)
    invoker = stage.invoker()
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(contextlib.closing(Runtime(stage))) for _ in range(2))
        number = invoker.call(b'{"a":1}')
        first.launch()
        connection = first.connect()
        begin_next(connection)
        assert select.select([connection.sock], [], [], PATIENCE)[0]
        connection.close()
        first.environment.exit(signal.SIGKILL)
        second.launch()
        connection = second.connect()
        event = ask(connection, "GET", NEXT)
        assert event.body == b'{"a":1}'
        assert report(connection, event.id, "response", b'"second"').status == 202
        assert invoker.answer(number)[1] == b'"second"'


def test_what_a_runtime_read_is_not_given_again(stage: Stage) -> None:
    stage.ready(runtime_api=1)
    invoker = stage.invoker()
    with contextlib.closing(Runtime(stage)) as runtime:
        connection, _ = invoked(runtime, invoker)
        connection.close()
        runtime.environment.exit(signal.SIGKILL)
        answer, body = invoker.answer()
        assert (answer.outcome, json.loads(body)["errorType"]) == (wire.Outcome.FUNCTION_ERROR, "Runtime.ExitError")
