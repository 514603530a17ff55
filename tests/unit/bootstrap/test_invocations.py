"""The invoke phase: events in, results out, errors as callers of Lambda know them, and ways to leave."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from runtimed.model import wire
from tests.unit.bootstrap.conftest import Make

ECHO = "def handler(event, context):\n    return event\n"
LIMIT = 6291556  # bytes of a buffered payload


@pytest.mark.parametrize(
    "event",
    [None, {}, [], "text", 0, -1.5, True, {"a": [1, {"b": None}]}, "é☃😀", {"n": 12345678901234567890}, float("inf")],
)
def test_events_come_back(make: Make, event: Any) -> None:
    with make(ECHO) as environment:
        environment.start()
        answer = environment.invoke(event)
        assert not answer.failed
        assert answer.error_type == ""
        assert answer.header.flags & wire.HeaderFlags.READY
        assert answer.json == event


def test_no_event_is_an_empty_object(make: Make) -> None:
    with make(ECHO) as environment:
        environment.start()
        assert environment.invoke(b"").body == b"{}"


@pytest.mark.parametrize("size", [65534, 65536, 65537, 131072, 1 << 20, LIMIT - 2])
def test_payloads_in_chunks(make: Make, size: int) -> None:
    with make(ECHO) as environment:
        environment.start()
        text = "0123456789abcdef" * (size // 16 + 1)
        body = b'"' + text[:size].encode() + b'"'
        for _ in range(2):
            assert environment.invoke(body).body == body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"not json", "Expecting value: line 1 column 1 (char 0)"),
        (b"\x89PNG", "'utf-8' codec can't decode byte 0x89 in position 0: invalid start byte"),
        (b'{"a": 1} x', "Extra data: line 1 column 10 (char 9)"),
        (b" ", "Expecting value: line 1 column 2 (char 1)"),
    ],
)
def test_events_that_are_not_json(make: Make, body: bytes, reason: str) -> None:
    with make(ECHO) as environment:
        environment.start()
        answer = environment.invoke(body)
        assert answer.failed
        assert answer.error_type == "Runtime.UnmarshalError"
        assert answer.json == {
            "errorMessage": f"Unable to unmarshal input: {reason}",
            "errorType": "Runtime.UnmarshalError",
            "requestId": answer.id,
            "stackTrace": [],
        }
        assert environment.invoke(1).json == 1


def test_handler_error(make: Make) -> None:
    source = """\
        class OutOfStock(Exception):
            pass

        def reserve(article):
            raise OutOfStock("no %s left" % article)

        def handler(event, context):
            try:
                reserve(event)
            except ImportError:
                pass
        """
    with make(source) as environment:
        environment.start()
        answer = environment.invoke("bolts")
        task = environment.task
        assert answer.failed
        assert answer.error_type == "OutOfStock"
        assert answer.json == {
            "errorMessage": "no bolts left",
            "errorType": "OutOfStock",
            "requestId": answer.id,
            "stackTrace": [
                f'  File "{task}/app.py", line 9, in handler\n    reserve(event)\n',
                f'  File "{task}/app.py", line 5, in reserve\n    raise OutOfStock("no %s left" % article)\n',
            ],
        }
        assert environment.read_log() == (
            "[ERROR] OutOfStock: no bolts left\nTraceback (most recent call last):\n"
            + "".join(answer.json["stackTrace"])
        )


@pytest.mark.parametrize(
    ("statement", "error_type", "message"),
    [
        ("raise ValueError", "ValueError", ""),
        ("1 / 0", "ZeroDivisionError", "division by zero"),
        ("{}['k']", "KeyError", "'k'"),
        ("import absent", "ModuleNotFoundError", "No module named 'absent'"),
        ("raise Shy", "Shy", "<exception str() failed>"),
        ("assert False, 'ü'", "AssertionError", "ü"),
        ("raise MemoryError", "MemoryError", ""),
        ("open('/absent')", "FileNotFoundError", "[Errno 2] No such file or directory: '/absent'"),
    ],
)
def test_error_types(make: Make, statement: str, error_type: str, message: str) -> None:
    source = f"""\
        class Shy(Exception):
            def __str__(self):
                raise RuntimeError

        def handler(event, context):
            {statement}
        """
    with make(source) as environment:
        environment.start()
        answer = environment.invoke()
        assert (answer.failed, answer.error_type) == (True, error_type)
        assert (answer.json["errorType"], answer.json["errorMessage"]) == (error_type, message)
        assert len(answer.json["stackTrace"]) == 1


def test_handler_that_cannot_be_called_shows_no_frame_of_ours(make: Make) -> None:
    with make("handler = 5") as environment:
        environment.start()
        described = environment.invoke().json
        assert described["errorType"] == "TypeError"
        assert described["errorMessage"] == "'int' object is not callable"
        assert described["stackTrace"] == []


def test_endless_recursion_is_an_error_like_others(make: Make) -> None:
    with make("def handler(event, context):\n    return handler(event, context)\n") as environment:
        environment.start()
        answer = environment.invoke()
        assert answer.error_type == "RecursionError"
        assert any("Previous line repeated" in frame for frame in answer.json["stackTrace"])
        assert environment.invoke().failed


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("{1, 2}", "Object of type set is not JSON serializable"),
        ("object()", "Object of type object is not JSON serializable"),
        ("{(1, 2): 3}", "keys must be str, int, float, bool or None, not tuple"),
        ("circle()", "Circular reference detected"),
        ("later()", "Object of type coroutine is not JSON serializable"),
    ],
)
def test_results_that_are_not_json(make: Make, returned: str, reason: str) -> None:
    source = f"""\
        import warnings
        warnings.simplefilter("ignore")

        async def later():
            pass

        def circle():
            value = []
            value.append([value, value])
            return value

        def handler(event, context):
            return {returned}
        """
    with make(source) as environment:
        environment.start()
        for _ in range(2):
            answer = environment.invoke()
            assert (answer.failed, answer.error_type) == (True, "Runtime.MarshalError")
            assert answer.json["errorMessage"] == f"Unable to marshal response: {reason}"
            assert answer.json["stackTrace"] == []


def test_largest_response(make: Make) -> None:
    with make("def handler(event, context):\n    return 'x' * event\n") as environment:
        environment.start()
        assert len(environment.invoke(LIMIT - 2).body) == LIMIT
        answer = environment.invoke(LIMIT - 1)
        assert (answer.failed, answer.error_type) == (True, "Function.ResponseSizeTooLarge")
        assert answer.json["errorMessage"] == (
            "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
        )
        assert environment.invoke(1).json == "x"


def test_error_too_large_to_send_is_cut(make: Make) -> None:
    with make("def handler(event, context):\n    raise ValueError('x' * event)\n") as environment:
        environment.start()
        answer = environment.invoke(7_000_000)
        assert (answer.failed, answer.error_type) == (True, "ValueError")
        assert len(answer.json["errorMessage"]) == 65536
        assert answer.json["requestId"] == answer.id


def test_long_error_type_is_cut_between_characters(make: Make) -> None:
    source = "E = type('\\u00e9' * 100, (Exception,), {})\ndef handler(event, context):\n    raise E('m')\n"
    with make(source) as environment:
        environment.start()
        answer = environment.invoke()
        assert answer.error_type == "é" * 64
        assert answer.json["errorType"] == "é" * 100


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        ("sys.exit(3)", 3),
        ("sys.exit()", 0),
        ("sys.exit('reason')", 1),
        ("os._exit(4)", 4),
        ("quit(2)", 2),
        ("os.abort()", -6),
    ],
)
def test_leaving(make: Make, statement: str, status: int) -> None:
    with make(f"import os, sys\ndef handler(event, context):\n    {statement}\n") as environment:
        environment.start()
        environment.send_invoke(b"{}")
        with pytest.raises(EOFError):
            environment.receive()
        assert environment.leave() == status


def test_exit_handlers_run_when_the_function_leaves(make: Make) -> None:
    source = "import atexit, sys\natexit.register(print, 'bye')\ndef handler(event, context):\n    sys.exit(event)\n"
    with make(source) as environment:
        environment.start()
        environment.send_invoke(b"7")
        assert environment.leave() == 7
        assert environment.read_log() == "bye\n"


def test_ends_with_its_channel_and_without_exit_handlers(make: Make) -> None:
    source = """\
        import atexit, threading, time
        atexit.register(print, 'never')

        def handler(event, context):
            threading.Thread(target=time.sleep, args=(60,)).start()
        """
    with make(source) as environment:
        environment.start()
        environment.invoke()
        environment.socket.close()
        assert environment.leave() == 0
        assert environment.read_log() == ""


def test_threads_run_between_invocations(make: Make) -> None:
    source = """\
        import threading
        asked, told = threading.Event(), threading.Event()

        def answer():
            asked.wait()
            told.set()

        def handler(event, context):
            if event == "start":
                threading.Thread(target=answer).start()
            elif event == "ask":
                asked.set()
            else:
                return told.wait(60)
        """
    with make(source) as environment:
        environment.start()
        environment.invoke("start")
        environment.invoke("ask")
        assert environment.invoke("result").json is True


def test_signal_while_waiting_does_not_disturb(make: Make) -> None:
    source = """\
        import signal
        caught = []
        signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))

        def handler(event, context):
            return len(caught)
        """
    with make(source) as environment:
        environment.start()
        assert environment.invoke().json == 0
        deadline = time.monotonic() + 60
        while environment.invoke().json == 0:
            assert time.monotonic() < deadline
            environment.process.send_signal(10)


def test_globals_stay_from_one_invocation_to_the_next(make: Make) -> None:
    with make(
        "count = 0\ndef handler(event, context):\n    global count\n    count += 1\n    return count\n"
    ) as environment:
        environment.start()
        assert [environment.invoke().json for _ in range(5)] == [1, 2, 3, 4, 5]


def test_nothing_of_an_invocation_is_kept(make: Make) -> None:
    source = """\
        import weakref

        class Large(dict):
            pass

        made = []

        def handler(event, context):
            alive = [reference() is not None for reference in made]
            value = Large()
            made.extend([weakref.ref(value), weakref.ref(context)])
            if event == "fail":
                raise ValueError(value)
            return {"alive": alive, "value": value}
        """
    with make(source) as environment:
        environment.start()
        environment.invoke()
        environment.invoke("fail")
        assert environment.invoke().json["alive"] == [False] * 4


@pytest.mark.parametrize(
    "packet",
    [
        b"x",
        wire.encode(wire.Chunk(data=b"x")),
        wire.encode(wire.Invoke(id=bytes(16), total=1, body=b"xy")),
        wire.encode(wire.Invoke(id=bytes(16), total=LIMIT + 1)),
        wire.encode(wire.Start(configuration=b"{}")),
        wire.encode(wire.Invoke(id=bytes(16)))[:-1],
        bytes(wire.MESSAGE_MAX + 1),
    ],
    ids=["short", "chunk", "body-above-total", "total-above-limit", "start", "cut", "long"],
)
def test_malformed_packets_end_the_process(make: Make, packet: bytes) -> None:
    with make(ECHO) as environment:
        environment.start()
        environment.invoke()
        environment.socket.send(packet)
        assert environment.leave() == 76
        assert environment.read_log() == "runtimed: the channel broke: [Errno 74] Bad message\n"


@pytest.mark.parametrize("data", [b"", b"123"])
def test_malformed_chunks_end_the_process(make: Make, data: bytes) -> None:
    with make(ECHO) as environment:
        environment.start()
        environment.send(wire.Invoke(id=bytes(16), total=4, body=b"12"))
        environment.send(wire.Chunk(data=data))
        assert environment.leave() == 76


@pytest.mark.parametrize("configuration", [b"", b"[]", b"{}", b'{"handler": "app.handler"}'])
def test_malformed_configuration_ends_the_process(make: Make, configuration: bytes) -> None:
    with make(ECHO) as environment:
        environment.send(wire.Start(configuration=configuration))
        assert environment.leave() == 76
        assert environment.read_log().startswith("runtimed: the environment cannot start: ")


def test_dispatcher_gone_in_the_middle_of_an_event(make: Make) -> None:
    with make(ECHO) as environment:
        environment.start()
        environment.send(wire.Invoke(id=bytes(16), total=4, body=b"12"))
        environment.socket.close()
        assert environment.leave() == 0


def test_response_larger_than_the_socket_waits_for_its_reader(make: Make) -> None:
    with make("def handler(event, context):\n    return 'x' * event\n") as environment:
        environment.start()
        environment.send_invoke(b"5000000")
        environment.send_invoke(b"3")
        assert len(json.loads(environment.receive_answer().body)) == 5_000_000
        assert environment.receive_answer().json == "xxx"
