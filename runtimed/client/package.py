"""Makes a function's archive from a file of code, a directory or a .zip, the same bytes from the same files.

Names are sorted, times fixed, modes reduced to 0755 and 0644. A symbolic link is followed when it leads to something
inside of the tree; one that leads outside is refused, since what it names is not part of the function.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runtimed.client.errors import ClientError
from runtimed.model import quotas

SUFFIXES = (".py", ".js", ".mjs", ".cjs")
"""Of single files that are a function."""

EXCLUDED = frozenset(
    {
        "__pycache__",
        ".git",
        ".hg",
        ".svn",
        ".venv",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".tox",
        ".nox",
        ".DS_Store",
    }
)
"""Directories and files of tools, at any depth."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time a zip file can hold."""
LEVEL = 1
"""Of compression: an archive is sent once, mostly to the same machine."""

Report = Callable[[int, int], None]

Files = Mapping[str, Path]
"""The archive's names, with / between the parts, and where the bytes are."""


def files(path: Path) -> dict[str, Path]:
    """What of a file of code or a directory goes into the archive."""
    if path.is_dir():
        root = path.resolve()
        found = dict(_entries(root, root, Path(), (root,)))
        if not found:
            raise ClientError(f"{path} has no files. Put the function's code into it, or name another directory.")
        return found
    if path.is_file() and path.suffix in SUFFIXES:
        return {path.name: path}
    if not path.exists():
        raise ClientError(f"{path} does not exist. Name a .py or .mjs file, a directory or a .zip.")
    raise ClientError(f"{path} is neither a .py, .js, .mjs or .cjs file, nor a directory, nor a .zip.")


def archive(contents: Files, report: Report | None = None) -> bytes:
    """The zip file's bytes; `report` is told how many of how many bytes were read."""
    total = sum(file.stat().st_size for file in contents.values())
    if total > quotas.PACKAGE_UNZIPPED_BYTES:
        raise ClientError(
            f"the code takes {total / quotas.MEGABYTE:.0f} MB unzipped, more than the "
            f"{quotas.PACKAGE_UNZIPPED_BYTES // quotas.MEGABYTE} MB allowed. Leave out what the function does not use."
        )
    if len(contents) > quotas.PACKAGE_ENTRIES:
        raise ClientError(f"{len(contents)} files are more than the {quotas.PACKAGE_ENTRIES} allowed.")
    buffer, done = io.BytesIO(), 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as output:
        for name in sorted(contents):
            data = _read(contents[name])
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3  # Unix, whatever the machine: the upper half of external_attr is st_mode
            info.external_attr = (stat.S_IFREG | _mode(contents[name])) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            output.writestr(info, data)
            done += len(data)
            if report is not None:
                report(done, total)
    return buffer.getvalue()


def read_zip(path: Path) -> bytes:
    """A ready archive, looked at only to tell a mistake before it is sent."""
    data = _read(path)
    if not data:
        raise ClientError(f"{path} is empty. Make a zip of the function's code and try again.")
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ClientError(f"{path} is not a zip file. Make one, or name the directory instead.")
    return data


def _entries(root: Path, directory: Path, prefix: Path, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """Files below `directory`; `above` are the directories that a link must not lead back to."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        raise ClientError(f"cannot read {directory}: {error.strerror}") from None
    for entry in entries:
        if entry.name in EXCLUDED or entry.name.endswith((".pyc", ".pyo")):
            continue
        name, target = prefix / entry.name, Path(entry.path)
        if entry.is_symlink():
            target = _follow(root, Path(entry.path))
        if target.is_dir():
            resolved = target.resolve()
            if resolved in above:
                raise ClientError(f"{entry.path} leads back to a directory that it lies in. Remove the link.")
            yield from _entries(root, target, name, (*above, resolved))
        elif target.is_file():
            yield _name(name), target
        else:
            raise ClientError(f"{entry.path} is neither a file nor a directory. Remove it, or move it out of the code.")


def _follow(root: Path, link: Path) -> Path:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        raise ClientError(f"{link} is a link that leads nowhere. Remove it.") from None
    if not target.is_relative_to(root):
        raise ClientError(f"{link} leads outside of {root} (to {target}). Copy what it names into the directory.")
    return target


def _name(name: Path) -> str:
    text = name.as_posix()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ClientError(f"{text!r} is not a name in UTF-8. Rename the file.") from None
    return text


def _mode(file: Path) -> int:
    return 0o755 if file.stat().st_mode & 0o100 else 0o644


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ClientError(f"cannot read {file}: {error.strerror}") from None
