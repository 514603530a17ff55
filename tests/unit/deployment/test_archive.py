"""The reader of hostile zip directories: what is accepted, and each way of being wrong refused with its own
sentence."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.deployment.archive import BadArchive, Limits, read_directory
from tests.integration.zips import Member, build, plain

LIMITS = Limits(unzipped_bytes=1 << 20, entries=100)


def read(data: bytes, limits: Limits = LIMITS) -> list[str]:
    return ["/".join(entry.path) for entry in read_directory(memoryview(data), limits)]


def test_what_zipfile_writes_is_accepted() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("app.py", "x = 1\n" * 100)
        archive.writestr("package/", "")
        archive.writestr("package/größe.py", "", compress_type=zipfile.ZIP_STORED)
        archive.writestr("./bin/tool", "#!/bin/sh\n")
        archive.comment = b"PK\5\6 is not the end"
    entries = read_directory(memoryview(stream.getvalue()), LIMITS)
    assert [(entry.path, entry.directory) for entry in entries] == [
        (("app.py",), False), (("package",), True), (("package", "größe.py"), False), (("bin", "tool"), False),
    ]  # fmt: skip


def test_zip64_is_accepted_when_it_tells_the_truth() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, archive.open("app.py", "w", force_zip64=True) as file:
        file.write(b"x = 1\n")
    assert read(stream.getvalue()) == ["app.py"]
    sizes = struct.pack("<HHQQ", 1, 16, 6, 6)
    honest = plain(content=b"x = 1\n", method=0, size=0xFFFFFFFF, packed_size=0xFFFFFFFF, extra=sizes)
    assert read(build(honest)) == ["app.py"]


def test_data_in_front_is_accepted() -> None:
    assert read(build(plain(), front=b"#!/usr/bin/env python3\n")) == ["app.py"]


def test_the_executable_bit_is_taken_from_unix_archives_only() -> None:
    members = (plain("run", mode=0o100755), plain("dos", mode=0o100755, made_by=20), plain("text"))
    assert [entry.executable for entry in read_directory(memoryview(build(*members)), LIMITS)] == [True, False, False]


ZIP64_LIE = struct.pack("<HHQ", 1, 8, 1 << 40)
REFUSED = {
    "traversal": (build(plain("../app.py")), "leads out"),
    "traversal inside": (build(plain("a/../../app.py")), "leads out"),
    "absolute": (build(plain("/etc/passwd")), "absolute"),
    "backslash": (build(plain("a\\b.py")), "backslash"),
    "control characters": (build(plain("a\nb.py")), "control characters"),
    "nul": (build(plain("a\0b.py")), "control characters"),
    "not utf-8": (build(Member(name=b"\xff.py", content=b"x")), "not UTF-8"),
    "no name": (build(plain("", content=b"x")), "without a name"),
    "a dot": (build(plain(".", content=b"x")), "without a name"),
    "long name": (build(plain("a" * 256)), "too long"),
    "long path": (build(plain("/".join(["a" * 200] * 6))), "too long"),
    "deep": (build(plain("a/" * 65 + "b")), "too deep"),
    "symbolic link": (build(plain("link", b"/etc/passwd", mode=0o120777)), "link or a special file"),
    "device": (build(plain("null", b"", mode=0o020666)), "link or a special file"),
    "fifo": (build(plain("fifo", b"", mode=0o010666)), "link or a special file"),
    "file called folder": (build(plain("folder/", b"", mode=0o100644)), "as a folder and as a file"),
    "folder with data": (build(plain("folder/", b"data", mode=0o040755)), "a folder with data"),
    "encrypted": (build(plain(flags=0x0801)), "encrypted"),
    "method": (build(plain(method=12, packed=b"x")), "compressed with method 12"),
    "stored with two sizes": (build(plain(method=0, size=5)), "two different sizes"),
    "ratio": (build(plain(content=b"", packed=b"\3\0", size=900_000)), "deflate cannot give"),
    "too large": (build(plain("a", bytes(600_000)), plain("b", bytes(600_000))), "larger than 1048576 bytes"),
    "too many": (build(*[plain(str(n)) for n in range(101)]), "the limit is 100"),
    "count above": (build(plain(), count=2), "points outside|says it has"),
    "count below": (build(plain("a"), plain("b"), count=1), "says it has 1 entries"),
    "twice": (build(plain("a"), plain("a")), "twice"),
    "twice by another spelling": (build(plain("a/b"), plain("a//b")), "twice"),
    "file and folder": (build(plain("a"), plain("a/b")), "both as a file and as a folder"),
    "overlap": (build(plain("a"), plain("b"), plain("a2", offset=0, local_name=b"a")), "two different ways|overlap"),
    "same data": (build(plain("a"), plain("a", offset=0)), "overlap"),
    "data beyond the end": (build(plain(method=0, packed_size=10_000, size=10_000)), "beyond the end|two different"),
    "header outside": (build(plain(offset=10_000_000)), "outside"),
    "other name in the header": (build(plain(local_name=b"other!")), "two different ways"),
    "other method in the header": (build(plain(local_method=0)), "two different ways"),
    "zip64 lie": (build(plain(content=b"x", size=0xFFFFFFFF, extra=ZIP64_LIE)), "deflate cannot give|larger"),
    "zip64 missing": (build(plain(content=b"x", size=0xFFFFFFFF)), "no valid zip64"),
    "zip64 cut": (build(plain(content=b"x", size=0xFFFFFFFF, extra=ZIP64_LIE[:-1])), "no valid zip64"),
    "several parts": (build(plain(), disk=1), "several parts"),
    "entry on another part": (build(plain(disk=3)), "another part"),
    "directory outside": (build(plain(), offset=0xFFFFF0), "points outside"),
    "directory too large": (build(plain(), size=0xFFFFF0), "points outside"),
    "no end": (build(plain())[:-1], "not a zip file"),
    "empty": (b"", "not a zip file"),
    "text": (b"hello" * 100, "not a zip file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    data, sentence = REFUSED[case]
    with pytest.raises(BadArchive, match=sentence):
        read(data)


def test_every_cut_is_refused() -> None:
    whole = build(plain("a/b.py"), plain("c.py"))
    for end in range(len(whole)):
        with pytest.raises(BadArchive):
            read(whole[:end])


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_damage_is_refused_or_harmless(at: int, damage: bytes) -> None:
    whole = bytearray(build(plain("a/b.py", b"x" * 50), plain("c.py")))
    at %= len(whole)
    whole[at : at + len(damage)] = damage
    try:
        names = read(bytes(whole))
    except BadArchive:
        return
    assert all(".." not in name.split("/") and not name.startswith("/") for name in names)


@given(st.binary(max_size=300))
def test_noise_never_passes_as_an_archive(data: bytes) -> None:
    with pytest.raises(BadArchive):
        read(data + b"x")
