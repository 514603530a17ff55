"""Runs the runtime's programs as jails would, and reads what they write."""

from __future__ import annotations

import json
import pathlib
import struct
import subprocess
from typing import Any

from tests.unit.bootstrap.dispatcher import BOOTSTRAP

# Runs compile.py on another directory than the one that a jail has.
COMPILE = """
import sys
sys.path.insert(0, sys.argv[1])
import compile
compile.TASK_ROOT = sys.argv[2]
for setting in sys.argv[3:]:
    name, _, value = setting.partition("=")
    setattr(compile, name, int(value))
compile.main()
"""


def run(python: str, *arguments: object) -> bytes:
    command = [python, "-I", "-S", "-B", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stderr == b""
    return done.stdout


def compiled(python: str, root: pathlib.Path, *settings: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files and the summary."""
    stream = run(python, "-c", COMPILE, BOOTSTRAP, root, *settings)
    files: dict[str, bytes] = {}
    at = 0
    while True:
        (length,) = struct.unpack_from("<I", stream, at)
        path = stream[at + 4 : at + 4 + length].decode()
        (size,) = struct.unpack_from("<I", stream, at + 4 + length)
        at += 8 + length
        data = stream[at : at + size]
        at += size
        if not path:
            assert at == len(stream)
            return files, json.loads(data)
        files[path] = data
