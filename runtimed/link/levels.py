"""The newest value that the other side told of each object: levels, not events. What came between two looks is not
kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Levels(Generic[T]):
    """By object; a value can be awaited."""

    def __init__(self) -> None:
        self._values: dict[int, T] = {}
        self._waiting: dict[int, list[tuple[Callable[[T], bool], asyncio.Future[T]]]] = {}
        self._ended: Exception | None = None

    def get(self, object: int) -> T | None:
        return self._values.get(object)

    def values(self) -> list[T]:
        return list(self._values.values())

    def items(self) -> list[tuple[int, T]]:
        return list(self._values.items())

    def set(self, object: int, value: T) -> None:
        self._values[object] = value
        waiting = self._waiting.pop(object, [])
        left = []
        for accepts, future in waiting:
            if future.done():
                continue
            if accepts(value):
                future.set_result(value)
            else:
                left.append((accepts, future))
        if left:
            self._waiting[object] = left

    def forget(self, object: int) -> None:
        self._values.pop(object, None)

    async def when(self, object: int, accepts: Callable[[T], bool]) -> T:
        """The object's value, now or as soon as it is acceptable. Raises what `end` was given."""
        value = self._values.get(object)
        if value is not None and accepts(value):
            return value
        if self._ended is not None:
            raise self._ended
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(object, []).append((accepts, future))
        return await future

    def end(self, error: Exception) -> None:
        """Nothing more will be told: forgets all and releases who waits, now or later."""
        self._ended = error
        self._values.clear()
        for waiting in self._waiting.values():
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
        self._waiting.clear()
