"""What a function writes to its log is its own text: never taken for the platform's, never in another's way."""

from __future__ import annotations

import threading

import pytest

from bench.node import await_true
from runtimed.model.log import LogEvent, LogKind
from tests.outcomes import Outcome
from tests.security.escape.arena import PATIENCE, Arena

FORGED = [
    "START RequestId: 00000000-0000-0000-0000-000000000000 Version: $LATEST",
    "END RequestId: 00000000-0000-0000-0000-000000000000",
    "REPORT RequestId: 00000000-0000-0000-0000-000000000000\tDuration: 0.01 ms\tBilled Duration: 1 ms",
    "INIT_START Runtime Version: python:3.11",
    '{"time": "2020-01-01T00:00:00.000Z", "type": "platform.report", "record": {"status": "success"}}',
]


@pytest.mark.case(
    "escape", "log lines that pretend to be the platform's, NULs, bytes that are no text, lines of megabytes"
)
def test_forged_lines(arena: Arena, outcome: Outcome) -> None:
    name = arena.fresh("""
import os
def handler(event, context):
    for text in event:
        for descriptor in (1, 2):
            os.write(descriptor, (text + "\\n").encode())
    os.write(1, b"\\0\\xff\\xfe nothing \\x1b[2J\\r of text\\n")
    os.write(1, b"%d\\0\\0\\0\\0\\0\\0\\0\\x02" * 64 + b"\\n")  # as records look like on disk
    os.write(1, b"y" * (3 << 20) + b"\\nno newline at the end")
""")
    called = arena.call(name, FORGED)
    assert called.value is None
    events: list[LogEvent] = []

    def has_report() -> bool:
        events[:] = arena.client.logs(name)
        return bool(events) and events[-1].kind is LogKind.REPORT

    await_true(has_report, PATIENCE, "the REPORT")
    own = [event for event in events if event.kind is LogKind.FUNCTION]
    assert [event.message for event in own[: 2 * len(FORGED)]] == [line for line in FORGED for _ in range(2)]
    assert {event.request_id for event in own} == {called.request_id}
    lines = [event.message for event in own if event.message[:99] == "y" * 99]
    dropped = [event.message for event in events if event.kind is LogKind.DROPPED]
    assert {"".join(set(line)) for line in lines} == {"y"}
    assert sum(map(len, lines)) == 3 << 20 or dropped, "what a busy node does not keep is told"
    assert own[-1].message == "no newline at the end" or dropped
    kinds = [event.kind for event in events if event.kind not in (LogKind.FUNCTION, LogKind.DROPPED)]
    assert kinds == [LogKind.INIT_START, LogKind.START, LogKind.END, LogKind.REPORT]
    told = {event.request_id for event in events[1:] if event.kind is not LogKind.DROPPED}
    assert told == {called.request_id}
    outcome("kept as lines of the function's under the right request; the platform's records have a kind of their own")


@pytest.mark.case("escape", "the log's pipe closed, reopened for reading, made small, filled while nobody reads")
def test_pipe_games(arena: Arena, outcome: Outcome) -> None:
    name = arena.fresh(
        """
import fcntl, os
def handler(event, context):
    if event == "closed":
        return 1
    seen = []
    for path in ("/proc/self/fd/1", "/proc/self/fd/2"):
        try:
            seen.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            seen.append(error.errno)
    fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK)  # of the description that all share, the reader's is another
    written = 0
    try:
        while event == "fill":
            written += os.write(1, b"z" * 65536)
    except BlockingIOError:
        pass
    fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 4096) if event == "shrink" else None
    if event == "close":
        os.closerange(1, 3)
    try:
        print("after")
    except OSError:
        pass
    return seen
""",
        timeout=10,
    )
    seen = arena.call(name, "fill")
    assert seen.value == [13, 13], "nobody but the platform reads the pipe"
    for event in ("shrink", "fill", "close", "closed", "closed"):
        assert not arena.call(name, event).failed
    outcome("reading it is refused (EACCES); whoever fills it waits alone; without it calls are answered as before")


def test_flood_is_paid_by_its_writer(arena: Arena) -> None:
    """Blocking writes without an end: until the function's own time-out."""
    name = arena.fresh("def handler(event, context):\n    while True:\n        print('flood ' * 2000)", timeout=2)
    failed = []
    thread = threading.Thread(target=lambda: failed.append(arena.call(name).error()))
    thread.start()
    while thread.is_alive():
        arena.victim()
    thread.join()
    assert failed[0] is not None and "timed out after 2.00 seconds" in failed[0].error_message
