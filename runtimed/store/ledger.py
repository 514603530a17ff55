"""What the code store takes of the disk, in bytes and files, against the limits; and what the disk must keep free.

Everything counts: packages as they were uploaded, their unpacked trees, and what is on its way (uploads, trees being
unpacked), which is reserved before it is written. Sizes are as the file system allots them, in whole blocks: ten
thousand files of ten bytes are not nothing. Packages that nothing refers to any more count until they are removed.

Called from several threads. `measure` reads the whole store, once; from then on the ledger is kept by its owner.
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from msgspec import Struct

BLOCK = 4096
RESERVE_SHARE = 0.02  # of the file system, where no reserve is given
RESERVE_MAX = 512 << 20
INODES_SHARE = 0.01  # of the file system's inodes, always kept free


class NoRoom(Exception):
    """The limits, or the disk, do not allow it; the text says which and what to do."""


class Size(Struct, frozen=True):
    """Room on disk."""

    bytes: int
    files: int

    def __add__(self, other: Size) -> Size:
        return Size(self.bytes + other.bytes, self.files + other.files)

    def __sub__(self, other: Size) -> Size:
        return Size(self.bytes - other.bytes, self.files - other.files)


NOTHING = Size(0, 0)


def allotted(size: int) -> int:
    """What a file of `size` bytes takes, at most."""
    return -(-size // BLOCK) * BLOCK


def size_of(path: Path) -> Size:
    """Of a file, or of a directory with all below it. What disappears meanwhile does not count."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return NOTHING
    total = Size(found.st_blocks * 512, 1)
    if stat.S_ISDIR(found.st_mode):
        with os.scandir(path) as entries:
            for entry in entries:
                total += size_of(path / entry.name)
    return total


class Disk(Struct, frozen=True):
    """The file system of the state directory. `reserve_bytes` 0: RESERVE_SHARE of it, at most RESERVE_MAX."""

    path: Path
    reserve_bytes: int = 0

    def reserve(self) -> int:
        """Bytes that must stay free."""
        whole = os.statvfs(self.path)
        return self.reserve_bytes or min(int(whole.f_blocks * whole.f_frsize * RESERVE_SHARE), RESERVE_MAX)

    def check(self, more: int = 0) -> None:
        """NoRoom when `more` bytes would leave less than the reserve. OSError."""
        now = os.statvfs(self.path)
        free, reserve = now.f_bavail * now.f_frsize, self.reserve()
        if free - more < reserve:
            raise NoRoom(
                f"the node's disk has {free >> 20} MB free, and {reserve >> 20} MB of it must stay so. Delete "
                "functions that are not needed, or give the node more disk"
            )
        if now.f_files and now.f_favail < now.f_files * INODES_SHARE:
            raise NoRoom("the node's file system has hardly any inodes left. Delete functions that are not needed")


class Ledger:
    """The code store's account."""

    def __init__(self, limit: Size, disk: Disk) -> None:
        self.limit = limit
        self.disk = disk
        self._lock = threading.Lock()
        self._kept: dict[str, Size] = {}
        self._used = NOTHING
        self._reserved = NOTHING

    @property
    def used(self) -> Size:
        """What is kept."""
        return self._used

    @property
    def reserved(self) -> Size:
        """What is on its way."""
        return self._reserved

    def keep(self, name: str, size: Size) -> None:
        """A package is there; its name is that of its place in the store."""
        with self._lock:
            self._used += size - self._kept.get(name, NOTHING)
            self._kept[name] = size

    def drop(self, name: str) -> None:
        with self._lock:
            self._used -= self._kept.pop(name, NOTHING)

    def reserve(self) -> Reservation:
        """Nothing yet: it grows with what is written."""
        return Reservation(self)

    def _claim(self, more: Size) -> None:
        self.disk.check(more.bytes)
        with self._lock:
            wanted = self._used + self._reserved + more
            if wanted.bytes > self.limit.bytes:
                raise NoRoom(
                    f"{(self._used + self._reserved).bytes >> 20} of {self.limit.bytes >> 20} MB are used, by packages "
                    f"and their unpacked files, and this one needs {-(-more.bytes >> 20)} MB more. Delete functions "
                    "that are not needed, or raise limits.code_storage_mb"
                )
            if wanted.files > self.limit.files:
                raise NoRoom(
                    f"{(self._used + self._reserved).files} of {self.limit.files} files are used, and this package "
                    f"has {more.files}. Delete functions that are not needed, or raise limits.code_files"
                )
            self._reserved += more

    def _release(self, size: Size) -> None:
        with self._lock:
            self._reserved -= size


class Reservation:
    """Room for one thing on its way. Released once, when it is kept or gone."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._size = NOTHING

    @property
    def size(self) -> Size:
        return self._size

    def grow(self, bytes: int, files: int) -> None:
        """NoRoom leaves it as it was."""
        more = Size(bytes, files)
        self._ledger._claim(more)
        self._size += more

    def release(self) -> None:
        """A second time does nothing."""
        self._ledger._release(self._size)
        self._size = NOTHING
