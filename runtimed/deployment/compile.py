"""Compiles an unpacked package: runs runtimed/bootstrap/compile.py in a jail and puts what it prints into the tree.

The frames' format stands at the head of that file. The task read the function's files, so nothing that it prints is
believed: a frame becomes a file only where Python would look for the bytecode of a source that lies in the package,
with bounds on number and size; the first frame that is anything else ends the reading. Bytecode is run in the
function's sandbox only, so its contents can do no more than the function's own code.

Compiling is an optimisation: what could not be compiled is compiled at import, where the function gets the error.
"""

from __future__ import annotations

import logging
import os
import re
import struct
from pathlib import Path

from runtimed.link.mirror import Refused, Unconnected
from runtimed.model import wire
from runtimed.sandbox.launcher import Failed, Launcher
from runtimed.sandbox.tasks import run_task

MEMORY_MB = 1024
TIMEOUT_MS = 120_000

# As in bootstrap/compile.py, which stops there.
FILES_MAX = 20_000
BYTES_MAX = 256 << 20
PATH_MAX = 1024
FILE_MAX = 64 << 20  # one source is at most 8 MB; bytecode is rarely larger than its source

_U32 = struct.Struct("<I")
_TARGET = re.compile(r"(?P<folder>(?:[^/\x00]+/)*)__pycache__/(?P<module>[^/\x00]+)\.cpython-(?P<tag>3\d{1,3})\.pyc")

log = logging.getLogger(__name__)


class BadFrame(ValueError):
    """Not what our program prints."""


async def compile_tree(launcher: Launcher, tree: Path, interpreter: int, runtime: str) -> int:
    """Returns how many files were compiled; `tree` lies in staging. Never fails for what the package contains."""
    frames = Frames(tree, runtime.removeprefix("python").replace(".", ""))
    try:
        outcome = await run_task(
            launcher,
            wire.TaskKind.COMPILE,
            frames.feed,
            interpreter=interpreter,
            staging=tree.parent.name,
            memory_mb=MEMORY_MB,
            timeout_ms=TIMEOUT_MS,
        )
    except (Failed, Refused, Unconnected) as error:
        log.warning("a package was not compiled ahead: %s", error)
        return 0
    if frames.error is not None:
        log.warning("compiling a package printed something unexpected: %s", frames.error)
    elif not outcome.end.succeeded:
        log.warning("compiling a package ended early: %s %s", outcome.end.explain(), outcome.complaint[-300:])
    return frames.files


class Frames:
    """Takes the stream in pieces of any size, writes files as they are complete. `error` says what ended it early."""

    def __init__(self, tree: Path, tag: str) -> None:
        self._tree = tree
        self._tag = tag
        self._buffer = bytearray()
        self._done = False
        self.files = 0
        self.bytes = 0
        self.error: Exception | None = None

    def feed(self, piece: bytes) -> bool:
        """False when the rest is of no use."""
        self._buffer += piece
        try:
            while not self._done and self._frame():
                pass
        except (BadFrame, OSError) as error:
            self.error = error
            self._done = True
        if self._done:
            self._buffer.clear()
        return not self._done

    def _frame(self) -> bool:
        """One whole frame, if it is there."""
        buffer = self._buffer
        if len(buffer) < 4:
            return False
        (path_size,) = _U32.unpack_from(buffer)
        if path_size > PATH_MAX:
            raise BadFrame(f"a path of {path_size} bytes")
        if len(buffer) < 8 + path_size:
            return False
        (size,) = _U32.unpack_from(buffer, 4 + path_size)
        if size > FILE_MAX or self.bytes + size > BYTES_MAX or self.files >= FILES_MAX:
            raise BadFrame(f"{self.files} files of {self.bytes} bytes, and {size} bytes more")
        end = 8 + path_size + size
        if len(buffer) < end:
            return False
        if path_size == 0:  # the summary
            self._done = True
            return False
        path, data = bytes(buffer[4 : 4 + path_size]), bytes(buffer[8 + path_size : end])
        del buffer[:end]
        self._write(path, data)
        self.files += 1
        self.bytes += size
        return True

    def _write(self, raw: bytes, data: bytes) -> None:
        try:
            match = _TARGET.fullmatch(raw.decode())
        except UnicodeDecodeError:
            raise BadFrame("a path that is not UTF-8") from None
        if match is None or match["tag"] != self._tag or {".", "..", "__pycache__"} & set(match["folder"].split("/")):
            raise BadFrame(f"the path {raw[:100]!r}")
        folder = self._tree / match["folder"]
        source = folder / f"{match['module']}.py"
        # The tree has no links (the extractor makes none) and belongs to us alone, so that a look and a write agree.
        if not source.is_file() or source.is_symlink():
            raise BadFrame(f"the path {raw[:100]!r}, which has no source")
        cache = folder / "__pycache__"
        if cache.exists() and not cache.is_dir():
            return  # the package has a file of that name
        if not cache.exists():
            cache.mkdir()
            cache.chmod(0o755)
        target = cache / f"{match['module']}.cpython-{self._tag}.pyc"
        if target.is_dir():
            return
        target.unlink(missing_ok=True)  # the package brought its own
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(data)
