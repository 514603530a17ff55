"""Limits: what happens to a function that wants too much, and that its neighbours and the host never notice."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time

import pytest

from bench.node import cgroups
from tests.sandbox.jail import PYTHON, SIGNAL, TIMEOUT, Jail

CGROUPS = pathlib.Path("/sys/fs/cgroup")


def leaves(pid: int) -> list[pathlib.Path]:
    """The cgroups of that run of runtimed-jail, one in each hierarchy."""
    return [path for top in cgroups("runtimed-jail") if (path := top / f"jail-{pid}").is_dir()]


def left_behind() -> set[pathlib.Path]:
    """Cgroups of runs that have ended."""
    found = {path for top in cgroups("runtimed-jail") for path in top.glob("jail-*")}
    return {path for path in found if not pathlib.Path("/proc", path.name.removeprefix("jail-")).exists()}


@pytest.fixture
def before() -> set[pathlib.Path]:
    """What others left behind: runs beside this one may have been killed."""
    return left_behind()


def test_memory_is_limited(jail: Jail) -> None:
    done = jail.python("x = bytearray(200 << 20); print('never')", memory_mb=64)
    assert (done.returncode, done.stdout) == (SIGNAL + signal.SIGKILL, "")


def test_memory_below_the_limit_is_there(jail: Jail) -> None:
    assert jail.see("x = bytearray(150 << 20); show(len(x))", memory_mb=256) == 150 << 20


def test_memory_of_children_counts(jail: Jail) -> None:
    """Eight times 32 MB do not fit: at least one child is killed, and where the kernel can, all of them are."""
    done = jail.python(
        """
        import signal
        children = []
        for _ in range(8):
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                x = bytearray(32 << 20)
                os.write(writing, b'x')
                signal.pause()
            os.close(writing)
            os.read(reading, 1)
            children.append(child)
        alive = [child for child in children if os.waitpid(child, os.WNOHANG)[0] == 0]
        os._exit(len(alive))
        """,
        memory_mb=128,
    )
    assert done.returncode < 8 or done.returncode == SIGNAL + signal.SIGKILL


def test_rule_8_tmp_is_not_memory(jail: Jail) -> None:
    """400 MB of /tmp beside 80 MB of heap in a function of 128 MB: with a tmpfs it would be killed."""
    seen = jail.see(
        """
        heap = bytearray(80 << 20)
        with open('/tmp/big', 'wb') as file:
            for _ in range(400):
                file.write(os.urandom(1) * (1 << 20))
        show([len(heap), os.stat('/tmp/big').st_size])
    """,
        memory_mb=128,
        tmp_mb=512,
    )
    assert seen == [80 << 20, 400 << 20]


def test_rule_8_tmp_has_its_size(jail: Jail) -> None:
    seen = jail.see(
        """
        written = 0
        try:
            with open('/tmp/big', 'wb', buffering=0) as file:
                while True:
                    written += file.write(bytes(1 << 20))
        except OSError as error:
            show([error.errno == errno.ENOSPC, written >> 20])
    """,
        tmp_mb=32,
    )
    full, written = seen
    assert full
    assert 24 <= written <= 32


def test_rule_8_tmp_is_empty_private_and_owned(jail: Jail) -> None:
    assert jail.see("open('/tmp/left', 'w').close(); show(os.listdir('/tmp'))") == ["left"]
    seen = jail.see("s = os.stat('/tmp'); show([os.listdir('/tmp'), s.st_uid, s.st_gid, s.st_mode & 0o7777])")
    assert seen == [[], 1000, 1000, 0o700]


def test_without_tmp_nothing_is_writable(jail: Jail) -> None:
    seen = jail.see(
        """
        try:
            open('/tmp/x', 'w')
            show('written')
        except OSError as error:
            show(errno.errorcode[error.errno])
    """,
        tmp_mb=0,
    )
    assert seen in ("EROFS", "EACCES")


def test_fork_bomb_stays_inside(jail: Jail) -> None:
    seen = jail.see(
        """
        import signal
        children = []
        try:
            while True:
                child = os.fork()
                if child == 0:
                    signal.pause()
                children.append(child)
        except OSError as error:
            failed = error.errno
        show([failed == errno.EAGAIN, len(children)])
        sys.stdout.flush()
        os._exit(0)
    """,
        pids=50,
    )
    assert seen == [True, 49]


def test_threads_count_as_processes(jail: Jail) -> None:
    seen = jail.see(
        """
        import threading
        stop, count = threading.Event(), 0
        try:
            for _ in range(100):
                threading.Thread(target=stop.wait).start()
                count += 1
        except RuntimeError:
            pass
        stop.set()
        show(count)
    """,
        pids=20,
    )
    assert seen == 19


def test_descriptors_are_limited(jail: Jail) -> None:
    seen = jail.see(
        """
        count = 0
        try:
            while True:
                os.open('/dev/null', os.O_RDONLY)
                count += 1
        except OSError as error:
            show([error.errno == errno.EMFILE, count])
    """,
        descriptors=64,
    )
    assert seen == [True, 61]


def test_limits_cannot_be_raised(jail: Jail) -> None:
    seen = jail.see(
        """
        import resource
        failed = []
        for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC):
            soft, hard = resource.getrlimit(kind)
            try:
                resource.setrlimit(kind, (hard + 1, hard + 1))
            except (ValueError, OSError):
                failed.append([soft, hard])
        show(failed)
    """,
        descriptors=100,
        pids=30,
    )
    assert seen == [[100, 100], [30, 30]]


def test_cores_go_nowhere(jail: Jail) -> None:
    """1 is the one limit at which the kernel does not run the program that core_pattern may name. It cannot be changed,
    downwards neither; the null pointer by which it is asked for cannot be pretended by one whose low half is null."""
    seen = jail.see("""
        import mmap, resource
        for limits in ((0, 0), (0, 1), (1, 0)):
            try:
                resource.setrlimit(resource.RLIMIT_CORE, limits)
            except (ValueError, OSError):
                pass
        libc.mmap.restype = ctypes.c_void_p
        where = libc.mmap(ctypes.c_void_p(7 << 32), 4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10, -1, 0)
        libc.prlimit(0, resource.RLIMIT_CORE, ctypes.c_void_p(where), None)
        show([where == 7 << 32, *resource.getrlimit(resource.RLIMIT_CORE)])
    """)
    assert seen == [True, 1, 1]


def test_time_out_ends_everything(jail: Jail) -> None:
    start = time.monotonic()
    done = jail.command("/bin/sh", "-c", "(trap '' TERM; sleep 1000) & sleep 1000", timeout_ms=200)
    assert done.returncode == TIMEOUT  # and standard output is at its end: nobody holds it
    assert 0.2 <= time.monotonic() - start < 30


def test_rule_6_background_processes_end_with_the_command(jail: Jail, before: set[pathlib.Path]) -> None:
    done = jail.command("/bin/sh", "-c", "setsid sleep 1000 & exit 0")
    assert done.returncode == 0
    assert left_behind() <= before


def test_rule_5_environment_is_killed_before_the_host(jail: Jail) -> None:
    assert jail.command("/bin/cat", "/proc/self/oom_score_adj").stdout == "500\n"


def test_rule_5_every_process_sits_in_the_cgroup(jail: Jail, before: set[pathlib.Path]) -> None:
    limits = {
        "memory.limit_in_bytes": 99 << 20,
        "memory.memsw.limit_in_bytes": 99 << 20,
        "memory.max": 99 << 20,
        "memory.swap.max": 0,
        "pids.max": 34,
    }
    script = "sleep 1000 & echo started; exec sleep 1000"
    with jail.started("/bin/sh", "-c", script, memory_mb=99, pids=33) as process:
        found = leaves(process.pid)
        assert found
        for leaf in found:
            assert len((leaf / "cgroup.procs").read_text().split()) == 3, leaf  # the anchor and two sleeps
            for file, value in limits.items():
                if (leaf / file).exists():
                    assert int((leaf / file).read_text()) == value, file
    assert process.returncode == SIGNAL + signal.SIGKILL
    assert left_behind() <= before


def freeze(pid: int, frozen: bool) -> None:
    """By whichever file the machine has; waits until it is so. FileNotFoundError when that run is over."""
    for leaf in leaves(pid):
        for file, words in (("freezer.state", ("THAWED", "FROZEN")), ("cgroup.freeze", ("0", "1"))):
            if (leaf / file).exists():
                (leaf / file).write_text(words[frozen])
                events = leaf / ("cgroup.events" if file == "cgroup.freeze" else file)
                wanted = f"frozen {words[frozen]}" if file == "cgroup.freeze" else words[frozen]
                while wanted not in events.read_text():
                    time.sleep(0)
                return
    raise FileNotFoundError(f"no cgroup of {pid} has a freezer")


def test_rule_12_sleep_goes_on_after_a_thaw(jail: Jail) -> None:
    """By restart_syscall, which a filter must allow; without it the sleep fails. Not every freezer interrupts a
    sleep; stopping does."""
    script = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print('started', flush=True)
result = libc.nanosleep((ctypes.c_long * 2)(3, 0), None)
print(result, ctypes.get_errno(), flush=True)
"""
    with jail.started(PYTHON, "-I", "-c", script) as process:
        assert process.stdout is not None
        sleeper = None
        while sleeper is None:
            sleeper = blocked_in(process.pid, "nanosleep")
        freeze(process.pid, True)
        freeze(process.pid, False)
        os.kill(sleeper, signal.SIGSTOP)
        while blocked_in(process.pid, "do_signal_stop") != sleeper:
            time.sleep(0)
        os.kill(sleeper, signal.SIGCONT)
        assert process.stdout.readline() == "0 0\n"


