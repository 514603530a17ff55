"""A pseudo-terminal with a command on it: typed to, read from, and looked at afterwards."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

PATIENCE = 60.0
"""Seconds for anything to appear."""


class Terminal:
    """A command on a pseudo-terminal of its own, which is its controlling one."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], columns: int = 100) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (30, columns))
        self.modes = termios.tcgetattr(self.slave)
        self.seen = ""
        self.process = subprocess.Popen(  # setsid(1) becomes the command; a fork of ours would run gRPC's handlers
            ["setsid", "--ctty", *command], stdin=self.slave, stdout=self.slave, stderr=self.slave, env=environment
        )

    def read(self, text: str) -> str:
        """Until it was written; all that came since the last call."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.master], [], [], left)[0]
            assert ready, f"{text!r} did not come: {self.seen!r}"
            self.seen += os.read(self.master, 65536).decode()
        head, found, self.seen = self.seen.partition(text)
        return head + found

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def end(self) -> tuple[int, str]:
        """Its status, and what it wrote at last. The modes must be what they were."""
        while self.process.poll() is None or select.select([self.master], [], [], 0)[0]:
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 65536).decode()
        assert termios.tcgetattr(self.slave) == self.modes
        return self.process.returncode, self.seen

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)
