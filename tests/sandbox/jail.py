"""runtimed-jail for tests: a piece of Python, a command or a plan, run where a function would run."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PYTHON = "/usr/bin/python3"
IMAGES = pathlib.Path("/var/tmp")  # as runtimed-jail has it

# Exit statuses of runtimed-jail itself.
TIMEOUT, REFUSED, SIGNAL = 124, 125, 128

# Raw system calls, so that nothing of the C library stands between a test and the filter.
PRELUDE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments + (0,) * (6 - len(arguments))]
    result = libc.syscall(ctypes.c_long(number), *values)
    return result if result >= 0 else -ctypes.get_errno()
"""


def find() -> pathlib.Path:
    """The executable that `./dev setup` put in place, or the one named by RUNTIMED_JAIL."""
    path = pathlib.Path(os.environ.get("RUNTIMED_JAIL", ROOT / "runtimed" / "libexec" / "runtimed-jail"))
    if not path.exists():
        pytest.skip(f"{path} is not built")
    if os.geteuid() != 0:
        pytest.skip("a jail is built by root")
    return path


@dataclass(frozen=True)
class Jail:
    path: pathlib.Path

    def command(self, *command: str, images: pathlib.Path = IMAGES, **plan: Any) -> subprocess.CompletedProcess[str]:
        """Runs it, however it ends."""
        return self.plan(self.complete(*command, **plan), images)

    def complete(self, *command: str, **plan: Any) -> str:
        """The plan as the program reads it."""
        return json.dumps({"command": list(command), "working_directory": "/", "timeout_ms": 60000, **plan})

    def plan(self, text: str, images: pathlib.Path = IMAGES) -> subprocess.CompletedProcess[str]:
        arguments = [self.path, "--images", images]
        return subprocess.run(arguments, input=text, capture_output=True, text=True, check=False, timeout=120)

    @contextlib.contextmanager
    def started(self, *command: str, **plan: Any) -> Iterator[subprocess.Popen[str]]:
        """Runs it beside the test, until the command has printed `started`; ends it afterwards."""
        text = self.complete(*command, **plan)
        with subprocess.Popen([self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(text)
                process.stdin.close()
                assert process.stdout.readline() == "started\n"
                yield process
            finally:
                process.terminate()

    def python(self, code: str, **plan: Any) -> subprocess.CompletedProcess[str]:
        """Runs the code, with `call` for system calls by number, however it ends."""
        return self.command(PYTHON, "-I", "-c", PRELUDE + textwrap.dedent(code), **plan)

    def see(self, code: str, **plan: Any) -> Any:
        """What the code prints with `show(value)`; it must end well."""
        shown = "import json\ndef show(value):\n    print(json.dumps(value))\n"
        done = self.python(shown + textwrap.dedent(code), **plan)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
