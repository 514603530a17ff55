"""Calls over the invoke socket, against a dispatcher that answers as each test wants."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from runtimed.dispatch.invocations import CALLS_MAX, PART, Invocations, Lost
from runtimed.invocation.invoker import Invoker
from runtimed.link.connection import Connection
from runtimed.model import errors, wire
from runtimed.model.function import FunctionConfiguration
from runtimed.model.invocation import InvokeRequest, LogType
from runtimed.model.shape import UNSET
from tests.integration.peers import until

ID = bytes(range(16))


class Dispatch:
    """Gathers each call's body; `answer` decides what goes back."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.setblocking(False)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.connections: list[Connection] = []
        self.calls: dict[int, tuple[wire.Call, bytearray]] = {}
        self.cancelled: list[int] = []
        self.answer: Callable[[int, wire.Call, bytes], None] = self.echo
        asyncio.get_running_loop().add_reader(self.listener, self.accept)

    def accept(self) -> None:
        sock, _ = self.listener.accept()
        self.connections.append(Connection(sock, self.message, lambda reason: None))

    def message(self, header: wire.Header, message: wire.Message, descriptors: list[int]) -> None:
        number = header.object
        if isinstance(message, wire.Call):
            self.calls[number] = (message, bytearray(message.body))
        elif isinstance(message, wire.CallChunk):
            self.calls[number][1].extend(message.data)
        elif isinstance(message, wire.Cancel):
            self.cancelled.append(number)
            return
        call, body = self.calls[number]
        if len(body) == call.total:
            self.answer(number, call, bytes(body))

    def echo(self, number: int, call: wire.Call, body: bytes) -> None:
        self.send(number, wire.Answer(status=200, request_id=ID, executed_version="$LATEST"), body)

    def send(self, number: int, answer: wire.Answer, body: bytes = b"") -> None:
        values = {name: getattr(answer, name) for name in answer.__struct_fields__}
        head = wire.Answer(**{**values, "total": len(body), "body": body[:PART]})
        self.connections[-1].send(head, object=number)
        for at in range(PART, len(body), PART):
            self.connections[-1].send(wire.AnswerChunk(data=body[at : at + PART]), object=number)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.listener)
        self.listener.close()
        for connection in self.connections:
            connection.close()


@pytest_asyncio.fixture
async def dispatch(tmp_path: Path) -> AsyncIterator[Dispatch]:
    peer = Dispatch(tmp_path / "dispatch.sock")
    yield peer
    peer.close()


@pytest_asyncio.fixture
async def invocations(tmp_path: Path) -> AsyncIterator[Invocations]:
    client = Invocations(tmp_path / "dispatch.sock")
    yield client
    client.close()


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 6 << 20])
async def test_bodies_of_every_size_come_back(dispatch: Dispatch, invocations: Invocations, size: int) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    reply = await invocations.call("f", "", body)
    assert reply.body == body
    assert reply.answer.status == 200


async def test_many_at_once_on_one_connection_in_any_order(dispatch: Dispatch, invocations: Invocations) -> None:
    held: list[tuple[int, wire.Call, bytes]] = []
    dispatch.answer = lambda *call: held.append(call)
    calls = [asyncio.create_task(invocations.call("f", "", b"%d" % n * 30_000)) for n in range(20)]
    await until(lambda: len(held) == 20)
    for call in reversed(held):
        dispatch.echo(*call)
    for number, reply in enumerate(await asyncio.gather(*calls)):
        assert reply.body == b"%d" % number * 30_000
    assert len(dispatch.connections) == 1


async def test_cancelling_releases_the_call_alone(dispatch: Dispatch, invocations: Invocations) -> None:
    held: list[tuple[int, wire.Call, bytes]] = []
    dispatch.answer = lambda *call: held.append(call)
    calls = [asyncio.create_task(invocations.call("f", "", b"x")) for _ in range(2)]
    await until(lambda: len(held) == 2)
    calls[0].cancel()
    await until(lambda: dispatch.cancelled == [held[0][0]])
    dispatch.send(held[0][0], wire.Answer(status=499, outcome=wire.Outcome.REFUSED, code="RequestCancelled"))
    dispatch.echo(*held[1])
    assert (await calls[1]).body == b"x"