def test_rule_6_what_is_killed_while_frozen_dies_with_the_thaw(jail: Jail) -> None:
    """A frozen process of v1 ignores SIGKILL until then: whoever kills must thaw, in this order."""
    with jail.started("/bin/sh", "-c", "echo started; exec sleep 1000") as process:
        freeze(process.pid, True)
        process.terminate()
        with contextlib.suppress(OSError):  # where v2 freezes it is gone already
            freeze(process.pid, False)
        assert process.wait() == SIGNAL + signal.SIGKILL


def blocked_in(pid: int, function: str) -> int | None:
    """The process of that run that waits in this function of the kernel."""
    for leaf in leaves(pid)[:1]:
        for inside in (leaf / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                if function in pathlib.Path("/proc", inside, "wchan").read_text():
                    return int(inside)
    return None


@pytest.mark.parametrize(("memory_mb", "expected"), [(1769, 1.0), (442, 0.25)])
def test_hard_cpu_is_in_proportion_to_memory(jail: Jail, memory_mb: int, expected: float) -> None:
    used, wall = jail.see(
        """
        import time
        start, cpu = time.monotonic(), time.process_time()
        while time.monotonic() - start < 1.0:
            pass
        show([time.process_time() - cpu, time.monotonic() - start])
    """,
        memory_mb=memory_mb,
        cpu="hard",
    )
    # From above only: a busy machine gives less.
    assert used / wall < expected * 1.15 + 0.03


def test_buffers_of_connections_are_limited(jail: Jail) -> None:
    """On v1 they are not memory of the cgroup: without a limit of their own, all that the host's tcp_mem allows. On v2
    they are memory: who takes more than there is ends."""
    unified = (CGROUPS / "cgroup.controllers").exists()
    done = jail.python(
        """
        import socket, time
        server = socket.create_server(('127.0.0.1', 0))
        kept, written = [server], 0
        for _ in range(100):
            client = socket.create_connection(server.getsockname())
            kept += [client, server.accept()[0]]
            client.setblocking(False)
            try:
                while True:
                    written += client.send(bytes(1 << 16))
                    time.sleep(0.0005)
            except BlockingIOError:
                pass
        print(written >> 20)
    """,
        memory_mb=64 if unified else 512,
        descriptors=512,
    )
    killed = unified and done.returncode == SIGNAL + signal.SIGKILL
    assert killed or (done.returncode == 0 and 0 < int(done.stdout) < 100), done
