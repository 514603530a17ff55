"""Reads the directory of a zip file that may be hostile. Nothing is decompressed or written here.

`zipfile` is not used: it loads every entry before a limit can be checked, and believes what the central directory says
of sizes and places. Here each entry is checked against the limits as it is read, against its own local header, and
against its neighbours, so that what remains is a list of plain files with distinct safe names, whose data neither
overlap nor reach outside the file.

Layout (APPNOTE 6.3.10): [data before] local header + name + extra + data + [descriptor] ... central directory,
[zip64 end + locator], end record + comment. Numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from msgspec import Struct

LOCAL = struct.Struct("<4sHHHHHIIIHH")
CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
END = struct.Struct("<4sHHHHIIH")
END64_LOCATOR = struct.Struct("<4sIQI")
END64 = struct.Struct("<4sQHHIIQQQQ")

STORED, DEFLATED = 0, 8
ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # traditional, strong, masked headers
UTF8_NAME = 0x0800
UNIX = (3, 19)  # "version made by" Unix or Darwin: the upper half of the external attributes is st_mode
DIRECTORY_MODE, FILE_MODE, KIND_MASK = 0o040000, 0o100000, 0o170000

COMMENT_MAX = 0xFFFF
RATIO_MAX = 1032  # deflate cannot do better; whoever declares more lies
NAME_MAX, PATH_MAX, DEPTH_MAX = 255, 1024, 64  # bytes of a name (ext4), bytes of a path, directories below each other


SHOWN_MAX = 100  # characters of a name that a sentence quotes


class BadArchive(ValueError):
    """The package is refused; the text is for whoever sent it."""


class Limits(Struct, frozen=True, kw_only=True):
    """Source: the service's quotas for unzipped size; the number of entries is ours (inodes are not free)."""

    unzipped_bytes: int
    entries: int = 100_000


class Entry(Struct, frozen=True):
    """One regular file or directory, checked. `start` is where its data begin in the archive."""

    path: tuple[str, ...]
    directory: bool
    executable: bool
    method: int
    crc: int
    start: int
    compressed: int
    size: int


def shortened(text: str) -> str:
    """For a sentence about it: a long name says no more whole than by its two ends."""
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX // 2]}…{text[-SHOWN_MAX // 2 :]}"


def shown(path: tuple[str, ...]) -> str:
    """A path in the package, for a sentence about it."""
    return shortened("/".join(path))


def read_directory(data: memoryview, limits: Limits) -> list[Entry]:
    """Every entry, in the order of the central directory; BadArchive for anything that is not plainly fine."""
    start, end, shift, count = _find_directory(data)
    if count > limits.entries:
        raise BadArchive(f"the package has {count} entries; the limit is {limits.entries}")
    entries: list[Entry] = []
    total = 0
    spans: list[tuple[int, int, str]] = []
    for entry, header_start in _central_entries(data, start, end, shift):
        entries.append(entry)
        if len(entries) > limits.entries:
            raise BadArchive(f"the package has more than {limits.entries} entries")
        total += entry.size
        if total > limits.unzipped_bytes:
            raise BadArchive(f"the package is larger than {limits.unzipped_bytes} bytes unzipped")
        spans.append((header_start, entry.start + entry.compressed, shown(entry.path)))
    if len(entries) != count:
        raise BadArchive(f"the package says it has {count} entries and has {len(entries)}")
    _check_spans(spans, start)
    _check_names(entries)
    return entries


def _find_directory(data: memoryview) -> tuple[int, int, int, int]:
    """Where the central directory starts and ends in the file, what to add to offsets (data put in front), entry
    count."""
    tail = bytes(data[max(0, len(data) - END.size - COMMENT_MAX) :])
    at = tail.rfind(b"PK\5\6")
    while at >= 0:
        if at + END.size <= len(tail):
            (comment,) = struct.unpack_from("<H", tail, at + END.size - 2)
            if at + END.size + comment == len(tail):
                break
        at = tail.rfind(b"PK\5\6", 0, at)
    if at < 0:
        raise BadArchive("the package is not a zip file, or its end is cut off")
    _, disk, directory_disk, disk_count, count, size, offset, _ = END.unpack_from(tail, at)
    end = len(data) - len(tail) + at
    if 0xFFFF in (disk, directory_disk, disk_count, count) or 0xFFFFFFFF in (size, offset):
        disk, directory_disk, disk_count, count, size, offset, end = _zip64_end(data, end)
    if disk or directory_disk or disk_count != count:
        raise BadArchive("the package is one part of a zip file in several parts")
    start = end - size
    if size > end or offset > start or count * CENTRAL.size > size:
        raise BadArchive("the package's directory points outside the file")
    return start, end, start - offset, count


