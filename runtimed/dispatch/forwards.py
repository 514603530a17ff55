"""Requests that the dispatcher forwards: each with its caller's connection and what was read of it.

Whoever takes them says how many at a time; the dispatcher keeps the bytes of each among its memory for payloads until
it is told that the request is over.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from runtimed.link.connection import Connection, close_all
from runtimed.model import wire


class Forwarded:
    """One request. Its owner closes it, once."""

    def __init__(self, message: wire.Forward, sock: socket.socket, spool: int, over: Callable[[], None]) -> None:
        self.sock = sock
        self.spool = spool
        """A descriptor: the head, and behind it what was read of the rest. Nobody can change it any more."""
        self.head = message.head
        self.size = message.size
        self.whole = bool(message.flags & wire.ForwardFlags.WHOLE)
        """The rest is the body, all of it, and nothing of the request is left in the connection."""
        self.key_id = message.key_id
        """Of the key that let it in; empty: a peer on the unix socket."""
        self._over = over

    def close(self) -> None:
        self.sock.close()
        os.close(self.spool)
        self._over()


Take = Callable[[Forwarded], None]


class Forwards:
    """The account with each incarnation of the dispatcher."""

    def __init__(self) -> None:
        self._take: Take | None = None
        self._credit = 0
        self._told: Connection | None = None

    def open(self, take: Take, at_once: int) -> None:
        """`take` is called with each request from now on; at most `at_once` are not closed."""
        self._take, self._credit = take, at_once

    def tell(self, connection: Connection) -> None:
        """A connection over which everything was told."""
        if self._take is not None and self._told is not connection:
            self._told = connection
            connection.send(wire.Credit(n=self._credit))

    def take(self, connection: Connection, object: int, message: wire.Forward, descriptors: list[int]) -> None:
        if self._take is None or len(descriptors) != 2:
            close_all(descriptors)
            return
        sock, spool = socket.socket(fileno=descriptors[0]), descriptors[1]
        descriptors.clear()
        self._take(Forwarded(message, sock, spool, lambda: connection.send(wire.Credit(n=1), object=object)))
