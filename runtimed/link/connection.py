"""One SOCK_SEQPACKET connection of the control protocol, on the event loop.

A packet is a message of `model.wire`, with descriptors where the schema says so. Whoever receives descriptors owns
them. What does not fit in the socket's buffer waits here, in order; `drained` lets a sender wait for room.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from runtimed.model import wire

BATCH = 64  # packets handled before the loop gets its turn again
DESCRIPTORS_MAX = 8  # as in native/base/descriptor.h
ANCILLARY_BYTES = socket.CMSG_LEN(DESCRIPTORS_MAX * 4)
UNSENT_HIGH = 4 << 20  # bytes waiting here above which `drained` blocks

OnMessage = Callable[[wire.Header, wire.Message, list[int]], None]
OnClose = Callable[[Exception | None], None]


class Connection:
    """Calls `on_message` for each packet and `on_close` once, with the reason when it was not the peer's plain end."""

    def __init__(self, sock: socket.socket, on_message: OnMessage, on_close: OnClose, *, epoch: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_message = on_message
        self._on_close = on_close
        self._epoch = epoch
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self.closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(
        self, message: wire.Message, *, flags: int = 0, seq: int = 0, object: int = 0, generation: int = 0
    ) -> None:
        """Sends or queues. Silently nothing on a closed connection: its end is told by `on_close`, once."""
        packet = wire.encode(message, flags=flags, epoch=self._epoch, seq=seq, object=object, generation=generation)
        if self.closed:
            return
        if not self._unsent and self._try(packet):
            return
        if not self._unsent:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._unsent.append(packet)
        self._unsent_bytes += len(packet)
        if self._unsent_bytes > UNSENT_HIGH:
            self._room.clear()

    async def drained(self) -> None:
        """Until there is room again; at once on a closed connection."""
        await self._room.wait()

    def close(self) -> None:
        """From our side; `on_close` is not called."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        if self._unsent:
            self._loop.remove_writer(self._sock.fileno())
            self._unsent.clear()
        self._room.set()
        self._sock.close()

    def _try(self, packet: bytes) -> bool:
        try:
            self._sock.send(packet)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # Reported from the loop, never from inside a caller's send.
            self._loop.call_soon(self._fail, error)
            return True
        return True

    def _writable(self) -> None:
        while self._unsent:
            if not self._try(self._unsent[0]):
                return
            self._unsent_bytes -= len(self._unsent.popleft())
            if self._unsent_bytes <= UNSENT_HIGH // 2:
                self._room.set()
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(BATCH):
            if self.closed:
                return
            try:
                packet, ancillary, flags, _ = self._sock.recvmsg(
                    wire.MESSAGE_MAX, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._fail(error)
                return
            if not packet:
                self._fail(None)
                return
            self._handle(packet, _descriptors(ancillary), flags)

    def _handle(self, packet: bytes, descriptors: list[int], flags: int) -> None:
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ValueError("a packet was cut off")
            header, message = wire.decode(packet)
        except ValueError as error:
            close_all(descriptors)
            self._fail(error)
            return
        self._on_message(header, message, descriptors)

    def _fail(self, reason: Exception | None) -> None:
        if self.closed:
            return
        self.close()
        self._on_close(reason)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    # Not socket.recv_fds: it drops its flags, and the descriptors would be inheritable.
    found: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found += struct.unpack(f"={len(data) // 4}i", data[: len(data) // 4 * 4])
    return found


def close_all(descriptors: Sequence[int]) -> None:
    """Closes descriptors that nobody wants."""
    for descriptor in descriptors:
        os.close(descriptor)