def _zip64_end(data: memoryview, end: int) -> tuple[int, int, int, int, int, int, int]:
    locator = end - END64_LOCATOR.size
    record = locator - END64.size  # a record with extensible data is longer; nobody writes one
    if record < 0:
        raise BadArchive("the package's zip64 end is missing")
    signature, _, _, disks = END64_LOCATOR.unpack_from(data, locator)
    mark, length, _, _, disk, directory_disk, disk_count, count, size, offset = END64.unpack_from(data, record)
    if signature != b"PK\6\7" or mark != b"PK\6\6" or length != END64.size - 12 or disks > 1:
        raise BadArchive("the package's zip64 end is damaged")
    return disk, directory_disk, disk_count, count, size, offset, record


def _central_entries(data: memoryview, at: int, end: int, shift: int) -> Iterator[tuple[Entry, int]]:
    while at < end:
        if end - at < CENTRAL.size:
            raise BadArchive("the package's directory is cut short")
        fields = CENTRAL.unpack_from(data, at)
        signature, made_by, _, flags, method, _, _, crc, compressed, size = fields[:10]
        name_size, extra_size, comment_size, disk, _, attributes, offset = fields[10:]
        if signature != b"PK\1\2":
            raise BadArchive("the package's directory is damaged")
        at += CENTRAL.size
        after = at + name_size + extra_size + comment_size
        if after > end:
            raise BadArchive("the package's directory is cut short")
        raw_name = bytes(data[at : at + name_size])
        extra = bytes(data[at + name_size : at + name_size + extra_size])
        at = after
        path, directory = _name(raw_name, flags)
        name = shown(path)
        size, compressed, offset, disk = _zip64_sizes(extra, size, compressed, offset, disk, name)
        _check_kind(name, directory, flags, method, made_by, attributes, compressed, size)
        if disk:
            raise BadArchive(f"{name} lies in another part of a zip file in several parts")
        header = offset + shift
        start = _check_local(data, header, raw_name, flags, method, name)
        if start + compressed > len(data):
            raise BadArchive(f"the data of {name} reach beyond the end of the package")
        executable = made_by >> 8 in UNIX and bool(attributes >> 16 & 0o111)
        yield Entry(path, directory, executable, method, crc, start, compressed, size), header


def _name(raw: bytes, flags: int) -> tuple[tuple[str, ...], bool]:
    """The path's components and whether the entry is a directory."""
    shown = shortened(raw.decode("utf-8", "backslashreplace"))
    try:
        text = raw.decode("utf-8")  # ASCII is the common case; many tools write UTF-8 without setting the flag
    except UnicodeDecodeError:
        raise BadArchive(f"the name {shown!r} is not UTF-8; pack the files again with UTF-8 names") from None
    if not flags & UTF8_NAME and not text.isascii() and not text.isprintable():
        raise BadArchive(f"the name {shown!r} is in an unknown encoding; pack the files again with UTF-8 names")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise BadArchive(f"the name {shown!r} has control characters")
    if "\\" in text:
        raise BadArchive(f"the name {shown!r} has a backslash; pack the files again with / between folders")
    if text.startswith("/"):
        raise BadArchive(f"the name {shown!r} is absolute")
    directory = text.endswith("/")
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if ".." in parts:
        raise BadArchive(f"the name {shown!r} leads out of the package")
    if not parts and not directory:
        raise BadArchive("the package has an entry without a name")
    if len(raw) > PATH_MAX or len(parts) > DEPTH_MAX or any(len(part.encode()) > NAME_MAX for part in parts):
        raise BadArchive(
            f"the name {shown!r} is too long or too deep: at most {NAME_MAX} bytes a name, {PATH_MAX} a path, "
            f"{DEPTH_MAX} folders"
        )
    return parts, directory