async def test_a_lost_dispatcher_ends_its_calls_and_the_next_one_connects_anew(
    dispatch: Dispatch, invocations: Invocations
) -> None:
    dispatch.answer = lambda number, call, body: dispatch.connections[-1].close()
    with pytest.raises(Lost):
        await invocations.call("f", "", b"x")
    dispatch.answer = dispatch.echo
    assert (await invocations.call("f", "", b"y")).body == b"y"
    assert len(dispatch.connections) == 2


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Lost, match="No such file"):
        await Invocations(tmp_path / "nowhere.sock").call("f", "", b"x")


async def test_more_calls_than_the_dispatcher_takes_wait_here(dispatch: Dispatch, invocations: Invocations) -> None:
    held: list[tuple[int, wire.Call, bytes]] = []
    dispatch.answer = lambda *call: held.append(call)
    calls = [asyncio.create_task(invocations.call("f", "", b"")) for _ in range(CALLS_MAX + 10)]
    await until(lambda: len(held) == CALLS_MAX)
    await asyncio.sleep(0.01)
    assert len(held) == CALLS_MAX
    for call in held:
        dispatch.echo(*call)
    dispatch.answer = dispatch.echo
    assert len(await asyncio.gather(*calls)) == CALLS_MAX + 10


# ---- in the API's terms --------------------------------------------------------------------------------------


async def nothing(name: str, qualifier: str) -> FunctionConfiguration | None:
    return None


async def test_an_answer_becomes_a_response(dispatch: Dispatch, invocations: Invocations) -> None:
    dispatch.answer = lambda number, call, body: dispatch.send(
        number,
        wire.Answer(
            status=200, outcome=wire.Outcome.FUNCTION_ERROR, request_id=ID, executed_version="$LATEST",
            duration_us=1500, init_us=20, log_tail=b"the tail",
        ),
        b'{"errorType":"KeyError"}',
    )  # fmt: skip
    response = await Invoker(invocations, nothing).invoke(InvokeRequest(function_name="f", log_type=LogType.TAIL))
    assert response.function_error == "Unhandled"
    assert response.request_id == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (response.payload, response.log_result) == (b'{"errorType":"KeyError"}', b"the tail")
    assert (response.duration_us, response.init_duration_us, response.executed_version) == (1500, 20, "$LATEST")
    dispatch.answer = dispatch.echo
    quiet = await Invoker(invocations, nothing).invoke(InvokeRequest(function_name="f"))
    assert quiet.function_error is quiet.log_result is UNSET


REFUSALS = [
    (429, "TooManyRequestsException", "ConcurrentInvocationLimitExceeded", errors.TooManyRequests),
    (404, "ResourceNotFoundException", "", errors.ResourceNotFound),
    (413, "RequestTooLargeException", "", errors.RequestTooLarge),
    (400, "InvalidRequestContentException", "", errors.InvalidRequestContent),
    (503, "ServiceException", "", errors.ServiceUnavailable),
    (500, "ServiceException", "", errors.ServiceError),
    (499, "SomethingNew", "", errors.ServiceError),
]


@pytest.mark.parametrize(("status", "code", "reason", "kind"), REFUSALS)
async def test_refusals(
    dispatch: Dispatch, invocations: Invocations, status: int, code: str, reason: str, kind: type[errors.ApiError]
) -> None:
    refusal = wire.Answer(
        status=status, outcome=wire.Outcome.REFUSED, code=code, reason=reason, message="A sentence.", request_id=ID
    )
    dispatch.answer = lambda number, call, body: dispatch.send(number, refusal)
    with pytest.raises(kind) as caught:
        await Invoker(invocations, nothing).invoke(InvokeRequest(function_name="f"))
    assert type(caught.value) is kind or kind is errors.ServiceError
    assert caught.value.reason == reason
    assert caught.value.request_id.startswith("00010203")


async def test_a_lost_dispatcher_is_unavailability(tmp_path: Path) -> None:
    with pytest.raises(errors.ServiceUnavailable, match="try again"):
        await Invoker(Invocations(tmp_path / "none"), nothing).invoke(InvokeRequest(function_name="f"))
