"""Finds what may be Python interpreters, by name only: nothing is executed here. Runs as root, once, before
anything else.

An interpreter becomes a zygote, which is trusted with more than a function: one that somebody other than root (or
who ran sudo) could replace is left out, unless the settings name it.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

from runtimed.model.runtime import PYTHON_MINOR_MIN

MAX = 32  # of the launcher's boot configuration

PATTERNS = (
    "/usr/bin/python3.*",
    "/usr/local/bin/python3.*",
    "/opt/python*/bin/python3.*",
    "/opt/pyenv/versions/*/bin/python3.*",
    "{home}/.pyenv/versions/*/bin/python3.*",
    "{home}/.local/share/uv/python/cpython-*/bin/python3.*",
)
_NAME = re.compile(r"python3\.(\d{1,3})")


class Found(Struct, frozen=True):
    """`prefix`: the directory above `bin`, which a sandbox must see."""

    path: str
    prefix: str


def find_interpreters(configured: Iterable[str], homes: Iterable[str], trusted: set[int]) -> list[Found]:
    """Configured ones first, each interpreter once, whatever it is called. `trusted`: uids whose files are taken."""
    found: dict[str, Found] = {}
    for path, is_configured in _candidates(configured, homes):
        real = os.path.realpath(path)
        if real in found or len(found) == MAX:
            continue
        if not os.path.isfile(real) or not os.access(real, os.X_OK) or os.path.basename(os.path.dirname(real)) != "bin":
            continue
        if is_configured or _is_trusted(real, trusted):
            found[real] = Found(real, os.path.dirname(os.path.dirname(real)))
    return list(found.values())


def _candidates(configured: Iterable[str], homes: Iterable[str]) -> Iterator[tuple[str, bool]]:
    for path in configured:
        yield path, True
    for pattern in PATTERNS:
        for home in homes if "{home}" in pattern else ("",):
            for path in sorted(glob.glob(pattern.format(home=glob.escape(home)))):
                named = _NAME.fullmatch(os.path.basename(path))
                if named is not None and int(named[1]) >= PYTHON_MINOR_MIN:
                    yield path, False


def _is_trusted(path: str, trusted: set[int]) -> bool:
    """Neither the file nor a directory above it can be written by anybody else."""
    while True:
        status = os.lstat(path)
        sticky = bool(status.st_mode & 0o1000)
        if status.st_uid not in trusted or (status.st_mode & 0o022 and not sticky):
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)
