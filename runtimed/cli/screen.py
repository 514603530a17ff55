"""The terminal of `runtimectl top`: alternate screen, keys as they are typed, and everything as it was afterwards.

A thread reads the statistics; the main thread draws, and waits for keys, signals and the thread in one select. However
it ends (q, Ctrl-C, SIGTERM, an error, Ctrl-Z for a while) the terminal's modes and its screen come back.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from runtimed.cli import frame

if TYPE_CHECKING:
    from runtimed.cli.options import Session
    from runtimed.client import Client
    from runtimed.model.node import Statistics

ENTER = "\x1b[?1049h\x1b[?25l"  # alternate screen, no cursor
LEAVE = "\x1b[?25h\x1b[?1049l"
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
REVERSE, NORMAL = "\x1b[7m", "\x1b[0m"
LIMIT = 1000
"""Functions asked for: more than a screen shows."""
ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminal:
    """Its modes and its screen."""

    def __init__(self) -> None:
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._modes: list[Any] | None = None
        self.wanted_back = False
        """Ctrl-Z was typed: set by a signal's handler, which may not write itself."""

    def enter(self) -> None:
        self._modes = termios.tcgetattr(self._input)
        tty.setcbreak(self._input)
        self._write(ENTER)

    def leave(self) -> None:
        if self._modes is None:
            return
        modes, self._modes = self._modes, None
        with contextlib.suppress(OSError, termios.error):  # the terminal may be gone
            self._write(LEAVE)
            termios.tcsetattr(self._input, termios.TCSADRAIN, modes)

    def give_back(self) -> None:
        """To the shell, until it continues this process."""
        self.wanted_back = False
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()

    def draw(self, lines: list[str], emphasised: int) -> None:
        """All lines of the screen."""
        shown = [f"{REVERSE}{line}{NORMAL}" if index == emphasised else line for index, line in enumerate(lines)]
        self._write(HOME + "\r\n".join(f"{line}{CLEAR_LINE}" for line in shown) + CLEAR_BELOW)

    def _write(self, text: str) -> None:
        left = text.encode(errors="replace")
        while left:
            left = left[os.write(self._output, left) :]


class Watcher:
    """Reads statistics in one order until it is stopped; each one wakes the pipe."""

    def __init__(self, session: Session, interval: float, wake: int) -> None:
        self.latest: Statistics | None = None
        self.before: Statistics | None = None
        self.error: Exception | None = None
        self._session, self._interval, self._wake = session, interval, wake
        self._client: Client | None = None
        self._thread: threading.Thread | None = None

    def start(self, sort: str) -> None:
        """In this order from now on; what was told last stays until there is more."""
        self.stop()
        self._client = self._session.client()
        found = self._client.watch_statistics(order=frame.ORDERS[sort].value, limit=LIMIT, interval=self._interval)
        self._thread = threading.Thread(target=self._read, args=(self._client, found), daemon=True)
        self._thread.start()

    def _read(self, client: Client, found: Iterator[Statistics]) -> None:
        try:
            for told in found:
                self.before, self.latest = self.latest, told
                os.write(self._wake, b"s")
        except Exception as error:
            if client is self._client:
                self.error = error
                os.write(self._wake, b"s")

    def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._thread is not None:
            client.close()  # ends the stream, and with it the thread
            self._thread.join()


def run(session: Session, sort: str, interval: float) -> None:
    """Until q or Ctrl-C."""
    terminal = Terminal()
    with _woken() as (wake, woken), _signals(terminal):
        watcher = Watcher(session, interval, wake)
        watcher.start(sort)
        try:
            while watcher.latest is None and watcher.error is None:
                select.select([woken], [], [])  # what is wrong now is told on the ordinary screen
                os.read(woken, 4096)
            if watcher.error is not None:
                raise watcher.error
            terminal.enter()
            _loop(terminal, watcher, sort, woken)
        except KeyboardInterrupt:
            pass
        finally:
            terminal.leave()
            watcher.stop()


def _loop(terminal: Terminal, watcher: Watcher, sort: str, woken: int) -> None:
    while True:
        if watcher.error is not None:
            raise watcher.error
        told, before = watcher.latest, watcher.before
        assert told is not None
        size = shutil.get_terminal_size()
        lines = frame.screen(told, before, sort, size.columns, size.lines)
        terminal.draw(lines, len(frame.header(told, before)) + 1)
        ready, _, _ = select.select([sys.stdin.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        if terminal.wanted_back:
            terminal.give_back()
        if sys.stdin.fileno() not in ready:
            continue
        typed = os.read(sys.stdin.fileno(), 64).decode(errors="replace")
        if not typed or typed[0] in "qQ":
            return
        if typed[0] in frame.KEYS and frame.KEYS[typed[0]] != sort:
            sort = frame.KEYS[typed[0]]
            watcher.start(sort)


@contextlib.contextmanager
def _woken() -> Iterator[tuple[int, int]]:
    """A pipe that signals write to: where to write, where to read."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield wake, woken
    finally:
        signal.set_wakeup_fd(before)
        os.close(wake)
        os.close(woken)


@contextlib.contextmanager
def _signals(terminal: Terminal) -> Iterator[None]:
    """SIGTERM ends as Ctrl-C does; Ctrl-Z gives the terminal back for as long as it takes."""

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def pause(_number: int, _frame: object) -> None:
        terminal.wanted_back = True

    handlers: dict[signal.Signals, Callable[[int, Any], None]] = dict.fromkeys(ENDING, end)
    handlers |= {signal.SIGTSTP: pause, signal.SIGWINCH: lambda *_: None}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
