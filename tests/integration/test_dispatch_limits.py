"""The dispatcher on a machine that does not give it what it needs to start: descriptors, or memory for its threads. It
says so and ends, at whichever step that is; with a little more it serves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration import dispatch_stage
from tests.integration.dispatch_stage import Link, await_true

LOOPS = 4
STACK = 256 << 20  # of a thread
ROOM = 96 << 20  # less than all that is not a thread's stack
STEP = 128 << 20
SETTINGS = {
    "RUNTIMED_HTTP_GROUP": str(2**32 - 1),
    "RUNTIMED_HTTP_TCP": "1",
    "RUNTIMED_EVENTS_SEGMENT_MB": "8",
    "RUNTIMED_DISPATCH_LOOPS": str(LOOPS),
}


def status_of(pid: int) -> int:
    """Once it has ended."""
    await_true(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None, "its end")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def started(directory: Path, *limits: str) -> tuple[bool, int, str]:
    """Did it serve, with such limits; its status, in the end; what it said."""
    prlimit = shutil.which("prlimit")
    assert prlimit is not None, "prlimit: apt-get install util-linux"
    directory.mkdir()
    said = directory / "said"
    with contextlib.ExitStack() as within:
        ours, theirs = (within.enter_context(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener = within.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        http = within.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        for one, name in ((listener, "dispatch.sock"), (http, "invoke.sock")):
            one.bind(str(directory / name))
            one.listen()
        tcp = within.enter_context(socket.create_server(("127.0.0.1", 0)))
        given = [theirs.fileno(), listener.fileno()]
        for name in ("logs", "queue"):
            (directory / name).mkdir()
            opened = os.open(directory / name, os.O_RDONLY | os.O_DIRECTORY)
            within.callback(os.close, opened)
            given.append(opened)
        given[3:3] = [http.fileno(), tcp.fileno()]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in given]
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 2, str(said), os.O_WRONLY | os.O_CREAT, 0o600),
            *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(high, 3)),
        ]
        command = [prlimit, *limits, str(dispatch_stage.PROGRAM)]
        try:
            pid = os.posix_spawn(prlimit, command, {**os.environ, **SETTINGS}, file_actions=actions)
        finally:
            for fd in high:  # or nobody would see that it has ended
                os.close(fd)
        theirs.close()
        link, served = Link(ours), False
        with contextlib.suppress(EOFError, ConnectionError):
            link.send(wire.Hello(role=wire.Role.LAUNCHER, build="b1"), epoch=1)
            link.expect(wire.Hello)
            served = True
        link.close()  # which is its end
        return served, status_of(pid), said.read_text()


def judge(found: list[tuple[bool, int, str]], reasons: tuple[str, ...]) -> None:
    """All but the last were refused, as they should be."""
    for served, status, said in found[:-1]:
        assert (served, status) == (False, 1), (status, said)
        assert said.startswith("runtimed-dispatch: ") and any(reason in said for reason in reasons), said
    assert found[-1][:2] == (True, 0), found[-1]


def test_descriptors(tmp_path: Path) -> None:
    found: list[tuple[bool, int, str]] = []
    for most in range(12, 200):
        found.append(started(tmp_path / str(most), f"--nofile={most}:{most}"))
        if found[-1][0]:
            break
    assert len(found) > 10
    judge(found, ("Too many open files",))


@pytest.mark.only_where("RUNTIMED_DISPATCH" not in os.environ)  # sanitizers need more space than there is
def test_memory_for_threads(tmp_path: Path) -> None:
    found: list[tuple[bool, int, str]] = []
    for step in range(100):
        space = ROOM + step * STEP
        found.append(started(tmp_path / str(step), f"--stack={STACK}:{STACK}", f"--as={space}:{space}"))
        if found[-1][0]:
            break
    judge(found, ("Cannot allocate memory", "Resource temporarily unavailable"))
    threads = {number for number in range(1, LOOPS) if any(f"loop {number} of {LOOPS}" in said for _, _, said in found)}
    assert threads == set(range(1, LOOPS)), "each of the threads was missing once"