def _zip64_sizes(
    extra: bytes, size: int, compressed: int, offset: int, disk: int, shown: str
) -> tuple[int, int, int, int]:
    """Replaces the fields that are all ones by the zip64 extra field's, which then must hold them."""
    wanted = [size == 0xFFFFFFFF, compressed == 0xFFFFFFFF, offset == 0xFFFFFFFF, disk == 0xFFFF]
    if not any(wanted):
        return size, compressed, offset, disk
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if at + length > len(extra):
            break
        if tag == 1:
            needed = [8, 8, 8, 4]
            if length < sum(width for width, want in zip(needed, wanted, strict=True) if want):
                break
            values = [size, compressed, offset, disk]
            for index, (width, want) in enumerate(zip(needed, wanted, strict=True)):
                if want:
                    values[index] = int.from_bytes(extra[at : at + width], "little")
                    at += width
            return values[0], values[1], values[2], values[3]
        at += length
    raise BadArchive(f"{shown} has no valid zip64 sizes")


def _check_kind(
    shown: str, directory: bool, flags: int, method: int, made_by: int, attributes: int, compressed: int, size: int
) -> None:
    if flags & ENCRYPTED:
        raise BadArchive(f"{shown} is encrypted; pack the files again without a password")
    if method not in (STORED, DEFLATED):
        raise BadArchive(f"{shown} is compressed with method {method}; use deflate")
    kind = attributes >> 16 & KIND_MASK if made_by >> 8 in UNIX else 0
    if kind not in (0, DIRECTORY_MODE, FILE_MODE):
        raise BadArchive(f"{shown} is a link or a special file; pack a copy of what it points to")
    if kind and (kind == DIRECTORY_MODE) != directory:
        raise BadArchive(f"{shown} is marked as a folder and as a file")
    if directory and size:
        raise BadArchive(f"{shown} is a folder with data")
    if method == STORED and compressed != size:
        raise BadArchive(f"{shown} has two different sizes")
    if size > compressed * RATIO_MAX + RATIO_MAX:
        raise BadArchive(f"{shown} claims {size} bytes from {compressed}, which deflate cannot give")


def _check_local(data: memoryview, at: int, raw_name: bytes, flags: int, method: int, shown: str) -> int:
    """The local header repeats what the directory says; returns where the data begin."""
    if at < 0 or at + LOCAL.size > len(data):
        raise BadArchive(f"{shown} lies outside the package")
    signature, _, local_flags, local_method, _, _, _, _, _, name_size, extra_size = LOCAL.unpack_from(data, at)
    name_at = at + LOCAL.size
    if (
        signature != b"PK\3\4"
        or local_method != method
        or (local_flags ^ flags) & ENCRYPTED
        or bytes(data[name_at : name_at + name_size]) != raw_name
    ):
        raise BadArchive(f"{shown} is described in two different ways; pack the files again")
    return name_at + name_size + extra_size


def _check_spans(spans: list[tuple[int, int, str]], limit: int) -> None:
    """No two entries share bytes: the trick of zip bombs that list the same data a thousand times."""
    before_end, before_name = 0, ""
    for start, end, name in sorted(spans):
        if start < before_end:
            raise BadArchive(f"{name} and {before_name} overlap in the package")
        before_end, before_name = end, name
    if before_end > limit:
        raise BadArchive(f"{before_name} overlaps the package's directory")


def _check_names(entries: list[Entry]) -> None:
    """Names are distinct, and no file is also a folder."""
    files: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = set()
    named: set[tuple[str, ...]] = set()
    for entry in entries:
        if entry.path in named:
            raise BadArchive(f"{shown(entry.path)} is in the package twice")
        named.add(entry.path)
        if entry.directory:
            folders.add(entry.path)
        else:
            files.add(entry.path)
        for depth in range(1, len(entry.path)):
            folders.add(entry.path[:depth])
    for path in files & folders:
        raise BadArchive(f"{shown(path)} is in the package both as a file and as a folder")
