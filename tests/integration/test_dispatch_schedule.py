"""Admission, throttling, the waiting queue and the start rule, against the twin in dispatch_twin."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.invocation.metrics import WAIT_COUNTERS
from runtimed.model import wire
from tests.integration import dispatch_twin as twin
from tests.integration.dispatch_stage import (
    ROUTE,
    UNSET,
    Environment,
    Invoker,
    Stage,
    await_true,
    counters,
    staged,
    target,
)

THROTTLED = "TooManyRequestsException"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def throttled(invoker: Invoker) -> str:
    answer, _ = invoker.answer()
    assert (answer.status, answer.code) == (429, THROTTLED)
    return answer.reason


def test_account_limit(stage: Stage) -> None:
    control = stage.control()
    control.greet()
    control.synchronise((0, wire.PutLimit(concurrency=2)), (1, target()), (1, ROUTE))
    invoker = stage.invoker()
    first, second = invoker.call(), invoker.call()
    invoker.call()
    assert throttled(invoker) == "ConcurrentInvocationLimitExceeded"
    environments = [stage.launch(), stage.launch()]
    for environment in environments:
        environment.start()
    for environment in environments:
        environment.serve()
    invoker.answer(first)
    invoker.answer(second)
    invoker.call()
    environments[1].serve()  # the one used last
    assert invoker.answer()[0].status == 200
    control.acknowledged(control.put(wire.PutLimit(concurrency=0), 0, 2))
    invoker.call()
    assert throttled(invoker) == "ConcurrentInvocationLimitExceeded"
    _, state = control.level(wire.LimitState)
    while state.limit:
        _, state = control.level(wire.LimitState)


@pytest.mark.parametrize("reserved", [0, 1])
def test_reserved_concurrency(stage: Stage, reserved: int) -> None:
    """0 stops the function; it is not unset. A reservation is taken out of what the others share."""
    control = stage.control()
    control.greet()
    control.synchronise(
        (0, wire.PutLimit(concurrency=2)),
        (1, target(max_concurrency=reserved)),
        (2, target(function_uid=bytes(16), function_name="g")),
        (1, ROUTE),
        (2, wire.PutRoute(name="g", qualifier="$LATEST", target=2)),
    )
    invoker = stage.invoker()
    for _ in range(reserved):
        invoker.call()
    invoker.call()
    assert throttled(invoker) == "ReservedFunctionConcurrentInvocationLimitExceeded"
    for _ in range(2 - reserved):
        invoker.call(name="g")
    invoker.call(name="g")
    assert throttled(invoker) == "ConcurrentInvocationLimitExceeded"


def test_reservation_is_shared_by_versions(stage: Stage) -> None:
    control = stage.control()
    control.greet()
    control.synchronise(
        (1, target(max_concurrency=1)),
        (2, target(max_concurrency=1, function_version="7")),
        (1, ROUTE),
        (2, wire.PutRoute(name="f", qualifier="7", target=2)),
    )
    invoker = stage.invoker()
    invoker.call()
    invoker.call(qualifier="7")
    assert throttled(invoker) == "ReservedFunctionConcurrentInvocationLimitExceeded"


def test_waiting_queue_is_bounded_and_in_order(stage: Stage) -> None:
    control = stage.ready(max_environments=1, max_waiting=3)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    numbers = [invoker.call(b"%d" % n) for n in range(4)]
    page = counters(control)
    invoker.call()
    assert throttled(invoker) == "ConcurrentInvocationLimitExceeded"
    assert page.node()["throttled_target"] == 1
    assert page.node()["waiting"] == 3
    for n, number in enumerate(numbers):
        invoke, body = environment.invoke()
        assert body == b"%d" % n
        environment.result(invoke.id)
        invoker.answer(number)
    assert stage.launcher.silent()


def test_waits_are_counted_by_function(stage: Stage) -> None:
    control = stage.ready(max_environments=1)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    first, _ = environment.invoke()
    waiting = [invoker.call() for _ in range(3)]
    await_true(lambda: counters(control).node()["waiting"] == 3, "three wait")
    environment.result(first.id)
    invoker.answer()
    for _ in waiting:
        environment.serve()
        invoker.answer()
    counts = counters(control).target(1)
    assert counts is not None
    buckets = [counts[name] for name in WAIT_COUNTERS]
    assert sum(buckets) == counts["waited"] == 4  # the first one for its environment
    assert counts["wait_us"] <= 1000 * buckets[0] + 10_000 * buckets[1] + 100_000 * buckets[2] + 1e9 * sum(buckets[3:])
    assert counts["wait_us"] >= 1000 * buckets[1] + 10_000 * buckets[2] + 100_000 * buckets[3] + 1_000_000 * buckets[4]


def test_one_that_waits_too_long_is_refused(stage: Stage) -> None:
    stage.ready(max_environments=1, timeout_ms=100, init_timeout_ms=100)
    invoker = stage.invoker()
    invoker.call()
    header, _ = stage.launcher.expect(wire.Launch)  # never answered
    answer, _ = invoker.answer()
    assert (answer.status, answer.code) == (500, "ServiceException")
    # Its environment is waited for: it serves the next one.
    stage.launcher.send(wire.LaunchFailed(error=1, step="x"), object=header.object)
    invoker.call()
    stage.launch().start()


def test_most_recently_used_first(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environments = []
    for _ in range(3):
        invoker.call()
        environments.append(stage.launch())
    for environment in environments:
        environment.start()
    ids = [environment.invoke()[0].id for environment in environments]
    for environment, number in zip(environments, ids, strict=True):
        environment.result(number)
        invoker.answer()
    for _ in range(3):
        invoker.call()
        environments[2].serve()
        invoker.answer()
    assert environments[0].silent(0)
    assert environments[1].silent(0)


def test_burst_on_nothing_launches_one_each_at_once(stage: Stage) -> None:
    stage.ready(max_environments=5)
    invoker = stage.invoker()
    for _ in range(8):
        invoker.call()
    launched = [stage.launcher.expect(wire.Launch)[0].object for _ in range(5)]
    assert len(set(launched)) == 5
    assert stage.launcher.silent()


def test_freed_environment_comes_before_a_new_one(stage: Stage) -> None:
    """Behind a busy environment a call waits min(p50, 2 ms) before another is started."""
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    for _ in range(10):
        invoker.call()
        environment.serve()
        invoker.answer()
    invoker.call()
    invoke, _ = environment.invoke()
    invoker.call()
    header, _ = stage.launcher.expect(wire.Launch)  # the first was not quick enough
    environment.result(invoke.id)
    invoker.answer()
    environment.serve()
    invoker.answer()
    assert header.object != environment.number


def test_keep_alive(stage: Stage) -> None:
    control = stage.ready(keep_alive_ms=100)
    invoker = stage.invoker()
    begun = time.monotonic()
    environment = stage.warm(invoker)
    assert stage.ended(environment) == wire.EndReason.SPINDOWN
    assert time.monotonic() - begun >= 0.1
    page = counters(control)
    await_true(lambda: page.node()["environments"] == 0, "it is gone")


@pytest.mark.parametrize(("frozen", "words"), [("0\n", ("1", "0")), ("THAWED\n", ("FROZEN", "THAWED"))])
def test_idle_environments_are_frozen_and_thawed(stage: Stage, frozen: str, words: tuple[str, str]) -> None:
    control = stage.ready(freeze_after_ms=50)
    invoker = stage.invoker()
    invoker.call()
    environment = stage.launch(frozen=frozen)
    environment.start()
    environment.serve()
    invoker.answer()
    page = counters(control)
    await_true(lambda: page.node()["environments_frozen"] == 1, "it is frozen")
    assert sum(slot.counts["environments_frozen"] for slot in page.targets()) == 1
    assert environment.freezer.read_text().startswith(words[0])
    invoker.call()
    invoke, _ = environment.invoke()  # until it is answered, it stays thawed
    assert environment.freezer.read_text().startswith(words[1])
    environment.result(invoke.id)
    invoker.answer()
    assert page.node()["environments_frozen"] in (0, 1)


def test_weighted_routes(stage: Stage) -> None:
    control = stage.control()
    control.greet()
    route = wire.PutRoute(name="f", qualifier="live", target=1, alternate=2, alternate_weight=16384)
    control.synchronise((1, target()), (2, target(function_version="2")), (1, route))
    invoker = stage.invoker()
    for _ in range(2000):
        invoker.call(qualifier="live", flags=wire.CallFlags.DRY_RUN)
    versions = [invoker.answer()[0].executed_version for _ in range(2000)]
    assert 380 < versions.count("2") < 620


def wanted(it: twin.Target) -> int:
    """Launches for a target at rest: everyone in its queue has waited, or soon will have waited, long enough."""
    return twin.launches(
        waiting=len(it.waiting),
        ripe=len(it.waiting),
        starting=0,
        established=len(it.busy) + len(it.idle),
        live=it.environments,
        most=it.max_environments,
    )


def random_story(rng: random.Random, stage: Stage) -> None:
    """Calls come and environments finish in any order; after each step the dispatcher has decided as the twin has."""
    reserved = rng.choice([UNSET, UNSET, 0, 1, 3])
    most, waiting = rng.randint(1, 4), rng.randint(0, 4)
    control = stage.control()
    control.greet()
    node = twin.Node(limit=rng.randint(1, 8), functions=[twin.Function(reserved), twin.Function()])
    mine = twin.Target(node.functions[0], most, waiting)
    other = twin.Target(node.functions[1], 4, 4)
    control.synchronise(
        (0, wire.PutLimit(concurrency=node.limit)),
        (1, target(max_concurrency=reserved, max_environments=most, max_waiting=waiting, timeout_ms=60000)),
        (2, target(function_uid=bytes(16), max_environments=4, max_waiting=4, timeout_ms=60000)),
        (1, ROUTE),
        (2, wire.PutRoute(name="g", qualifier="$LATEST", target=2)),
        generation=time.monotonic_ns(),
    )
    invoker = stage.invoker()
    environments: dict[int, Environment] = {}
    sent: dict[int, bytes] = {}  # call → request id, of those that run

    def runs(call: int, environment: int) -> None:
        invoke, body = environments[environment].invoke()
        assert int(body) == call
        sent[call] = invoke.id

    for _ in range(60):
        it, name = rng.choice([(mine, "f"), (other, "g")])
        if it.busy and rng.random() < 0.5:
            call = rng.choice(list(it.busy))
            number = it.busy[call]
            environments[number].result(sent.pop(call))
            invoker.answer(call)
            following = node.done(it, call)
            if following is not None:
                runs(following, number)
            continue
        call = invoker._numbers + 1
        decision = node.call(it, call)
        invoker.call(b"%d" % call, name=name)
        match decision:
            case twin.Refused(reason):
                assert throttled(invoker) == reason
            case twin.Assigned(environment):
                runs(call, environment)
            case twin.Waits():
                for _ in range(wanted(it)):
                    environment = stage.launch()
                    it.environments += 1
                    environments[environment.number] = environment
                    environment.start()
                    taken = node.ready(it, environment.number)
                    assert taken is not None
                    runs(taken, environment.number)
    assert stage.launcher.silent()
    page = counters(control)
    assert page.node()["waiting"] == len(mine.waiting) + len(other.waiting)
    assert page.node()["invocations_in_flight"] == len(mine.busy) + len(other.busy)
    assert page.node()["logic_errors"] == 0


@pytest.mark.parametrize("seed", range(12))
def test_random_stories_agree_with_the_twin(stage: Stage, seed: int) -> None:
    random_story(random.Random(seed), stage)


def test_who_goes_back_to_the_queue_has_all_of_its_time_again(stage: Stage) -> None:
    """The init took too long, and the launcher has no room to repeat it: who is launched next does not."""
    timeout_ms = 600_000
    stage.ready(max_environments=1, timeout_ms=timeout_ms, init_timeout_ms=100)
    invoker = stage.invoker()
    invoker.call()
    slow = stage.launch()
    slow.expect(wire.Start)
    assert stage.ended(slow) == wire.EndReason.TIMEOUT
    header, _ = stage.launcher.expect(wire.Launch)
    stage.launcher.send(wire.LaunchFailed(retryable=1, error=11, step="pool"), object=header.object)
    environment = stage.launch()
    environment.expect(wire.Start)
    before = time.time()
    environment.send(wire.InitDone())
    invoke, _ = environment.invoke()
    assert invoke.deadline_ms >= before * 1000 + timeout_ms - 1
    environment.result(invoke.id)
    assert invoker.answer()[0].status == 200
