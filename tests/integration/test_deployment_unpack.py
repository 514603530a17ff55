"""Unpacking to real files: what arrives on disk, and that nothing stays of what was refused."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path

import pytest
from msgspec import structs

from runtimed.deployment.archive import BadArchive, Limits
from runtimed.deployment.unpack import PIECE, unpack
from tests.integration.zips import Member, build, deflate, plain

LIMITS = Limits(unzipped_bytes=64 << 20, entries=1000)


def packed(tmp_path: Path, *members: Member) -> Path:
    path = tmp_path / "package.zip"
    path.write_bytes(build(*members))
    return path


def test_files_folders_and_modes(tmp_path: Path) -> None:
    large = os.urandom(1000) * 5000  # several pieces, in and out
    package = packed(
        tmp_path,
        plain("app.py", b"x = 1\n"),
        plain("empty/", b"", mode=0o040700, method=0),
        plain("deep/er/tool", b"#!/bin/sh\n", mode=0o100755),
        plain("large.bin", large),
        plain("stored.bin", large, method=0),
        plain("nothing.txt", b""),
    )
    before = os.umask(0o077)
    try:
        written = unpack(package, tmp_path / "out", LIMITS)
    finally:
        os.umask(before)
    out = tmp_path / "out"
    assert written == len(b"x = 1\n") + len(b"#!/bin/sh\n") + 2 * len(large)
    assert (out / "large.bin").read_bytes() == large == (out / "stored.bin").read_bytes()
    assert (out / "nothing.txt").read_bytes() == b""
    modes = {str(p.relative_to(tmp_path)): stat.S_IMODE(p.stat().st_mode) for p in [out, *out.rglob("*")]}
    assert modes == {
        "out": 0o755, "out/app.py": 0o644, "out/empty": 0o755, "out/deep": 0o755, "out/deep/er": 0o755,
        "out/deep/er/tool": 0o755, "out/large.bin": 0o644, "out/stored.bin": 0o644, "out/nothing.txt": 0o644,
    }  # fmt: skip


BAD = {
    "checksum": (plain(crc=1), "checksum"),
    "cut data": (plain(packed=deflate(b"x" * 5000)[:-3], size=5000, content=b"x" * 5000), "cut short|smaller|damaged"),
    "not deflate": (plain(packed=b"\xff" * 40), "damaged"),
    "more than announced": (plain(content=b"x" * 5000, size=4000), "larger than the package says"),
    "less than announced": (plain(content=b"x" * 5000, size=6000), "smaller than the package says"),
    "data after its end": (plain(packed=deflate(b"x" * 100) + b"more", content=b"x" * 100), "after its end"),
    "a bomb that lies": (
        plain(packed=deflate(bytes(50 << 20)), content=b"", size=1 << 20, crc=zlib.crc32(bytes(1 << 20))),
        "larger than the package says",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_entry_leaves_nothing(case: str, tmp_path: Path) -> None:
    member, sentence = BAD[case]
    good = structs.replace(member, name=b"first/good.py", content=b"", packed=None, size=None, crc=None)
    with pytest.raises(BadArchive, match=sentence):
        unpack(packed(tmp_path, good, member), tmp_path / "out", LIMITS)
    assert [path.name for path in tmp_path.iterdir()] == ["package.zip"]


def test_a_package_without_files_is_refused(tmp_path: Path) -> None:
    for members in ((), (plain("folder/", b"", mode=0o040755, method=0),)):
        with pytest.raises(BadArchive, match="no files"):
            unpack(packed(tmp_path, *members), tmp_path / "out", LIMITS)
    (tmp_path / "package.zip").write_bytes(b"")
    with pytest.raises(BadArchive, match="empty"):
        unpack(tmp_path / "package.zip", tmp_path / "out", LIMITS)
    assert not (tmp_path / "out").exists()


def test_what_was_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileExistsError):
        unpack(packed(tmp_path, plain()), tmp_path / "out", LIMITS)
    assert (tmp_path / "out" / "mine").exists()


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A piece in, a piece out: never the whole of a file that compresses a thousandfold."""
    import tracemalloc

    package = packed(tmp_path, plain("zeros", bytes(60 << 20)))
    tracemalloc.start()
    try:
        unpack(package, tmp_path / "out", LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 8 * PIECE
    finally:
        tracemalloc.stop()
