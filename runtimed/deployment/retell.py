"""Tells the dispatcher of targets anew when something about them has changed that is not theirs: what is reserved for
their function, the keep-alive of all. daemon.py makes it.

Of every target that the dispatcher knows, and not only of those that serve: one that is being rolled out was told what
held before. And of none that it does not know any more: a target that is withdrawn meanwhile must not come back.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from runtimed.link.mirror import Refused

if TYPE_CHECKING:
    from runtimed.deployment.steps import Steps
    from runtimed.dispatch.control import Dispatcher
    from runtimed.store.functions import FunctionStore

log = logging.getLogger(__name__)


class Reteller:
    """Between the decision to tell a target and telling it nothing is waited for."""

    def __init__(self, functions: FunctionStore, dispatcher: Dispatcher, steps: Steps) -> None:
        self._functions = functions
        self._dispatcher = dispatcher
        self._steps = steps

    async def tell(self, uid: bytes | None = None) -> None:
        """Of one function's targets, or of all. Returns when the dispatcher has them."""
        for number, told in self._dispatcher.targets().items():
            if uid is None or told.function_uid == uid:
                await self._tell_target(number)

    async def _tell_target(self, number: int) -> None:
        try:
            target = await self._functions.target(number)
        except KeyError:
            return
        if self._dispatcher.target(number) == self._steps.target(target):
            return
        generation = await self._functions.next_generation(target.uid)
        if generation is None or not self._dispatcher.knows(number):
            return
        try:
            await self._dispatcher.put(self._steps.target(target), number, generation)
        except Refused as error:
            log.warning("%s is as it was to the dispatcher: %s", target.name, error)
