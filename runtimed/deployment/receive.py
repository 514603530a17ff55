"""Receives a package: to disk as it comes, hashed, unpacked once to see that it is sound, and kept only if it is.

The unpacked tree is handed on to the rollout (`take_staged`), which would otherwise unpack the same archive again.
Whatever happens on the way, a broken connection included, nothing stays behind in staging. Room on disk is reserved
before anything is written (`store.ledger`), the number of uploads and their slowness are bounded (`uploads`).
"""

from __future__ import annotations

import asyncio
import base64
import errno
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from msgspec import UNSET, Struct, UnsetType

from runtimed.deployment.archive import BadArchive, Limits
from runtimed.deployment.unpack import unpack
from runtimed.deployment.uploads import Places, paced
from runtimed.model import errors, quotas
from runtimed.store.ledger import NoRoom, Reservation, allotted
from runtimed.store.packages import CodeStore, Upload

P = ParamSpec("P")
T = TypeVar("T")

STAGED_MAX = 4  # trees waiting for their rollout; more are unpacked again when their turn comes
UNPACKS_AT_ONCE = 2  # each writes up to 250 MB
UPLOAD_STEP = 1 << 20  # bytes by which an upload's room grows

LIMITS = Limits(unzipped_bytes=quotas.PACKAGE_UNZIPPED_BYTES, entries=quotas.PACKAGE_ENTRIES)


class Staged(Struct):
    """A tree in staging and the room that it takes; whoever has it places it or drops it."""

    path: Path
    room: Reservation


class Package(Struct):
    """A sound package. `kept`: a target refers to it."""

    upload: Upload
    sha256: str
    size: int
    kept: bool = False


