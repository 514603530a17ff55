"""What a function can open, signal and connect to: nothing of the host, of the platform, of the function beside it."""

from __future__ import annotations

import os
import socket
import tempfile

import pytest

from tests.outcomes import Outcome
from tests.security.escape.arena import MARK, SECRET, STAGES, Arena

OPEN = """
def attempt(path):
    try:
        with open(path, "rb") as file:
            return len(file.read(64))
    except OSError as error:
        return errno.errorcode[error.errno]
"""

# Not there at all.
ABSENT = """
    /etc/shadow /etc/sudoers /sys/kernel /boot /home /var/lib /var/log /run /srv /dev/kmsg /dev/mem /dev/fuse /dev/kvm
    /dev/loop-control /dev/net/tun /proc/1/environ /proc/1/root/etc/shadow /proc/1/cwd /proc/self/root/run
""".split()
# Not there in every kernel; if so, for root alone.
CLOSED = """
    /proc/kcore /proc/kmsg /proc/vmallocinfo /proc/slabinfo /proc/timer_list /proc/pagetypeinfo /proc/kpagecount
    /proc/kpageflags /proc/sysrq-trigger /proc/sched_debug
""".split()
# Masked: there, and empty.
EMPTY = ("/proc/cmdline", "/proc/kallsyms", "/proc/locks")


@pytest.mark.case("escape", "reading the host's files, the node's directories, kernel memory, devices")
@pytest.mark.parametrize("stage", ["handler", "init", "program"])
def test_files_of_the_host(arena: Arena, outcome: Outcome, stage: str) -> None:
    node = arena.node
    own = [node.state_dir, node.run_dir, node.log, node.directory]
    pids = [arena.zygotes()[0], arena.victim_pid(), os.getpid()]
    absent = [*ABSENT, *map(str, own), *(f"/proc/{pid}/environ" for pid in pids)]
    code = f"{OPEN}\nshow([[attempt(path) for path in paths] for paths in ({absent!r}, {CLOSED!r}, {EMPTY!r})])"
    nowhere, closed, empty = arena.see(code, stage)
    assert dict(zip(absent, nowhere, strict=True)) == dict.fromkeys(absent, "ENOENT")
    assert {path for path, got in zip(CLOSED, closed, strict=True) if got not in ("EACCES", "ENOENT")} == set()
    assert empty == [0, 0, 0]
    outcome("no such file, or no permission; /proc/cmdline, kallsyms and locks are empty")


@pytest.mark.case("escape", "writing to /proc, /usr, the package, the root directory, /dev")
def test_nothing_but_tmp_is_writable(arena: Arena, outcome: Outcome) -> None:
    """Every file and directory that there is, asked for in earnest (an open, a creation)."""
    seen = arena.see("""
        found = []
        def open_for_writing(path, flags):
            try:
                os.close(os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600))
                found.append(path)
            except OSError:
                pass
        for top, folders, files in os.walk("/"):
            if top == "/":
                folders[:] = [f for f in folders if f not in ("usr", "root", "tmp")]
            if top == "/proc":
                folders[:] = [f for f in folders if f == "self" or not f.isdigit()]
            if top.count("/") > 3:
                folders.clear()
            open_for_writing(top + "/made-by-a-function", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            for name in files:
                path = top + "/" + name
                if "/fd/" not in path and not os.path.islink(path):
                    open_for_writing(path, os.O_WRONLY)
        for path in ("/usr/bin/made", "/usr/lib/python3/made", "/root/made"):
            open_for_writing(path, os.O_CREAT | os.O_WRONLY)
        show(sorted(found))
    """)
    assert seen == ["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"]
    outcome("only the five devices of /dev and what lies in /tmp can be opened for writing")


@pytest.mark.case("escape", "killing the parent, pid 1, everybody (-1), every number")
@pytest.mark.parametrize("stage", ["handler", "init", "child", "program"])
def test_signals_stay_inside(arena: Arena, outcome: Outcome, stage: str) -> None:
    seen = arena.see(
        f"""
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def send(pid):
            try:
                os.kill(pid, signal.SIGTERM)
                return "sent"
            except OSError as error:
                return errno.errorcode[error.errno]
        reached = [pid for pid in range(2, 40000) if send(pid) == "sent"]
        insiders = [int(p) for p in os.listdir("/proc") if p.isdigit()]
        show([send(1), sorted(set(reached) - set(insiders)), send({arena.victim_pid()}),
              send({arena.zygotes()[0]}), send({arena.node.launcher.pid})])
        """,
        stage,
    )
    assert seen == ["EPERM", [], "ESRCH", "ESRCH", "ESRCH"]
    outcome("pid 1 of the sandbox: EPERM; nobody outside has a number in there; kill(-1) ends the function alone")


def test_killing_everybody_ends_the_function_alone(arena: Arena) -> None:
    name = arena.fresh("""
import os, signal
def handler(event, context):
    os.fork() or signal.pause()
    os.kill(-1, 9)  # everybody but the caller
    os.kill(os.getpid(), 9)
""")
    error = arena.call(name).error()
    assert error is not None and error.error_type == "Runtime.ExitError"
    assert "signal: killed" in error.error_message


