"""Invocations through the real dispatcher: the plain way, and each way in which one can fail."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import FUNCTION, Stage, await_true, counters, staged, target

TAIL = int(wire.CallFlags.LOG_TAIL)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def error_of(body: bytes) -> tuple[str, str]:
    decoded = json.loads(body)
    return decoded["errorType"], decoded["errorMessage"]


def refused(answer: wire.Answer) -> tuple[int, str, str]:
    assert answer.outcome == wire.Outcome.REFUSED
    return answer.status, answer.code, answer.reason


def test_first_call_launches_and_later_ones_reuse(stage: Stage) -> None:
    control = stage.ready(timeout_ms=3000)
    invoker = stage.invoker()
    began = int(time.time() * 1000)
    first = invoker.call(b'{"a": 1}', trace="Root=1", client_context=b"{}", tenant="t")
    environment = stage.launch()
    start = environment.start()
    assert start.configuration == b'{"handler":"app.handler"}'
    assert start.log_stream[10:21] == "/[$LATEST]" + start.log_stream[20]
    invoke, body = environment.invoke()
    assert body == b'{"a": 1}'
    assert (invoke.trace, invoke.client_context, invoke.tenant) == ("Root=1", b"{}", "t")
    assert invoke.arn == "arn:aws:lambda:us-east-1:000000000000:function:f"
    assert uuid.UUID(bytes=invoke.id).version == 4
    assert began + 3000 <= invoke.deadline_ms <= time.time() * 1000 + 3001
    environment.result(invoke.id, b'{"b": 2}')
    answer, body = invoker.answer(first)
    assert (answer.status, answer.outcome, body) == (200, wire.Outcome.SUCCESS, b'{"b": 2}')
    assert answer.request_id == invoke.id
    assert answer.executed_version == "$LATEST"
    assert answer.init_us > 0
    second = invoker.call(b"")
    invoke, body = environment.invoke()
    assert body == b""
    environment.result(invoke.id)
    answer, _ = invoker.answer(second)
    assert answer.init_us == 0
    assert counters(control).node()["cold_starts"] == 1


def test_function_errors_pass_through(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    environment.result(invoke.id, b'{"errorType":"E"}', error="Runtime.E")
    answer, body = invoker.answer()
    assert (answer.status, answer.outcome, body) == (200, wire.Outcome.FUNCTION_ERROR, b'{"errorType":"E"}')
    invoker.call()
    environment.serve()
    assert invoker.answer()[0].outcome == wire.Outcome.SUCCESS


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000, 6 << 20])
def test_payloads_of_all_sizes_both_ways(stage: Stage, size: int) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    payload = b'"' + os.urandom(size // 2).hex().encode()[: max(size - 2, 0)] + b'"' if size > 1 else b"1"[:size]
    payload = payload.ljust(size)
    invoker.call(payload)
    invoke, body = environment.invoke()
    assert body == payload
    environment.result(invoke.id, payload[::-1])
    answer, body = invoker.answer()
    assert answer.outcome == wire.Outcome.SUCCESS
    assert body == payload[::-1]


def test_largest_response_and_one_above_it(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    for size in (6_291_556, 6_291_557):
        invoker.call()
        invoke, _ = environment.invoke()
        environment.result(invoke.id, b"x" * size)
        answer, body = invoker.answer()
        if size == 6_291_556:
            assert (answer.outcome, len(body)) == (wire.Outcome.SUCCESS, size)
        else:
            assert answer.outcome == wire.Outcome.FUNCTION_ERROR
            kind, message = error_of(body)
            assert kind == "Function.ResponseSizeTooLarge"
            assert "6291556 bytes" in message
    invoker.call()
    environment.serve()
    assert invoker.answer()[0].outcome == wire.Outcome.SUCCESS


def test_ready_apart_from_the_result(stage: Stage) -> None:
    control = stage.ready(max_environments=1)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    environment.result(invoke.id, ready=False)
    assert invoker.answer()[0].outcome == wire.Outcome.SUCCESS
    invoker.call()
    assert environment.silent(), "the slot is taken until the runtime is ready"
    assert counters(control).node()["invocations_in_flight"] == 1
    environment.send(wire.Ready())
    environment.serve()
    invoker.answer()


def test_the_arn_names_the_qualifier_that_was_called(stage: Stage) -> None:
    control = stage.ready()
    route = wire.PutRoute(name="f", qualifier="live", target=1)
    control.acknowledged(control.put(route, 2))
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    for qualifier, suffix in (("", ""), ("$LATEST", ":$LATEST"), ("live", ":live")):
        invoker.call(qualifier=qualifier)
        assert environment.serve().arn == f"arn:aws:lambda:us-east-1:000000000000:function:f{suffix}"
        invoker.answer()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"name": "g"}, (404, "ResourceNotFoundException", "")),
        ({"qualifier": "7"}, (404, "ResourceNotFoundException", "")),
        ({"payload": b"{"}, (400, "InvalidRequestContentException", "")),
        ({"payload": b"{} x"}, (400, "InvalidRequestContentException", "")),
    ],
)
def test_refusals_before_anything_runs(stage: Stage, call: dict[str, Any], expected: tuple[int, str, str]) -> None:
    stage.ready()
    invoker = stage.invoker()
    invoker.call(**call)
    answer, _ = invoker.answer()
    assert refused(answer) == expected
    assert answer.message
    assert stage.launcher.silent()


def test_request_above_six_megabytes(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    invoker.call(b" " * ((6 << 20) + 1))
    answer, _ = invoker.answer()
    assert refused(answer)[:2] == (413, "RequestTooLargeException")
    invoker.call(flags=wire.CallFlags.DRY_RUN)
    assert invoker.answer()[0].status == 204


def test_dry_run_runs_nothing(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    invoker.call(flags=wire.CallFlags.DRY_RUN)
    answer, body = invoker.answer()
    assert (answer.status, answer.outcome, body) == (204, wire.Outcome.SUCCESS, b"")
    assert stage.launcher.silent()


def test_invocation_time_out(stage: Stage) -> None:
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    control.acknowledged(control.put(target(timeout_ms=1500), 1, 2))
    invoker.call(flags=TAIL)
    invoke, _ = environment.invoke()
    environment.print("thinking")
    answer, body = invoker.answer()
    kind, message = error_of(body)
    assert answer.outcome == wire.Outcome.FUNCTION_ERROR
    assert kind == "Sandbox.Timedout"
    assert message == f"RequestId: {uuid.UUID(bytes=invoke.id)} Error: Task timed out after 1.50 seconds"
    tail = answer.log_tail.decode()
    assert "thinking\n" in tail
    assert tail.endswith("\tStatus: timeout\n")
    assert answer.duration_us >= 1_500_000
    assert stage.ended(environment) == wire.EndReason.TIMEOUT
    invoker.call()
    stage.launch().start()


@pytest.mark.parametrize(
    ("exited", "kind", "text"),
    [
        ({"status": 0}, "Runtime.ExitError", "Runtime exited without providing a reason"),
        ({"status": 3 << 8}, "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ({"status": int(signal.SIGKILL)}, "Runtime.ExitError", "Runtime exited with error: signal: killed"),
        (
            {"status": signal.SIGSEGV | 0x80},
            "Runtime.ExitError",
            "Runtime exited with error: signal: segmentation fault (core dumped)",
        ),
        ({"status": 40}, "Runtime.ExitError", "Runtime exited with error: signal: signal 40"),
        ({"status": 9, "oom": 1}, "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"),
    ],
)
@pytest.mark.parametrize("hangs_up_first", [True, False])
def test_exit_while_busy(stage: Stage, exited: dict[str, int], kind: str, text: str, hangs_up_first: bool) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call(flags=TAIL)
    invoke, _ = environment.invoke()
    environment.print("last words")
    if hangs_up_first:
        environment.hang_up()
        assert invoker.silent(), "why it left is not known yet"
    environment.exit(**exited)
    answer, body = invoker.answer()
    assert answer.outcome == wire.Outcome.FUNCTION_ERROR
    assert error_of(body) == (kind, f"RequestId: {uuid.UUID(bytes=invoke.id)} Error: {text}")
    tail = answer.log_tail.decode()
    assert "last words\n" in tail
    assert tail.endswith(f"\tStatus: error\tError Type: {kind}\n")


def test_a_result_before_the_exit_still_counts(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    os.kill(stage.pid, signal.SIGSTOP)
    environment.result(invoke.id, b"1")
    environment.exit(0)
    os.kill(stage.pid, signal.SIGCONT)
    answer, body = invoker.answer()
    assert (answer.outcome, body) == (wire.Outcome.SUCCESS, b"1")
    invoker.call()
    stage.launcher.received.clear()
    stage.launch().start()


def test_init_error_answers_exactly_one(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    numbers = [invoker.call() for _ in range(3)]
    environments = [stage.launch() for _ in numbers]
    body = b'{"errorType":"Runtime.ImportModuleError"}'
    environments[0].expect(wire.Start)
    environments[0].send(wire.InitError(error_type="Runtime.ImportModuleError", body=body))
    answer, said = invoker.answer(numbers[0])
    assert (answer.status, answer.outcome, said) == (200, wire.Outcome.FUNCTION_ERROR, body)
    assert stage.ended(environments[0]) == wire.EndReason.FAILURE
    assert invoker.silent()
    for environment in environments[1:]:
        environment.start()
    for environment, number in zip(environments[1:], numbers[1:], strict=True):
        environment.serve()
        assert invoker.answer(number)[0].outcome == wire.Outcome.SUCCESS


def test_exit_during_init(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    invoker.call()
    environment = stage.launch()
    environment.expect(wire.Start)
    environment.exit(1 << 8)
    _, body = invoker.answer()
    kind, message = error_of(body)
    assert kind == "Runtime.ExitError"
    assert message.endswith("Runtime exited with error: exit status 1")


def test_who_leaves_during_init_is_waited_for_before_another_is_started(stage: Stage) -> None:
    """The invocation that it was started for is told how it ended, so nobody is left to start another for."""
    stage.ready()
    invoker = stage.invoker()
    invoker.call()
    environment = stage.launch()
    environment.expect(wire.Start)
    environment.hang_up()
    assert stage.launcher.silent()
    environment.exit(1 << 8)
    assert error_of(invoker.answer()[1])[0] == "Runtime.ExitError"
    assert stage.launcher.silent()


def test_unfinished_jail_is_the_nodes_fault(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    invoker.call()
    environment = stage.launch()
    environment.exit(1 << 8, step="mount", error=1)
    answer, _ = invoker.answer()
    assert refused(answer)[:2] == (500, "ServiceException")
    assert "mount: Operation not permitted" in answer.message


def test_launch_that_fails_for_good(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    invoker.call()
    header, _ = stage.launcher.expect(wire.Launch)
    stage.launcher.send(wire.LaunchFailed(error=2, step="plan", reason="no such plan"), object=header.object)
    answer, _ = invoker.answer()
    assert refused(answer)[:2] == (500, "ServiceException")
    assert "no such plan" in answer.message


def test_launch_that_fails_for_now_is_tried_again(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    invoker.call()
    for _ in range(4):
        header, _ = stage.launcher.expect(wire.Launch)
        stage.launcher.send(wire.LaunchFailed(retryable=1, error=11, step="pool"), object=header.object)
    environment = stage.launch()
    environment.start()
    environment.serve()
    assert invoker.answer()[0].outcome == wire.Outcome.SUCCESS


def test_suppressed_init(stage: Stage) -> None:
    control = stage.ready(init_timeout_ms=100, timeout_ms=60_000)
    invoker = stage.invoker()
    invoker.call()
    slow = stage.launch()
    slow.expect(wire.Start)
    assert stage.ended(slow) == wire.EndReason.TIMEOUT
    again = stage.launch()
    again.expect(wire.Start)
    time.sleep(0.2)  # longer than the init limit, which does not hold any more
    again.send(wire.InitDone())
    invoke, _ = again.invoke()
    assert 0 < invoke.deadline_ms - time.time() * 1000 < 59_900, "the init runs on the function's time"
    again.result(invoke.id)
    assert invoker.answer()[0].outcome == wire.Outcome.SUCCESS
    assert counters(control).node()["init_timeouts"] == 1


def test_suppressed_init_under_the_functions_time_out(stage: Stage) -> None:
    stage.ready(init_timeout_ms=100, timeout_ms=1000)
    invoker = stage.invoker()
    invoker.call()
    slow = stage.launch()
    slow.expect(wire.Start)
    assert stage.ended(slow) == wire.EndReason.TIMEOUT
    again = stage.launch()
    again.expect(wire.Start)
    _, body = invoker.answer()
    assert error_of(body)[0] == "Sandbox.Timedout"
    assert stage.ended(again) == wire.EndReason.TIMEOUT
    assert stage.launcher.silent()


def test_environment_hangs_up_and_stays(stage: Stage) -> None:
    """It closed its channel but does not leave: after a moment it is ended, and its end told to the caller."""
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    environment.invoke()
    environment.sock.close()
    assert stage.ended(environment) == wire.EndReason.FAILURE
    assert error_of(invoker.answer()[1])[0] == "Runtime.ExitError"


def test_idle_environment_that_leaves_hurts_nobody(stage: Stage) -> None:
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    environment.exit(0)
    await_true(lambda: counters(control).node()["environments"] == 0, "it is gone")
    invoker.call()
    other = stage.launch()
    other.start()
    other.serve()
    assert invoker.answer()[0].outcome == wire.Outcome.SUCCESS
    assert len(stage.await_records(2, FUNCTION)) >= 2
