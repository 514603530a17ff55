"""Handlers whose responses come in parts: generators, and those that write to their context's stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtimed.model import wire
from tests.unit.bootstrap.conftest import Make
from tests.unit.bootstrap.dispatcher import Environment

HTTP = "application/vnd.awslambda.http-integration-response"


def stream(environment: Environment, event: Any = None) -> tuple[wire.StreamHead, list[bytes], wire.StreamEnd]:
    """One invocation's response: its head, its parts, its end."""
    environment.send_invoke(json.dumps(event).encode())
    head = environment.receive()[1]
    assert isinstance(head, wire.StreamHead), head
    parts = [head.data]
    while True:
        header, message = environment.receive()
        if isinstance(message, wire.StreamEnd):
            assert header.flags == wire.HeaderFlags.READY
            return head, parts, message
        assert isinstance(message, wire.StreamChunk) and message.data
        parts.append(message.data)


GENERATOR = """
    def handler(event, context):
        for part in event:
            if part == "fail":
                raise KeyError("gone")
            yield part.encode() if part.startswith("b") else part
"""


def test_generators(make: Make) -> None:
    with make(GENERATOR) as environment:
        environment.start()
        head, parts, end = stream(environment, ["one", "", "b two", "drei \u00fc"])
        assert (head.content_type, end.error) == ("", 0)
        assert parts == [b"one", b"b two", "drei \u00fc".encode()]
        head, parts, end = stream(environment, [])
        assert (parts, end.error) == ([b""], 0)


def test_a_generator_that_fails(make: Make) -> None:
    with make(GENERATOR) as environment:
        environment.start()
        first = environment.invoke(["fail"])
        assert (first.failed, first.error_type) == (True, "KeyError")
        _, parts, end = stream(environment, ["one", "fail"])
        assert (parts, end.error, end.error_type) == ([b"one"], 1, "KeyError")
        described = json.loads(end.body)
        assert described["errorMessage"] == "'gone'"
        assert len(described["stackTrace"]) == 1 and "app.py" in described["stackTrace"][0]
        assert stream(environment, ["again"])[1] == [b"again"]
        assert environment.read_log().count("[ERROR] KeyError: 'gone'") == 2


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("iter([b'a', bytearray(b'b'), memoryview(b'c')])", [b"a", b"b", b"c"]),
        ("map(str, range(3))", [b"0", b"1", b"2"]),
        ("__import__('io').BytesIO(b'x\\ny')", [b"x\n", b"y"]),
        ("(c for c in ['x' * 200000])", [b"x" * 65536] * 3 + [b"x" * 3392]),
    ],
)
def test_iterators(make: Make, expression: str, parts: list[bytes]) -> None:
    with make("def handler(event, context):\n    return eval(event)") as environment:
        environment.start()
        assert stream(environment, expression)[1] == parts


def test_what_is_no_part(make: Make) -> None:
    with make("def handler(event, context):\n    return eval(event)") as environment:
        environment.start()
        answer = environment.invoke("iter([1])")
        assert (answer.failed, answer.error_type) == (True, "Runtime.MarshalError")
        assert answer.json["errorMessage"].endswith("a part of a stream is bytes or str, not int")
        _, parts, end = stream(environment, "iter(['a', {}])")
        assert (parts, end.error_type) == ([b"a"], "Runtime.MarshalError")
        _, parts, end = stream(environment, "iter(['a', chr(0xd800)])")
        assert (parts, end.error_type) == ([b"a"], "Runtime.MarshalError")


WRITER = """
    kept = []

    def handler(event, context):
        stream = context.response_stream(*event.get("type", []), metadata=event.get("metadata"))
        assert stream is context.response_stream(*event.get("type", []), metadata=event.get("metadata"))
        kept.append(stream)
        if event.get("late"):
            kept[0].write("late")
        for part in event.get("parts", []):
            assert stream.write(part) == len(part)
            stream.flush()
        if event.get("fail"):
            raise ValueError("no")
        if event.get("more"):
            stream.write("a")
            context.response_stream("text/html")
        return {"of": "no interest"}
"""


def test_writing(make: Make) -> None:
    with make(WRITER) as environment:
        environment.start()
        head, parts, end = stream(environment, {"type": ["text/event-stream"], "parts": ["data: 1\n\n", "data: 2\n\n"]})
        assert (head.content_type, parts, end.error) == ("text/event-stream", [b"data: 1\n\n", b"data: 2\n\n"], 0)
        head, parts, end = stream(environment, {"metadata": {"statusCode": 201}, "parts": ["body", "more"]})
        assert (head.content_type, parts) == (HTTP, [b'{"statusCode": 201}' + bytes(8) + b"body", b"more"])
        head, parts, end = stream(environment, {"metadata": {"statusCode": 204}})
        assert (head.content_type, parts) == (HTTP, [b'{"statusCode": 204}' + bytes(8)])
        _, parts, end = stream(environment, {"parts": ["a"], "fail": True})
        assert (parts, end.error, end.error_type) == ([b"a"], 1, "ValueError")


def test_writing_too_late(make: Make) -> None:
    with make(WRITER) as environment:
        environment.start()
        stream(environment, {"parts": ["a"]})
        answer = environment.invoke({"late": True})
        assert answer.json["errorMessage"] == "The response is over: its invocation has ended."
        _, parts, end = stream(environment, {"more": True})
        assert (parts, end.error_type) == ([b"a"], "ValueError")
        answer = environment.invoke({"type": ["x" * 257]})
        assert answer.json["errorMessage"] == "A content type is a str of at most 256 bytes."


def test_a_generator_says_what_it_yields(make: Make) -> None:
    source = """
        def handler(event, context):
            context.response_stream("text/csv")
            yield "a,b\\n"
    """
    with make(source) as environment:
        environment.start()
        head, parts, _ = stream(environment)
        assert (head.content_type, parts) == ("text/csv", [b"a,b\n"])


def test_a_generator_is_closed(make: Make) -> None:
    source = """
        def handler(event, context):
            try:
                yield "a"
                yield 1
            finally:
                print("closed")
    """
    with make(source) as environment:
        environment.start()
        stream(environment)
        assert "closed" in environment.read_log()


def test_leaving_in_the_middle(make: Make) -> None:
    source = """
        import sys
        def handler(event, context):
            yield "a"
            sys.exit(3)
    """
    with make(source) as environment:
        environment.start()
        environment.send_invoke(b"{}")
        assert isinstance(environment.receive()[1], wire.StreamHead)
        with pytest.raises(EOFError):
            environment.receive()
        assert environment.leave() == 3


def test_a_large_error_object(make: Make) -> None:
    source = """
        def handler(event, context):
            yield "a"
            raise ValueError("x" * 1000000)
    """
    with make(source) as environment:
        environment.start()
        _, _, end = stream(environment)
        assert json.loads(end.body)["errorMessage"] == "x" * 256
