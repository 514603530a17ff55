"""Lambda's Invoke over HTTP/1.1, as the dispatcher serves it on its unix socket: the real program, with the test as its
callers and its environments."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.dispatch_stage import Control, Stage, await_true, counters, staged
from tests.integration.http_caller import Caller

INVOKE = "POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: h\r\n"
LIMIT = 6 << 20


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def control(stage: Stage) -> Control:
    return stage.ready()


@pytest.fixture
def caller(stage: Stage, control: Control) -> Iterator[Caller]:
    with Caller(stage) as caller:
        yield caller


# ---- invocations -------------------------------------------------------------------------------------------------


def test_invoke(stage: Stage, caller: Caller) -> None:
    caller.post(
        b'{"a": 1}', "X-Amzn-Trace-Id: Root=1-5", "X-Amz-Client-Context: " + base64.b64encode(b'{"b":2}').decode()
    )
    environment = stage.launch()
    environment.start()
    invoke, event = environment.invoke()
    assert (event, invoke.trace, invoke.client_context) == (b'{"a": 1}', "Root=1-5", b'{"b":2}')
    environment.result(invoke.id, b'{"answer": "\xc3\xa4"}')
    answer = caller.answer()
    assert (answer.status, answer.body) == (200, b'{"answer": "\xc3\xa4"}')
    fields = answer.fields
    assert fields["content-type"] == "application/json"
    assert fields["x-amz-executed-version"] == "$LATEST"
    assert fields["x-amzn-requestid"].replace("-", "") == invoke.id.hex()
    assert fields["x-amzn-trace-id"] == "Root=1-5"
    assert fields["x-amzn-remapped-content-length"] == "0"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", fields["date"])
    assert {"x-amz-function-error", "x-amz-log-result", "connection"} & fields.keys() == set()


def test_function_error_and_log_tail(stage: Stage, caller: Caller) -> None:
    caller.post(b"{}", "X-Amz-Log-Type: Tail")
    environment = stage.launch()
    environment.start()
    invoke, _ = environment.invoke()
    environment.print("a line\n")
    environment.result(invoke.id, b'{"errorType":"E"}', error="E")
    answer = caller.answer()
    assert (answer.status, answer.fields["x-amz-function-error"], answer.body) == (
        200,
        "Unhandled",
        b'{"errorType":"E"}',
    )
    tail = base64.b64decode(answer.fields["x-amz-log-result"], validate=True).decode()
    assert "a line\n" in tail
    assert "REPORT RequestId" in tail


def test_connection_is_kept_and_pipelined(stage: Stage, caller: Caller) -> None:
    for number in range(5):
        caller.post(b"%d" % number)
    environment = stage.launch()
    environment.start()
    for number in range(5):
        invoke, event = environment.invoke()
        assert event == b"%d" % number
        environment.result(invoke.id, event)
    assert [caller.answer().body for _ in range(5)] == [b"%d" % number for number in range(5)]


def test_many_in_one_write(stage: Stage, control: Control, caller: Caller) -> None:
    one = "POST /2015-03-31/functions/none/invocations HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"
    caller.send(one * 2000)
    for _ in range(2000):
        assert caller.answer().error == (404, "ResourceNotFoundException")
    page = counters(control)
    assert page.node()["http_requests"] == page.node()["calls"] == 2000


@pytest.mark.parametrize("step", [1, 3, 7])
def test_bytes_may_come_in_pieces(stage: Stage, caller: Caller, step: int) -> None:
    data = (
        INVOKE + 'Transfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n3;x=y\r\n: 1\r\n1\r\n}\r\n0\r\nT: v\r\n\r\n'
    ).encode()
    for at in range(0, len(data), step):
        caller.send(data[at : at + step])
    environment = stage.launch()
    environment.start()
    invoke, event = environment.invoke()
    assert event == b'{"a": 1}'
    environment.result(invoke.id)
    assert caller.answer().status == 200


@pytest.mark.parametrize(
    "text",
    [INVOKE + "\r\n", INVOKE + "Content-Length: 0\r\n\r\n", INVOKE + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
)
def test_no_body_is_an_empty_event(stage: Stage, caller: Caller, text: str) -> None:
    caller.send(text)
    environment = stage.launch()
    environment.start()
    assert environment.invoke()[1] == b"{}"


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_large_bodies_both_ways(stage: Stage, control: Control, caller: Caller, chunked: bool) -> None:
    body = b'"' + os.urandom(LIMIT // 2 - 1).hex().encode() + b'"'
    assert len(body) == LIMIT
    environment = None
    if chunked:
        caller.send(INVOKE + "Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 100_000):
            part = body[at : at + 100_000]
            caller.send(b"%x\r\n%b\r\n" % (len(part), part))
        caller.send("0\r\n\r\n")
    else:
        caller.post(body)
    environment = stage.launch()
    environment.start()
    invoke, event = environment.invoke()
    assert event == body
    environment.result(invoke.id, body)
    # The caller has read nothing yet, and the environment serves others.
    with Caller(stage) as other:
        other.post()
        environment.serve(b"2")
        assert other.answer().body == b"2"
    assert caller.answer().body == body
    await_true(lambda: counters(control).node()["payload_bytes"] == 0, "the budget is given back")


def test_dry_run(caller: Caller) -> None:
    caller.post(b"{}", "X-Amz-Invocation-Type: DryRun")
    answer = caller.answer()
    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.fields
    caller.post(b"{}", "X-Amz-Invocation-Type: DryRun", name="none")
    assert caller.answer().error == (404, "ResourceNotFoundException")


def test_names(stage: Stage, caller: Caller) -> None:
    for name in (
        "f",
        "f%3A%24LATEST",
        "000000000000:function:f",
        "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af",
    ):
        caller.post(b"{}", "X-Amz-Invocation-Type: DryRun", name=name)
        assert caller.answer().status == 204, name
    caller.post(b"{}", "X-Amz-Invocation-Type: DryRun", query="?Qualifier=%24LATEST")
    assert caller.answer().status == 204
    for name in ("arn%3Aaws%3Alambda%3Aeu-west-1%3A000000000000%3Afunction%3Af", "111111111111:function:f", "f:7"):
        caller.post(b"{}", name=name)
        assert caller.answer().error == (404, "ResourceNotFoundException"), name


# ---- refusals ----------------------------------------------------------------------------------------------------

PARAMETER = (400, "InvalidParameterValueException")


@pytest.mark.parametrize(
    ("fields", "path", "body", "error"),
    [
        ((), "f%zz", b"{}", PARAMETER),
        ((), "f%00", b"{}", PARAMETER),
        ((), "x" * 65, b"{}", PARAMETER),
        ((), "x" * 4000, b"{}", PARAMETER),
        ((), "f:1/invocations?Qualifier=2&x=", b"{}", PARAMETER),
        ((), "f/invocations?Qualifier=a%20b&x=", b"{}", PARAMETER),
        ((), "f/invocations?Qualifier=1&Qualifier=1&x=", b"{}", PARAMETER),
        ((), "f", b"{", (400, "InvalidRequestContentException")),
        (("X-Amz-Invocation-Type: Sometimes",), "f", b"{}", PARAMETER),
        (("X-Amz-Invocation-Type: Event",), "f", b"{}", (501, "NotImplementedException")),
        (("X-Amz-Log-Type: All",), "f", b"{}", PARAMETER),
        (("X-Amz-Client-Context: e30",), "f", b"{}", (400, "InvalidRequestContentException")),
        (("X-Amz-Client-Context: " + "A" * 3584,), "f", b"{}", (400, "InvalidRequestContentException")),
        (("X-Amz-Tenant-Id: " + "t" * 257,), "f", b"{}", PARAMETER),
    ],
)  # fmt: skip
def test_refused_and_the_connection_goes_on(
    caller: Caller, fields: tuple[str, ...], path: str, body: bytes, error: tuple[int, str]
) -> None:
    caller.post(body, *fields, name=path)
    assert caller.answer().error == error
    caller.post(b"{}", "X-Amz-Invocation-Type: DryRun")
    assert caller.answer().status == 204


def test_other_paths(caller: Caller) -> None:
    for head in ("GET / HTTP/1.1", "POST /2015-03-31/functions/f HTTP/1.1", "DELETE /x HTTP/1.1"):
        caller.send(f"{head}\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        assert caller.answer().error == (503, "ServiceUnavailableException")  # test_dispatch_forward.py


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET / HTTP/1.1\n", 400),
        ("GET / HTTP/3.0\r\n", 505),
        (INVOKE + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (INVOKE + "Transfer-Encoding: gzip\r\n\r\n", 501),
        (INVOKE + "Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (INVOKE + "Expect: more\r\n\r\n", 417),
        ("GET /" + "x" * 9000 + " HTTP/1.1\r\n", 414),
        (INVOKE + "".join(f"F{n}: v\r\n" for n in range(101)), 431),
        (INVOKE + "".join(f"F{n}: {'v' * 16000}\r\n" for n in range(5)), 431),
    ],
)
def test_what_cannot_be_trusted_ends_the_connection(control: Control, caller: Caller, text: str, status: int) -> None:
    caller.send(text + "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
    answer = caller.answer()
    assert (answer.status, answer.fields["connection"]) == (status, "close")
    assert caller.closed()
    page = counters(control)
    assert page.node()["calls"] == page.node()["answers_refused"] == 1


def test_too_large_bodies(control: Control, caller: Caller) -> None:
    caller.send(INVOKE + f"Content-Length: {LIMIT + 1}\r\n\r\n")
    assert caller.answer().error == (413, "RequestTooLargeException")
    assert caller.closed()


def test_too_large_chunked(stage: Stage, control: Control) -> None:
    with Caller(stage) as caller:
        caller.send(INVOKE + "Transfer-Encoding: chunked\r\n\r\n")
        part = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
        for _ in range(6):
            caller.send(part)
        caller.send("1\r\n ")
        assert caller.answer().error == (413, "RequestTooLargeException")
        assert caller.closed()
    await_true(lambda: counters(control).node()["payload_bytes"] == 0, "the budget is given back")


def test_expect_continue(stage: Stage, caller: Caller) -> None:
    caller.send(INVOKE + "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert caller.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    caller.send("{}")
    environment = stage.launch()
    environment.start()
    environment.serve(b"1")
    assert caller.answer().body == b"1"
    caller.send(INVOKE.replace("/f/", "/none/") + "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    answer = caller.answer()
    assert answer.error == (404, "ResourceNotFoundException")
    assert answer.fields["connection"] == "close"


def test_http_1_0(stage: Stage, caller: Caller) -> None:
    caller.send("POST /2015-03-31/functions/f/invocations HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    environment = stage.launch()
    environment.start()
    environment.serve()
    assert caller.answer().fields["connection"] == "keep-alive"
    caller.send("POST /2015-03-31/functions/f/invocations HTTP/1.0\r\n\r\n")
    environment.serve()
    assert caller.answer().fields["connection"] == "close"
    assert caller.closed()


def test_throttled(stage: Stage) -> None:
    stage.ready(max_environments=1, max_waiting=0)
    with Caller(stage) as first, Caller(stage) as second:
        first.post()
        environment = stage.launch()
        environment.start()
        second.post()
        answer = second.answer()
        assert answer.error == (429, "TooManyRequestsException")
        assert answer.fields["retry-after"] == "1"
        assert json.loads(answer.body)["Reason"] == "ConcurrentInvocationLimitExceeded"
        environment.serve()
        assert first.answer().status == 200


# ---- callers that leave, stall, or may not -------------------------------------------------------------------------


def test_a_caller_that_leaves_is_forgotten(stage: Stage, control: Control) -> None:
    with Caller(stage) as caller:
        caller.post()
        environment = stage.launch()
        environment.start()
        invoke, _ = environment.invoke()
    await_true(lambda: counters(control).node()["abandoned"] == 1, "the call is abandoned")
    environment.result(invoke.id)
    with Caller(stage) as caller:
        caller.post()
        environment.serve(b"3")
        assert caller.answer().body == b"3"


def test_slow_senders_are_cut(stage: Stage, control: Control) -> None:
    """A head that trickles in, a body that stops: each has its time, whatever arrives meanwhile."""
    with Caller(stage) as head, Caller(stage) as body, Caller(stage) as idle:
        head.send("POST / HTTP/1.1\r\n")
        body.send(INVOKE + "Content-Length: 100\r\n\r\n")
        began = time.monotonic()
        waiting = {head.sock: head, body.sock: body}
        while waiting:
            for sock in select.select(list(waiting), [], [], 0.5)[0]:
                caller = waiting.pop(sock)
                assert caller.answer().error == (408, "RequestTimeoutException")
                assert caller.closed()
            if head.sock in waiting:
                with contextlib.suppress(BrokenPipeError):  # it was cut just now
                    head.send("A: b\r\n")
            assert time.monotonic() - began < 60
        idle.post(b"{}", "X-Amz-Invocation-Type: DryRun")
        assert idle.answer().status == 204
    assert counters(control).node()["http_slow"] == 2


def test_half_closed_callers_are_answered(stage: Stage, caller: Caller) -> None:
    caller.post()
    caller.sock.shutdown(socket.SHUT_WR)
    environment = stage.launch()
    environment.start()
    environment.serve(b"4")
    assert caller.answer().body == b"4"
    assert caller.closed()


def test_who_may_call() -> None:
    """Another user is told no; as a member of the group it is served."""
    with (
        tempfile.TemporaryDirectory() as directory,  # others may not enter pytest's
        staged(Path(directory), RUNTIMED_HTTP_GROUP="60001") as stage,
    ):
        stage.ready()
        stage.http_path.chmod(0o666)
        Path(directory).chmod(0o711)

        def status_as(groups: list[int], gid: int) -> int:
            with open(os.memfd_create("answer"), "r+b") as answer:
                if (pid := os.fork()) == 0:
                    try:
                        os.setgroups(groups)
                        os.setresgid(gid, gid, gid)
                        os.setresuid(60002, 60002, 60002)
                        with Caller(stage) as caller:
                            caller.post(b"{}", "X-Amz-Invocation-Type: DryRun")
                            answer.write(b"%d" % caller.answer().status)
                            answer.flush()
                    finally:
                        os._exit(0)
                os.waitpid(pid, 0)
                answer.seek(0)
                return int(answer.read())

        assert status_as([], 60002) == 403
        assert status_as([60003], 60002) == 403
        assert status_as([60003, 60001], 60002) == 204
        assert status_as([], 60001) == 204


def test_answers_wait_outside_the_environment_and_are_counted(stage: Stage, control: Control) -> None:
    """Fifty callers that do not read: the environment serves on, and every call is accounted for once."""
    with contextlib.ExitStack() as within:
        first = within.enter_context(Caller(stage))
        first.post()
        environment = stage.launch()
        environment.start()
        environment.serve()
        first.answer()
        callers = [within.enter_context(Caller(stage)) for _ in range(50)]
        body = b'"' + b"x" * 1_000_000 + b'"'
        for caller in callers:
            caller.post()
            environment.serve(body)
        first.post()
        environment.serve(b"5")
        assert first.answer().body == b"5"
        for caller in callers[:25]:
            assert caller.answer().body == body
    await_true(lambda: counters(control).node()["payload_bytes"] == 0, "the budget is given back")
    node = counters(control).node()
    assert node["calls"] == node["answers_success"] == 52
    assert node["calls_open"] == node["abandoned"] == 0
