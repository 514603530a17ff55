"""Small real file systems that appear in no mount table: they go with the descriptor, whatever becomes of the test."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432  # the same on every architecture
SET_STRING, CREATE = 1, 6
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


@contextlib.contextmanager
def mounted(kind: bytes, **options: str) -> Iterator[Path]:
    """A detached mount, as the path by which this process reaches it."""
    context = _call(FSOPEN, kind, 1)
    try:
        for name, value in options.items():
            _call(FSCONFIG, context, SET_STRING, name.encode(), value.encode(), 0)
        _call(FSCONFIG, context, CREATE, None, None, 0)
        mount = _call(FSMOUNT, context, 1, 0)
    finally:
        os.close(context)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{mount}")
    finally:
        os.close(mount)


@contextlib.contextmanager
def block_device(image: Path, megabytes: int) -> Iterator[str]:
    """A loop device with an empty ext4, which goes when nothing uses it any more."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", image], check=True)
    made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def frozen(directory: Path) -> Iterator[None]:
    """The file system takes no write until the block ends: who writes waits."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, FITHAW, 0)
    finally:
        os.close(descriptor)
