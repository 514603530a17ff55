"""A file on which a file system lies, by a FUSE server that knows what the power would leave of it: the file's content,
and for each block that was written since the last FSYNC what was there before.

Run as a program it is the server: FUSE's descriptor is its argument, its standard input takes a line for each cut,
`SEED REQUESTS PATH`; before the so-manieth WRITE or FSYNC from then on it writes to PATH what the disk may be after a
power cut at that moment, every unsynced block as it was or as it should be by chance, and answers how many there were.
`recorded` makes the file, and what mounts it.

A block is whole, old or new, as disks with sectors of 4,096 bytes keep it: ext4 cannot be mounted when its superblock
is torn within. (Sectors of 512 bytes and garbage: tests/native/test_event_log.py.)

A loop device over the file sends FSYNC for each flush of the file system's. Nothing but this process is written to.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.integration.disks import mounted

BLOCK = 4096
REQUEST = 1 << 20
WRITE_MAX = 128 << 10
NAME = b"disk"
ROOT, FILE = 1, 2
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 1, 2, 3, 4, 14, 15, 16, 17, 18, 20
FLUSH, INIT, INTERRUPT, DESTROY, BATCH_FORGET = 25, 26, 36, 38, 42
SILENT = (FORGET, BATCH_FORGET, INTERRUPT)
BIG_WRITES = 1 << 5
ENOENT, ENOSYS = 2, 38
FOREVER = 1 << 30
Answer = bytes | int
"""What is answered, or an errno."""


class Disk:
    """The file, as FUSE's requests see it. Layouts: the kernel's include/uapi/linux/fuse.h, version 7.31."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.before: dict[int, bytes] = {}
        """By number of a block that was written since the last sync."""
        self.answers: dict[int, Callable[[int, bytes], Answer]] = {
            INIT: self.init,
            LOOKUP: self.lookup,
            GETATTR: self.attributes,
            SETATTR: self.attributes,
            OPEN: lambda node, body: struct.pack("<QII", 0, 0, 0),
            READ: self.read,
            WRITE: self.write,
            FSYNC: self.sync,
            STATFS: lambda node, body: struct.pack("<5Q4I24x", 1 << 20, 1 << 19, 1 << 19, 9, 9, 4096, 255, 4096, 0),
            RELEASE: lambda node, body: b"",
            FLUSH: lambda node, body: b"",
            DESTROY: lambda node, body: b"",
        }

    def init(self, node: int, body: bytes) -> Answer:
        return struct.pack("<4I2HII2HI28x", 7, 31, WRITE_MAX, BIG_WRITES, 0, 0, WRITE_MAX, 1, 0, 0, 0)

    def attribute(self, node: int) -> bytes:
        size, mode = (len(self.content), 0o100600) if node == FILE else (0, 0o40700)
        return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def lookup(self, node: int, body: bytes) -> Answer:
        if body.rstrip(b"\0") != NAME:
            return ENOENT
        return struct.pack("<4Q2I", FILE, 0, FOREVER, FOREVER, 0, 0) + self.attribute(FILE)

    def attributes(self, node: int, body: bytes) -> Answer:
        return struct.pack("<QII", FOREVER, 0, 0) + self.attribute(node)

    def read(self, node: int, body: bytes) -> Answer:
        _, offset, size = struct.unpack_from("<QQI", body)
        return bytes(self.content[offset : offset + size])

    def write(self, node: int, body: bytes) -> Answer:
        _, offset, size = struct.unpack_from("<QQI", body)
        for block in range(offset // BLOCK, (offset + size - 1) // BLOCK + 1):
            if block not in self.before:
                self.before[block] = bytes(self.content[block * BLOCK : (block + 1) * BLOCK])
        self.content[offset : offset + size] = body[40 : 40 + size]
        return struct.pack("<II", size, 0)

    def sync(self, node: int, body: bytes) -> Answer:
        self.before.clear()
        return b""

    def cut(self, seed: int, path: str) -> int:
        """How many blocks were not synced."""
        rng = random.Random(seed)
        share = rng.choice((0, 0.1, 0.5, 0.5, 0.9, 1))  # of what is as it was
        left = bytearray(self.content)
        for block, data in self.before.items():
            if rng.random() < share:
                left[block * BLOCK : (block + 1) * BLOCK] = data
        Path(path).write_bytes(left)
        return len(self.before)


def serve(disk: Disk, fuse: int) -> None:
    """Until the file system is gone, or nobody is there who wants cuts."""
    left, seed, path = 0, 0, ""
    while True:
        ready, _, _ = select.select([fuse, sys.stdin], [], [])
        if sys.stdin in ready:
            words = sys.stdin.readline().split(maxsplit=2)
            if not words:
                return
            seed, left, path = int(words[0]), int(words[1]), words[2].strip()
        if fuse in ready:
            try:
                request = os.read(fuse, REQUEST)
            except (BlockingIOError, InterruptedError, FileNotFoundError):  # somebody's who went away
                continue
            except OSError:  # ENODEV: it was unmounted
                return
            _, operation, unique, node = struct.unpack_from("<IIQQ", request)
            if operation in SILENT:
                continue
            if left > 0 and operation in (WRITE, FSYNC):
                left -= 1
                if left == 0:
                    print(disk.cut(seed, path), flush=True)
            answer = disk.answers[operation](node, request[40:]) if operation in disk.answers else ENOSYS
            error, body = (-answer, b"") if isinstance(answer, int) else (0, answer)
            with contextlib.suppress(FileNotFoundError):  # it was interrupted
                os.write(fuse, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


class Recorded(NamedTuple):
    path: Path
    """Of the file."""
    process: subprocess.Popen[str]

    def begin_cut(self, seed: int, requests: int, path: Path) -> None:
        """What the power leaves before the so-manieth request goes to that file."""
        assert self.process.stdin is not None
        print(seed, requests, path, file=self.process.stdin, flush=True)

    def cut(self) -> int | None:
        """How many blocks were not synced; None: it has not come to that."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], 0)[0]:
            return None
        return int(self.process.stdout.readline())


@contextlib.contextmanager
def recorded(image: Path) -> Iterator[Recorded]:
    """A file with the content of that one."""
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
    command = [sys.executable, "-m", "tests.crash.recorded_disk", str(fuse), str(image)]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, pass_fds=[fuse], text=True) as process:
            try:
                with mounted(b"fuse", fd=str(fuse), rootmode="40000", user_id="0", group_id="0") as top:
                    yield Recorded(top / NAME.decode(), process)
            finally:
                if process.stdin is not None:
                    process.stdin.close()
    finally:
        os.close(fuse)


if __name__ == "__main__":
    serve(Disk(Path(sys.argv[2]).read_bytes()), int(sys.argv[1]))