async def to_its_end(work: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
    """In a thread, which is waited for even when the caller is cancelled: what it writes must not be touched before."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **more))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


async def _nothing() -> int:
    return 0


class Receiver:
    """All uploads and unpacked trees that are on their way."""

    def __init__(self, code: CodeStore, *, uploads: int, patience: float) -> None:
        """`uploads`: how many at a time; `patience`: seconds that a sender may be silent."""
        self._code = code
        self._places = Places(uploads)
        self._patience = patience
        self._staged: OrderedDict[str, Staged] = OrderedDict()
        self._measured = asyncio.Event()
        self.reclaim: Callable[[], Awaitable[int]] = _nothing
        """Removes packages that nobody needs any more, when room is short; how many."""
        self._unpacks = asyncio.Semaphore(UNPACKS_AT_ONCE)
        self.lock = asyncio.Lock()
        """Held while a zip is kept and a target comes to refer to it; what removes unreferenced zips holds it too."""

    async def measure(self) -> None:
        """At start: what the store holds already. Uploads wait for it."""
        await asyncio.to_thread(self._code.measure)
        self._measured.set()

    async def measured(self) -> None:
        await self._measured.wait()

    @asynccontextmanager
    async def receive(self, code: AsyncIterator[bytes], sha256: str | UnsetType) -> AsyncIterator[Package]:
        """The whole upload, checked. Raises InvalidParameterValue, CodeVerificationFailed, CodeStorageExceeded,
        TooManyRequests, RequestTimedOut."""
        with self._places.one():
            async with self._receive(code, sha256) as package:
                yield package

    @asynccontextmanager
    async def _receive(self, code: AsyncIterator[bytes], sha256: str | UnsetType) -> AsyncIterator[Package]:
        await self.measured()
        room = self._code.ledger.reserve()
        package: Package | None = None
        upload: Upload | None = None
        try:
            await self._claim(room, 0, 1)
            upload = self._code.upload(quotas.PACKAGE_ZIPPED_BYTES)
            async for piece in paced(code, self._patience):
                if upload.size + len(piece) > room.size.bytes:
                    await self._claim(room, allotted(max(len(piece), UPLOAD_STEP)), 0)
                if not await to_its_end(upload.write, piece):
                    raise errors.InvalidParameterValue(
                        f"Code: the archive is larger than {quotas.PACKAGE_ZIPPED_BYTES} bytes. Leave out what the "
                        "function does not import."
                    )
            digest = upload.finish()
            if sha256 is not UNSET and base64.b64decode(sha256).hex() != digest:
                raise errors.CodeVerificationFailed(
                    "Code: what arrived does not have the announced SHA-256. Send the archive again."
                )
            package = Package(upload, digest, upload.size)
            if not self._code.zip_path(digest).exists():  # what is kept was sound
                await self._stage(upload.path, digest)
            yield package
        except OSError as error:
            raise _full(error) from error
        finally:
            if upload is not None:
                upload.drop()
            room.release()
            if package is not None and not package.kept:
                await self.drop_staged(package.sha256)

    @asynccontextmanager
    async def room(self) -> AsyncIterator[tuple[IO[bytes], Callable[[int], Awaitable[None]]]]:
        """A file without a name in staging, and what reserves bytes for it; both are gone afterwards."""
        await self.measured()
        room = self._code.ledger.reserve()

        async def claim(size: int) -> None:
            await self._claim(room, size, 0)

        try:
            with tempfile.TemporaryFile(dir=self._code.staging, buffering=0) as file:
                yield file, claim
        except OSError as error:
            raise _full(error) from error
        finally:
            room.release()

    @asynccontextmanager
    async def keeping(self, package: Package) -> AsyncIterator[None]:
        """Around the transaction that makes a target refer to the package."""
        async with self.lock:
            await to_its_end(self._code.keep_zip, package.upload, package.sha256)
            yield
            package.kept = True

    async def take_staged(self, sha256: str) -> Staged:
        """The package's tree in staging, now the caller's. Raises BadArchive, OSError, CodeStorageExceeded."""
        staged = self._staged.pop(sha256, None)
        if staged is not None:
            return staged
        return await self._unpacked(self._code.zip_path(sha256))

    async def drop_staged(self, sha256: str) -> None:
        """Nobody will take it."""
        staged = self._staged.pop(sha256, None)
        if staged is not None:
            await self.discard(staged)

    async def place(self, staged: Staged, key: str) -> None:
        """The tree becomes the package `key`."""
        await to_its_end(self._code.place, staged.path, key)
        staged.room.release()

    async def discard(self, staged: Staged) -> None:
        """Nothing of it stays."""
        await to_its_end(self._code.discard, staged.path)
        staged.room.release()

    async def _unpacked(self, package: Path) -> Staged:
        async with self._unpacks:
            room = self._code.ledger.reserve()
            staged = Staged(self._code.stage(), room)
            try:
                try:
                    await to_its_end(unpack, package, staged.path, LIMITS, room.grow)
                except NoRoom:
                    if not await self.reclaim():
                        raise
                    await to_its_end(unpack, package, staged.path, LIMITS, room.grow)
            except NoRoom as error:
                await self.discard(staged)
                raise _exceeded(error) from None
            except BaseException:
                await self.discard(staged)
                raise
        return staged

    async def _claim(self, room: Reservation, size: int, files: int) -> None:
        """More room for an upload, if need be by removing what nobody refers to."""
        try:
            room.grow(size, files)
        except NoRoom as first:
            if not await self.reclaim():
                raise _exceeded(first) from None
            try:
                room.grow(size, files)
            except NoRoom as error:
                raise _exceeded(error) from None

    async def _stage(self, path: Path, sha256: str) -> None:
        if sha256 in self._staged:
            return
        try:
            staged = await self._unpacked(path)
        except BadArchive as error:
            raise errors.InvalidParameterValue(f"Code: {error}.") from None
        if self._staged.setdefault(sha256, staged) is not staged:
            # Another upload of the same package was faster.
            await self.discard(staged)
        while len(self._staged) > STAGED_MAX:
            await self.drop_staged(next(iter(self._staged)))


def _full(error: OSError) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return errors.CodeStorageExceeded(
        "The node's disk is full. Delete functions that are not needed, or give it more space."
    )


def _exceeded(error: NoRoom) -> errors.CodeStorageExceeded:
    return errors.CodeStorageExceeded(f"Code storage: {error}.")