@pytest.mark.case("escape", "a neighbour's environment variables, code, memory and /tmp, from the same zygote")
@pytest.mark.parametrize("stage", STAGES)
def test_victim_is_unreadable(arena: Arena, outcome: Outcome, stage: str) -> None:
    """All that can be read: every process in /proc with its memory, every file below /tmp and /var, and the whole own
    memory, which began as a copy of the same zygote's."""
    arena.victim()
    marks = [SECRET[:-4], MARK[:-4]]  # the rest is put together inside, so that the attack itself does not count
    ends = [SECRET[-4:], MARK[-4:]]
    seen = arena.see(
        f"""
        import re
        found, control, processes = [], set(), [p for p in os.listdir("/proc") if p.isdigit()]
        mine = "a mark of its own " + "31ce"
        with open("/tmp/mine", "w") as file:
            file.write(mine)
        pattern = re.compile(b"|".join(re.escape(a.encode()) + b"[" + b[:1].encode() + b"]" + re.escape(b[1:].encode())
            for a, b in zip({marks!r}, {ends!r})))
        def look(name, data):
            if pattern.search(data):
                found.append(name)
            if re.search(b"a mark of its own 31c[e]", data):
                control.add(name if name == "mine" else "memory")
        owners = set()
        for pid in processes:
            owners.add(os.stat("/proc/" + pid).st_uid)
            for file in ("environ", "cmdline", "maps"):
                with open("/proc/%s/%s" % (pid, file), "rb") as opened:
                    look(file, opened.read())
        memory = os.open("/proc/self/mem", os.O_RDONLY)
        with open("/proc/self/maps") as maps:
            regions = [line.split() for line in maps]
        for where, rights, *rest in regions:
            begin, end = (int(part, 16) for part in where.split("-"))
            if rights.startswith("r") and end - begin < 1 << 28 and begin < 1 << 47:
                try:
                    look(where, os.pread(memory, end - begin, begin))
                except OSError:
                    pass
        os.close(memory)
        for top in ("/tmp", "/var", "/opt"):
            for directory, _, names in os.walk(top):
                for name in names:
                    try:
                        with open(os.path.join(directory, name), "rb") as opened:
                            look(name, opened.read())
                    except OSError:
                        pass
        os.unlink("/tmp/mine")
        show([found, sorted(control), sorted(owners) == [os.getuid()]])
        """,
        stage,
    )
    assert seen == [[], ["memory", "mine"], True]
    outcome("not to be found in any process, file or byte of memory that the attacker can read")


@pytest.mark.case("escape", "the host's loopback, abstract sockets, the node's own sockets")
@pytest.mark.parametrize("stage", ["handler", "init", "child"])
def test_sockets_of_the_host(arena: Arena, outcome: Outcome, stage: str) -> None:
    name = f"\0runtimed-escape-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as v4,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as v6,
        socket.socket(socket.AF_UNIX) as abstract,
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX) as named,
    ):
        abstract.bind(name)
        abstract.listen()
        named.bind(f"{directory}/socket")
        named.listen()
        os.chmod(directory, 0o777)
        targets: list[tuple[int, int, object]] = [
            (socket.AF_INET, socket.SOCK_STREAM, v4.getsockname()),
            (socket.AF_INET6, socket.SOCK_STREAM, v6.getsockname()[:2]),
            (socket.AF_UNIX, socket.SOCK_STREAM, name),
            (socket.AF_UNIX, socket.SOCK_STREAM, f"{directory}/socket"),
            (socket.AF_UNIX, socket.SOCK_STREAM, f"{arena.node.run_dir}/control.sock"),
            (socket.AF_UNIX, socket.SOCK_SEQPACKET, f"{arena.node.run_dir}/dispatch.sock"),
            (socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80)),
            (socket.AF_INET, socket.SOCK_STREAM, ("10.0.0.1", 80)),
            (socket.AF_INET6, socket.SOCK_STREAM, ("fe80::1", 80)),
        ]
        seen = arena.see(
            f"""
            import socket
            def attempt(family, kind, address):
                with socket.socket(family, kind) as s:
                    s.settimeout(5)
                    try:
                        s.connect(tuple(address) if isinstance(address, list) else address)
                        return "connected"
                    except OSError as error:
                        return errno.errorcode.get(error.errno, str(error))
            show([attempt(*target) for target in {[(int(f), int(k), a) for f, k, a in targets]!r}])
            """,
            stage,
        )
    assert seen[:2] == ["ECONNREFUSED"] * 2
    assert seen[2] in ("ECONNREFUSED", "EPERM")
    assert seen[3:6] == ["ENOENT"] * 3
    assert seen[6:8] == ["ENETUNREACH"] * 2
    assert seen[8] in ("EINVAL", "ENETUNREACH", "EADDRNOTAVAIL")
    outcome("refused, unreachable or not there: nobody of the host listens in a sandbox")


@pytest.mark.case("escape", "abstract sockets, loopback ports and System V ipc of another environment")
def test_sockets_of_a_neighbour(arena: Arena, outcome: Outcome) -> None:
    server = arena.fresh("""
import ctypes, socket
a = socket.socket(socket.AF_UNIX)
a.bind("\\0meeting")
a.listen()
b = socket.create_server(("127.0.0.1", 4711))
c = ctypes.CDLL(None).shmget(4711, 4096, 0o1666)
def handler(event, context):
    return [a.getsockname() != "", b.getsockname()[1], c >= 0]
""")
    assert arena.call(server).value == [True, 4711, True]
    seen = arena.see("""
        import socket
        def attempt(family, address):
            with socket.socket(family) as s:
                try:
                    s.connect(address)
                    return "connected"
                except OSError as error:
                    return errno.errorcode[error.errno]
        show([attempt(socket.AF_UNIX, "\\0meeting"), attempt(socket.AF_INET, ("127.0.0.1", 4711)),
              libc.shmget(4711, 4096, 0o666)])
    """)
    assert seen[0] in ("ECONNREFUSED", "EPERM")
    assert seen[1:] == ["ECONNREFUSED", -1]
    outcome("not there: each environment has network and ipc namespaces of its own")
