"""What environments leave clean is used again, and nothing else.

One zygote, so that the next launch meets what the last left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.node import await_true
from runtimed.model import wire
from tests.integration.launcher_stage import Environment, Played, plan, played
from tests.integration.test_launcher import cgroups, freeze, process_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")

SO_NETNS_COOKIE = 71

# Runs what it is told: the tests put into an environment what must not be found in the next.
ANYTHING = """\
import ctypes, os, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def handler(event, context):
    scope = {"os": os, "socket": socket, "libc": libc, "ctypes": ctypes, "time": time, "globals_": globals()}
    exec(event["run"], scope)
    return [os.readlink("/proc/self/ns/net"), os.stat("/tmp").st_dev, scope.get("result")]
"""


@pytest.fixture
def stage() -> Iterator[Played]:
    with played(zygotes=1) as stage:
        stage.put(1, plan(stage.deploy(ANYTHING)))
        yield stage


def run(stage: Played, code: str = "", number: int = 1) -> tuple[str, int, Any]:
    """An environment that runs the code and is ended: its net namespace, the device of its /tmp, the code's result."""
    environment = stage.launch(number)
    assert isinstance(environment.start(), wire.InitDone)
    answer = environment.invoke({"run": code})
    assert isinstance(answer, list)
    stage.end(environment)
    return answer[0], answer[1], answer[2]


def listener_of(environment: Environment) -> socket.socket:
    listener = socket.socket(fileno=os.dup(environment.fds[wire.LaunchedFlags.LISTENER]))
    listener.setblocking(False)
    return listener


# ---- shells -----------------------------------------------------------------------------------------------------


def test_a_clean_shell_is_used_again(stage: Played) -> None:
    first = run(stage)[0]
    assert run(stage)[0] == first
    assert run(stage)[0] == first


def test_another_plan_gets_another_shell(stage: Played) -> None:
    stage.put(2, plan(stage.deploy(ANYTHING)))
    first = run(stage)[0]
    assert run(stage, number=2)[0] != first
    assert run(stage)[0] == first


def test_a_plan_that_changed_gets_another_shell(stage: Played) -> None:
    first = run(stage)[0]
    stage.put(1, plan(stage.deploy(ANYTHING), memory_mb=256))
    assert run(stage)[0] != first


@pytest.mark.parametrize(
    "leftover",
    [
        pytest.param("libc.shmget(7, 4096, 0o1600)", id="shared memory"),
        pytest.param("libc.semget(7, 1, 0o1600)", id="semaphores"),
        pytest.param("libc.msgget(7, 0o1600)", id="message queue"),
        pytest.param("if os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)", id="process"),
    ],
)
def test_a_shell_with_something_left_in_it_is_not_used_again(stage: Played, leftover: str) -> None:
    first = run(stage, leftover)[0]
    assert run(stage)[0] != first


def test_there_are_no_posix_message_queues(stage: Played) -> None:
    code = "result = [libc.mq_open(b'/q', os.O_CREAT | os.O_RDWR, 0o600, None), ctypes.get_errno()]"
    descriptor, error = run(stage, code)[2]
    assert descriptor == -1
    assert error


def test_connections_are_not_handed_on(stage: Played) -> None:
    environment = stage.launch(1)
    environment.start()
    code = "s = socket.create_connection(('127.0.0.1', 9001)); globals_['kept'] = s"
    first = environment.invoke({"run": code})
    listener = listener_of(environment)
    listener.accept()[0].close()  # it was there to be taken
    environment.invoke({"run": code})  # and this one nobody takes
    listener.close()
    stage.end(environment)
    after = stage.launch(1)
    after.start()
    assert isinstance(first, list)
    second = after.invoke({"run": ""})
    assert isinstance(second, list)
    assert second[0] == first[0]
    listener = listener_of(after)
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()
    stage.end(after)


def test_an_environment_has_processes_of_its_own_in_a_used_shell(stage: Played) -> None:
    count = "result = sorted(int(p) for p in os.listdir('/proc') if p.isdigit())"
    run(stage)
    environment = stage.launch(1)
    environment.start()
    answer = environment.invoke({"run": count})
    assert isinstance(answer, list)
    inside = int(next(part for part in process_status(environment, "NSpid").split()[-1:]))
    assert set(answer[2]) <= {1, inside}
    stage.end(environment)


def process_status(environment: Environment, field: str) -> str:
    with open(f"/proc/{process_of(environment)}/status") as status:
        return next(line.split(":", 1)[1] for line in status if line.startswith(field + ":"))


def test_an_environment_frozen_at_once_does_not_hold_its_zygote(stage: Played) -> None:
    """Its zygote may still sit in its cgroup."""
    frozen = []
    for _ in range(4):
        environment = stage.launch(1)
        assert isinstance(environment.start(), wire.InitDone)
        freeze(environment)
        frozen.append(environment)
    for environment in frozen:
        stage.end(environment)


# ---- /tmp -------------------------------------------------------------------------------------------------------

