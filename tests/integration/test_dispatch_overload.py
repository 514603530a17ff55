"""More than the node can take: refused at once and with a reason, before memory grows; and nobody else pays for it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import hpack
import pytest
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame

from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from runtimed.model import wire
from tests.integration.dispatch_stage import (
    Control,
    Environment,
    Invoker,
    Stage,
    await_true,
    counters,
    staged,
    target,
)
from tests.integration.grpc_caller import PATH, PREFACE, Client, Peer
from tests.integration.http_caller import Caller
from tests.integration.stream_caller import busy, end, fill
from tests.integration.stream_caller import head as stream_head
from tests.integration.test_dispatch_arena import Sharer, event

BUDGET = 64  # MB
CONNECTIONS = 2000
OWN_KB = 40 << 10  # what the dispatcher may grow by beside payloads: connections, their buffers, its allocator
MB = 1 << 20
SANITIZED = "RUNTIMED_DISPATCH" in os.environ  # another build, whose allocator keeps what is freed


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * CONNECTIONS)), hard))
    try:
        with staged(tmp_path, RUNTIMED_PAYLOADS_MB=str(BUDGET)) as made:
            yield made
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def two(stage: Stage, **changes: int) -> Control:
    """Functions f and g."""
    control = stage.control()
    control.greet()
    control.synchronise(
        (1, target(**changes)),
        (
            2,
            target(
                function_uid=bytes([9] * 16), function_name="g", arn="arn:aws:lambda:us-east-1:000000000000:function:g"
            ),
        ),
        *((n, wire.PutRoute(name=name, qualifier="$LATEST", target=n)) for n, name in ((1, "f"), (2, "g"))),
    )
    return control


def warm(stage: Stage, invoker: Invoker, name: str) -> Environment:
    number = invoker.call(name=name)
    environment = stage.launch()
    environment.start()
    environment.serve()
    invoker.answer(number)
    return environment


def memory_kb(stage: Stage) -> int:
    """Without what it shares."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", pathlib.Path(f"/proc/{stage.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def head(size: int, name: str = "f") -> bytes:
    path = f"/2015-03-31/functions/{name}/invocations"
    return f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n".encode()


class Flood:
    """So many callers of HTTP, each of which says the same, as far as its socket takes it, and reads nothing."""

    def __init__(self, stage: Stage, within: contextlib.ExitStack, says: bytes) -> None:
        self.callers = []
        for _ in range(CONNECTIONS):
            caller = within.enter_context(Caller(stage))
            caller.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                caller.sock.send(says)
            self.callers.append(caller)

    def answered(self) -> list[bytes]:
        """The first lines of what has been answered."""
        found = []
        for caller in self.callers:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                found.append(caller.sock.recv(4096, socket.MSG_PEEK).partition(b"\r\n")[0])
        return [line for line in found if line]


# What it says, and how many are answered so at least; who was first has a place for ten seconds, after which it is
# another's, and on a slow machine the flood takes longer than that.
FLOODS = {
    "bodies of 50 MB": (head(50 * MB) + b"x" * 65536, 413, CONNECTIONS),
    "bodies of 6 MB that do not end": (head(6 * MB) + b"x" * MB, 503, CONNECTIONS // 2),
    "bodies without a length that do not end": (
        head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"100000\r\n" + b"x" * MB,
        503,
        CONNECTIONS // 2,
    ),
    "heads that do not end": (
        b"POST / HTTP/1.1\r\n" + (b"a: " + b"x" * 995 + b"\r\n") * 60,
        503,
        1,
    ),
    "heads of HTTP/2": (PREFACE, 0, 0),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_floods(stage: Stage, kind: str) -> None:
    """Two thousand connections: memory stays below its bound, who has no place is told, others are served."""
    says, status, refused = FLOODS[kind]
    control = two(stage)
    invoker = stage.invoker()
    neighbour = warm(stage, invoker, "g")
    page = counters(control)
    before = memory_kb(stage)
    with contextlib.ExitStack() as stack:
        flood = Flood(stage, stack, says)
        line = b"HTTP/1.1 %d " % status
        if status:
            await_true(lambda: sum(found.startswith(line) for found in flood.answered()) >= refused, "refusals")
        else:
            await_true(lambda: page.node()["connections_refused"] > 0, "refusals")
        number = invoker.call(name="g")
        neighbour.serve()
        assert invoker.answer(number)[0].outcome == wire.Outcome.SUCCESS
        assert page.node()["payload_bytes"] <= BUDGET * MB
        grown = memory_kb(stage) - before
        assert SANITIZED or grown < (BUDGET << 10) + OWN_KB, f"{grown} KiB"
    await_true(lambda: page.node()["connections"] == 1, "all are gone")
    await_true(lambda: page.node()["payload_bytes"] == 0, "all memory comes back")
    page.close()


STREAM = (
    b"POST /2021-11-15/functions/f/response-streaming-invocations HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"
)
SLOTS, QUEUE = 2, 50


def grpc_stream() -> bytes:
    """A connection's first words, and a call of InvokeStream."""
    block = hpack.Encoder().encode(
        [
            (":method", "POST"), (":scheme", "http"), (":path", PATH + "Stream"), (":authority", "h"),
            ("te", "trailers"), ("content-type", "application/grpc"),
        ]
    )  # fmt: skip
    body = pb.InvokeRequest(function_name="f", payload=b"{}").SerializeToString()
    message = b"\0" + len(body).to_bytes(4, "big") + body
    frames = (
        SettingsFrame(0),
        HeadersFrame(1, block, flags=["END_HEADERS"]),
        DataFrame(1, message, flags=["END_STREAM"]),
    )
    return PREFACE + b"".join(frame.serialize() for frame in frames)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_flood_of_streams(stage: Stage, kind: str) -> None:
    """Two thousand callers want a stream of one function and read nothing: it has as many at a time as it has
    environments, and as many wait as may; all others are refused at once, and told when to come again. Another
    function's callers are served."""
    control = two(stage, max_environments=SLOTS, max_waiting=QUEUE, timeout_ms=600_000)
    invoker = stage.invoker()
    neighbour = warm(stage, invoker, "g")
    page = counters(control)
    before = memory_kb(stage)
    with contextlib.ExitStack() as stack:
        flood = Flood(stage, stack, STREAM if kind == "http" else grpc_stream())
        environments = [busy(stage) for _ in range(SLOTS)]
        for environment, invoke in environments:
            stream_head(environment, invoke.id)
            fill(environment)
        # So many connections speak HTTP/2 at a time; who is one too many is told by its end.
        await_true(
            lambda: page.node()["throttled_target"] + page.node()["connections_refused"] >= CONNECTIONS - SLOTS - QUEUE,
            "refusals",
        )
        node = page.node()
        assert (node["invocations_in_flight"], node["waiting"]) == (SLOTS, QUEUE)
        assert node["payload_bytes"] <= BUDGET * MB
        if kind == "http":

            def refusals() -> list[bytes]:
                return [line for line in map(peek, flood.callers) if line.startswith(b"HTTP/1.1 429 ")]

            # Each is counted before it is sent.
            await_true(lambda: len(refusals()) == CONNECTIONS - SLOTS - QUEUE, "their answers")
            assert all(b"\r\nRetry-After: 1\r\n" in line for line in refusals())
        for _ in range(20):
            number = invoker.call(name="g")
            neighbour.serve()
            assert invoker.answer(number)[0].outcome == wire.Outcome.SUCCESS
        grown = memory_kb(stage) - before
        assert SANITIZED or grown < (BUDGET << 10) + OWN_KB, f"{grown} KiB"
    await_true(lambda: page.node()["connections"] == 1, "all are gone")
    await_true(lambda: page.node()["waiting"] == 0, "nobody waits")
    for environment, _ in environments:
        end(environment)
    await_true(lambda: page.node()["invocations_in_flight"] == 0, "the streams end in nothing")
    await_true(lambda: page.node()["payload_bytes"] == 0, "all memory comes back")
    page.close()


def peek(caller: Caller) -> bytes:
    try:
        return caller.sock.recv(4096, socket.MSG_PEEK)
    except (BlockingIOError, ConnectionError):
        return b""


def test_a_share_is_left_for_others(stage: Stage) -> None:
    """However many large events one function is sent, another's finds room; with a share less for each."""
    control = two(stage)
    invoker = stage.invoker()
    neighbour = warm(stage, invoker, "g")
    page = counters(control)
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(Caller(stage)).send(head(6 * MB) + b'"')
        await_true(lambda: page.node()["calls"] == 31, "all are taken or refused")
        # Several loops lease the budget by the megabyte.
        assert 0 <= page.node()["refused_memory"] - (30 - BUDGET // 2 // 6) <= 1
        large = event(6 * MB)
        number = invoker.call(large, name="g")
        assert neighbour.invoke()[1] == large
    page.close()
    assert number


def test_a_throttle_is_told_before_the_body_comes(stage: Stage) -> None:
    """Where memory is in demand; elsewhere its connection is spared."""
    control = two(stage, max_environments=1, max_waiting=0)
    invoker = stage.invoker()
    environment = warm(stage, invoker, "f")
    invoker.call()
    invoke, _ = environment.invoke()
    page = counters(control)
    with contextlib.ExitStack() as stack, Caller(stage) as caller:
        for number in range(3):
            caller.post(event(5 * MB))
            answer = caller.answer()
            assert (answer.error, answer.fields.get("connection")) == ((429, "TooManyRequestsException"), None)
            stack.enter_context(Caller(stage)).send(head(6 * MB, "g") + b'"')
            await_true(lambda number=number: page.node()["payload_bytes"] > (number + 1) * 6 * MB, "held")  # type: ignore[misc]
        caller.send(head(5 * MB))
        answer = caller.answer()
        assert answer.error == (429, "TooManyRequestsException")
        assert answer.fields["retry-after"] == "1"
        assert b"ConcurrentInvocationLimitExceeded" in answer.body
        assert page.node()["payload_bytes"] < 19 * MB
    assert page.node()["throttled_target"] == 4
    environment.result(invoke.id)
    assert invoker.answer()[0].outcome == wire.Outcome.SUCCESS
    with Caller(stage) as caller:
        caller.post(event(5 * MB))
        environment.serve()
        assert caller.answer().status == 200
    page.close()


def test_no_memory_says_when_to_come_again(stage: Stage) -> None:
    stage.ready()
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(Caller(stage)).send(head(6 * MB) + b'"')
        last = stack.enter_context(Caller(stage))
        last.send(head(6 * MB))
        answer = last.answer()
        assert answer.error == (503, "ServiceException")
        assert answer.fields["retry-after"] == "1"


def test_order_of_service(stage: Stage) -> None:
    """Three hundred calls of one function wait; another's environment gets its event at once, on the same connection
    and on others, and one without an environment is launched one."""
    control = two(stage, max_environments=1, max_waiting=1000)
    invoker = stage.invoker()
    busy, neighbour = warm(stage, invoker, "f"), warm(stage, invoker, "g")
    page = counters(control)
    flood = stage.invoker()
    for _ in range(300):
        flood.call(b'{"flood":1}')
    invoke, _ = busy.invoke()
    await_true(lambda: page.node()["waiting"] == 299, "all wait")
    for one in (invoker, flood):
        number = one.call(name="g")
        neighbour.serve(b'"now"')
        assert one.answer(number)[1] == b'"now"'
    busy.result(invoke.id)
    assert flood.answer()[0].outcome == wire.Outcome.SUCCESS
    for _ in range(299):
        busy.serve()
        flood.answer()
    page.close()


# ---- who does not read its answer --------------------------------------------------------------------------------


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path, RUNTIMED_PAYLOADS_MB="400") as made:
        yield made


def deaf(stage: Stage, kind: str, within: contextlib.ExitStack) -> None:
    """One call whose answer is not read."""
    if kind == "http":
        within.enter_context(Caller(stage)).post()
    elif kind == "grpc":
        within.enter_context(Peer(stage)).call(1)
    else:
        stage.invoker().call()


@pytest.mark.parametrize(("kind", "shared"), [("http", True), ("http", False), ("grpc", True), ("dispatch", True)])
def test_fifty_that_do_not_read(roomy: Stage, kind: str, shared: bool) -> None:
    """Answers of 6 MB, in the arena or not: one environment serves on; what its callers leave is counted."""
    control = roomy.ready(max_environments=1, timeout_ms=60000)
    page = counters(control)
    quick = roomy.invoker()
    sharer = Sharer(roomy, quick)
    if shared:
        sharer.shared()
    body = event(6 * MB)
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            deaf(roomy, kind, stack)
            invoke, _ = sharer.environment.invoke()
            sharer.answer(invoke, body) if shared else sharer.environment.result(invoke.id, body)
        quick.call()
        sharer.environment.serve(b"5")
        assert quick.answer()[1] == b"5"
        await_true(lambda: page.node()["invocations_in_flight"] == 0, "the environment is free")
        assert 200 * MB < page.node()["payload_bytes"] <= 400 * MB
        if kind == "dispatch":
            for link in roomy.links[-50:]:
                link.close()
    await_true(lambda: page.node()["payload_bytes"] == 0, "the memory comes back with the connections")
    if sharer.memory is not None:
        sharer.memory.close()
    page.close()


@pytest.mark.parametrize("kind", ["http", "grpc", "dispatch"])
def test_no_room_for_what_is_not_read(stage: Stage, kind: str) -> None:
    """Once nothing is left of the budget, answers of the next are 503 instead; environments serve on."""
    control = stage.ready(max_environments=1, timeout_ms=60000)
    page = counters(control)
    quick = stage.invoker()
    sharer = Sharer(stage, quick)
    sharer.shared()
    body = event(6 * MB)
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            deaf(stage, kind, stack)
            sharer.answer(sharer.environment.invoke()[0], body)
        await_true(lambda: page.node()["invocations_in_flight"] == 0, "the environment is free")
        quick.call()
        sharer.answer(sharer.environment.invoke()[0], body)
        answer, _ = quick.answer()
        assert (answer.status, answer.code) == (503, "ServiceException")
        quick.call()
        sharer.environment.serve(b"5")
        assert quick.answer()[1] == b"5"
        assert page.node()["payload_bytes"] <= BUDGET * MB
    assert sharer.memory is not None
    sharer.memory.close()
    page.close()


def test_a_grpc_caller_is_refused_in_its_own_words(stage: Stage) -> None:
    stage.ready()
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(Caller(stage)).send(head(6 * MB) + b'"')
        with Client(stage) as client:
            code, _ = client.refused(payload=event(5 * MB))
            assert code
