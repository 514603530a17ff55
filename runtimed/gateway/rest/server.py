"""Serves what the dispatcher forwards: reads the rest of the request from its connection, performs it, answers, closes.

Nothing here knows a resource. The dispatcher has said who the caller is before anything arrives. A body is kept in
memory when it is small, in a file of the node's staging space when not, and in the dispatcher's sealed memory when its
signature had to be checked.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from mmap import MAP_PRIVATE, PROT_READ, mmap
from typing import Any, Protocol

import msgspec

from runtimed.api.absent import ABSENT
from runtimed.api.operation import Bound, Kind
from runtimed.deployment.uploads import paced
from runtimed.gateway.rest import answers
from runtimed.gateway.rest.body import CUT, LONG, Region, cut, decode_region, decode_text
from runtimed.gateway.rest.protocol import Exchange, Head
from runtimed.gateway.rest.router import Match, Router
from runtimed.model import errors
from runtimed.model.shape import explain

AT_ONCE = 32
"""Requests under way; the dispatcher answers 503 to further ones."""
BODY_MAX = 72 << 20
"""As the dispatcher's FORWARD_BODY_MAX (forward.h): a zip of 50 MB in base64, and what is around it."""
SMALL = 64 * 1024
"""A body up to here stays in memory."""
READ = 256 * 1024
SEND_SECONDS = 30.0
"""For an answer that is not read."""
LINGER_SECONDS = 2.0
"""After the answer: closing at once would reset the connection under it when a body is still on its way."""

log = logging.getLogger(__name__)

Text = tuple[bytes | mmap, int, int]
"""A body: where it lies, and from where to where."""


class Request(Protocol):
    """What the dispatcher hands over (dispatch/forwards.py)."""

    sock: socket.socket
    spool: int
    head: int
    size: int
    whole: bool
    key_id: str

    def close(self) -> None: ...


class Spool(Protocol):
    """Where a long body goes (deployment/spool.py)."""

    size: int

    async def write(self, piece: bytes) -> None: ...
    def fileno(self) -> int: ...


class RestServer:
    """`take` gets the requests."""

    def __init__(
        self,
        api: Mapping[str, Bound],
        spooled: Callable[[], AbstractAsyncContextManager[Spool]],
        *,
        patience: float,
    ) -> None:
        """`patience`: seconds that the sender of a body may be silent."""
        self._router = Router(api, ABSENT)
        self._spooled = spooled
        self._patience = patience
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False

    def take(self, request: Request) -> None:
        """Owns the request from now on."""
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def stop(self, grace: float) -> None:
        """Refuses new requests at once, gives running ones `grace` seconds, and ends the rest."""
        self._stopping = True
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, request: Request) -> None:
        exchange = Exchange()
        request.sock.setblocking(False)
        try:
            answer = await self._answer(request, exchange)
            data = exchange.answer(answer.status, answer.fields, answer.body)
            async with asyncio.timeout(SEND_SECONDS):
                await asyncio.get_running_loop().sock_sendall(request.sock, data)
            await _linger(request.sock)
        except (OSError, TimeoutError):
            pass  # the caller went away, or does not read
        except Exception:
            log.exception("a request was not answered")
        finally:
            request.close()

    async def _answer(self, request: Request, exchange: Exchange) -> answers.Answer:
        request_id = str(uuid.uuid4())
        try:
            if self._stopping:
                raise errors.ServiceUnavailable("The node is stopping. Try again when it is back.")
            first = os.pread(request.spool, request.head if request.whole else request.size, 0)
            head = exchange.head(first)
            match = self._router.find(head.method, head.path, head.query)
            async with self._body(request, exchange) as text:
                response = await _perform(match, head, text)
            route = match.found.operation.route
            assert route is not None
            return answers.success(route.status, response, request_id, datetime.now(UTC))
        except errors.ApiError as error:
            return answers.failure(error, request_id, datetime.now(UTC))
        except OSError:
            raise
        except Exception:
            log.exception("request %s failed", request_id)
            hidden = errors.ServiceError(f"The request failed inside the node; its log says why ({request_id}).")
            return answers.failure(hidden, request_id, datetime.now(UTC))

    @asynccontextmanager
    async def _body(self, request: Request, exchange: Exchange) -> AsyncIterator[Text]:
        if request.whole and request.size > request.head:
            with mmap(request.spool, request.size, flags=MAP_PRIVATE, prot=PROT_READ) as text:
                yield text, request.head, request.size
            return
        if request.whole:
            yield b"", 0, 0
            return
        async with aclosing(_pieces(request.sock, exchange)) as pieces:
            coming = paced(pieces, self._patience)
            small = b""
            async for piece in coming:
                small += piece
                if len(small) > SMALL:
                    break
            else:
                yield small, 0, len(small)
                return
            async with self._spooled() as spool:
                await spool.write(small)
                async for piece in coming:
                    if spool.size + len(piece) > BODY_MAX:
                        raise errors.RequestTooLarge(
                            f"The body has more than {BODY_MAX} bytes. `runtimectl deploy` takes packages up to 250 MB."
                        )
                    await spool.write(piece)
                with mmap(spool.fileno(), spool.size, flags=MAP_PRIVATE, prot=PROT_READ) as text:
                    yield text, 0, spool.size


