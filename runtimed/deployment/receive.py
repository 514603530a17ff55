"""Receives a package: to disk as it comes, hashed, unpacked once to see that it is sound, and kept only if it is.

The unpacked tree is handed on to the rollout (`take_staged`), which would otherwise unpack the same archive again.
Whatever happens on the way, a broken connection included, nothing stays behind in staging.
"""

from __future__ import annotations

import asyncio
import base64
import errno
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from msgspec import UNSET, Struct, UnsetType

from runtimed.deployment.archive import BadArchive, Limits
from runtimed.deployment.unpack import unpack
from runtimed.model import errors, quotas
from runtimed.store.packages import CodeStore, Upload

P = ParamSpec("P")
T = TypeVar("T")

STAGED_MAX = 4  # trees waiting for their rollout; more are unpacked again when their turn comes
UNPACKS_AT_ONCE = 2  # each writes up to 250 MB

LIMITS = Limits(unzipped_bytes=quotas.PACKAGE_UNZIPPED_BYTES, entries=quotas.PACKAGE_ENTRIES)


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


class Receiver:
    """`storage_bytes`: the limit of all packages together."""

    def __init__(self, code: CodeStore, storage_bytes: int) -> None:
        self._code = code
        self._storage_bytes = storage_bytes
        self._staged: OrderedDict[str, Path] = OrderedDict()
        self._unpacks = asyncio.Semaphore(UNPACKS_AT_ONCE)
        self.lock = asyncio.Lock()
        """Held while a zip is kept and a target comes to refer to it; what removes unreferenced zips holds it too."""

    @asynccontextmanager
    async def receive(self, code: AsyncIterator[bytes], sha256: str | UnsetType) -> AsyncIterator[Package]:
        """The whole upload, checked. Raises InvalidParameterValue, CodeVerificationFailed, CodeStorageExceeded."""
        upload = self._code.upload(quotas.PACKAGE_ZIPPED_BYTES)
        package: Package | None = None
        try:
            async for piece in code:
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
            await self._check_storage(upload.size)
            package = Package(upload, digest, upload.size)
            if not self._code.zip_path(digest).exists():  # what is kept was sound
                await self._stage(upload.path, digest)
            yield package
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise errors.CodeStorageExceeded(
                    "The node's disk is full. Delete functions that are not needed, or give it more space."
                ) from error
            raise
        finally:
            upload.drop()
            if package is not None and not package.kept:
                await self.drop_staged(package.sha256)

    @asynccontextmanager
    async def keeping(self, package: Package) -> AsyncIterator[None]:
        """Around the transaction that makes a target refer to the package."""
        async with self.lock:
            await to_its_end(self._code.keep_zip, package.upload, package.sha256)
            yield
            package.kept = True

    async def take_staged(self, sha256: str) -> Path:
        """The package's tree in staging, now the caller's. Raises BadArchive, OSError."""
        staged = self._staged.pop(sha256, None)
        if staged is not None:
            return staged
        return await self._unpacked(self._code.zip_path(sha256))

    async def drop_staged(self, sha256: str) -> None:
        """Nobody will take it."""
        staged = self._staged.pop(sha256, None)
        if staged is not None:
            await to_its_end(self._code.discard, staged)

    async def _unpacked(self, package: Path) -> Path:
        staged = self._code.stage()
        try:
            async with self._unpacks:
                await to_its_end(unpack, package, staged, LIMITS)
        except BaseException:
            await asyncio.to_thread(self._code.discard, staged)
            raise
        return staged

    async def _check_storage(self, size: int) -> None:
        used = await asyncio.to_thread(self._code.bytes_of_zips)
        if used + size > self._storage_bytes:
            raise errors.CodeStorageExceeded(
                f"Code storage: {used} of {self._storage_bytes} bytes are used and this package has {size}. Delete "
                "functions that are not needed, or raise limits.code_storage_mb."
            )

    async def _stage(self, path: Path, sha256: str) -> None:
        if sha256 in self._staged:
            return
        try:
            staged = await self._unpacked(path)
        except BadArchive as error:
            raise errors.InvalidParameterValue(f"Code: {error}.") from None
        if self._staged.setdefault(sha256, staged) is not staged:
            # Another upload of the same package was faster.
            await to_its_end(self._code.discard, staged)
        while len(self._staged) > STAGED_MAX:
            await self.drop_staged(next(iter(self._staged)))
