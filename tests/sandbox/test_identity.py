"""Who a sandboxed process is: its ids, capabilities, session, and what it inherits. Numbers are those of the rules in
the sandbox recipes."""

from __future__ import annotations

import ast
import os
import signal
import stat

from tests.sandbox.jail import PYTHON, SIGNAL, Jail

HOST_BASE = 1800000000  # JAIL_UID_BASE of native/jail/include/jail/plan.h


def test_runs_and_exits_with_the_commands_status(jail: Jail) -> None:
    done = jail.command("/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_has_the_ids_of_its_plan(jail: Jail) -> None:
    seen = jail.see("show([os.getresuid(), os.getresgid(), os.getgroups()])", uid=1234, gid=4321)
    assert seen == [[1234] * 3, [4321] * 3, []]


def test_ids_are_mapped_into_the_hosts_range(jail: Jail) -> None:
    for file in ("uid_map", "gid_map"):
        assert jail.see(f"show(open('/proc/self/{file}').read().split())") == ["0", str(HOST_BASE), "65536"]
    other = HOST_BASE + 65536 * 5
    assert jail.see("show(open('/proc/self/uid_map').read().split())", uid_base=other) == ["0", str(other), "65536"]


def test_rule_4_no_capability_in_any_set(jail: Jail) -> None:
    seen = jail.see("show([line.split() for line in open('/proc/self/status') if line.startswith('Cap')])")
    assert len(seen) == 5
    assert {int(value, 16) for _, value in seen} == {0}


def test_no_new_privileges(jail: Jail) -> None:
    assert "NoNewPrivs:\t1" in jail.command("/bin/cat", "/proc/self/status").stdout


def test_becoming_root_is_refused(jail: Jail) -> None:
    seen = jail.see("""
        import errno
        def attempt(change, *arguments):
            try:
                change(*arguments)
            except OSError as error:
                return errno.errorcode[error.errno]
        show([attempt(os.setuid, 0), attempt(os.setgid, 0), attempt(os.setgroups, [0]), attempt(os.setresuid, 0, 0, 0)])
    """)
    assert seen == ["EPERM"] * 4


def test_namespaces_are_neither_the_hosts_nor_a_neighbours(jail: Jail) -> None:
    """Rule 14: a net namespace carries TIME_WAIT and counters from one function to another."""
    kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
    show = f"{{k: os.readlink('/proc/self/ns/' + k) for k in {kinds}}}"
    script = f"import os, signal; print('started', flush=True); print({show}, flush=True); signal.pause()"
    with jail.started(PYTHON, "-I", "-c", script) as process:
        assert process.stdout is not None
        first = ast.literal_eval(process.stdout.readline())
        second = jail.see(f"show({show})")
    for kind in kinds:
        assert len({os.readlink(f"/proc/self/ns/{kind}"), first[kind], second[kind]}) == 3, kind


def test_rule_7_session_is_its_own(jail: Jail) -> None:
    """Otherwise kill(0) reaches processes in other pid namespaces."""
    assert jail.see("show([os.getpid(), os.getsid(0), os.getpgrp()])") == [2, 2, 2]


def test_rule_7_dumpable(jail: Jail) -> None:
    """Otherwise /proc/self/fd is closed to its owner. Asked before an exec could set it again: in a fork."""
    seen = jail.see("show([libc.prctl(3), len(os.listdir('/proc/self/fd')), os.stat('/proc/self/fd').st_uid])")
    assert seen == [1, 4, 1000]


def test_rule_7_dies_with_its_parent(jail: Jail) -> None:
    seen = jail.see("""
        signal = ctypes.c_int()
        libc.prctl(2, ctypes.byref(signal))
        show(signal.value)
    """)
    assert seen == signal.SIGKILL


def test_killing_the_jail_kills_what_is_in_it(jail: Jail) -> None:
    with jail.started("/bin/sh", "-c", "sleep 1000 & echo started; exec sleep 1001") as process:
        assert process.stdout is not None
        process.kill()
        # Both sleeps hold the pipe: its end means that they are gone.
        assert process.stdout.read() == ""


def test_rule_11_it_is_no_init(jail: Jail) -> None:
    """As pid 1 it would ignore what it sends itself; as pid 2 it dies of it, as on Lambda."""
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        done = jail.command("/bin/sh", "-c", f"kill -{number} $$; exit 3")
        assert done.returncode == SIGNAL + number


def test_rule_11_orphans_are_reaped(jail: Jail) -> None:
    """Zombies count against pids.max: 200 orphans fit through 16 processes."""
    seen = jail.see(
        """
        import time
        for _ in range(200):
            child = os.fork()
            if child == 0:
                if os.fork() == 0:
                    os._exit(0)
                os._exit(0)
            os.waitpid(child, 0)
            deadline = time.monotonic() + 60
            while len([p for p in os.listdir('/proc') if p.isdigit()]) > 1 and time.monotonic() < deadline:
                os.sched_yield()
        show([p for p in os.listdir('/proc') if p.isdigit()])
    """,
        pids=16,
    )
    assert seen == ["2"]


def test_descriptors_are_the_standard_three(jail: Jail) -> None:
    seen = jail.see("show(sorted(int(f) for f in os.listdir('/proc/self/fd')))")
    assert seen == [0, 1, 2, 3]  # 3: the directory that is being listed


def test_nothing_of_the_caller_is_inherited(jail: Jail) -> None:
    os.environ["RUNTIMED_TEST_SECRET"] = "secret"
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        code = "show([dict(os.environ), os.umask(0), sorted(os.listdir('/proc/self/fd'))])"
        seen = jail.see(code, environment={"A": "1"})
    finally:
        os.close(reading)
        os.close(writing)
        del os.environ["RUNTIMED_TEST_SECRET"]
    environment, umask, descriptors = seen
    environment.pop("LC_CTYPE", None)  # Python's own
    assert environment == {"A": "1"}
    assert umask == 0o022
    assert descriptors == ["0", "1", "2", "3"]


def test_signals_are_the_defaults(jail: Jail) -> None:
    """Neither blocked nor ignored, whatever the caller does."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        status = jail.command("/bin/cat", "/proc/self/status").stdout
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        signal.signal(signal.SIGUSR2, ignored)
    masks = {line.split()[0]: line.split()[1] for line in status.splitlines() if line.startswith("Sig")}
    assert int(masks["SigBlk:"], 16) == 0
    assert int(masks["SigIgn:"], 16) == 0


def test_standard_input_is_empty(jail: Jail) -> None:
    assert jail.see("show([sys.stdin.read(), os.readlink('/proc/self/fd/0')])") == ["", "/dev/null"]


def test_host_name_says_nothing(jail: Jail) -> None:
    assert jail.see("show(os.uname().nodename)") == "sandbox"


def test_files_it_makes_belong_to_its_host_id(jail: Jail) -> None:
    seen = jail.see("open('/tmp/x', 'w'); s = os.stat('/tmp/x'); show([s.st_uid, s.st_gid, s.st_mode])", uid=77, gid=78)
    assert seen == [77, 78, stat.S_IFREG | 0o644]