async def _pieces(sock: socket.socket, exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """The body as it comes."""
    loop = asyncio.get_running_loop()
    while True:
        parts, over = exchange.parts()
        for part in parts:
            yield part
        if over:
            return
        if exchange.waits:
            await loop.sock_sendall(sock, exchange.go_on())
        exchange.receive(await loop.sock_recv(sock, READ))


async def _linger(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError, TimeoutError):
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER_SECONDS):
            while await loop.sock_recv(sock, READ):
                pass


async def _perform(match: Match[Bound], head: Head, text: Text) -> Any:
    operation, call = match.found.operation, match.found.call
    data, at, end = text
    json, region = await asyncio.to_thread(cut, data, at, end) if end - at > SMALL else cut(data, at, end)
    members = {} if head.method in ("GET", "DELETE") else _members(json)
    members.update(_query(head))
    members.update(match.members)
    assert operation.route is not None
    package = operation.route.adapt(members) if operation.route.adapt else ""
    request = _convert(operation.request, members, strict=head.method not in ("GET", "DELETE"))
    if region is not None and package != CUT:
        raise errors.InvalidParameterValue(f"A member has more than {LONG} bytes, which none but ZipFile may have.")
    if operation.kind is not Kind.UPLOAD:
        return await call(request)
    async with aclosing(_package(data, region, package)) as upload:
        return await call(request, upload)


async def _package(data: bytes | mmap, region: Region | None, package: str) -> AsyncGenerator[bytes, None]:
    async for piece in decode_region(data, region) if region is not None else decode_text(package):
        yield piece


def _members(json: bytes) -> dict[str, Any]:
    """A body's; null is as good as absent."""
    try:
        found = msgspec.json.decode(json) if json.strip() else {}
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.InvalidRequestContent(f"The body could not be read as JSON: {error}.") from None
    if not isinstance(found, dict):
        raise errors.InvalidRequestContent("The body must be a JSON object.")
    return {name: value for name, value in found.items() if value is not None}


def _query(head: Head) -> dict[str, str]:
    found = dict(head.query)
    if len(found) != len(head.query):
        raise errors.InvalidParameterValue("The query has a parameter twice.")
    return found


def _convert(shape: type[Any], members: dict[str, Any], *, strict: bool) -> Any:
    unknown = sorted(members.keys() - set(shape.__struct_encode_fields__))
    if unknown:
        raise errors.InvalidParameterValue(f"{unknown[0]}: this node does not have it. Leave it out.")
    try:
        return msgspec.convert(members, shape, strict=strict)
    except msgspec.ValidationError as error:
        raise errors.InvalidParameterValue(explain(shape, error)) from None
