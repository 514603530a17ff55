"""Unpacks a verified package into an empty directory of ours.

Runs in a thread of the control plane. What is written is never more than the directory announced, and the directory was
checked against the limits before (`archive`). Files are 0644, or 0755 when the archive marks them executable; folders
0755; no times, owners or extended attributes are taken from the package. A package that is refused halfway leaves
nothing: the caller's directory is emptied again.
"""

from __future__ import annotations

import mmap
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

from runtimed.deployment.archive import DEFLATED, BadArchive, Entry, Limits, read_directory, shown
from runtimed.store.ledger import BLOCK, allotted

PIECE = 1 << 20  # bytes in memory at a time, compressed and decompressed each


def _no_bound(_bytes: int, _files: int) -> None:
    pass


def unpack(package: Path, into: Path, limits: Limits, claim: Callable[[int, int], None] = _no_bound) -> int:
    """Unpacks all of `package` into `into` (made here, must not exist). Returns the bytes written.

    `claim(bytes, files)` is asked for the room before anything is written; what it raises ends it.
    """
    into.mkdir()
    into.chmod(0o755)
    try:
        with package.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise BadArchive("the package is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
                entries = read_directory(data, limits)
                if not any(not entry.directory for entry in entries):
                    raise BadArchive("the package has no files")
                folders = _folders(entries)
                files = [entry for entry in entries if not entry.directory]
                claim(
                    sum(allotted(entry.size) for entry in files) + BLOCK * (len(folders) + 1),
                    len(files) + len(folders) + 1,
                )
                _make_folders(into, folders)
                return sum(_write(data, entry, into) for entry in files)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _folders(entries: list[Entry]) -> list[tuple[str, ...]]:
    folders = {entry.path[:depth] for entry in entries for depth in range(1, len(entry.path) + entry.directory)}
    return sorted(folders - {()})


def _make_folders(into: Path, folders: list[tuple[str, ...]]) -> None:
    for folder in folders:
        path = into.joinpath(*folder)
        path.mkdir()
        path.chmod(0o755)  # whatever the umask


def _write(data: memoryview, entry: Entry, into: Path) -> int:
    target = into.joinpath(*entry.path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(target, flags, 0o600)
    try:
        os.fchmod(descriptor, 0o755 if entry.executable else 0o644)
        crc = _copy(data, entry, descriptor)
    finally:
        os.close(descriptor)
    if crc != entry.crc:
        raise BadArchive(f"{shown(entry.path)} is damaged: its checksum does not match")
    return entry.size


def _copy(data: memoryview, entry: Entry, descriptor: int) -> int:
    """Writes exactly `entry.size` bytes; returns their CRC-32."""
    name = shown(entry.path)
    crc, written = 0, 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None
    for at in range(entry.start, entry.start + entry.compressed, PIECE):
        rest = bytes(data[at : min(at + PIECE, entry.start + entry.compressed)])
        while rest:
            if inflate is None:
                piece, rest = rest, b""
            else:
                try:
                    piece, rest = inflate.decompress(rest, PIECE), inflate.unconsumed_tail
                except zlib.error as error:
                    raise BadArchive(f"{name} is damaged: {error}") from None
                if inflate.eof and (inflate.unused_data or rest):
                    raise BadArchive(f"{name} is damaged: data after its end")
            written += len(piece)
            if written > entry.size:
                raise BadArchive(f"{name} is larger than the package says")
            crc = zlib.crc32(piece, crc)
            _write_all(descriptor, piece)
    while inflate is not None and not inflate.eof:  # output that was held back although all input is consumed
        piece = inflate.decompress(b"", PIECE)
        if not piece:
            raise BadArchive(f"{name} is damaged: its data are cut short")
        written += len(piece)
        if written > entry.size:
            raise BadArchive(f"{name} is larger than the package says")
        crc = zlib.crc32(piece, crc)
        _write_all(descriptor, piece)
    if written != entry.size:
        raise BadArchive(f"{name} is smaller than the package says")
    return crc


def _write_all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]
