"""A result that comes in parts, as both clients give it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from msgspec import UNSET

from runtimed.client.errors import ClientError, FunctionFailed
from runtimed.client.result import failure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
    from types import TracebackType

    from runtimed.model.invocation import InvokeStreamComplete, InvokeStreamResponse


class _Told:
    """What is known of the invocation so far: its head with the first part, the rest at the end."""

    def __init__(self) -> None:
        self.request_id = ""
        self.executed_version = ""
        self.content_type = ""
        """What the function said of its result; empty: nothing."""
        self.complete: InvokeStreamComplete | None = None
        """None: it is not over."""

    @property
    def log_tail(self) -> str:
        """The last 4 KB of the log, when asked for and once it is over."""
        tail = UNSET if self.complete is None else self.complete.log_result
        return "" if tail is UNSET else tail.decode(errors="replace")

    def error(self) -> FunctionFailed | None:
        """The function's failure; None when it succeeded, or is not over."""
        if self.complete is None or self.complete.error_code is UNSET:
            return None
        details = self.complete.error_details
        return failure(b"" if details is UNSET else details, self.request_id, self.complete.error_code)

    def _take(self, message: InvokeStreamResponse) -> bytes:
        """The part that it holds, or nothing."""
        if message.start is not UNSET:
            self.request_id = message.start.request_id
            self.executed_version = message.start.executed_version
            self.content_type = message.start.content_type
        if message.complete is not UNSET:
            self.complete = message.complete
        return b"" if message.payload_chunk is UNSET else message.payload_chunk

    def _finish(self) -> None:
        if self.complete is None:
            raise ClientError(
                "The result was cut short: its end did not come. Whether the function went on is not known."
            )
        error = self.error()
        if error is not None:
            raise error


class ResultStream(_Told):
    """Iterates over the parts of a result, bytes, as they come; then raises FunctionFailed when the function failed, so
    that what came is not whole. Leaving it early releases the call; the function goes on to its end."""

    def __init__(self, messages: Generator[InvokeStreamResponse, None, None]) -> None:
        super().__init__()
        self._messages = messages
        self._parts = self._iterate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def __next__(self) -> bytes:
        return next(self._parts)

    def close(self) -> None:
        self._parts.close()
        self._messages.close()

    def read(self) -> bytes:
        """All that is left, joined."""
        return b"".join(self)

    def _iterate(self) -> Generator[bytes, None, None]:
        for message in self._messages:
            part = self._take(message)
            if part:
                yield part
        self._finish()


class AsyncResultStream(_Told):
    """The same for asyncio."""

    def __init__(self, messages: AsyncGenerator[InvokeStreamResponse, None]) -> None:
        super().__init__()
        self._messages = messages
        self._parts = self._iterate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts

    async def __anext__(self) -> bytes:
        return await anext(self._parts)

    async def close(self) -> None:
        await self._parts.aclose()
        await self._messages.aclose()

    async def read(self) -> bytes:
        """All that is left, joined."""
        return b"".join([part async for part in self])

    async def _iterate(self) -> AsyncGenerator[bytes, None]:
        async for message in self._messages:
            part = self._take(message)
            if part:
                yield part
        self._finish()
