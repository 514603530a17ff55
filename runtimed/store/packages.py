"""The code store: what functions' code looks like on disk.

    packages/zip/<sha256 of the zip>.zip      the package as it was uploaded
    packages/sha256/<key>/                    unpacked, compiled, read-only by use; key = package_key(zip, runtime)
    staging/<id>.zip, staging/<id>/tree/      work in progress; garbage at every start

A tree is built in staging, synced, and renamed into place, so that a directory in `packages` is always whole. The
zip is kept because it is the only thing that cannot be made again: a tree that is missing (or a new runtime for the
same code) is unpacked from it. All of it belongs to the control plane; sandboxes see trees through the launcher's
read-only mounts.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from pathlib import Path
from typing import IO

from runtimed.store.database import StoreError
from runtimed.store.files import sync_directory, sync_file, sync_filesystem
from runtimed.store.ledger import Disk, Ledger, Size, size_of

WITHOUT_LIMIT = Size(1 << 62, 1 << 62)

_DIGEST = re.compile(r"[0-9a-f]{64}")


def package_key(zip_sha256: str, runtime: str) -> str:
    """Names the tree of one package for one runtime: bytecode differs between runtimes."""
    return hashlib.sha256(f"{zip_sha256} {runtime}".encode()).hexdigest()


class Upload:
    """A package being received: hashed as it comes, kept when the hash is known, gone when dropped."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.size = 0
        self._limit = limit
        self._digest = hashlib.sha256()
        self._file: IO[bytes] = path.open("xb")

    def write(self, piece: bytes) -> bool:
        """False when the package is above the limit; nothing more is kept then."""
        self.size += len(piece)
        if self.size > self._limit:
            return False
        self._digest.update(piece)
        self._file.write(piece)
        return True

    def finish(self) -> str:
        """The zip's sha256, in hex."""
        self._file.close()
        return self._digest.hexdigest()

    def drop(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


class CodeStore:
    """Blocking calls, for a thread. Ids and digests come from us; they are checked all the same before they become
    paths."""

    def __init__(self, state: Path, *, limit: Size = WITHOUT_LIMIT, reserve_bytes: int = 0) -> None:
        """`reserve_bytes`: what must stay free of the disk, see `ledger.Disk`."""
        self.state = state
        self.ledger = Ledger(limit, Disk(state, reserve_bytes))
        self.zips = state / "packages" / "zip"
        self.trees = state / "packages" / "sha256"
        self.staging = state / "staging"
        for directory in (self.zips, self.trees, self.staging):
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"cannot make {directory}: {error.strerror}") from None

    def measure(self) -> None:
        """At start: what is kept goes into the ledger."""
        for path in self.zips.iterdir():
            self.ledger.keep(path.name, size_of(path))
        for path in self.trees.iterdir():
            self.ledger.keep(path.name, size_of(path))

    def clear_staging(self) -> None:
        """At start: nothing there can be in use."""
        for left in self.staging.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()

    def upload(self, limit: int) -> Upload:
        return Upload(self.staging / f"{secrets.token_hex(8)}.zip", limit)

    def keep_zip(self, upload: Upload, sha256: str) -> Path:
        """The finished upload, durable under its hash."""
        target = self.zip_path(sha256)
        if target.exists():
            upload.drop()
            return target
        sync_file(upload.path)
        upload.path.rename(target)
        self.ledger.keep(target.name, size_of(target))
        sync_directory(self.zips)
        return target

    def zip_path(self, sha256: str) -> Path:
        return self.zips / f"{_checked(sha256)}.zip"

    def tree_path(self, key: str) -> Path:
        return self.trees / _checked(key)

    def has_tree(self, key: str) -> bool:
        return self.tree_path(key).is_dir()

    def stage(self) -> Path:
        """Where a tree is to be unpacked; not made yet. The launcher finds it by the name of the directory above."""
        place = self.staging / secrets.token_hex(8)
        place.mkdir()
        return place / "tree"

    def place(self, staged: Path, key: str) -> None:
        """The staged tree becomes the package `key`, whole and durable. One that is there already stays."""
        target = self.tree_path(key)
        sync_filesystem(staged)
        try:
            staged.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        else:
            self.ledger.keep(key, size_of(target))
            sync_directory(self.trees)
        self.discard(staged)

    def discard(self, staged: Path) -> None:
        shutil.rmtree(staged.parent, ignore_errors=True)

    def contents(self) -> tuple[set[str], set[str]]:
        """The hashes of all zips and the keys of all trees."""
        return {path.name.removesuffix(".zip") for path in self.zips.iterdir()}, {
            path.name for path in self.trees.iterdir()
        }

    def remove_zip(self, sha256: str) -> None:
        path = self.zip_path(sha256)
        path.unlink(missing_ok=True)
        self.ledger.drop(path.name)

    def remove_tree(self, key: str) -> None:
        """By way of staging, so that a crash never leaves half a package under its name. The caller knows that no
        environment runs from it."""
        aside = self.stage()
        self.tree_path(key).rename(aside)
        shutil.rmtree(aside.parent)
        self.ledger.drop(key)


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"not a sha256 in hex: {digest[:80]!r}")
    return digest