LOOK = (
    "s = os.stat('/tmp')\n"
    "result = [os.listdir('/tmp'), os.listxattr('/tmp'), s.st_uid == os.getuid(), s.st_mode]\n"
    "result.append(os.statvfs('/tmp').f_bfree)"
)


def untouched(seen: list[Any]) -> None:
    names, attributes, own, mode, _free = seen
    assert (names, attributes, own) == ([], [], True)
    assert stat.S_IMODE(mode) == 0o700


def test_an_untouched_image_is_used_again(stage: Played) -> None:
    devices = {run(stage)[1] for _ in range(8)}
    assert len(devices) < 8
    untouched(run(stage, LOOK)[2])


@pytest.mark.parametrize(
    "leftover",
    [
        pytest.param("open('/tmp/x', 'w').write('secret')", id="file"),
        pytest.param("os.mkdir('/tmp/d')", id="directory"),
        pytest.param("os.symlink('/x', '/tmp/l')", id="link"),
        pytest.param("os.setxattr('/tmp', 'user.x', b'secret')", id="attribute"),
    ],
)
def test_an_image_with_something_left_in_it_is_not_used_again(stage: Played, leftover: str) -> None:
    run(stage, leftover)
    for _ in range(6):
        untouched(run(stage, LOOK)[2])


def test_what_was_made_and_removed_is_not_found(stage: Played) -> None:
    for _ in range(3):
        run(stage, "open('/tmp/x', 'wb').write(b'secret' * 10000); os.unlink('/tmp/x'); os.chmod('/tmp', 0o777)")
        untouched(run(stage, LOOK)[2])


def test_space_comes_back(stage: Played) -> None:
    free = run(stage, LOOK)[2][4]
    for _ in range(4):
        run(stage, "open('/tmp/big', 'wb').write(bytes(20 << 20))")
        assert run(stage, LOOK)[2][4] == free


# ---- ends that meet ---------------------------------------------------------------------------------------------


def test_a_shell_that_is_being_killed_is_not_used_again(stage: Played) -> None:
    """END comes before the launcher has heard that there is a process: it kills the whole shell. Then it hears of the
    process, and of its end, while the shell's first process is still there (where the kernel lets it be held)."""
    zygote = stage.control.expect(wire.RuntimeState, 0, lambda told: told.pid != 0)[1].pid
    met = 0
    for _ in range(20):
        with paused(zygote):
            environment = stage.launch(1)
            await_true(lambda: state_of(stage.pid) == "S", 30, "a launcher that has nothing to do")
            with paused(stage.pid), contextlib.ExitStack() as held:
                stage.dispatch.send(wire.End(reason=0), environment.id)
                os.kill(zygote, signal.SIGCONT)
                assert isinstance(environment.start(), wire.InitDone)
                process = process_of(environment)
                anchor = anchor_of(process)
                holds = held.enter_context(frozen(stage, anchor))
                os.kill(process, signal.SIGKILL)
                await_true(lambda process=process: state_of(process) == "Z", 30, "its end")  # type: ignore[misc]
                os.kill(stage.pid, signal.SIGCONT)
                stage.exited(environment)
                after = stage.launch(1)
                if holds and is_killed(anchor):  # otherwise it heard of the process first, and ended nothing else
                    assert cookie_of(after) != cookie_of(environment)
                    met += 1
        assert isinstance(after.start(), wire.InitDone)
        stage.end(after)
        if met == 2 or not holds:
            return
    raise AssertionError("END never came first")


def is_killed(pid: int) -> bool:
    """SIGKILL is on its way to it."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["SigPnd"], 16) & 1 << signal.SIGKILL - 1 != 0


def anchor_of(pid: int) -> int:
    """The first process of its pid namespace."""
    space = os.readlink(f"/proc/{pid}/ns/pid")
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "ns/pid") == space and int(entry.name) != pid:
                return int(entry.name)
    raise AssertionError("its shell has no first process")


@contextlib.contextmanager
def frozen(stage: Played, pid: int) -> Iterator[bool]:
    """Not even SIGKILL moves it. False: with version 2 of cgroups nothing can hold it so."""
    tree = next((path for path in cgroups(stage) if (path / "freezer.state").exists()), None)
    if tree is None:
        yield False
        return
    place = tree / "held"
    place.mkdir()
    try:
        (place / "cgroup.procs").write_text(str(pid))
        (place / "freezer.state").write_text("FROZEN")
        await_true(lambda: (place / "freezer.state").read_text().strip() == "FROZEN", 30, "a frozen process")
        yield True
    finally:
        (place / "freezer.state").write_text("THAWED")
        with contextlib.suppress(OSError):  # it has ended
            (tree / "cgroup.procs").write_text(str(pid))
        await_true(lambda: not (place / "cgroup.procs").read_text(), 30, "its end")
        place.rmdir()


def cookie_of(environment: Environment) -> bytes:
    """What tells its network namespace from all others, also from those that are gone."""
    with listener_of(environment) as listener:
        return listener.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """The process stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        await_true(lambda: state_of(pid) == "T", 30, "a process that stands still")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
