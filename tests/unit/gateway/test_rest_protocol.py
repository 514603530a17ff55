"""Requests and answers as bytes."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from runtimed.gateway.rest.answers import failure, success
from runtimed.gateway.rest.protocol import Exchange
from runtimed.model import errors
from runtimed.model.function import DeleteFunctionResponse, ListFunctionsResponse

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
HEAD = b"PUT /a%20b?x=1&y=%C3%A4&x= HTTP/1.1\r\nHost: h\r\nContent-Type: Application/JSON; charset=utf-8\r\n"


def test_a_head_and_a_body_in_parts() -> None:
    exchange = Exchange()
    head = exchange.head(HEAD + b"Content-Length: 5\r\n\r\nab")
    assert (head.method, head.path, head.media_type) == ("PUT", "/a%20b", "application/json")
    assert head.query == [("x", "1"), ("y", "ä"), ("x", "")]
    assert exchange.parts() == ([b"ab"], False)
    assert exchange.parts() == ([], False)
    exchange.receive(b"cde")
    assert exchange.parts() == ([b"cde"], True)


def test_chunks_and_what_waits() -> None:
    exchange = Exchange()
    exchange.head(HEAD + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
    assert exchange.parts() == ([], False)
    assert exchange.waits
    assert exchange.go_on() == b"HTTP/1.1 100 \r\n\r\n"
    assert not exchange.waits
    exchange.receive(b"2\r\nab\r\n0\r\n\r\n")
    assert exchange.parts() == ([b"ab"], True)


@pytest.mark.parametrize("more", [b"", b"Content-Length: 9\r\n"])
def test_an_answer_ends_the_connection(more: bytes) -> None:
    """Also before the body is read."""
    exchange = Exchange()
    exchange.head(HEAD + more + b"\r\n")
    answer = exchange.answer(200, [("A", "b")], b"{}")
    assert answer == b"HTTP/1.1 200 \r\nA: b\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def test_answers_without_a_body() -> None:
    exchange = Exchange()
    exchange.head(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert exchange.answer(404, [], b"{}").endswith(b"Content-Length: 2\r\nConnection: close\r\n\r\n")
    exchange = Exchange()
    exchange.head(b"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert exchange.answer(204, [], b"") == b"HTTP/1.1 204 \r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: h\r\n", b"\0\r\n\r\n", HEAD + b"Content-Length: x\r\n\r\n"])
def test_what_cannot_be_read_is_answered(data: bytes) -> None:
    exchange = Exchange()
    with pytest.raises(errors.InvalidRequestContent):
        exchange.head(data)
    assert exchange.answer(400, [], b"{}").startswith(b"HTTP/1.1 400 ")


def test_a_connection_that_ends_within_a_body() -> None:
    exchange = Exchange()
    exchange.head(HEAD + b"Content-Length: 5\r\n\r\nab")
    assert exchange.parts() == ([b"ab"], False)
    exchange.receive(b"")
    with pytest.raises(errors.InvalidRequestContent):
        exchange.parts()


def test_what_is_said() -> None:
    answer = success(200, ListFunctionsResponse(functions=[]), "id", NOW)
    assert answer.body == b'{"Functions":[]}'
    assert dict(answer.fields) == {
        "Date": "Sat, 31 Jan 2026 12:00:00 GMT", "Content-Type": "application/json", "x-amzn-RequestId": "id",
    }  # fmt: skip
    assert success(204, DeleteFunctionResponse(), "id", NOW).body == b""
    for error, body in (
        (errors.ResourceNotFound("ä"), {"Type": "User", "Message": "ä"}),
        (errors.InvalidParameterValue("b"), {"Type": "User", "message": "b"}),
        (errors.ServiceError("c"), {"Type": "Service", "Message": "c"}),
        (
            errors.TooManyRequests("d", reason="CallerRateLimitExceeded", retry_after=0.2),
            {"Type": "User", "Reason": "CallerRateLimitExceeded", "message": "d"},
        ),
    ):
        answer = failure(error, "id", NOW)
        fields = dict(answer.fields)
        assert (answer.status, fields["x-amzn-ErrorType"]) == (error.status, error.code)
        assert msgspec.json.decode(answer.body) == body
        assert fields.get("Retry-After") == ("1" if error.retry_after else None)
